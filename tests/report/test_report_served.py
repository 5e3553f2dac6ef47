"""`evaluate_server` through a real server: the actions that the bundle gives in one process, and an honest page."""

import asyncio
import contextlib
import dataclasses
import threading

import jax
import pytest

from rt2_jax.actions import Envelope, load_card
from rt2_jax.bundle.spec import bundle_spec
from rt2_jax.bundle.store import load_bundle, save_bundle
from rt2_jax.cli import main
from rt2_jax.errors import UserError
from rt2_jax.evaluate.results import CONTROLS
from rt2_jax.models.backbone import make_backbone
from rt2_jax.models.config import EncoderDecoderConfig, ModelConfig, VitConfig
from rt2_jax.report.report import read_report
from rt2_jax.report.run import evaluate
from rt2_jax.report.served import evaluate_server
from rt2_jax.serve.auth import Keys
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.engine import load_serving
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.server import Server
from rt2_jax.tokens import Vocabulary

SIZE = 24
CHOSEN = {"splits": ["seen"], "skills": ["reach"], "episodes": 1, "progress": False}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A bundle of a model of a few thousand parameters, and the same with an envelope."""
    root, vocabulary, card = tmp_path_factory.mktemp("served"), Vocabulary.load(), load_card("tabletop")
    config = ModelConfig(
        name="speck",
        vision=VitConfig(patch_size=12, width=8, layers=1, heads=1, head_dim=8, mlp=8),
        text=EncoderDecoderConfig(width=8, encoder_layers=1, decoder_layers=1, heads=1, head_dim=8, mlp=8),
        image_size=SIZE,
        vocab_size=vocabulary.size,
    )
    spec = bundle_spec(config, vocabulary, {card.name: card}, prompt_len=48, target_len=24, step=7)
    params = make_backbone(config).init(jax.random.key(0))
    save_bundle(root / "free", params, spec, vocabulary)
    still = dict.fromkeys(card.space.names[1:7], 0.0) | {"gripper": None}
    narrow = {"tabletop": Envelope(step={"dx": (-0.001, 0.001), "dyaw": (-0.01, 0.01)}, still=still)}
    save_bundle(root / "guarded", params, dataclasses.replace(spec, envelopes=narrow), vocabulary)
    return root


@contextlib.contextmanager
def served(bundle):
    """The port of a server of this process, on a loop in a thread."""
    serving = load_serving(bundle, 2, modes=("action",))
    ready, stop = threading.Event(), threading.Event()
    found = []

    async def serve():
        server = Server(serving, None, Limits(deadline=30.0, rate=None, batcher=BatcherLimits(max_batch=2)), Keys())
        await server.listen("127.0.0.1", 0)
        found.append(server.port)
        ready.set()
        await asyncio.to_thread(stop.wait)
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield f"ws://127.0.0.1:{found[0]}"
    finally:
        stop.set()
        thread.join()


def test_the_same_seeds_give_the_same_episodes_as_in_one_process(bundles, tmp_path, capsys):
    here = evaluate(bundles / "free", tmp_path / "here", controls=CONTROLS[:1], **CHOSEN)
    with served(bundles / "free") as url:
        there = evaluate_server(url, tmp_path / "there", controls=CONTROLS[:1], **CHOSEN)
    assert there["closed_loop"] == here["closed_loop"]
    assert [row["control"] for row in there["closed_loop"]] == [None, CONTROLS[0]]
    assert there["checkpoint"] == here["checkpoint"] | {"path": f"{url}/v1/act"}
    assert there["server"] == {"url": f"{url}/v1/act", "limited": {}}
    assert there["timing"]["control_steps"] == here["timing"]["control_steps"]
    assert (there["actions"], there["web"]) == ([], [])
    assert read_report(tmp_path / "there" / "report.json") == there
    page = (tmp_path / "there" / "report.html").read_text(encoding="utf-8")
    assert "Held-out metrics need its\nweights and are left out." in page
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(f"report: {tmp_path / 'there'}")


def test_an_envelope_holds_on_both_sides_and_the_page_counts_this_one(bundles, tmp_path, monkeypatch):
    with served(bundles / "guarded") as url:
        report = evaluate_server(url, tmp_path / "out", controls=(), **CHOSEN)
        limited = report["server"]["limited"]
        # The server's guard was there first: this one had nothing to do.
        assert limited == {"actions": report["timing"]["control_steps"]}
        monkeypatch.setattr("rt2_jax.serve.session.Session._guard_of", lambda *_: None)
        report = evaluate_server(url, tmp_path / "out", controls=(), **CHOSEN)
    limited = report["server"]["limited"]
    assert limited["limited:dx"] > 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"it limited dx in\n{limited['limited:dx']}" in page


def test_what_a_server_cannot_be_asked_is_refused(bundles, tmp_path, capsys):
    for flag in (["--data", "x"], ["--reference", "x"], ["--tasks", "x"], ["--no-verify"]):
        assert main(["eval", "--server", "ws://localhost:1", "--out", str(tmp_path / "out"), *flag]) == 2
        assert f"{flag[0]} needs the weights, which are at the server" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "--server", "x", "--checkpoint", "y", "--out", str(tmp_path / "out")])
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(UserError, match="episodes is 0"):
        evaluate_server("ws://localhost:1", tmp_path / "out", **CHOSEN | {"episodes": 0})
    with pytest.raises(UserError, match="'localhost' is no address"):
        evaluate_server("localhost", tmp_path / "out", **CHOSEN)
    with served(bundles / "free") as url, pytest.raises(UserError, match="mode 'plan' is not served"):
        evaluate_server(url, tmp_path / "out", mode="plan", **CHOSEN)
    assert not (tmp_path / "out").exists()
    assert load_bundle(bundles / "guarded").spec.envelopes
