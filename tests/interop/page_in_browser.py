"""Run by `make test-interop`: the status page of a real `rt2 serve`, as a headless Chromium shows it.

python tests/interop/page_in_browser.py CHROMIUM
"""

import pathlib
import re
import subprocess
import sys

import numpy as np
from drive import BUNDLE, served
from PIL import Image

from rt2_jax.serve.client import PolicyClient

FRAME = np.asarray(Image.open(pathlib.Path(__file__).parents[1] / "fixtures" / "shipped_frames.png").convert("RGB"))
# Told by a robot, shown to a person: nothing of it may be read as HTML.
INSTRUCTION = "pick <b>red</b> cube <img src=x onerror=alert(1)>"


def shown(chromium: str, url: str) -> str:
    """The page's document some seconds after it was opened, scripts run."""
    options = ("--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom")
    ran = subprocess.run(
        [chromium, "--headless", *options, url], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def main(chromium: str) -> None:
    with served(BUNDLE, "--max-batch", "1", "--mode", "action") as port:
        empty = shown(chromium, f"http://127.0.0.1:{port}/")
        assert "No robot has asked yet." in empty and 'data-state="ready"' in empty, empty[:3000]
        with PolicyClient(f"ws://127.0.0.1:{port}/v1/act", timeout=60) as robot:
            (camera,) = next(iter(robot.greeting.robots.values())).cameras
            answer = robot.act({camera: FRAME[:, :96]}, INSTRUCTION, deadline_ms=30_000)
        page = shown(chromium, f"http://127.0.0.1:{port}/")
    assert page.count('<article class="frame">') == 1 and 'src="data:image/jpeg;base64,' in page
    assert (
        "&lt;b&gt;red&lt;/b&gt;" in page and "<b>red" not in page and "<img src=x" not in page.lower().replace('"', "")
    )
    assert page.count('class="bar') == answer.actions.shape[1] + 1, "a bar for each dimension, and their box"
    tile = re.search(r"<b>1</b><span>answers in 15 min", page)
    assert tile and 'id="lost" class="bad" role="alert" hidden' in page, page[:5000]
    # One document: neither style, script, font nor picture comes from elsewhere.
    assert not re.search(r'(?:src|href)="(?!data:)', page), "the page loads something"
    print("status page: shown in a browser, one frame, one answer")


if __name__ == "__main__":
    main(sys.argv[1])
