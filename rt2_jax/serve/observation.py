"""What a robot sends, whatever the dialect; and how it becomes a row of a batch that no row beside it can spoil."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from rt2_jax.actions.embodiment import Embodiment
from rt2_jax.inputs import prompts
from rt2_jax.inputs.batch import prompt_tokens
from rt2_jax.inputs.images import check_image, resize_image
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.wire import EncodedImage
from rt2_jax.tokens.action_text import action_text
from rt2_jax.tokens.vocabulary import Vocabulary

MODES = ("action", "plan")


class ServedPolicy(Protocol):
    """What the server needs of `policy.policy.Policy`."""

    embodiments: dict[str, Embodiment]
    vocabulary: Vocabulary
    image_size: int
    prompt_len: int

    def act(
        self,
        images: np.ndarray,
        instructions: list[str],
        mode: str = "action",
        *,
        embodiment: str | None = None,
        states: np.ndarray | None = None,
    ) -> Any:
        """See `Policy.act`; an object with `chunk`, `chunk_bins`, `text` and `logprob`."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """One moment, as a client told it.

    Attributes:
        images: by the client's name of the camera: uint8[H, W, 3], or a frame that is still encoded.
        instruction: what the robot is told.
        embodiment: whose action is wanted; None for the one that the server acts for.
        mode: "action" or "plan".
        state: the robot's own state, numbers of any real type; None where none was sent.
        deadline: seconds from its arrival in which it is of use; None for as long as the server allows.
        carried_out: of the last answer's chunk, how many actions were carried out; None is all.
        strict: a camera or a state that the embodiment has no use for is refused, not left out.
    """

    images: Mapping[str, np.ndarray | EncodedImage]
    instruction: str
    embodiment: str | None = None
    mode: str = "action"
    state: np.ndarray | None = None
    deadline: float | None = None
    carried_out: int | None = None
    strict: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A request as the policy takes it.

    Attributes:
        images: uint8[N, S, S, 3]: the history, the oldest moment first and of each moment the cameras in card order.
        instruction, embodiment, mode: as `Policy.act` takes them.
        state: float32[P] for an embodiment with proprioception, and None for others.
        carried_out: see `Observation`.
    """

    images: np.ndarray
    instruction: str
    embodiment: str
    mode: str
    state: np.ndarray | None
    carried_out: int | None = None

    @property
    def now(self) -> np.ndarray:
        """uint8[S, S, 3]: the newest moment's first camera is what people are shown."""
        return self.images[-1]


class History:
    """The moments that one robot has shown, as many as its embodiment has in an example; black before the first."""

    def __init__(self, robot: Embodiment, image_size: int):
        self.robot, self.image_size = robot, image_size
        none = np.zeros((len(robot.cameras), image_size, image_size, 3), np.uint8)
        self._moments = collections.deque([none] * robot.history, robot.history)

    def add(self, moment: np.ndarray) -> np.ndarray:
        """uint8[N, S, S, 3] of the history up to `moment`, uint8[C, S, S, 3], which is its newest."""
        self._moments.append(moment)
        return np.concatenate(self._moments)


def moment(
    observation: Observation, robot: Embodiment, image_size: int, aliases: Mapping[str, str], max_pixels: int
) -> np.ndarray:
    """uint8[C, S, S, 3]: what each of the embodiment's cameras sees, in the card's order and the model's size.

    Args:
        observation: its images.
        robot: whose cameras are wanted.
        image_size: side in pixels of the model's frames.
        aliases: client's name of a camera -> the card's name.
        max_pixels: of one image.

    Raises:
        Refusal: a camera is missing, or unknown where the observation is strict; an image of another dtype or layout,
            or too large. It names the camera.
        WireError: an encoded image that does not decode.
    """
    seen = _by_card(observation, robot, aliases)
    frames = []
    for camera in robot.cameras:
        image = seen[camera]
        if isinstance(image, EncodedImage):
            image = image.decode(max_pixels)
        check_image(image, f"camera {camera!r}")
        if image.shape[0] * image.shape[1] > max_pixels:
            raise Refusal(
                "too_large",
                f"camera {camera!r}: {image.shape[1]} x {image.shape[0]} pixels, at most {max_pixels:,}; send fewer",
            )
        frames.append(resize_image(image, image_size))
    return np.stack(frames)


def _by_card(
    observation: Observation, robot: Embodiment, aliases: Mapping[str, str]
) -> dict[str, np.ndarray | EncodedImage]:
    """The images by the card's names of the cameras; where there is one on each side it is the same one."""
    images = {aliases.get(name, name): image for name, image in observation.images.items()}
    missing = [camera for camera in robot.cameras if camera not in images]
    if missing and len(robot.cameras) == len(images) == 1:
        return {robot.cameras[0]: next(iter(images.values()))}
    unknown = [name for name in images if name not in robot.cameras] if observation.strict else []
    if missing or unknown:
        sent = ", ".join(repr(name) for name in list(images)[:16]) or "none"
        what = f"camera {missing[0]!r} is missing" if missing else f"camera {unknown[0]!r} is unknown"
        raise Refusal(
            "invalid", f"images: {what}; embodiment {robot.name} has {', '.join(robot.cameras)}, sent were {sent}"
        )
    return images


def state_of(observation: Observation, robot: Embodiment) -> np.ndarray | None:
    """float32[P]: the state in the units of the embodiment's proprioception; None for an embodiment without.

    Raises:
        Refusal: it is missing, of another length or type, or holds a value that is no number; or it has no use and the
            observation is strict.
    """
    state, known = observation.state, robot.proprioception
    if known is None:
        if state is not None and observation.strict:
            raise Refusal("invalid", f"embodiment {robot.name} has no proprioception; leave the state out")
        return None
    names = known.space.names
    if state is None:
        raise Refusal("invalid", f"embodiment {robot.name} has proprioception; send a state: {', '.join(names)}")
    if state.dtype.kind not in "iuf" or state.shape != (len(names),):
        raise Refusal(
            "invalid", f"state: {state.dtype}{list(state.shape)}, needs float[{len(names)}]: {', '.join(names)}"
        )
    with np.errstate(over="ignore"):
        numbers = state.astype(np.float32)
    if not np.isfinite(numbers).all():
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise Refusal("invalid", f"state: {names[place]} is {state[place]}; send finite numbers in float32's range")
    return numbers


def check_instruction(policy: ServedPolicy, robot: Embodiment, instruction: str, mode: str, state: Any) -> None:
    """Accepts what `policy` can be told.

    Raises:
        UserError: no text, an empty one, or one with more tokens than a prompt has.
    """
    proprioception = robot.proprioception
    told = (
        "" if state is None or proprioception is None else action_text(policy.vocabulary, proprioception.encode(state))
    )
    prompt = prompts.robot_prompt if mode == "action" else prompts.plan_prompt
    prompt_tokens(policy.vocabulary, prompt(instruction, robot.robot, told), policy.prompt_len)
