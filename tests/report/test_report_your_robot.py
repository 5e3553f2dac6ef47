"""docs/your_robot.md word for word: its pusher, a small model of two frames, `rt2 eval --env`, and the report page."""

import json
import pathlib
import re
import shlex
import sys

import jax
import numpy as np
import pytest
from array_record.python import array_record_module

from rt2_jax.actions import ActionBins, DatasetCard
from rt2_jax.actions.space import ActionSpace
from rt2_jax.bundle.spec import bundle_meta
from rt2_jax.bundle.store import save_bundle
from rt2_jax.cli import main
from rt2_jax.data.records import PreparedIndex, Record, encode_record, index_to_json, prepared_dir
from rt2_jax.files.writing import seal
from rt2_jax.inputs.images import encode_jpeg
from rt2_jax.inputs.prompts import plan_prompt, plan_target, robot_prompt
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, VitConfig
from rt2_jax.report.report import read_report
from rt2_jax.tokens.action_text import action_text
from rt2_jax.tokens.vocabulary import Vocabulary

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "your_robot.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
PUSHER, GYMNASIUM = [text for language, text in BLOCKS if language == "python"]
(COMMAND,) = [text for language, text in BLOCKS if language == "sh"]
SPACE = ActionSpace(("terminate", "dx", "dy"), (0.0, -0.1, -0.1), (1.0, 0.1, 0.1), ("flag", "m", "m"))
SIZE, FRAMES = 24, 2


def save_policy(folder, space=SPACE):
    """A model of a few thousand parameters, at random, that acts in `space` and sees two frames."""
    vocabulary, card = Vocabulary.load(), DatasetCard("pusher", space)
    config = ModelConfig(
        name="speck",
        vision=VitConfig(patch_size=12, width=8, layers=1, heads=1, head_dim=8, mlp=8),
        text=EncoderDecoderConfig(width=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, mlp=8),
        image_size=SIZE,
        num_images=FRAMES,
        vocab_size=vocabulary.size,
    )
    meta = bundle_meta(config, vocabulary, card, ActionBins(space), prompt_len=48, target_len=24)
    save_bundle(folder, make_backbone(config).init(jax.random.key(0)), meta, vocabulary)
    return folder


def prepare(data_dir, task, space, plan=False):
    """A held-out split of three actions in `space`, or of plans that end in one."""
    vocabulary, card, rng = Vocabulary.load(), DatasetCard("pusher", space), np.random.default_rng(0)
    folder = prepared_dir(data_dir, task, "validation")
    folder.mkdir(parents=True)
    writer = array_record_module.ArrayRecordWriter(str(folder / "part-00000.array_record"), "group_size:1")
    for _ in range(3):
        frames = tuple(encode_jpeg(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(FRAMES))
        target = action_text(vocabulary, np.array([1, *rng.integers(0, 256, space.width - 1)]))
        target = plan_target("push red block", target) if plan else target
        asked = (plan_prompt if plan else robot_prompt)("push the red block")
        prompt = np.array(vocabulary.encode(asked), np.int32)
        ids = np.array([*vocabulary.encode(target), vocabulary.eos_id], np.int32)
        writer.write(encode_record(Record(frames, prompt, ids, task)))
    writer.close()
    files = (("part-00000.array_record", 3),)
    index = PreparedIndex(
        task, "validation", 3, files, vocabulary.sha256, SIZE, FRAMES, 48, 24, card=card, bins=ActionBins(space)
    )
    (folder / "index.json").write_text(index_to_json(index), encoding="utf-8")
    seal(folder, "prepared split")


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
        ("terminate", "flag", "terminate"), ("dx", "cm", "continuous"), ("dy", "cm", "continuous")
    ]  # fmt: skip
    page = (written / "REPORT" / "report.html").read_text(encoding="utf-8")
    (data, *_) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert (json.loads(data)["names"], json.loads(data)["units"]) == (list(SPACE.names), list(SPACE.units))
    for shown in ("A yellow block", "metres to the corner", "all 3 tokens right", "told to do something else"):
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
        step = env.step(np.array([0, *np.clip(towards, -0.02, 0.02)], np.float32))
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
        "    spec = dataclasses.replace(pusher.Pusher.spec, action_names=('terminate', 'dy', 'dx'))\n",
        "takes actions of names terminate, dy, dx, but the policy",
    ),
    "broken:Inches": (
        "import pusher, dataclasses\nclass Inches(pusher.Pusher):\n"
        "    spec = dataclasses.replace(pusher.Pusher.spec, action_units=('flag', 'in', 'in'))\n",
        "takes actions of units flag, in, in, but the policy",
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
    wide = ActionSpace(SPACE.names, SPACE.low, (1.0, 0.2, 0.2), SPACE.units)
    prepare(written / "data", "pusher_plan" if plan else "pusher", wide, plan)
    words = ["eval", "--checkpoint", str(run), "--out", "out", "--episodes", "0", "--data", "data"]
    assert main(words) == 2
    assert "was prepared with other action bounds (card pusher) than the policy's" in capsys.readouterr().err
