"""Frame and instruction in, physical action out: the one path that evaluation and serving share."""

import contextlib
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int32, PRNGKeyArray, Shaped, UInt8

from rt2_jax.actions.bins import ActionBins
from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.bundle.spec import grammar_of
from rt2_jax.errors import UserError
from rt2_jax.inputs import prompts
from rt2_jax.inputs.batch import prompt_tokens
from rt2_jax.inputs.images import check_image, resize_image
from rt2_jax.models.backbone import Backbone, Params
from rt2_jax.parallel.rules import partitioned
from rt2_jax.policy.choice import Sampling
from rt2_jax.policy.sampler import Sampler, Samples, make_sampler
from rt2_jax.tokens.action_text import action_text, bins_of_tokens
from rt2_jax.tokens.grammar import Grammar, mode_of
from rt2_jax.tokens.vocabulary import Vocabulary

PROMPTS = {"action": prompts.robot_prompt, "plan": prompts.plan_prompt}

Frames = UInt8[np.ndarray, "batch height width 3"]
Images = UInt8[np.ndarray, "batch images height width 3"]


@dataclasses.dataclass(frozen=True)
class PolicyOutput:
    """What to do, a row each; `k` is the embodiment's `chunk`.

    Attributes:
        actions: physical units: what to do now, ``chunk[:, 0]``.
        bins: the integers of `actions`.
        chunk: what to do now and in the k - 1 steps that follow.
        chunk_bins: the integers of `chunk`.
        text: what the model said: the action string, after its plan in plan mode.
        logprob: see `Samples.logprob`.
        confidence: log-probability of each of the chunk's integers, among those that its position may take.
        entropy: of the distribution that each was chosen from, in nats: 0 where the model is sure.
    """

    actions: Float32[np.ndarray, "batch width"]
    bins: Int32[np.ndarray, "batch width"]
    chunk: Float32[np.ndarray, "batch k width"]
    chunk_bins: Int32[np.ndarray, "batch k width"]
    text: list[str]
    logprob: Float32[np.ndarray, " batch"]
    confidence: Float32[np.ndarray, "batch k width"]
    entropy: Float32[np.ndarray, "batch k width"]


class TextModel:
    """A model that answers in text about images. Not safe to call from several threads at once.

    Args:
        backbone, params: the model and its weights, wherever they lie.
        vocabulary, grammar: what it was trained with; `grammar` has a mode "text".
        image_size: side in pixels of the model's frames; frames of another size are resized (`resize_image`).
        prompt_len: tokens a prompt may have; padded to it.
        mesh: the devices that the parameters are laid out over; None where one device has them all.
        sampling: temperature, top_k, top_p and best_of, see `Sampling`; greedy by default.

    Raises:
        UserError: a grammar of another vocabulary.
    """

    def __init__(
        self,
        backbone: Backbone,
        params: Params,
        vocabulary: Vocabulary,
        grammar: Grammar,
        image_size: int,
        prompt_len: int,
        mesh: Mesh | None = None,
        **sampling: Any,
    ):
        if len(grammar.token_class) != vocabulary.size:
            raise UserError(
                f"the grammar is of {len(grammar.token_class)} tokens, the vocabulary of {vocabulary.size}; rebuild it"
            )
        self.backbone = backbone
        self.params = params
        self.vocabulary = vocabulary
        self.grammar = grammar
        self.image_size = image_size
        self.prompt_len = prompt_len
        self.mesh = mesh
        self.sampling = Sampling(**sampling)
        self._key = jax.random.key(0)  # of what draws nothing
        self._samplers: dict[tuple[str, int], Sampler] = {}

    def answer(
        self, images: Frames | Images, texts: Sequence[str], max_len: int, rng: PRNGKeyArray | None = None
    ) -> list[str]:
        """Free text for each frame and prompt, as for captions and VQA: the whole vocabulary, at most `max_len` tokens.

        Args:
            images: one frame a prompt, or one stack of them.
            texts: prompts, word for word (see `rt2_jax.inputs.prompts`).
            max_len: tokens, EOS included; each new value compiles anew.
            rng: a key; needed only when the temperature is not 0.

        Raises:
            UserError: as `act`.
            FloatingPointError: as `act`.
        """
        texts = _texts(texts)
        for text in texts:
            prompts.check_text("prompt", text)
            if not text.strip():
                raise UserError(f"prompt {text!r} is empty; give at least one word")
        samples = self._sample(images, texts, "text", max_len, rng)
        return [self.vocabulary.decode(row) for row in samples.tokens]

    def _sample(
        self, images: np.ndarray, texts: Sequence[str], mode: str, max_len: int, rng: PRNGKeyArray | None
    ) -> Samples:
        """Samples as numpy arrays, padding rows left out."""
        if rng is None and self.sampling.temperature != 0.0:
            raise UserError("sampling at a temperature needs an rng; pass jax.random.key(seed)")
        frames = self._frames(images, len(texts))
        prompt = np.stack([prompt_tokens(self.vocabulary, text, self.prompt_len) for text in texts])
        samples = self._run(frames, prompt, mode, max_len, self._key if rng is None else rng)
        if np.isnan(samples.logprob).any():
            row = int(np.flatnonzero(np.isnan(samples.logprob))[0])
            raise FloatingPointError(f"the model's logits hold NaN in row {row}; its output is refused")
        return samples

    def _run(
        self, frames: Images, prompt: Int32[np.ndarray, "batch prompt"], mode: str, max_len: int, rng: PRNGKeyArray
    ) -> Samples:
        """The sampler on a batch that is padded to a power of two: few sizes, so few programs are compiled."""
        count = len(frames)
        padded = bucket(count)
        rows = [*range(count), *[0] * (padded - count)]
        start = np.full(padded, self.grammar.end, np.int32)
        start[:count] = self.grammar.start_state(mode)
        with contextlib.nullcontext() if self.mesh is None else partitioned(self.mesh):
            samples = self._sampler(mode, max_len)(self.params, frames[rows], prompt[rows], start, rng)
        return jax.tree.map(lambda array: array[:count], jax.device_get(samples))

    def _sampler(self, mode: str, max_len: int) -> Sampler:
        # By mode too: a program is of its modes, and each checks `max_len` against its own least length.
        key = (mode, max_len)
        if key not in self._samplers:
            settings = dataclasses.asdict(self.sampling)
            self._samplers[key] = make_sampler(self.backbone, self.grammar, max_len, modes=(mode,), **settings)
        return self._samplers[key]

    def _frames(self, images: np.ndarray, count: int) -> Images:
        """The caller's images at the model's size."""
        if not isinstance(images, np.ndarray) or images.ndim not in (4, 5):
            shape = getattr(images, "shape", type(images).__name__)
            raise UserError(f"images: {shape}, needs numpy uint8[B, H, W, 3] or uint8[B, N, H, W, 3]; add an axis")
        if len(images) != count or not count:
            raise UserError(f"{len(images)} images for {count} texts; give at least one, and one text each")
        stacks = images[:, None] if images.ndim == 4 else images
        wanted = self.backbone.config.num_images
        if stacks.shape[1] != wanted:
            raise UserError(f"images: {stacks.shape[1]} a row, the model takes {wanted}; stack [B, {wanted}, H, W, 3]")
        check_image(stacks[0, 0], "images")
        return np.stack([np.stack([resize_image(image, self.image_size) for image in stack]) for stack in stacks])


class Policy(TextModel):
    """A text model with everything that turns its tokens into actions.

    Args:
        embodiments: what it was trained with, by name; the grammar is of its vocabulary and of these.
        plan_len: the most tokens of a plan with its action, EOS included.
        mesh, sampling, and the other arguments: see `TextModel`.

    Raises:
        UserError: parts that do not belong together, or `plan_len` too small for an action.
    """

    def __init__(
        self,
        backbone: Backbone,
        params: Params,
        vocabulary: Vocabulary,
        embodiments: Mapping[str, Embodiment],
        grammar: Grammar,
        image_size: int,
        prompt_len: int,
        plan_len: int = 64,
        mesh: Mesh | None = None,
        **sampling: Any,
    ):
        super().__init__(backbone, params, vocabulary, grammar, image_size, prompt_len, mesh, **sampling)
        if grammar_of(vocabulary, embodiments).sha256 != grammar.sha256:
            raise UserError("the grammar is not that of this vocabulary and these embodiments; build it from them")
        for embodiment in embodiments.values():
            if embodiment.num_images != backbone.config.num_images:
                raise UserError(
                    f"embodiment {embodiment.name} has {embodiment.num_images} images an example (cameras x history), "
                    f"the model takes {backbone.config.num_images}; give them one number"
                )
        self.embodiments = dict(embodiments)
        self._acting_as = next(iter(self.embodiments)) if len(self.embodiments) == 1 else None
        self._plan_len = plan_len
        for name in self.embodiments:
            # Refuses a plan_len that holds no action now, not at the first frame.
            self._sampler(mode_of("plan", self.embodiments, name), plan_len)

    @property
    def bins(self) -> ActionBins:
        """Of the embodiment that it acts as; errors as `embodiment`."""
        return self.embodiment().bins

    def acting_as(self, name: str | None) -> "Policy":
        """The same policy as one that acts for the embodiment `name` where none is named.

        Raises:
            UserError: as `embodiment`.
        """
        policy = copy.copy(self)
        policy._acting_as = self.embodiment(name).name
        return policy

    def embodiment(self, name: str | None = None) -> Embodiment:
        """The embodiment of that name; None is the only one there is, or the one that the policy acts as.

        Raises:
            UserError: an unknown name, or none where there are several.
        """
        known = ", ".join(self.embodiments)
        name = self._acting_as if name is None else name
        if name is None:
            raise UserError(f"the model acts for {len(self.embodiments)} embodiments; name one of: {known}")
        if name not in self.embodiments:
            raise UserError(f"embodiment {name!r} is unknown to the model; choose of: {known}")
        return self.embodiments[name]

    def warm_up(
        self,
        batch_sizes: Sequence[int],
        modes: Sequence[str] = ("action",),
        embodiments: Sequence[str] | None = None,
    ) -> None:
        """Compiles every program that `act` will need, so that no robot waits for a compiler.

        Args:
            batch_sizes: rows; those that are padded to one size share a program.
            modes: as `act` takes them.
            embodiments: names; None is all of them.

        Raises:
            UserError: a size below 1, an unknown mode or embodiment.
        """
        if min(batch_sizes, default=1) < 1:
            raise UserError(f"batch size {min(batch_sizes)}: give 1 or more")
        side, count = self.image_size, self.backbone.config.num_images
        for name in self.embodiments if embodiments is None else embodiments:
            for mode in modes:
                in_grammar, max_len = self._decoding(mode, self.embodiment(name))
                for size in sorted({bucket(size) for size in batch_sizes}):
                    frames = np.zeros((size, count, side, side, 3), np.uint8)
                    prompt = np.full((size, self.prompt_len), self.vocabulary.eos_id, np.int32)
                    self._run(frames, prompt, in_grammar, max_len, self._key)

    def act(
        self,
        images: Frames | Images | Mapping[str, Frames | Images],
        instructions: Sequence[str],
        mode: str = "action",
        rng: PRNGKeyArray | None = None,
        *,
        embodiment: str | None = None,
        states: Float[np.ndarray, "batch state"] | None = None,
    ) -> PolicyOutput:
        """What to do for each frame (or stack of N frames) and instruction.

        Args:
            images: frames, or stacks of them with the oldest moment first and the cameras in the card's order within
                each; or, by camera, frames or stacks of its history.
            instructions: texts, e.g. ``"pick red cube"``.
            mode: ``"action"``, or ``"plan"`` to state a plan before the action (chain of thought).
            rng: a key; needed only when the temperature is not 0.
            embodiment: whose action it is; needed only where the model knows several.
            states: the robots' own state in the units of `Embodiment.proprioception`; needed where there is one, and
                nowhere else.

        Raises:
            UserError: another dtype or shape, a count that differs, an empty or too long instruction, an unknown mode,
                embodiment or camera, or a state that is missing or has no use.
            FloatingPointError: the model's logits were not numbers, so that its actions mean nothing.
        """
        if mode not in PROMPTS:
            raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(PROMPTS)}")
        robot = self.embodiment(embodiment)
        told = _texts(instructions)
        pairs = zip(told, self._stated(robot, states, len(told)), strict=True)
        texts = [PROMPTS[mode](instruction, robot.robot, state) for instruction, state in pairs]
        return self.act_on_prompts(images, texts, mode, rng, embodiment=robot.name)

    def act_on_prompts(
        self,
        images: Frames | Images | Mapping[str, Frames | Images],
        texts: Sequence[str],
        mode: str = "action",
        rng: PRNGKeyArray | None = None,
        *,
        embodiment: str | None = None,
    ) -> PolicyOutput:
        """As `act`, of prompts word for word, such as those of prepared data."""
        robot, texts = self.embodiment(embodiment), _texts(texts)
        in_grammar, max_len = self._decoding(mode, robot)
        images = _stacked(images, robot) if isinstance(images, Mapping) else images
        samples = self._sample(images, texts, in_grammar, max_len, rng)
        tokens, lengths = np.asarray(samples.tokens), np.asarray(samples.lengths)
        # The action stands just before EOS in both modes.
        ends = lengths[:, None] - 1 - robot.num_integers + np.arange(robot.num_integers)

        def of_chunk(values: Shaped[np.ndarray, "batch max_len"]) -> Shaped[np.ndarray, "batch k width"]:
            return np.take_along_axis(values, ends, axis=1).reshape(len(texts), robot.chunk, robot.bins.width)

        bins = bins_of_tokens(self.vocabulary, of_chunk(tokens))
        chunk = robot.bins.decode(bins)
        return PolicyOutput(
            actions=chunk[:, 0],
            bins=bins[:, 0],
            chunk=chunk,
            chunk_bins=bins,
            text=[self.vocabulary.decode(row) for row in tokens],
            logprob=np.asarray(samples.logprob),
            confidence=of_chunk(np.asarray(samples.token_logprob)),
            entropy=of_chunk(np.asarray(samples.entropy)),
        )

    def _decoding(self, mode: str, robot: Embodiment) -> tuple[str, int]:
        """The grammar's mode, and the most tokens of an answer in it."""
        if mode not in PROMPTS:
            raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(PROMPTS)}")
        in_grammar = mode_of(mode, self.embodiments, robot.name)
        return in_grammar, self._plan_len if mode == "plan" else self.grammar.min_len(in_grammar)

    def _stated(self, robot: Embodiment, states: Float[np.ndarray, "batch state"] | None, count: int) -> list[str]:
        """Each row's own state as the prompt has it."""
        proprioception = robot.proprioception
        if states is None and proprioception is None:
            return [""] * count
        if states is None or proprioception is None:
            has = "has proprioception, and no states are given; pass them" if states is None else (
                "has no proprioception, and states are given; leave them out"
            )  # fmt: skip
            raise UserError(f"embodiment {robot.name} {has}")
        bins = proprioception.encode(states)
        if bins.shape != (count, proprioception.width):
            raise UserError(f"states: shape {list(bins.shape)}, needs [{count}, {proprioception.width}]; reshape")
        return [action_text(self.vocabulary, row) for row in bins]


def _stacked(images: Mapping[str, np.ndarray], robot: Embodiment) -> Images:
    """Frames by camera as one stack: the oldest moment first, in each the cameras in the card's order."""
    lacks = [camera for camera in robot.cameras if camera not in images]
    unknown = [camera for camera in images if camera not in robot.cameras]
    if lacks or unknown:
        what = f"camera {lacks[0]!r} is missing" if lacks else f"camera {unknown[0]!r} is unknown"
        raise UserError(f"images: {what}; embodiment {robot.name} has the cameras {', '.join(robot.cameras)}")
    frames = []
    for camera in robot.cameras:
        rows = np.asarray(images[camera])
        rows = rows[:, None] if rows.ndim == 4 else rows
        if rows.ndim != 5 or rows.shape[1] != robot.history:
            raise UserError(
                f"images of camera {camera!r}: shape {list(rows.shape)}, needs [B, {robot.history}, H, W, 3] "
                f"(history is {robot.history}); stack the frames"
            )
        frames.append(rows)
    if len({rows.shape for rows in frames}) > 1:
        shapes = ", ".join(f"{camera} {list(rows.shape)}" for camera, rows in zip(robot.cameras, frames, strict=True))
        raise UserError(f"images: the cameras have other shapes ({shapes}); resize them to one")
    return np.stack(frames, axis=2).reshape(len(frames[0]), robot.num_images, *frames[0].shape[2:])


def bucket(rows: int) -> int:
    """The size that a batch of so many rows is padded to: a power of two."""
    return 1 << (rows - 1).bit_length()


def _texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UserError(f"texts: the single text {texts!r}; give a list with one for each image")
    return list(texts)
