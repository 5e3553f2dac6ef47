"""What `rt2 convert` takes of a host's memory and time, on a synthetic checkpoint of a PaLI-X-5B.

    python benchmarks/convert_memory.py --dir /somewhere/with/25GB

Writes two `transformers` folders of random bfloat16 weights in files of 2 GB (a T5 of 3.7B parameters and 250k tokens,
a ViT-G of 1.8B), converts them with the command that a user runs, and prints the largest memory that this process had
beside the bound: twice the largest tensor and 1 GB. ``--size pali_3b`` is smaller, ``tiny`` a rehearsal.
"""

import argparse
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict

from rt2_jax.convert import transformers_layout
from rt2_jax.convert.layout import Layout
from rt2_jax.convert.sinks import write_json, write_safetensors
from rt2_jax.convert.transformers_config import siglip_config, t5_config
from rt2_jax.models import ModelConfig, get_config, make_backbone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=None, help="where to work (default: the system's)")
    parser.add_argument("--size", default="pali_x_5b", help="an encoder-decoder size (default pali_x_5b)")
    arguments = parser.parse_args()
    config = get_config(arguments.size)
    if config.vision.stem_widths:
        config = config.replace(vision={"stem_widths": ()})
    work = pathlib.Path(tempfile.mkdtemp(dir=arguments.dir))
    try:
        return measure(config, work)
    finally:
        shutil.rmtree(work)


def measure(config: ModelConfig, work: pathlib.Path) -> int:
    """Writes, converts, prints; 0 if the bound held."""
    began = time.monotonic()
    largest = write_random(config, work)
    written = sum(path.stat().st_size for path in work.rglob("*.safetensors"))
    print(f"{config.name}: {written / 1e9:.2f} GB of bfloat16 written in {time.monotonic() - began:.0f} s")
    command = [sys.executable, "-m", "rt2_jax.cli", "convert", "--vision", "vision", "--text", "text", "--out", "out"]
    began = time.monotonic()
    process, peak = subprocess.Popen(command, cwd=work), 0
    while process.poll() is None:
        peak = max(peak, high_water(process.pid))
        time.sleep(0.02)  # the account is gone with the process, and its mark only rises: look often enough, no more
    code = process.returncode
    seconds, bound = time.monotonic() - began, 2 * largest + (1 << 30)
    stored = sum(path.stat().st_size for path in (work / "out").rglob("*") if path.is_file())
    held = code == 0 and peak <= bound
    print(
        f"converted in {seconds:.0f} s ({written / seconds / 1e6:.0f} MB/s) to {stored / 1e9:.2f} GB\n"
        f"largest memory {peak / 2**30:.2f} GiB; bound {bound / 2**30:.2f} GiB = 2 x {largest / 2**30:.2f} GiB, "
        f"the largest tensor, + 1 GiB: {'held' if held else 'NOT HELD'}"
    )
    return 0 if held else 1


def write_random(config: ModelConfig, work: pathlib.Path) -> int:
    """The two folders; the bytes of the largest tensor in them."""
    shapes = flatten_dict(jax.eval_shape(make_backbone(config).init, jax.random.key(0)), sep="/")
    sizes = []
    for name, layout, tree in (
        ("text", transformers_layout.t5_layout(config.text), t5_config(config.text, config.vocab_size)),
        (
            "vision",
            transformers_layout.siglip_spelling(config.vision, False),
            siglip_config(config.vision, config.image_size),
        ),
    ):
        (work / name).mkdir()
        write_json(work / name / "config.json", tree)
        write_safetensors(work / name, counted(random_tensors(layout, shapes), sizes))
    return max(sizes)


def counted(tensors: Iterator[tuple[str, np.ndarray]], sizes: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The same tensors, their bytes written down."""
    for name, array in tensors:
        sizes.append(array.nbytes)
        yield name, array


def random_tensors(layout: Layout, shapes: dict[str, jax.ShapeDtypeStruct]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a layout, in random bits of small bfloat16 numbers."""
    rng = np.random.default_rng(0)
    for leaf in layout.leaves:
        shape = shapes[leaf.path].shape
        layers = range(shape[0]) if leaf.layered else (0,)
        ours = np.broadcast_to(np.uint8(0), shape[1:] if leaf.layered else shape)
        theirs = leaf.theirs(ours, layout.sizes).shape
        for layer in layers:
            bits = rng.integers(0, 1 << 16, math.prod(theirs), dtype=np.uint16) & 0xBFFF
            yield leaf.name.format(layer), bits.view(ml_dtypes.bfloat16).reshape(theirs)


def high_water(pid: int) -> int:
    """The largest resident memory that a process has had, mapped files included, in bytes, by Linux's own account."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return max((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), default=0)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
