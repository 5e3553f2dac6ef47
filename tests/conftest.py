"""What every test shares: one hypothesis profile, patient with slow machines, and JAX on the CPU."""

import os

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")
hypothesis.settings.register_profile(
    "rt2", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("rt2")
