"""The tabletop world: a `Scene` compiled to a MuJoCo model, a mocap-driven two-finger gripper, frames and poses.

The gripper's *grasp point* lies between the fingertips; a pose is that point's position (metres) and the hand's
roll, pitch, yaw (radians). At yaw 0 the fingers open along x, so the camera sees the gap.
"""

import numpy as np

from rt2_jax.sim.render import MAX_IMAGE_SIZE, Blob, Camera, Canvas, make_camera  # isort: skip  (sets MUJOCO_GL)
import mujoco

from rt2_jax.sim import assets
from rt2_jax.sim.catalog import COLORS, SIZES
from rt2_jax.sim.scene import Environment, GripperPose, Scene, SceneObject

# Where the grasp point may go, metres: low and high corner. Roll, pitch and yaw stay within +-ROTATION_LIMIT radians.
REACH_LOW = np.array((-0.19, -0.19, 0.010))
REACH_HIGH = np.array((0.19, 0.19, 0.140))
ROTATION_LIMIT = np.array((0.4, 0.4, 1.6))
CONTROL_PERIOD = 0.25  # seconds a control step lasts
_TIMESTEP = 0.005
_SUBSTEPS = round(CONTROL_PERIOD / _TIMESTEP)
_MOVE_SUBSTEPS = round(0.8 * _SUBSTEPS)  # the hand's target glides for so long, then rests
FINGER_TRAVEL = 0.04  # half of the full opening, metres
TIP_BELOW = 0.008  # the fingertips end this far below the grasp point
_PALM_ABOVE = 0.058  # the palm's middle is this far above the grasp point


def object_half_height(shape: str, radius: float) -> float:
    """Half of a standing object's height in metres."""
    return radius * {"cube": 0.88, "ball": 1.0, "cylinder": 1.0, "cone": 1.1, "star": 0.4, "bar": 0.38}[shape]


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
        self._model = mujoco.MjModel.from_xml_string(_mjcf(scene, self.camera))
        self._data = mujoco.MjData(self._model)
        self._first_object = 1 if scene.gripper is None else 5  # body ids: mocap 1, hand 2, fingers 3 and 4
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
        first = self._first_object
        return self._data.xpos[first : first + len(self.scene.objects)].copy()

    def gripper_pose(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Grasp point float64[3] (metres), roll-pitch-yaw float64[3] (radians), closedness (-1 open .. 1 closed)."""
        self._need_gripper()
        matrix = self._data.xmat[2].reshape(3, 3)
        opening = float(self._data.qpos[7] + self._data.qpos[8]) / 2
        return self._data.xpos[2].copy(), rotation_rpy(matrix), float(np.clip(1 - 2 * opening / FINGER_TRAVEL, -1, 1))

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
            body = self._first_object + index
            x, y, _ = self._data.xpos[body]
            yaw = float(np.arctan2(self._data.xmat[body, 3], self._data.xmat[body, 0]))
            half_y = 0.5 if item.shape == "bar" else 1.12
            blobs.append(Blob(x, y, yaw, 1.12 * item.radius, half_y * item.radius, 0.28))
        if self.scene.gripper is not None:
            yaw = self.gripper_pose()[1][2]
            for body in (3, 4):
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


def _mjcf(scene: Scene, camera: Camera) -> str:
    """The model's MJCF text. Assets are the same in every scene: Canvas relies on it."""
    axes = _numbers(*camera.right, *camera.up)
    environment = scene.environment
    return f"""<mujoco>
<compiler angle="radian"/>
<option timestep="{_TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5"/>
<visual>
  <global offwidth="{2 * MAX_IMAGE_SIZE}" offheight="{2 * MAX_IMAGE_SIZE}"/>
  <quality offsamples="0" shadowsize="0"/>
  <map znear="0.2" zfar="4"/>
  <headlight ambient="0.42 0.42 0.42" diffuse="0.28 0.28 0.28" specular="0 0 0"/>
</visual>
<statistic extent="1" center="0 0 0"/>
<asset>
  <texture name="table" type="2d" builtin="flat" width="{assets.TEXTURE_SIZE}" height="{assets.TEXTURE_SIZE}"/>
  <material name="table" texture="table" specular="0"/>
  {_MESHES}
</asset>
<worldbody>
  <camera pos="{_numbers(*camera.position)}" xyaxes="{axes}" fovy="{camera.fovy}"/>
  {_light(environment)}
  <geom type="plane" pos="{_numbers(*assets.TABLE_CENTRE, 0)}" size="{assets.TABLE_HALF} {assets.TABLE_HALF} 0.1"
    material="table" friction="0.7 0.005 0.001"/>
  <geom type="plane" pos="0 0 -0.03" size="3 3 0.1" contype="0" conaffinity="0"
    rgba="{_numbers(*assets.surround_rgb(environment.surround), 1)}"/>
  {"" if scene.gripper is None else _GRIPPER}
  {"".join(_object_body(item) for item in scene.objects)}
  {_clutter(environment.clutter)}
</worldbody>
{"" if scene.gripper is None else _ACTUATION}
</mujoco>"""


def _numbers(*values: float) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _light(environment: Environment) -> str:
    azimuth = environment.light_azimuth - 0.6
    direction = _numbers(np.sin(azimuth) * 0.7, np.cos(azimuth) * 0.7, -1.0)
    diffuse = _numbers(*(0.42 * environment.light,) * 3)
    return f'<light type="directional" dir="{direction}" diffuse="{diffuse}" specular="0.1 0.1 0.1" castshadow="false"/>'


def _object_body(item: SceneObject) -> str:
    r = item.radius
    half = object_half_height(item.shape, r)
    match item.shape:
        case "cube":
            form = f'type="box" size="{_numbers(0.88 * r, 0.88 * r, half)}"'
        case "ball":
            form = f'type="sphere" size="{r}"'
        case "cylinder":
            form = f'type="cylinder" size="{_numbers(0.88 * r, half)}"'
        case "cone" | "star":
            form = f'type="mesh" mesh="{item.shape}_{item.size}"'
        case "bar":
            form = f'type="box" size="{_numbers(r, 0.38 * r, half)}"'
        case _:
            raise ValueError(f"unknown shape {item.shape!r}")
    return (
        f'<body pos="{_numbers(item.x, item.y, half)}" euler="0 0 {item.yaw:.6g}"><joint type="free" damping="0.0002"/>'
        f'<geom {form} mass="0.04" condim="6" friction="0.7 0.005 0.002" rgba="{_numbers(*COLORS[item.color], 1)}"/>'
        "</body>"
    )


def _clutter(count: int) -> str:
    """Props that stand at the frame's edges, outside the workspace; the first few of a fixed list."""
    return "".join(
        f'<geom type="{kind}" pos="{pos}" size="{size}" rgba="{rgba}" contype="0" conaffinity="0"/>'
        for kind, pos, size, rgba in _PROPS[:count]
    )


_PROPS = (
    ("box", "-0.14 0.208 0.02", "0.03 0.012 0.02", "0.55 0.35 0.2 1"),
    ("cylinder", "0.15 0.212 0.03", "0.018 0.03", "0.3 0.45 0.4 1"),
    ("ellipsoid", "0.03 0.215 0.015", "0.022 0.015 0.015", "0.75 0.6 0.65 1"),
    ("box", "-0.2 0.1 0.015", "0.015 0.05 0.015", "0.35 0.3 0.45 1"),
    ("box", "0.2 0.02 0.015", "0.015 0.06 0.015", "0.6 0.55 0.3 1"),
    ("cylinder", "-0.19 -0.08 0.02", "0.018 0.02", "0.25 0.25 0.3 1"),
)
MAX_CLUTTER = len(_PROPS)


def _mesh_text(name: str, vertices: list[tuple[float, float, float]]) -> str:
    return f'<mesh name="{name}" vertex="{" ".join(_numbers(*vertex) for vertex in vertices)}"/>'


def _cone_mesh(size: str) -> str:
    r, half = SIZES[size], object_half_height("cone", SIZES[size])
    angles = np.arange(20) * 2 * np.pi / 20
    base = [(r * np.cos(a), r * np.sin(a), -half) for a in angles]
    top = [(0.12 * r * np.cos(a), 0.12 * r * np.sin(a), half) for a in angles[::4]]
    return _mesh_text(f"cone_{size}", base + top)


def _star_mesh(size: str) -> str:
    """A five-pointed prism; faces are given, as the star is not convex (its collision shape is its hull)."""
    r, half = 1.1 * SIZES[size], object_half_height("star", SIZES[size])
    rim = [(r * (1, 0.45)[k % 2], np.pi * k / 5 + np.pi / 2) for k in range(10)]
    vertices = [(q * np.cos(a), q * np.sin(a), z) for z in (-half, half) for q, a in rim] + [(0, 0, -half), (0, 0, half)]
    faces = []
    for k in range(10):
        n = (k + 1) % 10
        faces += [(20, n, k), (21, 10 + k, 10 + n), (k, n, 10 + n), (k, 10 + n, 10 + k)]
    text = " ".join(_numbers(*face) for face in faces)
    return _mesh_text(f"star_{size}", vertices).replace("/>", f' face="{text}"/>')


_MESHES = "".join(_cone_mesh(size) + _star_mesh(size) for size in SIZES)

_FINGER = """<body name="{name}"><joint name="finger_{name}" type="slide" axis="{sign} 0 0" range="0 {travel}" damping="2" armature="0.01"/>
  <geom type="box" pos="{x} 0 {z}" size="0.004 0.008 {half}" rgba="0.24 0.24 0.27 1" mass="0.03" condim="4"
    friction="1.8 0.01 0.001"/>
  <geom type="box" pos="{x} 0 {tip}" size="0.0044 0.0084 0.006" rgba="0.9 0.9 0.9 1" mass="0.001" contype="0"
    conaffinity="0"/></body>"""


def _finger(name: str, sign: int) -> str:
    half = (_PALM_ABOVE - 0.010 + TIP_BELOW) / 2
    middle = (_PALM_ABOVE - 0.010 - TIP_BELOW) / 2
    return _FINGER.format(
        name=name, sign=sign, travel=FINGER_TRAVEL, x=sign * 0.004, z=middle, half=half, tip=0.006 - TIP_BELOW
    )


_GRIPPER = f"""<body name="mocap" mocap="true"/>
<body name="hand" gravcomp="1"><freejoint name="hand"/>
  <geom type="box" pos="0 0 {_PALM_ABOVE}" size="0.046 0.007 0.007" rgba="0.24 0.24 0.27 1" mass="0.4"/>
  <geom type="cylinder" pos="0 0 {_PALM_ABOVE + 0.028}" size="0.009 0.02" rgba="0.42 0.42 0.45 1" mass="0.2"/>
  {_finger("left", -1)}{_finger("right", 1)}
</body>"""
_ACTUATION = f"""<equality>
  <joint joint1="finger_left" joint2="finger_right" solref="0.012 1"/>
  <weld body1="mocap" body2="hand" solref="0.012 1" solimp="0.95 0.99 0.001"/>
</equality>
<actuator>
  <position joint="finger_left" kp="150" forcerange="-6 6"/><position joint="finger_right" kp="150" forcerange="-6 6"/>
</actuator>
<contact><exclude body1="left" body2="right"/><exclude body1="hand" body2="left"/><exclude body1="hand" body2="right"/>
</contact>"""
