"""A robot of one's own, from its recordings to the page: the documentation's pusher, word for word, by commands alone.

The environment is that of docs/your_robot.md, the card and the task are those of docs/embodiments.md; here stands only
how the demonstrations are driven and recorded, in the schema of `language_table`.
"""

import inspect
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from rt2_jax.actions import load_card
from rt2_jax.cli import main
from rt2_jax.data.records import read_index
from rt2_jax.report.report import read_report
from tests.datasets.other_robots import as_language_table, language_table_features, write_tfds

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
HISTORY, EPISODES = 2, 6


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


(CONFIG,), (ACT,), (ENVIRONMENT,) = (
    [text for text in blocks("your_robot.md", "python") if word in text]
    for word in ("def get_config", "load_policy", "class Pusher")
)
COMMANDS = re.findall(
    r"^\| \d\..*\| `(rt2 [^`]*)` \|$", (DOCS / "your_robot.md").read_text(encoding="utf-8"), re.MULTILINE
)
(CARD,) = blocks("embodiments.md", "json")
(TASKS,) = blocks("embodiments.md", "python")


def demonstration(env, corners, seed):
    """(instruction, uint8[T, H, W, 3], [T, 2]): the disc goes round the block and pushes it to the corner."""
    seen = env.reset("seen", ["left", "right"][seed % 2], seed)
    frames, actions, done = [seen.images["above"]], [], False
    while not done:
        away = (env.block - corners[env.corner]) / np.linalg.norm(env.block - corners[env.corner])
        aside = np.array([-away[1], away[0]])
        behind, beside = (env.disc - env.block) @ away, (env.disc - env.block) @ aside
        if behind > 0.1:
            goal = np.array(corners[env.corner]) if abs(beside) < 0.03 else env.block + 0.14 * away
        else:
            goal = env.disc + (away if abs(beside) > 0.13 else aside * np.sign(beside))
        way = goal - env.disc
        actions.append(way * min(1.0, 0.05 / np.linalg.norm(way)))
        step = env.step(actions[-1].astype(np.float32))
        frames.append(step.observation.images["above"])
        done = step.done
        assert len(actions) < 100, "it gets to where it is told"
    return env.told, np.stack(frames), np.stack([*actions, np.zeros(2)])


# What the page trains, in seconds.
SMALLER = [
    f"--config.{field}"
    for field in (
        "steps=2", "batch_size=8", "eval_batches=1", "model.scan_unroll=false", "model.vision.layers=1",
        "model.text.encoder_layers=1", "model.text.decoder_layers=1",
    )
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The documentation's files where it says, and the robot's recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("pusher", ENVIRONMENT), ("pusher_tasks", TASKS), ("pusher_config", CONFIG)):
        pathlib.Path(f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    pathlib.Path("DATA", "cards").mkdir(parents=True)
    card = json.loads(CARD) | {"history": HISTORY}
    pathlib.Path("DATA", "cards", "pusher.json").write_text(json.dumps(card))
    import pusher

    recorded = [demonstration(pusher.Pusher(), pusher.CORNERS, seed) for seed in range(EPISODES)]
    rows = [as_language_table(*each) for each in recorded]
    splits = {"train": rows[:-1], "validation": rows[-1:]}
    write_tfds(
        tmp_path / "DATA" / "language_table" / "0.0.1", "language_table", splits, language_table_features(64, 64)
    )
    return tmp_path, recorded


def test_from_its_recordings_to_the_page(folder, capsys):
    about_the_robot = [ENVIRONMENT, CARD, TASKS, inspect.getsource(demonstration)]
    assert sum(len(text.splitlines()) for text in about_the_robot) <= 120
    _, recorded = folder
    prepare, train, sample, evaluate = map(shlex.split, COMMANDS)

    assert main(prepare[1:]) == 0
    assert main([*train[1:], *SMALLER, f"--config.model.num_images={HISTORY}"]) == 0
    assert main([*evaluate[1:], "--episodes", "1", "--data", "DATA"]) == 0

    robot = load_card("DATA/cards/pusher.json")
    index = read_index("DATA", "pusher_action", "train")
    assert index.embodiment == robot and index.num_images == HISTORY == robot.num_images
    assert index.num_examples == sum(len(actions) - 1 for *_, actions in recorded[:-1])

    report = read_report(pathlib.Path("REPORT", "report.json"))
    assert report["environment"] == "pusher:Pusher"
    assert [(row["label"], row["control"], row["episodes"]) for row in report["summary"]] == [
        ("Seen", None, 2),
        ("Seen", "wrong_instruction", 2),
        ("A yellow block", None, 2),
    ]
    (scores,) = report["actions"]
    assert scores["examples"] == len(recorded[-1][2]) - 1
    assert [(row["name"], row["unit"]) for row in scores["dimensions"]] == [("dx", "cm"), ("dy", "cm")]

    page = pathlib.Path("REPORT", "report.html").read_text(encoding="utf-8")
    films = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    ]
    assert films and all(film["names"] == ["dx", "dy"] and film["units"] == ["m", "m"] for film in films)
    for film in films:
        bins, actions = np.array(film["bins"]), np.array(film["actions"])
        assert bins.shape == actions.shape and bins.min() >= 0 and bins.max() < robot.bins.num_bins
        np.testing.assert_allclose(actions, robot.bins.decode(bins), atol=1e-5)
    for shown in ("A yellow block", "metres to the corner", "all 2 tokens right"):
        assert shown in page, shown
    assert "Measured by the environment" in capsys.readouterr().out

    # From Python, and from the command line, as the page says.
    said = {}
    exec(ACT.replace("(1, 64, 64, 3)", "(1, 2, 64, 64, 3)"), said)
    assert said["actions"].shape == (1, 2) and (abs(said["actions"]) <= 0.105).all()
    for name, frame in zip(("frame.png", "next.png"), recorded[0][1], strict=False):
        Image.fromarray(frame).save(name)
    assert main(sample[1:]) == 2
    assert "--image names 1 images, the model of RUN takes 2; name as many" in " ".join(capsys.readouterr().err.split())
    assert main([*sample[1:], "--image", "frame.png", "next.png"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["dx", "dy"]


def test_a_card_of_one_frame_does_not_fit_a_model_of_two_and_that_is_told_at_once(folder, capsys):
    pathlib.Path("DATA", "cards", "pusher.json").write_text(CARD)
    prepare, train, *_ = map(shlex.split, COMMANDS)
    assert main(prepare[1:]) == 0
    assert main([*train[1:], f"--config.model.num_images={HISTORY}"]) == 2
    assert "the data have 1 images an example, the model takes 2" in " ".join(capsys.readouterr().err.split())
    assert not pathlib.Path("RUN").exists()


def lines_of_code(text):
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_a_new_robot_and_a_new_dataset_are_as_short_as_is_said():
    """A robot: a card and at most 15 lines; images and texts: at most 10."""
    assert len(lines_of_code(TASKS)) <= 15
    (robot,) = [text for text in blocks("data.md", "python") if "def bridge_steps" in text]
    assert len(lines_of_code(robot)) <= 15
    photos = next(text for text in blocks("data.md", "python") if "def captions" in text)
    assert len(lines_of_code(photos)) <= 10
