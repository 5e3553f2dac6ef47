"""What an embodiment changes in a robot task's prompts and targets."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rt2_jax.actions import ActionBins, ActionSpace, Embodiment
from rt2_jax.data.reader import PreparedSplit
from rt2_jax.datasets import tasks
from rt2_jax.datasets.prepare import prepare
from rt2_jax.datasets.tabletop import tasks as tabletop
from rt2_jax.errors import UserError
from rt2_jax.tokens import Vocabulary

WORDS = Vocabulary.load()


@pytest.fixture
def data(tmp_path, built):
    (tmp_path / "tabletop_robot").symlink_to(built / "tabletop_robot")
    return tmp_path


def test_a_target_is_a_chunk_of_actions_and_the_prompt_tells_robot_and_state(data):
    """Two numbers of the tabletop's arm as a robot of its own, with the height of its commands as its state."""
    space = ActionSpace(("dx", "dy"), (-0.04, -0.04), (0.04, 0.04), ("m", "m"))
    state = ActionBins(ActionSpace(("z",), (-0.04,), (0.04,), ("m",)), num_bins=9, first=100)
    robot = Embodiment("mine", ActionBins(space, num_bins=33), robot="left arm", chunk=3, proprioception=state)

    def steps(episode):
        rows = tabletop.tabletop_steps(episode)
        return rows | {"action": rows["action"][:, 1:3], "state": rows["action"][:, 3:4]}

    def register(steps):
        folder = data / "tabletop_robot/1.0.0"
        tasks.register_robot_task("mine", folder, robot, steps, use_last_step=True, mode="plan")
        return prepare(data, ["mine"], ("train",), overwrite=True, show_progress=False)[0]

    index = register(steps)
    assert index.embodiment == robot
    raw = tfds.builder_from_directory(data / "tabletop_robot/1.0.0").as_dataset(split="train", shuffle_files=False)
    read = iter(PreparedSplit(data, "mine", "train").read(range(index.num_examples)))
    for episode in raw:
        rows = [step["action"]["world_vector"] for step in tfds.as_numpy(episode["steps"])]
        moves = np.array(rows)
        for number in range(len(moves)):
            record, _ = next(read)
            prompt, target = WORDS.decode(record.prompt), WORDS.decode(record.target)
            assert re.fullmatch(r"Instruction for the left arm: .* State: 1\d\d", prompt)
            integers = np.array(target.split("Action: ")[1].split(), int).reshape(3, 2)
            wanted = moves[[min(number + ahead, len(moves) - 1) for ahead in range(3)], :2]
            assert np.abs(robot.bins.decode(integers) - wanted).max() <= robot.bins.bin_size[0] / 2 + 1e-6
            height = state.decode(np.array([int(prompt.split()[-1])]))
            assert abs(height[0] - moves[number, 2]) <= state.bin_size[0] / 2 + 1e-6
    with pytest.raises(UserError, match="mine: its function gives no 'state', only action, image, instruction, plan"):
        register(tabletop.tabletop_steps)
    with pytest.raises(UserError, match=r"action: shape \(\d+, 8\), needs 2 numbers last \(dx dy\)"):
        register(lambda episode: tabletop.tabletop_steps(episode) | {"state": steps(episode)["state"]})
