"""The MJCF text of a scene: table, objects, clutter, light, camera and the two-finger gripper.

Assets (meshes, materials, the table's texture) are the same in every scene: `render.Canvas` relies on it. Bodies come
in this order: world, then with a gripper its mocap target, hand, left and right finger, then the scene's objects.
"""

import numpy as np

from rt2_jax.sim.world import assets
from rt2_jax.sim.world.catalog import COLORS, SIZES
from rt2_jax.sim.world.render import MAX_IMAGE_SIZE, Camera
from rt2_jax.sim.world.scene import Environment, Scene, SceneObject

TIMESTEP = 0.005  # seconds of a physics step
HAND, LEFT_FINGER, RIGHT_FINGER = 2, 3, 4  # body ids
FINGER_TRAVEL = 0.04  # half of the full opening, metres
TIP_BELOW = 0.008  # the fingertips end this far below the grasp point, metres
_PALM_ABOVE = 0.058  # the palm's middle is this far above the grasp point, metres


def first_object(scene: Scene) -> int:
    """Body id of the scene's first object."""
    return 1 if scene.gripper is None else 5


def object_half_height(shape: str, radius: float) -> float:
    """Half of a standing object's height in metres."""
    return radius * {"cube": 0.88, "ball": 1.0, "cylinder": 1.0, "cone": 1.1, "star": 0.5, "bar": 0.45}[shape]


def mjcf(scene: Scene, camera: Camera) -> str:
    """A complete MJCF document for `mujoco.MjModel.from_xml_string`."""
    axes = _numbers(*camera.right, *camera.up)
    environment = scene.environment
    return f"""<mujoco>
<compiler angle="radian"/>
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5"/>
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
    color = f'diffuse="{diffuse}" specular="0.1 0.1 0.1"'
    return f'<light type="directional" dir="{direction}" {color} castshadow="false"/>'


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
            form = f'type="box" size="{_numbers(r, 0.45 * r, half)}"'
        case _:
            raise ValueError(f"unknown shape {item.shape!r}")
    return (
        f'<body pos="{_numbers(item.x, item.y, half)}" euler="0 0 {item.yaw:.6g}"><joint type="free" damping="0.0002"/>'
        f'<geom {form} rgba="{_numbers(*COLORS[item.color], 1)}" mass="0.04" condim="6" friction="0.7 0.005 0.004" '
        'solref="0.01 1"/>'
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
    vertices = [(q * np.cos(a), q * np.sin(a), z) for z in (-half, half) for q, a in rim]
    vertices += [(0, 0, -half), (0, 0, half)]
    faces = []
    for k in range(10):
        n = (k + 1) % 10
        faces += [(20, n, k), (21, 10 + k, 10 + n), (k, n, 10 + n), (k, 10 + n, 10 + k)]
    text = " ".join(_numbers(*face) for face in faces)
    return _mesh_text(f"star_{size}", vertices).replace("/>", f' face="{text}"/>')


_MESHES = "".join(_cone_mesh(size) + _star_mesh(size) for size in SIZES)

_FINGER = """<body name="{name}">
  <joint name="finger_{name}" type="slide" axis="{sign} 0 0" range="0 {travel}" damping="2" armature="0.01"/>
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
_ACTUATION = """<equality>
  <joint joint1="finger_left" joint2="finger_right" solref="0.012 1"/>
  <weld body1="mocap" body2="hand" solref="0.012 1" solimp="0.95 0.99 0.001"/>
</equality>
<actuator>
  <position joint="finger_left" kp="150" forcerange="-3 3"/><position joint="finger_right" kp="150" forcerange="-3 3"/>
</actuator>
<contact><exclude body1="left" body2="right"/><exclude body1="hand" body2="left"/><exclude body1="hand" body2="right"/>
</contact>"""
