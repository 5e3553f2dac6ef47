"""`rt2 serve` as a user starts it, with a bundle that ships: over TLS, with a key, on two devices."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

from rt2_jax import load_policy
from rt2_jax.cli import main

KEY = "k" * 32
BUNDLE = "data/checkpoints/tabletop_rt2"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) of 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def started(*arguments, **environment):
    """`rt2 serve` with the arguments, and its log's event "listening"."""
    command = [sys.executable, "-m", "rt2_jax.cli", "serve", "--bundle", BUNDLE, "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("{") and (event := json.loads(line))["event"] == "listening":
            return process, event
    raise AssertionError(lines)


def test_the_same_frame_has_the_same_action_through_the_policy_and_through_the_server(certificate, tmp_path):
    """Bit for bit the integers; the server's weights lie on two devices, the policy's on one."""
    keys = tmp_path / "keys"
    keys.write_text(f"tests:{KEY}\n")
    process, listening = started(
        "--mode", "action", "--max-batch", 1, "--mesh", "tensor=2", "--key-file", keys,
        "--tls-cert", certificate[0], "--tls-key", certificate[1], "--deadline-ms", 60000,
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )  # fmt: skip
    try:
        frames = np.random.default_rng(0).integers(0, 255, (4, 120, 160, 3), np.uint8)
        trusted = ssl.create_default_context(cafile=certificate[0])
        actions = []
        for frame in frames:
            image = {"__numpy__": base64.b64encode(frame.tobytes()).decode(), "dtype": "|u1", "shape": frame.shape}
            body = json.dumps({"image": image, "instruction": "pick the red cube"}).encode()
            request = urllib.request.Request(f"{listening['url']}/act", body, {"Authorization": f"Bearer {KEY}"})
            with urllib.request.urlopen(request, context=trusted, timeout=60) as reply:
                told = json.load(reply)
            actions.append(np.frombuffer(base64.b64decode(told["__numpy__"]), told["dtype"]))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{listening['url']}/metrics", context=trusted, timeout=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    expected = load_policy(BUNDLE, verify=False).act(frames, ["pick the red cube"] * 4)
    np.testing.assert_array_equal(np.stack(actions), expected.actions)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-batch", "12"], "largest batch is 12; choose a power of two"),
        (["--tls-cert", "x.pem"], "--tls-cert and --tls-key go together"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "TLS certificate x.pem does not exist"),
        (["--key-file", "nowhere"], "key file nowhere does not exist"),
        (["--mesh", "tensor"], "--mesh 'tensor'; write AXIS=N"),
        (["--mesh", "pipe=1"], "mesh axis 'pipe' is unknown"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(capsys, words, message):
    assert main(["serve", "--bundle", BUNDLE, "--port", "0", *words]) == 2
    told = capsys.readouterr().err.splitlines()
    assert message in told[-1]


@pytest.mark.parametrize("words", [["--camera", "agentview"], ["--mode", "text"], ["--port", "99999"]])
def test_wrong_words_are_refused(capsys, words):
    with pytest.raises(SystemExit):
        main(["serve", "--bundle", BUNDLE, *words])
    assert f"argument {words[0]}" in capsys.readouterr().err
