import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.datasets.tabletop import build
from rt2_jax.errors import UserError
from rt2_jax.sim.world import assets, catalog, gl, render
from rt2_jax.sim.world.render import make_camera
from rt2_jax.sim.world.scene import Decal, Environment, GripperPose, Scene, SceneObject
from rt2_jax.sim.world.world import REACH_HIGH, REACH_LOW, World, rotation_matrix, rotation_rpy

RED_BALL = SceneObject("red", "ball", "large", 0.08, -0.05)
BLUE_CUBE = SceneObject("blue", "cube", "large", -0.07, 0.06)
SCENE = Scene((RED_BALL, BLUE_CUBE), (), Environment(), GripperPose(0.0, 0.0, 0.1))
BARE = dataclasses.replace(SCENE, gripper=None)


@pytest.fixture(scope="module")
def world():
    world = World(SCENE, 96)
    yield world
    world.close()


def move(dx=0.0, dy=0.0, dz=0.0, droll=0.0, dpitch=0.0, dyaw=0.0, gripper=-1.0):
    return np.array((0, dx, dy, dz, droll, dpitch, dyaw, gripper), np.float32)


def centre_of(mask):
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def test_a_projected_object_is_where_its_pixels_are(world):
    world.reset(BARE)
    image = world.render().astype(int)
    assert image.shape == (96, 96, 3)
    red = (image[..., 0] > 100) & (image[..., 1] < 80) & (image[..., 2] < 80)
    blue = (image[..., 2] > 100) & (image[..., 0] < 90)
    for mask, position in zip((red, blue), world.object_positions(), strict=True):
        assert np.allclose(centre_of(mask), world.camera.project(position), atol=0.015)
    assert 11 <= np.ptp(np.nonzero(red)[1]) + 1 <= 16  # a large object's width in a 96 pixel frame


def test_percent_coordinates_count_from_the_upper_left(world):
    camera = make_camera()
    left, right, near, far = (camera.percent((x, y, 0.0)) for x, y in ((-0.1, 0), (0.1, 0), (0, -0.1), (0, 0.1)))
    assert left[0] < 50 <= right[0] and far[1] < near[1]
    assert camera.percent((5.0, 0.0, 0.0))[0] == 99 and camera.percent((-5.0, 0.0, 0.0))[0] == 0
    assert world.project(np.zeros((2, 5, 3))).shape == (2, 5, 2)


def test_the_workspace_and_the_raised_gripper_fit_the_frame():
    corners = [(x, y, z) for x in (-0.15, 0.15) for y in (-0.15, 0.15) for z in (0.0, 0.14)]
    frame = make_camera().project(np.array(corners))
    assert (frame > 0).all() and (frame < 1).all()


def test_reset_gives_the_same_pixels_whatever_was_shown_before(world):
    world.reset(SCENE)
    first = world.render()
    decals = (Decal("digit", "7", 0.0, 0.0),)
    world.reset(dataclasses.replace(BARE, environment=Environment("marble"), decals=decals))
    assert not np.array_equal(world.render(), first)
    world.reset(SCENE)
    assert np.array_equal(world.render(), first)


def test_same_actions_give_the_same_states_and_pixels(world):
    rng = np.random.default_rng(0)
    actions = [move(*rng.uniform(-0.04, 0.04, 3), 0, 0, *rng.uniform(-0.3, 0.3, 1), 1.0) for _ in range(6)]

    def run():
        world.reset(SCENE)
        for action in actions:
            world.step(action)
        return np.concatenate([world.object_positions().ravel(), world.gripper_pose()[0]]), world.render()

    (state, image), (again, image_again) = run(), run()
    assert np.array_equal(state, again) and np.array_equal(image, image_again)


def test_the_gripper_follows_its_actions(world):
    world.reset(SCENE)
    world.step(move(0.04, -0.03, 0.02, 0.1, -0.1, 0.3, 1.0))
    xyz, rpy, closed = world.gripper_pose()
    assert np.allclose(xyz, (0.04, -0.03, 0.12), atol=0.002)
    assert np.allclose(rpy, (0.1, -0.1, 0.3), atol=0.02)
    assert closed > 0.9
    world.step(move())
    assert world.gripper_pose()[2] < -0.9


def test_the_gripper_stays_in_its_box(world):
    world.reset(SCENE)
    for _ in range(7):
        world.step(move(0.04, 0.04, 0.04))
    assert np.allclose(world.gripper_pose()[0], REACH_HIGH, atol=0.003)
    for _ in range(12):
        world.step(move(-0.04, -0.04, -0.04))
    assert np.allclose(world.gripper_pose()[0], REACH_LOW, atol=0.003)


@pytest.mark.parametrize("shape", catalog.SHAPES)
@pytest.mark.parametrize("size", catalog.SIZES)
def test_every_object_rests_where_it_was_put(world, shape, size):
    item = SceneObject("green", shape, size, 0.05, 0.03, 1.0)
    world.reset(Scene((item,), gripper=GripperPose(-0.1, -0.1, 0.1)))
    before = world.object_positions()
    for _ in range(8):
        world.step(move())
    assert np.abs(world.object_positions() - before).max() < 0.002


def test_height_shows_apart_from_distance(world):
    """A raised gripper nearby and a low one further away cover the same rows; their shadows tell them apart."""

    def shadow_row(pose):
        world.reset(Scene((), gripper=pose))
        image = world.render().astype(int).sum(-1)
        return np.nonzero((image < 150).any(1))[0].max()

    assert shadow_row(GripperPose(0.0, -0.05, 0.14)) > shadow_row(GripperPose(0.0, 0.05, 0.06)) + 10


def test_digits_are_drawn_upright(world):
    world.reset(Scene((), (Decal("digit", "7", 0.0, 0.0, 0.1),)))
    ink = world.render().astype(int).sum(-1) < 200
    rows, columns = np.nonzero(ink)
    quarter = np.ptp(rows) / 4
    top, bottom = columns[rows < rows.min() + quarter], columns[rows > rows.max() - quarter]
    assert np.ptp(top) > 1.5 * np.ptp(bottom)  # the bar of a 7 is on top
    assert top.mean() > bottom.mean()  # its stem leans to the lower left


def test_every_decal_and_background_can_be_drawn_and_differs():
    values = {"zone": catalog.ZONE_COLORS, "digit": catalog.DIGITS, "letter": catalog.LETTERS, "icon": catalog.ICONS,
              "portrait": catalog.PERSONS}  # fmt: skip
    sprites = {np.asarray(assets.decal_sprite(k, v, 48)).tobytes() for k, vs in values.items() for v in vs}
    assert len(sprites) == sum(map(len, values.values()))
    names = catalog.BACKGROUNDS_PLAIN + catalog.BACKGROUNDS_PATTERN
    assert len({assets.background(name).tobytes() for name in names}) == len(names)


@pytest.mark.parametrize("kind, value", [("digit", "12"), ("icon", "skull"), ("portrait", "Bob"), ("poster", "x")])
def test_an_unknown_decal_is_refused(kind, value):
    with pytest.raises(UserError, match="cannot be drawn"):
        assets.decal_sprite(kind, value, 32)


def test_unknown_surroundings_are_refused():
    with pytest.raises(UserError, match="background 'lava'"):
        World(Scene((), environment=Environment("lava")))
    with pytest.raises(UserError, match="surround 'lava'"):
        World(Scene((), environment=Environment(surround="lava")))


def test_environment_changes_what_is_seen(world):
    def frame(**changes):
        world.reset(dataclasses.replace(BARE, environment=Environment(**changes)))
        return world.render().astype(int)

    plain = frame()
    assert frame(light=0.5).sum() < 0.95 * plain.sum() < frame(light=1.5).sum()
    for change in (dict(light_azimuth=2.5), dict(camera_shift=(0.02, 0, 0)), dict(surround="navy"), dict(clutter=4)):
        assert (np.abs(frame(**change) - plain).max(-1) > 20).sum() > 20


def test_a_camera_shift_moves_the_projection_too(world):
    world.reset(dataclasses.replace(BARE, environment=Environment(camera_shift=(0.03, -0.02, 0.02))))
    image = world.render().astype(int)
    red = (image[..., 0] > 100) & (image[..., 1] < 80) & (image[..., 2] < 80)
    assert np.allclose(centre_of(red), world.camera.project(world.object_positions()[0]), atol=0.015)


def test_stepping_without_a_gripper_is_an_error(world):
    world.reset(BARE)
    with pytest.raises(ValueError, match="no gripper"):
        world.step(move())


@pytest.mark.parametrize("action", [np.zeros(7), np.full(8, np.nan), np.zeros((1, 8))])
def test_a_malformed_action_is_an_error(world, action):
    world.reset(SCENE)
    with pytest.raises(ValueError, match="8 finite numbers"):
        world.step(action)


def test_a_silly_image_size_is_refused():
    big = World(BARE, 4096)
    with pytest.raises(UserError, match="image_size 4096"):
        big.render()


angle = st.floats(-1.4, 1.4)


@given(st.tuples(angle, angle, angle))
@settings(max_examples=50)
def test_rotations_round_trip(rpy):
    matrix = rotation_matrix(np.array(rpy))
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.allclose(rotation_rpy(matrix), rpy, atol=1e-6)


def test_gl_works_here_and_an_absent_backend_says_what_to_install(monkeypatch):
    assert gl.check_gl() in ("egl", "osmesa")
    monkeypatch.setattr(gl, "_has_library", lambda backend: False)
    with pytest.raises(UserError, match="apt-get install libegl1"):
        gl.check_gl()


def test_leaving_without_closing_says_nothing():
    # Some other library's finalizer comes first, as it does wherever JAX or multiprocessing is imported before us.
    code = """
import weakref

class Other:
    pass

other = Other()
weakref.finalize(other, int)
from rt2_jax.sim.tasks.env import TabletopEnv

first, second = TabletopEnv(image_size=16), TabletopEnv(image_size=24)
for env in (first, second):
    env.reset(seed=0)
    print(env.render().shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(16, 16, 3)\n(24, 24, 3)\n", "")


def test_data_is_built_in_sizes_that_can_be_rendered():
    assert build.MAX_IMAGE_SIZE == render.MAX_IMAGE_SIZE
