"""``rt2 bench latency``: how long an action takes, with a model of any size, on the device there is.

Weights are random: nothing is downloaded, and times do not depend on the values, for an action's tokens are as many.
The frames are a camera's, the prompt and the grammar those of an arm with the vocabulary that ships, padded to the
model's.
"""

import dataclasses
import json
import pathlib
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rt2_jax.actions import ActionBins, arm_space
from rt2_jax.errors import UserError
from rt2_jax.files.writing import write_text
from rt2_jax.fit.floor import KNOWN, Peaks, Work, measured_peaks, prefill_work, step_work, tree_bytes
from rt2_jax.fit.random_weights import random_weights
from rt2_jax.inputs.batch import prompt_tokens
from rt2_jax.inputs.images import resize_image
from rt2_jax.inputs.prompts import robot_prompt
from rt2_jax.models.backbone import Backbone, Params, for_decoding, make_backbone
from rt2_jax.models.config import ModelConfig
from rt2_jax.models.sizes import count, get_config
from rt2_jax.policy.sampler import make_sampler
from rt2_jax.tokens.action_text import bins_of_tokens
from rt2_jax.tokens.grammar import Grammar, build_grammar
from rt2_jax.tokens.vocabulary import Vocabulary

DTYPES = ("float32", "bfloat16", "int8")
_CAMERA = (480, 640, 3)
_INSTRUCTION = "put the red mug on the second shelf"
_PERCENTILES = (50, 95, 99)
_UNTIMED = 2


@dataclasses.dataclass(frozen=True)
class Stage:
    """Milliseconds of one part of an action, and what a device needs for it at least.

    Attributes:
        times: by percentile, "p50" to "p99".
        calls: how many were timed.
        work: FLOPs and bytes; None for the host's part.
    """

    times: dict[str, float]
    calls: int
    work: Work | None = None

    def to_json(self, peaks: dict[str, Peaks]) -> dict[str, Any]:
        """The figures, and for each of `peaks` the floor in milliseconds and p50 as a multiple of it."""
        told: dict[str, Any] = {**self.times, "calls": self.calls}
        if self.work is not None:
            told |= {"flops": self.work.flops, "bytes": self.work.bytes}
            for name, peak in peaks.items():
                floor = 1e3 * peak.floor(self.work)
                told |= {f"floor_{name}": floor, f"times_floor_{name}": self.times["p50"] / floor}
        return told


def measure_latency(
    size: str, dtype: str, batch: int = 1, prompt_len: int = 64, seconds: float = 15.0, calls: int = 200
) -> dict[str, Any]:
    """The figures of one size as JSON.

    Args:
        size: a name of `models.sizes.SIZES`.
        dtype: of the weights, one of `DTYPES`; below float32 activations are bfloat16.
        batch: robots that are answered together.
        prompt_len: tokens that a prompt is padded to.
        seconds: that a stage is timed for at most.
        calls: that are timed at most, of each stage.

    Raises:
        UserError: an unknown size or dtype, or a batch or a length below 1.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    for name, value in (("batch", batch), ("prompt_len", prompt_len), ("calls", calls)):
        if value < 1:
            raise UserError(f"{name} is {value}; give 1 or more")
    config = _served(get_config(size), dtype)
    device = jax.local_devices()[0]
    vocabulary, bins = Vocabulary.load(), ActionBins(arm_space(translation=0.04, rotation=0.3))
    grammar = _padded(build_grammar(vocabulary, bins.allowed), config.vocab_size)
    backbone = make_backbone(config)
    start = time.perf_counter()
    params = jax.block_until_ready(random_weights(backbone, "float32" if dtype == "float32" else "bfloat16"))
    backbone, params = for_decoding(backbone, params)
    drawn = time.perf_counter() - start
    run = _Run(backbone, params, grammar, vocabulary, bins, batch, prompt_len, seconds, calls)
    stages = run.stages()
    peaks = {"measured": measured_peaks(config.compute_dtype, device)}
    if device.device_kind in KNOWN:
        peaks["published"] = Peaks(*KNOWN[device.device_kind])
    return {
        "size": size,
        "dtype": dtype,
        "compute_dtype": config.compute_dtype,
        "batch": batch,
        "prompt_len": prompt_len,
        "tokens": bins.width,
        "parameters": count(params),
        "device": {"kind": device.device_kind, "platform": device.platform, "machine": platform.machine()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
        "seconds": {"drawing weights": drawn, **run.compiling},
        "stages_ms": {name: stage.to_json(peaks) for name, stage in stages.items()},
        "hz": 1e3 / stages["action"].times["p50"],
        "actions_per_second": batch * 1e3 / stages["action"].times["p50"],
        "memory_bytes": {"weights": tree_bytes(params), "cache": run.cache_bytes, "peak": _peak_memory(device)},
        "peaks": {name: {"flops": peak.flops, "bytes": peak.bytes} for name, peak in peaks.items()},
    }


def bench_latency(size: str, dtype: str, out: pathlib.Path | None, **settings: Any) -> None:
    """Prints the figures of `measure_latency` as JSON, and writes them to `out`."""
    told = json.dumps(measure_latency(size, dtype, **settings), indent=2)
    if out is not None:
        write_text(out, told + "\n")
    print(told)


class _Run:
    """One model, its programs and inputs."""

    def __init__(
        self,
        backbone: Backbone,
        params: Params,
        grammar: Grammar,
        vocabulary: Vocabulary,
        bins: ActionBins,
        batch: int,
        prompt_len: int,
        seconds: float,
        calls: int,
    ):
        self.compiling: dict[str, float] = {}
        self._backbone, self._params, self._vocabulary, self._bins = backbone, params, vocabulary, bins
        self._batch, self._prompt_len, self._seconds, self._calls = batch, prompt_len, seconds, calls
        self._max_len = grammar.min_len("action")
        self._ids = np.sort(vocabulary.integer_ids).astype(np.int32)
        sampler = make_sampler(backbone, grammar, self._max_len, modes=("action",))
        shape = (batch, backbone.config.num_images, *_CAMERA)
        self._frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        start = np.full(batch, grammar.start_state("action"), np.int32)
        key = jax.random.key(0)
        self._sample = lambda images, prompt: jax.device_get(sampler(params, images, prompt, start, key))
        cache = jax.eval_shape(self._prefill, params, *self._preprocess())[1]
        self.cache_bytes = tree_bytes(cache)
        rows = len(self._ids)
        self._works = {
            "prefill": prefill_work(backbone, params, batch, prompt_len, self._max_len, rows),
            "token": step_work(backbone, params, cache, batch, prompt_len, self._max_len, rows),
        }

    def stages(self) -> dict[str, Stage]:
        """Every part of an action, and the whole."""
        images, prompt = self._preprocess()
        stages = {"preprocess": self._timed("preprocess", self._preprocess)}
        prefill = jax.jit(self._prefill)
        stages["prefill"] = self._timed(
            "prefill", lambda: jax.block_until_ready(prefill(self._params, images, prompt)), self._works["prefill"]
        )
        step = jax.jit(self._step, donate_argnums=1)
        _, cache = prefill(self._params, images, prompt)
        token = jnp.full(self._batch, int(self._ids[0]), jnp.int32)

        def one_token() -> None:
            nonlocal cache
            _, cache = jax.block_until_ready(step(self._params, cache, token))

        stages["token"] = self._timed("token", one_token, self._works["token"])
        del cache
        samples = self._sample(images, prompt)
        tokens = samples.tokens[:, : self._bins.width]
        steps = self._bins.width - 1
        prefill_work, token_work = self._works["prefill"], self._works["token"]
        whole = Work(prefill_work.flops + steps * token_work.flops, prefill_work.bytes + steps * token_work.bytes)
        stages["detokenise"] = self._timed("detokenise", lambda: self._detokenise(tokens))
        stages["sampler"] = self._timed("sampler", lambda: self._sample(images, prompt), whole)
        stages["action"] = self._timed(
            "action", lambda: self._detokenise(self._sample(*self._preprocess()).tokens[:, : self._bins.width]), whole
        )
        return stages

    def _preprocess(self) -> tuple[np.ndarray, np.ndarray]:
        """A camera's frames and an instruction to what the model takes."""
        side = self._backbone.config.image_size
        images = np.stack([np.stack([resize_image(frame, side) for frame in stack]) for stack in self._frames])
        ids = prompt_tokens(self._vocabulary, robot_prompt(_INSTRUCTION), self._prompt_len)
        return images, np.stack([ids] * self._batch)

    def _prefill(self, params: Params, images: jax.Array, prompt: jax.Array) -> Any:
        return self._backbone.prefill(params, images, prompt, self._max_len, ids=self._ids)

    def _step(self, params: Params, cache: Any, token: jax.Array) -> Any:
        return self._backbone.decode_step(params, cache, token, jnp.int32(self._max_len // 2), ids=self._ids)

    def _detokenise(self, tokens: np.ndarray) -> np.ndarray:
        return self._bins.decode(bins_of_tokens(self._vocabulary, tokens))

    def _timed(self, name: str, call: Callable[[], object], work: Work | None = None) -> Stage:
        start = time.perf_counter()
        call()
        self.compiling[f"first {name}"] = time.perf_counter() - start
        for _ in range(_UNTIMED):
            call()
        times, begun = [], time.perf_counter()
        while len(times) < self._calls and (not times or time.perf_counter() - begun < self._seconds):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return Stage({f"p{share}": float(np.percentile(times, share)) for share in _PERCENTILES}, len(times), work)


def _served(config: ModelConfig, dtype: str) -> ModelConfig:
    """The model as it is served with weights of that dtype."""
    compute = "float32" if dtype == "float32" else "bfloat16"
    config = config.replace(compute_dtype=compute, remat="none")
    return config.replace(quantized="int8") if dtype == "int8" else config


def _padded(grammar: Grammar, vocab_size: int) -> Grammar:
    """The grammar of a vocabulary with more tokens, none of which it allows."""
    extra = vocab_size - len(grammar.token_class)
    if extra < 0:
        raise UserError(f"the model has {vocab_size} tokens, fewer than the vocabulary that ships; choose another size")
    unused = grammar.token_class[Vocabulary.pad_id]
    return dataclasses.replace(grammar, token_class=np.pad(grammar.token_class, (0, extra), constant_values=unused))


def _peak_memory(device: jax.Device) -> int:
    """The most bytes in use so far: the device's, on a CPU the process's."""
    stats = device.memory_stats() or {}
    return stats.get("peak_bytes_in_use") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
