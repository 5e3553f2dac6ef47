"""``python -m rt2_jax.cli``."""

import sys

from rt2_jax.cli import entry

sys.exit(entry())
