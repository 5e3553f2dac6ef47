"""The shapes and dtypes that annotations name are the arrays': jaxtyping's checks, on in a process of their own."""

import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).with_name("traced.py")


def test_arrays_have_the_shapes_and_dtypes_that_annotations_name():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "checked 8 models, 3 ways to train, 1 policy\n"
