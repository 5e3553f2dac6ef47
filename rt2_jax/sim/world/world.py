"""The tabletop world: a `Scene` compiled to a MuJoCo model, a mocap-driven two-finger gripper, frames and poses.

The gripper's *grasp point* lies between the fingertips; a pose is that point's position (metres) and the hand's
roll, pitch, yaw (radians). At yaw 0 the fingers open along x, so the camera sees the gap.
"""

# MuJoCo's module fills itself from a C extension that has no types.
# pyright: reportAttributeAccessIssue=false

import numpy as np

from rt2_jax.sim.world.render import Blob, Canvas, make_camera  # isort: skip  (sets MUJOCO_GL before mujoco is imported)
import mujoco

from rt2_jax.sim.world import assets
from rt2_jax.sim.world.mjcf import FINGER_TRAVEL, HAND, LEFT_FINGER, RIGHT_FINGER, TIMESTEP, first_object, mjcf
from rt2_jax.sim.world.scene import GripperPose, Scene

# Where the grasp point may go, metres: low and high corner. Roll, pitch and yaw stay within +-ROTATION_LIMIT radians.
REACH_LOW = np.array((-0.19, -0.19, 0.010))
REACH_HIGH = np.array((0.19, 0.19, 0.140))
ROTATION_LIMIT = np.array((0.4, 0.4, 1.6))
CONTROL_PERIOD = 0.25  # seconds a control step lasts
_SUBSTEPS = round(CONTROL_PERIOD / TIMESTEP)
_MOVE_SUBSTEPS = round(0.8 * _SUBSTEPS)  # the hand's target glides for so long, then rests


def rotation_matrix(rpy: np.ndarray) -> np.ndarray:
    """float[3, 3] of roll, pitch, yaw (radians): Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        (
            (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
            (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
            (-sp, cp * sr, cp * cr),
        )
    )


def rotation_rpy(matrix: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw (radians) of a rotation matrix float[3, 3]."""
    return np.array(
        (
            np.arctan2(matrix[2, 1], matrix[2, 2]),
            np.arcsin(np.clip(-matrix[2, 0], -1, 1)),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        )
    )


class World:
    """A simulated table. Deterministic: the same scene and actions give the same states and pixels.

    Args of the constructor: a scene, and the side of a frame in pixels. The GL context is made with the first frame
    and kept over `reset`, so that a new scene takes a few milliseconds.
    """

    def __init__(self, scene: Scene, image_size: int = 96):
        self._image_size = image_size
        self._canvas: Canvas | None = None
        self.reset(scene)

    def reset(self, scene: Scene) -> None:
        """Puts another scene on the table; its objects stand at rest, its gripper (if any) at its pose."""
        self.scene = scene
        self.camera = make_camera(scene.environment.camera_shift)
        self._model = mujoco.MjModel.from_xml_string(mjcf(scene, self.camera))
        self._data = mujoco.MjData(self._model)
        self._model.tex_data[:] = assets.table_texture(scene.environment, scene.decals).ravel()
        self._texture_is_stale = True
        self._target_xyz, self._target_rpy = np.zeros(3), np.zeros(3)
        self._command = -1.0
        if scene.gripper is not None:
            self._place_gripper(scene.gripper)
        mujoco.mj_forward(self._model, self._data)

    def _place_gripper(self, pose: GripperPose) -> None:
        data = self._data
        self._target_xyz = np.clip((pose.x, pose.y, pose.z), REACH_LOW, REACH_HIGH)
        self._target_rpy = np.array((0.0, 0.0, np.clip(pose.yaw, -ROTATION_LIMIT[2], ROTATION_LIMIT[2])))
        self._command = float(np.clip(pose.closed, -1, 1))
        opening = FINGER_TRAVEL * (1 - self._command) / 2
        data.qpos[:3] = data.mocap_pos[0] = self._target_xyz
        data.qpos[3:7] = data.mocap_quat[0] = _quaternion(self._target_rpy)
        data.qpos[7:9] = opening
        data.ctrl[:] = opening

    def object_positions(self) -> np.ndarray:
        """Centres of the scene's objects, float64[N, 3] metres, in the scene's order."""
        first = first_object(self.scene)
        return self._data.xpos[first : first + len(self.scene.objects)].copy()

    def gripper_pose(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Grasp point float64[3] (metres), roll-pitch-yaw float64[3] (radians), closedness (-1 open .. 1 closed)."""
        self._need_gripper()
        matrix = self._data.xmat[HAND].reshape(3, 3)
        opening = float(self._data.qpos[7] + self._data.qpos[8]) / 2
        closed = float(np.clip(1 - 2 * opening / FINGER_TRAVEL, -1, 1))
        return self._data.xpos[HAND].copy(), rotation_rpy(matrix), closed

    def under_gripper(self) -> np.ndarray:
        """The spot on the table straight below the grasp point, float64[3] (metres)."""
        x, y, _ = self.gripper_pose()[0]
        return np.array((x, y, 0.0))

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """World points float[..., 3] -> int32[..., 2]: percent of the frame (0..99) from the left and from the top."""
        return self.camera.percent(xyz)

    def step(self, action: np.ndarray) -> None:
        """One control step of CONTROL_PERIOD seconds.

        action: float[8] = terminate, dx, dy, dz (metres), droll, dpitch, dyaw (radians), gripper (-1 opens, 1 closes;
        an absolute command). `terminate` does not move anything: the episode's owner reads it. The pose is kept within
        the reachable box.
        """
        self._need_gripper()
        action = np.asarray(action, np.float64)
        if action.shape != (8,) or not np.isfinite(action).all():
            raise ValueError(f"an action is 8 finite numbers, got shape {action.shape}: {action}")
        start = self._target_xyz
        self._target_xyz = np.clip(start + action[1:4], REACH_LOW, REACH_HIGH)
        old_rpy = self._target_rpy
        self._target_rpy = np.clip(old_rpy + action[4:7], -ROTATION_LIMIT, ROTATION_LIMIT)
        self._command = float(np.clip(action[7], -1, 1))
        self._data.ctrl[:] = FINGER_TRAVEL * (1 - self._command) / 2
        for substep in range(1, _MOVE_SUBSTEPS + 1):
            part = substep / _MOVE_SUBSTEPS
            self._data.mocap_pos[0] = start + part * (self._target_xyz - start)
            self._data.mocap_quat[0] = _quaternion(old_rpy + part * (self._target_rpy - old_rpy))
            mujoco.mj_step(self._model, self._data)
        mujoco.mj_step(self._model, self._data, _SUBSTEPS - _MOVE_SUBSTEPS)
        mujoco.mj_kinematics(self._model, self._data)

    def render(self) -> np.ndarray:
        """The camera's frame, uint8[image_size, image_size, 3]."""
        if self._canvas is None:
            self._canvas = Canvas(self._model, self._image_size)
        if self._texture_is_stale:
            self._canvas.upload_texture(self._model, 0)
            self._texture_is_stale = False
        return self._canvas.draw(self._model, self._data, self._shadows())

    def _shadows(self) -> list[Blob]:
        """Blobs under the fingers and the objects: with them a frame tells height from distance."""
        blobs = []
        for index, item in enumerate(self.scene.objects):
            body = first_object(self.scene) + index
            x, y, _ = self._data.xpos[body]
            yaw = float(np.arctan2(self._data.xmat[body, 3], self._data.xmat[body, 0]))
            half_y = 0.5 if item.shape == "bar" else 1.12
            blobs.append(Blob(x, y, yaw, 1.12 * item.radius, half_y * item.radius, 0.28))
        if self.scene.gripper is not None:
            yaw = self.gripper_pose()[1][2]
            for body in (LEFT_FINGER, RIGHT_FINGER):
                x, y, _ = self._data.xpos[body]
                blobs.append(Blob(x, y, yaw, 0.007, 0.010, 0.5))
        return blobs

    def _need_gripper(self) -> None:
        if self.scene.gripper is None:
            raise ValueError("this scene has no gripper: give Scene a GripperPose")

    def close(self) -> None:
        """Frees the GL context, if a frame was ever drawn."""
        if self._canvas is not None:
            self._canvas.close()
            self._canvas = None


def _quaternion(rpy: np.ndarray) -> np.ndarray:
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation_matrix(rpy).ravel())
    return quaternion
