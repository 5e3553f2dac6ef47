"""The camera, and a canvas that draws MuJoCo models of one kind with one GL context.

Models of the tabletop world differ in their bodies but share meshes, materials and textures (world.py builds them so):
one `MjrContext` serves them all, and a new scene costs one texture upload instead of a new context.
"""

# MuJoCo's module fills itself from a C extension that has no types.
# pyright: reportAttributeAccessIssue=false

import atexit
import dataclasses
import functools
import weakref

import numpy as np

from rt2_jax.sim.world import gl  # isort: skip  (sets MUJOCO_GL)
import mujoco

from rt2_jax.errors import UserError

# In front of the table and above it, elevated 57 degrees; framed so that the workspace and a gripper 14 cm above it
# fill the frame.
CAMERA_POSITION = (0.0, -0.44, 0.79)
CAMERA_TARGET = (0.0, 0.006, 0.03)
CAMERA_FOVY_DEGREES = 24.0
MAX_IMAGE_SIZE = 512
_MAX_GEOMS = 200


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera with square frames: position (metres), unit axes, vertical field of view (degrees)."""

    position: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray
    fovy: float

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """World points float[..., 3] -> frame coordinates float[..., 2]: 0..1 from the left and from the top."""
        relative = np.asarray(xyz, np.float64) - self.position
        depth = relative @ self.forward * np.tan(np.radians(self.fovy) / 2)
        return np.stack([0.5 + 0.5 * (relative @ self.right) / depth, 0.5 - 0.5 * (relative @ self.up) / depth], -1)

    def percent(self, xyz: np.ndarray) -> np.ndarray:
        """World points float[..., 3] -> int32[..., 2], percent of the frame (0..99) from the left and from the top."""
        return np.clip(np.floor(self.project(xyz) * 100), 0, 99).astype(np.int32)


def make_camera(shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Camera:
    """The world's camera, moved by `shift` metres and still looking at the middle of the table."""
    position = np.asarray(CAMERA_POSITION, np.float64) + np.asarray(shift)
    forward = np.asarray(CAMERA_TARGET) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    return Camera(position, right, np.cross(right, forward), forward, CAMERA_FOVY_DEGREES)


@dataclasses.dataclass(frozen=True)
class Blob:
    """A flat translucent ellipse on the table, metres: stands in for a cast shadow, which would cost a render pass."""

    x: float
    y: float
    yaw: float
    half_x: float
    half_y: float
    darkness: float


class Canvas:
    """An off-screen square canvas: `draw` renders at twice the frame's size and averages 2 x 2 pixels."""

    def __init__(self, model: mujoco.MjModel, image_size: int):
        if not 16 <= image_size <= MAX_IMAGE_SIZE:
            raise UserError(f"image_size {image_size} is out of range: choose 16..{MAX_IMAGE_SIZE} pixels")
        self.image_size = image_size
        self._side = 2 * image_size
        try:
            self._gl = mujoco.GLContext(self._side, self._side)
            self._gl.make_current()
        except Exception as error:
            raise UserError(f"no headless OpenGL ({error}); {gl.INSTALL_HINT}") from error
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        # Left to the garbage collector, the context would be freed after the EGL module is gone, with a traceback.
        self._free = weakref.finalize(self, _free, self._context, self._gl)
        self._free.atexit = False
        _free_at_exit().add(self)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = 0
        self._rect = mujoco.MjrRect(0, 0, self._side, self._side)
        self._pixels = np.empty((self._side, self._side, 3), np.uint8)

    def upload_texture(self, model: mujoco.MjModel, texture: int) -> None:
        """Sends a model's texture (by id) to the GPU; the size must be that of the first model's."""
        self._gl.make_current()
        mujoco.mjr_uploadTexture(model, self._context, texture)

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, blobs: list[Blob]) -> np.ndarray:
        """The frame from the model's first camera, uint8[image_size, image_size, 3]."""
        self._gl.make_current()
        mujoco.mjv_updateScene(
            model, data, self._option, None, self._view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        for blob in blobs:
            self._add_blob(blob)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        n = self.image_size
        quads = self._pixels[::-1].reshape(n, 2, n, 2, 3).astype(np.uint16)
        rows = quads[:, 0] + quads[:, 1]
        return ((rows[:, :, 0] + rows[:, :, 1] + 2) >> 2).astype(np.uint8)

    def _add_blob(self, blob: Blob) -> None:
        c, s = np.cos(blob.yaw), np.sin(blob.yaw)
        mujoco.mjv_initGeom(
            self._scene.geoms[self._scene.ngeom],
            mujoco.mjtGeom.mjGEOM_ELLIPSOID,
            np.array((blob.half_x, blob.half_y, 0.0002)),
            np.array((blob.x, blob.y, 0.0006)),
            np.array((c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)),
            np.array((0.0, 0.0, 0.0, blob.darkness), np.float32),
        )
        self._scene.ngeom += 1

    def close(self) -> None:
        """Frees the GL context; at the interpreter's exit this happens by itself."""
        self._free()


@functools.cache
def _free_at_exit() -> "weakref.WeakSet[Canvas]":
    """The canvases that are freed when the interpreter ends; asked for when the process has its first GL context.

    What was registered last runs first, so the contexts go before MuJoCo closes the display that they are of. The
    finalizers' own turn comes with the process's first `weakref.finalize`, whoever made that: often too late.
    """
    canvases: weakref.WeakSet[Canvas] = weakref.WeakSet()

    def free_all() -> None:
        for canvas in list(canvases):
            canvas.close()

    atexit.register(free_all)
    return canvases


def _free(context: mujoco.MjrContext, gl_context: mujoco.GLContext) -> None:
    gl_context.make_current()
    context.free()
    gl_context.free()
