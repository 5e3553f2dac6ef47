"""docs/your_robot.md word for word: its pusher, a small model of two frames, `rt2 eval --env`, and the report page."""

import dataclasses
import json
import pathlib
import re
import shlex
import sys

import jax
import numpy as np
import pytest

from rt2_jax.actions import ActionBins, Embodiment, load_card
from rt2_jax.actions.space import ActionSpace
from rt2_jax.bundle.spec import bundle_spec
from rt2_jax.bundle.store import save_bundle
from rt2_jax.cli import main
from rt2_jax.data.writer import write_frames, write_split
from rt2_jax.errors import UserError
from rt2_jax.evaluate.run import check_drives, open_environments
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.inputs.prompts import plan_prompt, plan_target, robot_prompt
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, VitConfig
from rt2_jax.report.report import read_report
from rt2_jax.tokens.action_text import action_text
from rt2_jax.tokens.vocabulary import Vocabulary

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "your_robot.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
(PUSHER,) = [text for language, text in BLOCKS if "class Pusher" in text]
(GYMNASIUM,) = [text for language, text in BLOCKS if "import gymnasium" in text]
(COMMAND,) = [text for language, text in BLOCKS if language == "sh"]
SPACE = ActionSpace(("dx", "dy"), (-0.1, -0.1), (0.1, 0.1), ("m", "m"))
SIZE, FRAMES = 24, 2


def card_of(space):
    return Embodiment("pusher", ActionBins(space), cameras=("above",), history=FRAMES)


def save_policy(folder, *cards):
    """A model of a few thousand parameters, at random, that sees two frames and acts for these, or for the pusher."""
    vocabulary, cards = Vocabulary.load(), cards or (card_of(SPACE),)
    config = ModelConfig(
        name="speck",
        vision=VitConfig(patch_size=12, width=8, layers=1, heads=1, head_dim=8, mlp=8),
        text=EncoderDecoderConfig(width=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, mlp=8),
        image_size=SIZE,
        num_images=FRAMES,
        vocab_size=vocabulary.size,
    )
    spec = bundle_spec(config, vocabulary, {card.name: card for card in cards}, prompt_len=48, target_len=24)
    save_bundle(folder, make_backbone(config).init(jax.random.key(0)), spec, vocabulary)
    return folder


def prepare(data_dir, task, space, plan=False):
    """A held-out split of three actions in `space`, or of plans that end in one."""
    vocabulary, card, rng = Vocabulary.load(), card_of(space), np.random.default_rng(0)
    examples = []
    for _ in range(3):
        frames = [encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(FRAMES)]
        target = action_text(vocabulary, rng.integers(0, 256, space.width))
        target = plan_target("push red block", target) if plan else target
        asked = (plan_prompt if plan else robot_prompt)("push the red block")
        prompt = np.array(vocabulary.encode(asked), np.int32)
        examples.append((frames, prompt, np.array([*vocabulary.encode(target), vocabulary.eos_id], np.int32), asked))
    seen = ({"above": frames} for frames, *_ in examples)
    cameras = write_frames(data_dir, task, "validation", ["above"], seen, task=task)
    settings = {"vocabulary": vocabulary.sha256, "history": FRAMES, "embodiment": card}
    write_split(data_dir, task, "validation", examples, cameras, kind="plan" if plan else "action", **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("run") / "bundle")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The page's modules where the page says, and on the path as PYTHONPATH=. puts them."""
    (tmp_path / "pusher.py").write_text(PUSHER, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("pusher", "broken"):
        sys.modules.pop(name, None)


def words_of_command(run, episodes):
    """The page's command, with a real checkpoint and fewer episodes."""
    words = shlex.split(COMMAND)
    assert words[:3] == ["PYTHONPATH=.", "rt2", "eval"] and words[-2:] == ["--episodes", "20"]
    return [str(run) if word == "RUN" else word for word in words[2:-1]] + [str(episodes)]


def test_the_page_s_robot_goes_to_the_report(run, written, capsys):
    assert len(PUSHER.splitlines()) <= 120
    prepare(written / "data", "pusher", SPACE)
    assert main([*words_of_command(run, 2), "--data", "data"]) == 0
    report = read_report(written / "REPORT" / "report.json")
    assert report["environment"] == "pusher:Pusher" and not any(row["group"] == "other" for row in report["summary"])
    assert [(row["label"], row["control"], row["episodes"]) for row in report["summary"]] == [
        ("Seen", None, 4),
        ("Seen", "wrong_instruction", 4),
        ("A yellow block", None, 4),
    ]
    for row in report["closed_loop"]:
        (measure,) = row["measures"]
        assert (measure["name"], measure["episodes"]) == ("metres to the corner", 2) and 0 < measure["mean"] < 1.5
        assert measure["interval"][0] < measure["mean"] < measure["interval"][1]
        for episode in row["episode_results"]:
            assert re.fullmatch(r"push the \w+ block to the \w+ \w+ corner", episode["instruction"])
            assert (episode["told"] != episode["instruction"]) == (row["control"] is not None)
    (scores,) = report["actions"]
    assert [(row["name"], row["unit"], row["kind"]) for row in scores["dimensions"]] == [
        ("dx", "cm", "continuous"), ("dy", "cm", "continuous")
    ]  # fmt: skip
    page = (written / "REPORT" / "report.html").read_text(encoding="utf-8")
    (data, *_) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert (json.loads(data)["names"], json.loads(data)["units"]) == (list(SPACE.names), list(SPACE.units))
    for shown in ("A yellow block", "metres to the corner", "all 2 tokens right", "told to do something else"):
        assert shown in page, shown
    # Nothing of another robot's: no arm, no gripper, no figures of the paper's kitchens.
    for absent in ("grip", "yaw", "real kitchens", "eight tokens"):
        assert absent not in page, absent
    printed = capsys.readouterr().out
    assert "Measured by the environment" in printed and "A yellow block" in printed


def test_the_page_s_numbers_hold():
    """A seed gives one episode, a yellow block is only where it is said, and pushing pushes."""
    module = {}
    exec(PUSHER, module)  # the page's own words
    env = module["Pusher"]()
    first, again = env.reset("seen", "left", 3), env.reset("seen", "left", 3)
    assert (first.images["above"] == again.images["above"]).all() and first.instruction == again.instruction
    assert "yellow" in env.reset("yellow", "right", 0).instruction and "yellow" not in first.instruction
    corner = np.array(module["CORNERS"][env.corner])
    for _ in range(200):
        behind = env.block + (env.block - corner) / np.linalg.norm(env.block - corner) * 0.1
        towards = behind - env.disc if np.linalg.norm(behind - env.disc) > 0.05 else corner - env.disc
        step = env.step(np.clip(towards, -0.02, 0.02).astype(np.float32))
        if step.done:
            break
    assert step.success and step.metrics["metres to the corner"] < 0.1


def test_the_page_s_gymnasium_environment_is_one(monkeypatch):
    import gymnasium

    made = []
    monkeypatch.setattr(gymnasium, "make", lambda *words, **settings: made.append((words, settings)))
    module = {}
    exec(GYMNASIUM, module)
    env = module["make_env"]()
    assert env.spec.action_names == SPACE.names and made == [(("MyPusher-v0",), {"render_mode": "rgb_array"})]


BROKEN = {
    "no_such_module:make": ("", "cannot be imported"),
    "broken:make": ("def make():\n    return 1 / 0\n", "factory raised ZeroDivisionError: division by zero at"),
    "broken:Env": ("from pusher import Pusher as Env\nEnv.close = None\n", "made a Pusher without close; define it"),
    "broken:Blind": (
        "import pusher\nclass Blind(pusher.Pusher):\n    def observe(self):\n"
        "        return pusher.Observation({}, self.told)\n",
        "returned no image of camera 'above'",
    ),
    "broken:Float": (
        "import pusher\nclass Float(pusher.Pusher):\n    def observe(self):\n"
        "        shown = super().observe()\n"
        "        return pusher.Observation({'above': shown.images['above'] / 255}, self.told)\n",
        "image of camera 'above': dtype float64, needs uint8",
    ),
    "broken:Mute": (
        "import pusher\nclass Mute(pusher.Pusher):\n    def observe(self):\n"
        "        return pusher.Observation(super().observe().images, '')\n",
        "returned no instruction",
    ),
    "broken:Lost": (
        "import pusher, dataclasses\nclass Lost(pusher.Pusher):\n    def step(self, action):\n"
        "        return dataclasses.replace(super().step(action), metrics={'far': float('nan')})\n",
        "metric 'far' = nan",
    ),
    "broken:Other": (
        "import pusher, dataclasses\nclass Other(pusher.Pusher):\n"
        "    spec = dataclasses.replace(pusher.Pusher.spec, action_names=('dy', 'dx'))\n",
        "takes actions of names dy, dx, but",
    ),
    "broken:Inches": (
        "import pusher, dataclasses\nclass Inches(pusher.Pusher):\n"
        "    spec = dataclasses.replace(pusher.Pusher.spec, action_units=('in', 'in'))\n",
        "takes actions of units in, in, but",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_whatever_is_wrong_is_one_line_and_code_2(run, written, capsys, name):
    text, named = BROKEN[name]
    (written / "broken.py").write_text(text, encoding="utf-8")
    assert main(["eval", "--checkpoint", str(run), "--out", "out", "--env", name, "--episodes", "1"]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("rt2")]
    assert named in line and len(line) < 600
    assert not (written / "out").exists()


def test_a_policy_of_another_robot_is_refused_before_any_work(run, written, capsys, monkeypatch):
    def never(*_, **__):
        pytest.fail("the work began")

    monkeypatch.setattr("rt2_jax.report.run.load_bundle", never)
    # The tabletop has an arm.
    assert main(["eval", "--checkpoint", str(run), "--out", "out", "--episodes", "1"]) == 2
    assert "environment tabletop takes actions of names terminate, dx, dy, dz" in capsys.readouterr().err
    assert main([*words_of_command(run, 1), "--splits", "moon"]) == 2
    assert "split 'moon' is unknown; choose of seen, yellow" in capsys.readouterr().err


def test_a_reference_that_only_answers_is_not_asked_to_plan(run, written):
    """The reference is a model of text, whatever it is: its plans and actions are left out, and nothing breaks."""
    prepare(written / "data", "pusher_plan", SPACE, plan=True)
    words = ["eval", "--checkpoint", str(run), "--out", "out", "--episodes", "0", "--data", "data"]
    assert main([*words, "--reference", str(run)]) == 0
    report = read_report(written / "out" / "report.json")
    assert [score["skill"] for score in report["web"]] == ["planning"] and report["environment"] is None
    assert report["forgetting"]["web"] == [] and report["actions"] == []


@pytest.mark.parametrize("plan", [False, True])
def test_plans_and_actions_of_other_bounds_are_not_compared(run, written, capsys, plan):
    wide = ActionSpace(SPACE.names, SPACE.low, (0.2, 0.2), SPACE.units)
    prepare(written / "data", "pusher_plan" if plan else "pusher", wide, plan)
    words = ["eval", "--checkpoint", str(run), "--out", "out", "--episodes", "0", "--data", "data"]
    assert main(words) == 2
    assert "was prepared with other action bounds (card pusher) than the policy's" in capsys.readouterr().err


def test_of_several_robots_the_environment_s_is_taken_and_never_guessed(written, tmp_path, capsys):
    arm = dataclasses.replace(load_card("tabletop"), history=FRAMES)
    both = save_policy(tmp_path / "both", arm, card_of(SPACE))
    assert check_drives(both, open_environments(None)) == "tabletop"
    assert check_drives(both, open_environments("pusher:Pusher")) == "pusher"
    assert main([*words_of_command(both, 1), "--splits", "yellow"]) == 0
    report = read_report(written / "REPORT" / "report.json")
    assert [(row["split"], row["episodes"]) for row in report["summary"]] == [("yellow", 2)]
    # Two robots of the same numbers: the environment says which.
    twins = save_policy(tmp_path / "twins", card_of(SPACE), dataclasses.replace(card_of(SPACE), name="other"))
    with pytest.raises(UserError, match="the embodiments pusher, other of .* have its action numbers; say which one"):
        check_drives(twins, open_environments("pusher:Pusher"))
    named = "import dataclasses, pusher\nclass Named(pusher.Pusher):\n"
    (written / "broken.py").write_text(
        named + "    spec = dataclasses.replace(pusher.Pusher.spec, embodiment='other')\n"
        "class Unknown(pusher.Pusher):\n    spec = dataclasses.replace(pusher.Pusher.spec, embodiment='robot9')\n"
    )
    assert check_drives(twins, open_environments("broken:Named")) == "other"
    with pytest.raises(UserError, match="is embodiment 'robot9', unknown to .*: pusher, other"):
        check_drives(twins, open_environments("broken:Unknown"))
