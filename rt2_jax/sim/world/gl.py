"""Headless OpenGL: choose a backend before MuJoCo is imported, and say what to install when there is none.

Importing this module sets `MUJOCO_GL` when the user has not: EGL where its library is present, else OSMesa. Every
module of the simulator that needs MuJoCo imports this one first.
"""

# MuJoCo's module fills itself from a C extension that has no types.
# pyright: reportAttributeAccessIssue=false

import ctypes
import ctypes.util
import os

from rt2_jax.errors import UserError

INSTALL_HINT = (
    "install OpenGL for headless rendering: `apt-get install libegl1 libgl1 libgl1-mesa-dri` (MUJOCO_GL=egl) "
    "or `apt-get install libosmesa6` (MUJOCO_GL=osmesa)"
)
_LIBRARIES = {"egl": ("EGL", "libEGL.so.1"), "osmesa": ("OSMesa", "libOSMesa.so.8")}


def _has_library(backend: str) -> bool:
    name, soname = _LIBRARIES[backend]
    try:
        ctypes.CDLL(ctypes.util.find_library(name) or soname)
    except OSError:
        return False
    return True


def default_backend() -> str:
    """The backend to use when `MUJOCO_GL` is unset: "egl" if its library loads, else "osmesa"."""
    return "egl" if _has_library("egl") or not _has_library("osmesa") else "osmesa"


os.environ.setdefault("MUJOCO_GL", default_backend())


def check_gl() -> str:
    """Renders one pixel block off screen and returns the backend's name; raises UserError if that is impossible."""
    backend = os.environ["MUJOCO_GL"]
    if backend in _LIBRARIES and not _has_library(backend):
        raise UserError(f"MUJOCO_GL={backend} has no {_LIBRARIES[backend][1]} on this machine; {INSTALL_HINT}")
    try:
        import mujoco

        context = mujoco.GLContext(8, 8)
        context.make_current()
        model = mujoco.MjModel.from_xml_string("<mujoco/>")
        mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50).free()
        context.free()
    except Exception as error:  # a GL stack fails in many types: ImportError, RuntimeError, AttributeError, GLError
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"MUJOCO_GL={backend} cannot render ({reason}); {INSTALL_HINT}") from error
    return backend


def main() -> int:
    """Prints the backend, or what to install."""
    try:
        print(f"MUJOCO_GL={check_gl()}: headless rendering works")
    except UserError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
