"""Plans that say where things are: what a chain-of-thought target states before the action (RT-2, section 4.4).

RT-2's plans are words. Here they also point, at the things and at the gripper, counted from the spot on the table under
the gripper as `describe.detection_from_gripper` does: how far to go and how high the gripper is are then in the plan,
the action is close to a function of it, and pointing is what web data has taught (arXiv 2407.08693 has robots reason
with places in the frame).
"""

import numpy as np

from rt2_jax.sim.language import skill_words
from rt2_jax.sim.language.describe import place_from_gripper
from rt2_jax.sim.language.lexicon import GRIPPER
from rt2_jax.sim.world.scene import Decal, SceneObject, Task
from rt2_jax.sim.world.world import World


def grounded_plan(world: World, task: Task) -> str:
    """The task's plan as things stand now, e.g. ``"pick red cube at 140 110, robot gripper at 128 114"``.

    Places are percent of the frame from the left and the top, with the spot under the gripper at 128 128.
    """
    scene = world.scene
    centres = world.object_positions()
    spot = world.project(world.under_gripper())

    def at(point: np.ndarray) -> str:
        return f"at {place_from_gripper(world.project(point), spot)}"

    def say(thing: SceneObject | Decal) -> str:
        centre = (thing.x, thing.y, 0.0) if isinstance(thing, Decal) else centres[scene.objects.index(thing)]
        return f"{thing.name} {at(np.asarray(centre))}"

    words = skill_words.plan(scene, task.skill, task.target, task.reference, say)
    return f"{words}, {GRIPPER} {at(world.gripper_pose()[0])}"
