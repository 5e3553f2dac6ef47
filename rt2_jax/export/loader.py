"""Acts from an exported artifact with jax and numpy alone. This file travels inside each artifact as ``load.py``.

    from load import load
    policy = load("ARTIFACT")
    policy.act(frames, ["pick red cube"]).actions  # float32[B, width], physical units

``frames`` is uint8[B, H, W, 3], or [B, N, H, W, 3] for a model of N images; frames of another size than the model's are
resized here as Pillow does it, to the last bit. Texts need the package sentencepiece; without it pass
``act_on_ids(frames, ids)`` the token ids of whole prompts. `jax.export` itself needs the package flatbuffers.

Nothing of rt2_jax is imported. What the numbers and prompts mean is in ``artifact.json``, as this file reads it.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import ml_dtypes  # jax brings it
import numpy as np

FORMAT = 1
DESCRIPTION, MANIFEST = "artifact.json", "manifest.json"
_DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "I8": np.int8, "I32": np.int32}


@dataclasses.dataclass(frozen=True)
class Output:
    """What to do, a row each; k is the embodiment's chunk.

    Attributes:
        actions: float32[B, width] in physical units: what to do now, ``chunk[:, 0]``.
        bins: int32[B, width], the integers of `actions`.
        chunk: float32[B, k, width], what to do now and in the k - 1 steps that follow.
        chunk_bins: int32[B, k, width], the integers of `chunk`.
        tokens: int32[B, max_len], what the model said, pad after EOS.
        text: the tokens as text; None where sentencepiece is not installed.
        logprob: float32[B], log-probability of the row among what the grammar allowed.
    """

    actions: np.ndarray
    bins: np.ndarray
    chunk: np.ndarray
    chunk_bins: np.ndarray
    tokens: np.ndarray
    text: list[str] | None
    logprob: np.ndarray


def load(folder: str | pathlib.Path, *, verify: bool = True) -> "ExportedPolicy":
    """The policy of an artifact's folder.

    Args:
        folder: what ``rt2 export --format jax`` wrote.
        verify: hold every file to its hash first.

    Raises:
        ValueError: no artifact, one of another format, or a damaged file.
    """
    return ExportedPolicy(pathlib.Path(folder), verify)


class ExportedPolicy:
    """Acts for the embodiments of an artifact; see `load`. Not safe to call from several threads at once.

    Attributes:
        description: the content of artifact.json.
        embodiments: names that `act` takes.
        modes: "action", and "plan" where it was exported.
    """

    def __init__(self, folder: pathlib.Path, verify: bool):
        self.folder = folder
        if not (folder / DESCRIPTION).is_file():
            raise ValueError(f"{folder} has no {DESCRIPTION}; name the folder of `rt2 export --format jax`")
        self.description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if self.description.get("format") != FORMAT:
            raise ValueError(f"{folder}: format {self.description.get('format')!r}, this file reads {FORMAT}")
        if verify:
            _check_hashes(folder)
        self.embodiments: tuple[str, ...] = tuple(self.description["embodiments"])
        self.modes: tuple[str, ...] = tuple(dict.fromkeys(program["mode"] for program in self.description["programs"]))
        self._params = {
            name: jax.device_put(array) for name, array in read_safetensors(folder / self.description["weights"])
        }
        self._programs: dict[tuple[str, str, int], Any] = {}
        self._words = _vocabulary(folder / self.description["vocabulary"])

    def act(
        self,
        images: np.ndarray | Mapping[str, np.ndarray],
        instructions: Sequence[str],
        mode: str = "action",
        *,
        embodiment: str | None = None,
        states: np.ndarray | None = None,
    ) -> Output:
        """What to do for each frame (or stack of frames) and instruction.

        Args:
            images: uint8[B, H, W, 3] or [B, N, H, W, 3], the oldest moment first and the cameras in the card's order
                within each; or these by camera, N being its history.
            instructions: texts, e.g. ``"pick red cube"``.
            mode: "action", or "plan" to state a plan before the action.
            embodiment: whose action it is; needed only where there are several.
            states: float[B, S], the robots' own state, where the embodiment has proprioception.

        Raises:
            ValueError: another dtype or shape, a count that differs, an empty or too long instruction, an unknown mode,
                embodiment or camera, a state that is missing or has no use.
            ModuleNotFoundError: sentencepiece is not installed.
            FloatingPointError: the model's logits were not numbers.
        """
        name = self._embodiment(embodiment)
        robot = self.description["embodiments"][name]
        if self._words is None:
            raise ModuleNotFoundError("texts need the package sentencepiece; install it, or call act_on_ids")
        if isinstance(instructions, str):
            raise ValueError("instructions: one text; give a list with one for each image")
        stated = self._stated(robot, states, len(instructions))
        before, between, after = robot["prompts"][self._mode(mode)]
        texts = [
            f"{before}{_field(told)}{between}{f' State: {state}' if state else ''}{after}"
            for told, state in zip(instructions, stated, strict=True)
        ]
        length = self.description["prompt_len"]
        ids = np.full((len(texts), length), self.description["pad_id"], np.int32)
        for row, text in enumerate(texts):
            tokens = self._words.EncodeAsIds(text)
            if len(tokens) > length:
                raise ValueError(f"prompt {text[:60]!r} has {len(tokens)} tokens, the limit is {length}; cut it")
            ids[row, : len(tokens)] = tokens
        return self.act_on_ids(images, ids, mode, embodiment=name)

    def act_on_ids(
        self,
        images: np.ndarray | Mapping[str, np.ndarray],
        ids: np.ndarray,
        mode: str = "action",
        *,
        embodiment: str | None = None,
    ) -> Output:
        """As `act`, of whole prompts as token ids, int32[B, prompt_len], pad after each."""
        name, mode = self._embodiment(embodiment), self._mode(mode)
        ids, length = np.asarray(ids), self.description["prompt_len"]
        if ids.ndim != 2 or ids.shape[1] != length or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"ids: {ids.dtype}{list(ids.shape)}, needs integers [B, {length}]; pad them")
        frames = self._frames(images, self.description["embodiments"][name], len(ids))
        sizes = self.description["batch_sizes"]
        parts = [
            self._run(mode, name, frames[start : start + sizes[-1]], ids[start : start + sizes[-1]])
            for start in range(0, len(ids), sizes[-1])
        ]
        out = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        if np.isnan(out["logprob"]).any():
            raise FloatingPointError("the model's logits hold NaN; its output is refused")
        return Output(
            actions=out["actions"][:, 0],
            bins=out["bins"][:, 0],
            chunk=out["actions"],
            chunk_bins=out["bins"],
            tokens=out["tokens"],
            text=None if self._words is None else [self._text(row) for row in out["tokens"]],
            logprob=out["logprob"],
        )

    def warm_up(self, mode: str = "action", embodiment: str | None = None) -> None:
        """Compiles the programs of all batch sizes, so that no call of `act` waits for that."""
        name, size, count = self._embodiment(embodiment), self.description["image_size"], self.description["num_images"]
        for batch in self.description["batch_sizes"]:
            ids = np.full((batch, self.description["prompt_len"]), self.description["pad_id"], np.int32)
            self._run(self._mode(mode), name, np.zeros((batch, count, size, size, 3), np.uint8), ids)

    def _run(self, mode: str, name: str, frames: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        """One call of the smallest program that takes so many rows; the first row fills it up."""
        batch = next(size for size in self.description["batch_sizes"] if size >= len(ids))
        rows = [*range(len(ids)), *[0] * (batch - len(ids))]
        out = self._program(mode, name, batch)(self._params, frames[rows], ids[rows].astype(np.int32))
        return {key: np.asarray(value)[: len(ids)] for key, value in out.items()}

    def _program(self, mode: str, name: str, batch: int) -> Any:
        key = (mode, name, batch)
        if key not in self._programs:
            wanted = {"mode": mode, "embodiment": name, "batch": batch}
            file = next(
                program["file"] for program in self.description["programs"] if wanted.items() <= program.items()
            )
            exported = jax.export.deserialize(bytearray((self.folder / file).read_bytes()))
            self._programs[key] = jax.jit(exported.call)
        return self._programs[key]

    def _embodiment(self, name: str | None) -> str:
        known = ", ".join(self.embodiments)
        if name is None and len(self.embodiments) > 1:
            raise ValueError(f"the artifact acts for {len(self.embodiments)} embodiments; name one of: {known}")
        if name is not None and name not in self.embodiments:
            raise ValueError(f"embodiment {name!r} is unknown; choose of: {known}")
        return name or next(iter(self.embodiments))

    def _mode(self, mode: str) -> str:
        if mode not in self.modes:
            raise ValueError(f"mode {mode!r} is not in the artifact; choose of: {', '.join(self.modes)}")
        return mode

    def _frames(
        self, images: np.ndarray | Mapping[str, np.ndarray], robot: Mapping[str, Any], count: int
    ) -> np.ndarray:
        """The caller's images as uint8[B, N, size, size, 3]."""
        size, number = self.description["image_size"], self.description["num_images"]
        if isinstance(images, Mapping):
            images = _by_camera(images, robot["cameras"], robot["history"])
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim not in (4, 5):
            told = f"{images.dtype}{list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ValueError(f"images: {told}, needs numpy uint8[B, H, W, 3] or uint8[B, N, H, W, 3]")
        stacks = images[:, None] if images.ndim == 4 else images
        if stacks.shape[1] != number or stacks.shape[-1] != 3 or 0 in stacks.shape:
            raise ValueError(f"images: {list(stacks.shape)}, needs [B, {number}, H, W, 3] with H, W > 0")
        if len(stacks) != count:
            raise ValueError(f"{len(stacks)} images for {count} prompts; give at least one, and one prompt each")
        if stacks.shape[2:4] == (size, size):
            return stacks
        return np.stack([np.stack([resize(image, size) for image in stack]) for stack in stacks])

    def _stated(self, robot: Mapping[str, Any], states: np.ndarray | None, count: int) -> list[str]:
        """Each row's own state as the prompt has it."""
        state = robot["state"]
        if (states is None) != (state is None):
            raise ValueError(f"states: {'needed, and missing' if states is None else 'given, and of no use'} here")
        if states is None or state is None:
            return [""] * count
        states = np.asarray(states)
        if states.shape != (count, len(state["low"])) or not np.issubdtype(states.dtype, np.floating):
            raise ValueError(f"states: {states.dtype}{list(states.shape)}, needs float[{count}, {len(state['low'])}]")
        if not np.isfinite(states).all():
            raise ValueError("states: a value is not finite; drop that moment")
        return [self.description["word_start"] + " ".join(words) for words in _state_words(state, states, self._spoken)]

    @property
    def _spoken(self) -> list[str]:
        return self.description["integer_words"]

    def _text(self, tokens: np.ndarray) -> str:
        assert self._words is not None
        ends = np.flatnonzero(tokens == self.description["eos_id"])
        kept = tokens[: ends[0]] if len(ends) else tokens
        pieces = self._words.GetPieceSize()
        return self._words.DecodeIds([int(t) for t in kept if t != self.description["pad_id"] and t < pieces])


def _state_words(state: Mapping[str, Any], states: np.ndarray, words: Sequence[str]) -> list[list[str]]:
    """The integers of physical states as words, as `ActionBins.encode` cuts them."""
    centre = state["decoding"] == "centre"
    dtype: Any = np.float64 if centre else np.float32
    low, high = np.asarray(state["low"], dtype), np.asarray(state["high"], dtype)
    unit = (np.clip(states.astype(dtype), low, high) - low) / (high - low)
    cells = state["num_bins"] if centre else state["num_bins"] - 1
    bins = np.clip(np.floor(unit * dtype(cells)), 0, state["num_bins"] - 1).astype(np.int32)
    middle = (np.asarray(state["low"]) + np.asarray(state["high"])) / 2
    ends = np.where(states >= middle, state["num_bins"] - 1, 0)
    bins = state["first"] + np.where(state["binary"], ends, bins)
    return [[words[int(value)] for value in row] for row in bins]


def _by_camera(images: Mapping[str, np.ndarray], cameras: Sequence[str], history: int) -> np.ndarray:
    """Frames by camera as one stack: the oldest moment first, in each the cameras in the card's order."""
    if set(images) != set(cameras):
        raise ValueError(f"images of {', '.join(map(repr, images))}; needs those of {', '.join(map(repr, cameras))}")
    stacks = [np.asarray(images[camera]) for camera in cameras]
    stacks = [stack[:, None] if stack.ndim == 4 else stack for stack in stacks]
    if any(stack.ndim != 5 or stack.shape[1] != history or stack.shape != stacks[0].shape for stack in stacks):
        raise ValueError(
            f"images: {[list(stack.shape) for stack in stacks]}, needs [B, {history}, H, W, 3] each, alike"
        )
    joined = np.stack(stacks, axis=2)
    return joined.reshape(len(joined), history * len(cameras), *joined.shape[3:])


def _field(text: str) -> str:
    words = " ".join(text.split())
    if not words:
        raise ValueError("instruction is empty; give at least one word")
    return words


def _vocabulary(path: pathlib.Path) -> Any:
    try:
        import sentencepiece
    except ModuleNotFoundError:
        return None
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(path.read_bytes())
    return processor


def _check_hashes(folder: pathlib.Path) -> None:
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name, entry in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise ValueError(f"{path} is missing or has another size than it was written with; copy the artifact again")
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            raise ValueError(f"{path} has changed since it was written; copy the artifact again")


def read_safetensors(path: pathlib.Path) -> list[tuple[str, np.ndarray]]:
    """(name, array) of a safetensors file, sorted by name; arrays are read when they are used."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if path.stat().st_size > 8 + length else np.zeros(0, "u1")
    arrays = []
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            arrays.append((name, data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])))
    return arrays


# --- resizing as Pillow 13 does it (Image.resize, BILINEAR): two passes of whole numbers, each rounded to 8 bits --

_PRECISION = 22  # bits behind the point of a coefficient


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8[size, size, 3] of uint8[H, W, 3]: bilinear with antialiasing, bit for bit what Pillow makes of it."""
    height, width = image.shape[:2]
    if 0 < height - size > 2 * (width - size):  # Pillow 13's order; releases before took rows first always
        return np.ascontiguousarray(_resample(_resample(image, size).swapaxes(0, 1), size).swapaxes(0, 1))
    return np.ascontiguousarray(_resample(_resample(image.swapaxes(0, 1), size).swapaxes(0, 1), size))


def _resample(image: np.ndarray, size: int) -> np.ndarray:
    """uint8[size, W, 3] of uint8[H, W, 3]."""
    if len(image) == size:
        return image
    rows = [
        (np.tensordot(weights, image[first : first + len(weights)].astype(np.int64), 1) + (1 << (_PRECISION - 1)))
        >> _PRECISION
        for first, weights in _coefficients(len(image), size)
    ]
    return np.clip(np.stack(rows), 0, 255).astype(np.uint8)


def _coefficients(source: int, size: int) -> list[tuple[int, np.ndarray]]:
    """For each output pixel the first input pixel that it is made of, and the weights of it and the next ones."""
    scale = source / size
    support = max(scale, 1.0)
    found = []
    for place in range(size):
        centre = (place + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        weights = [max(0.0, 1.0 - abs((pixel - centre + 0.5) * (1.0 / support))) for pixel in range(first, last)]
        total = 0.0
        for weight in weights:  # in this order, as there
            total += weight
        scaled = [math.floor(weight / total * (1 << _PRECISION) + 0.5) for weight in weights]
        found.append((first, np.asarray(scaled, np.int64)))
    return found
