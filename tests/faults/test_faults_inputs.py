"""Wrong images, configs and logs, and folders of which something is missing or cut off."""

import io
import json
import shutil

import numpy as np
import pytest
from attempts import fault_of, run_main, snapshot
from mutations import mutate, rng_of
from PIL import Image
from readers import READ_BIG_VISION, READ_BUNDLE, READ_RUN, READ_T5X, READ_TRANSFORMERS, reader_of

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# Formats that are read by nobody here: many of their decoders are old, and one starts Ghostscript.
FOREIGN = ("GIF", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "EPS", "DDS", "PDF", "JPEG2000", "IM", "MSP", "XBM")


def encoded(pixels, form, **options):
    buffer = io.BytesIO()
    mode = {"MSP": "1", "XBM": "1"}.get(form, "RGB")
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def wrong_image(rng):
    """(what it is, its bytes, whether it may decode all the same)."""
    form = str(rng.choice(FORMATS))
    pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
    data = encoded(pixels, form)
    kind, place = int(rng.integers(8)), int(rng.integers(1, len(data)))
    if kind == 0:
        return f"{form} cut at {place}", data[:place], True
    if kind == 1:
        flipped = bytearray(data)
        for bit in rng.integers(0, 8 * len(data), 1 + int(rng.integers(8))):
            flipped[bit // 8] ^= 1 << bit % 8
        return f"{form} with flipped bits", bytes(flipped), True
    if kind == 2:
        return f"{form} spliced at {place}", data[:place] + rng.bytes(40) + data[place:], True
    if kind == 3:
        return (
            f"{form} with the head of another",
            encoded(pixels, str(rng.choice(FORMATS)))[:place] + data[place:],
            True,
        )
    if kind == 4:
        other = str(rng.choice(FOREIGN))
        return other, encoded(pixels, other), False
    if kind == 5:
        deep = Image.fromarray((rng.integers(0, 2**16, (24, 24))).astype(np.uint16))
        buffer = io.BytesIO()
        deep.save(buffer, "PNG")
        return "PNG of 16 bits", buffer.getvalue(), False
    if kind == 6:
        return "noise", rng.bytes(int(rng.integers(0, 2000))), False
    # The size in a PNG's head, a decompression bomb, with or without its checksum.
    return "PNG of 2**31 pixels a side", png_of_size(2**31 - 1, bool(rng.integers(2))), False


def png_of_size(side, right_sum):
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    total = zlib.crc32(head) if right_sum else 0
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = struct.pack(">I", 13) + head + struct.pack(">I", total)
    chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunks + b"\0\0\0\0IEND\xaeB`\x82"


def test_wrong_images(workplace, tmp_path, capfd, scale, tally):
    found, decoded = [], 0
    for number in range(scale(10, 160)):
        what, data, may_pass = wrong_image(rng_of("images", number))
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        # A whole answer takes seconds: most images are shown to a checkpoint that is not there, once decoded.
        asked = workplace / "bundle" if number % 16 == 0 else tmp_path / "absent"
        before = snapshot(tmp_path)
        ran = run_main(["sample", "--checkpoint", asked, "--image", path, "--prompt", "x"], capfd)
        fault = fault_of(ran, before, snapshot(tmp_path), may_pass)
        if fault is None and "absent" in ran.err:
            decoded += 1
            fault = None if may_pass else "it was decoded"
        tally("wrong image", "rt2 sample", fault is None)
        if fault:
            found.append(f"image {number}, {what}: {fault}")
    assert not found, "\n".join(found)
    assert decoded or scale(True, False), "some damage leaves an image that can be read"


def damage(folder, rng):
    """Takes something from a folder; what it was."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    kind = ("missing", "cut off", "empty", "a folder", "a loop", "noise", "surplus", "a missing folder")[
        rng.integers(8)
    ]
    data = path.read_bytes()
    if kind == "a missing folder" and path.parent != folder:
        shutil.rmtree(path.parent)
    elif kind == "surplus":
        (path.parent / "surplus").write_bytes(b"x")
    else:
        path.unlink()
        if kind == "cut off":
            path.write_bytes(data[: int(rng.integers(len(data)))] if data else b"")
        elif kind == "empty":
            path.touch()
        elif kind == "a folder":
            path.mkdir()
        elif kind == "a loop":
            path.symlink_to(path.name)
        elif kind == "noise":
            path.write_bytes(rng.bytes(len(data)) if data else b"x")
    return kind, path.relative_to(folder).as_posix()


FOREIGN_FORMATS = ("transformers", "t5x", "big_vision")  # read by whatever others wrote, manifest or none
# Artefact -> what reads it, how many, and files whose damage stops no reader.
CHANGED_FOLDERS = {
    "bundle": (READ_BUNDLE, 4, 45, ()),
    "run": (READ_RUN[:3], 3, 40, ("jsonl", "config.json")),
    "pretrained": (READ_BUNDLE[:4], 2, 25, ()),
    "transformers": ((*READ_TRANSFORMERS, ["verify", "{it}"]), 3, 30, ("projection", "model_card")),
    "t5x": ((*READ_T5X, ["verify", "{it}"]), 3, 30, ("model_card",)),
    "big_vision": ((*READ_BIG_VISION, ["verify", "{it}"]), 2, 15, ("model_card",)),
}


@pytest.mark.parametrize("name", CHANGED_FOLDERS)
def test_folders_of_which_something_is_wrong(name, workplace, tmp_path, capfd, scale, tally):
    readers, quick, full, harmless = CHANGED_FOLDERS[name]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "frame.png")
    found = []
    for number in range(scale(quick, full)):
        rng = rng_of("folder " + name, number)
        it = tmp_path / name
        shutil.copytree(workplace / name, it)
        if name == "run":
            shutil.rmtree(it / "checkpoints" / "2")
        whole = {path: path.read_bytes() for path in it.rglob("*") if path.is_file()}
        kind, where = damage(it, rng)
        now = {path: path.read_bytes() for path in it.rglob("*") if path.is_file()}
        # A run that goes on writes its own files anew: what counts are its steps.
        chosen = READ_RUN if where.startswith("checkpoints/") and name == "run" else readers
        words = reader_of(chosen, rng, it, tmp_path, workplace)
        # Beside a manifest a new file is nobody's concern; what only `rt2 verify` reads does not stop a reader.
        may_pass = now == whole or any(word in where for word in harmless)
        may_pass = may_pass or (words[0] == "convert" and name in FOREIGN_FORMATS and "manifest.json" in where)
        may_pass = may_pass or (kind == "surplus" and "verify" not in words)
        may_pass = may_pass or (kind == "surplus" and "/" not in where)
        before = snapshot(tmp_path)
        fault = fault_of(run_main(words, capfd), before, snapshot(tmp_path), may_pass)
        tally("damaged folder", name, fault is None)
        if fault:
            found.append(f"{name} {number}, {where}: {kind}: rt2 {words[0]}: {fault}")
        for left in (it, tmp_path / "out"):
            shutil.rmtree(left, ignore_errors=True)
    assert not found, "\n".join(found)


CONFIGS = {
    "raises": b"def get_config():\n    raise RuntimeError('two\\nlines')",
    "ends": b"import sys\nsys.exit(0)",
    "ends later": b"import sys\ndef get_config():\n    sys.exit(0)",
    "no Python": b"def (",
    "no UTF-8": b"x = '\xff'",
    "empty": b"",
    "no function": b"get_config = 5",
    "wants an argument": b"def get_config(x):\n    return {}",
    "gives None": b"def get_config():\n    pass",
    "gives a list": b"def get_config():\n    return [1]",
    "gives keys of numbers": b"def get_config():\n    return {1: 2}",
    "never ends going down": b"def get_config():\n    return get_config()",
    "imports nothing": b"import no_such_module_of_mine",
    "zero bytes": b"\0" * 100,
    "deep": b"def get_config():\n    return " + b"(" * 10_000,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_wrong(name, tmp_path, capfd, tally):
    (tmp_path / "config.py").write_bytes(CONFIGS[name])
    before = snapshot(tmp_path)
    ran = run_main(["train", "--config", tmp_path / "config.py", "--workdir", tmp_path / "run"], capfd)
    fault = fault_of(ran, before, snapshot(tmp_path))
    tally("wrong config", "a file", fault is None)
    assert fault is None, (fault, ran)


def test_configs_with_wrong_values(workplace, tmp_path, capfd, scale, tally):
    namespace = {}
    exec((workplace / "config.py").read_text(), namespace)
    right, found, tried = namespace["get_config"](), [], 0
    required = ("data_dir", "mixture", "steps", "batch_size")
    number = -1
    while tried < scale(6, 70):
        number += 1
        mutation = mutate(right, rng_of("config", number), dumps=lambda tree: repr(tree).encode())
        taken = mutation.what.startswith("-") and mutation.what[1:] not in required
        if mutation.tree is None or taken or mutation.same_type:
            continue  # most are right
        tried += 1
        path = tmp_path / "config.py"
        path.write_text(
            "nan, inf = float('nan'), float('inf')\ndef get_config():\n    return " + repr(mutation.tree),
            encoding="utf-8",
            errors="backslashreplace",
        )
        before = snapshot(tmp_path)
        ran = run_main(["train", "--config", path, "--workdir", tmp_path / "run"], capfd)
        fault = fault_of(ran, before, snapshot(tmp_path), ACCEPTED.get(mutation.place, lambda _: False)(mutation.tree))
        tally("wrong config", "a value", fault is None)
        if fault:
            found.append(f"config {number}, {mutation.what}: {fault}")
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert not found, "\n".join(found)


# A value of another type that means what the field takes.
ACCEPTED = {
    "model": lambda tree: tree["model"] is None,
    "model.vision.stem_widths": lambda tree: not tree["model"]["vision"]["stem_widths"],
}


@pytest.mark.parametrize("log", ["metrics.jsonl", "history.jsonl"])
def test_a_log_stops_nothing(log, workplace, tmp_path, capfd, scale, tally):
    lines = (workplace / "run" / log).read_text().splitlines()
    garbage = (b"\xff\xfe", b"{", b"[1]", b'{"step": "x"}', b'{"step": 1e400}', b"null", b"[" * 5000, b"\0" * 64, b"")
    found = []
    for number in range(scale(2, 12)):
        rng = rng_of(log, number)
        run = tmp_path / "run"
        shutil.copytree(workplace / "run", run)
        kept = [line.encode() for line in lines]
        for _ in range(1 + number % 3):
            tree = json.loads(lines[0])
            other = mutate(tree, rng, dumps=lambda tree: json.dumps(tree).encode()).data or b"x"
            kept.insert(int(rng.integers(len(kept) + 1)), garbage[rng.integers(len(garbage))] if number % 2 else other)
        (run / log).write_bytes(b"\n".join(kept))
        ran = run_main(["train", "--config", workplace / "config.py", "--workdir", run], capfd)
        held = ran.code == 0 and not ran.raised and "Traceback" not in ran.err
        tally("garbage in a log", log, held)
        if not held:
            found.append(f"{log} {number}: {ran}")
        shutil.rmtree(run)
    assert not found, "\n".join(found)
