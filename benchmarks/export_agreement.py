"""Whether exported artifacts say what the policy says, token for token, on frames of scenes that were never trained on.

    python benchmarks/export_agreement.py --bundle data/checkpoints/tabletop_rt2 --frames 200

Writes both artifacts by `rt2 export`, runs the one for jax where nothing of this package can be imported and the
SavedModel where jax cannot, and prints how many answers, bins and actions are the policy's. The SavedModel reads JPEG
files, too: of other sizes, with and without chroma subsampling.
"""

import argparse
import io
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from held_frames import held_frames
from PIL import Image

from rt2_jax import load_policy
from rt2_jax.inputs.images import decode_image

MODES = ("action", "plan")
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np
folder, inputs, out = sys.argv[1:]
data = np.load(inputs, allow_pickle=True)
told = [str(text) for text in data["told"]]
"""
JAX_ALONE = """
sys.path.insert(0, folder)
from load import load
policy = load(folder)
for mode in ("action", "plan"):
    output = policy.act(data["frames"], told, mode)
    np.savez(f"{out}/frames_{mode}.npz", text=output.text, bins=output.chunk_bins, actions=output.chunk)
"""
TENSORFLOW_ALONE = """
import tensorflow as tf
import tensorflow_text
model = tf.saved_model.load(folder)
for mode in ("action", "plan"):
    for name in ("frames", *[name for name in data.files if name.startswith("files")]):
        signature = model.signatures[mode + ("_frames" if name == "frames" else "")]
        parts = []
        for start in range(0, len(told), 8):
            rows = data[name][start : start + 8]
            images = rows[:, None] if name == "frames" else [[bytes(file)] for file in rows]
            parts.append(signature(images=tf.constant(images), instruction=tf.constant(told[start : start + 8])))
        text = [text.decode() for part in parts for text in part["text"].numpy()]
        bins, actions = (np.concatenate([part[key].numpy() for part in parts]) for key in ("bins", "actions"))
        np.savez(f"{out}/{name}_{mode}.npz", text=text, bins=bins, actions=actions)
"""


def run(code: str, blocked: tuple[str, ...], *arguments: object) -> None:
    code = BLOCK.format(names=blocked) + code
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def encoded(frame: np.ndarray, height: int, width: int, quality: int, subsampling: int) -> bytes:
    image, stream = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC), io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def main() -> None:
    """Prints a line for each artifact, mode and kind of input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path, default=pathlib.Path("data/checkpoints/tabletop_rt2"))
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--formats", default="jax,savedmodel")
    options = parser.parse_args()
    policy = load_policy(options.bundle)
    size = policy.image_size
    frames, told = held_frames(options.frames, size)
    kinds = {
        "files of the model's size, 4:4:4": (size, size, 95, 0),
        "files of 480 x 640, 4:4:4": (480, 640, 95, 0),
        "files of 256 x 320, 4:2:0": (256, 320, 75, 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        given = {"frames": frames, "told": np.array(told)}
        shown = {"frames": frames}
        for number, how in enumerate(kinds.values()):
            files = np.empty(len(frames), object)
            files[:] = [encoded(frame, *how) for frame in frames]
            given[f"files{number}"] = files
            shown[f"files{number}"] = [decode_image(file) for file in files]
        np.savez(place / "inputs.npz", **given)
        for form in options.formats.split(","):
            exported, out = place / form, place / f"{form}_said"
            out.mkdir()
            command = ["export", "--checkpoint", str(options.bundle), "--format", form, "--out", str(exported)]
            subprocess.run([sys.executable, "-m", "rt2_jax.cli", *command], check=True)
            if form == "jax":
                run(JAX_ALONE, ("rt2_jax", "flax", "orbax", "PIL"), exported, place / "inputs.npz", out)
            else:
                run(TENSORFLOW_ALONE, ("rt2_jax", "jax", "jaxlib"), exported, place / "inputs.npz", out)
            for mode in MODES:
                for name, images in shown.items():
                    if not (out / f"{name}_{mode}.npz").exists():
                        continue
                    found = np.load(out / f"{name}_{mode}.npz")
                    parts = [
                        policy.act(np.stack(images[start : start + 8]), told[start : start + 8], mode)
                        for start in range(0, len(told), 8)
                    ]
                    texts = [text for part in parts for text in part.text]
                    bins, chunk = (np.concatenate([getattr(p, key) for p in parts]) for key in ("chunk_bins", "chunk"))
                    kind = "frames" if name == "frames" else list(kinds)[int(name.removeprefix("files"))]
                    same = [(found[key] == one).all((1, 2)).sum() for key, one in (("bins", bins), ("actions", chunk))]
                    print(
                        f"{form}, {mode}, {kind}: answers {(found['text'] == texts).sum()} of {len(texts)}, bins "
                        f"{same[0]}, actions {same[1]}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
