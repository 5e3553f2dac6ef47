"""What `rt2 eval` drives: any environment, simulated or real, that is reset to a task, shows frames and takes actions.

The tabletop (`tabletop_env`) is one, `gymnasium_env.GymnasiumEnv` makes one of any gymnasium environment, and
docs/your_robot.md writes one by hand. ``rt2 eval --env module:factory`` calls ``factory()`` once for every episode that
runs at a time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np

from rt2_jax.actions.space import KINDS, kinds_of
from rt2_jax.errors import UserError
from rt2_jax.evaluate.results import CONTROLS
from rt2_jax.typed import Count, check_fields, shown

SEATS = 16
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


@dataclasses.dataclass(frozen=True)
class Split:
    """Episodes that a report counts together.

    Attributes:
        name: as ``--splits`` and the report know it.
        skills: what is asked in it; each has its own rate. ``--skills`` picks among them.
        label: how the report calls it; its name by default.
        group: what the report pools it with, as RT-2 does.
        controls: of `results.CONTROLS`, those that run beside the policy here unless told otherwise.
        optional: runs only where ``--splits`` names it.
    """

    name: Name
    skills: tuple[Name, ...] = ("task",)
    label: str = ""
    group: Literal["seen", "unseen", "emergent", "other"] = "other"
    controls: tuple[Literal[CONTROLS], ...] = ()
    optional: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "split")
        if not self.skills or len(set(self.skills)) != len(self.skills):
            raise UserError(
                f"split {shown(self.name)}: its skills are {shown(self.skills)}; name at least one, each once"
            )
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " ").capitalize())


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """What an environment is, known before any episode runs.

    Attributes:
        action_names, action_units, action_kinds: of the numbers that `step` takes, in order; those of the policy's
            action space, word for word, so that no number means another motion. Kinds that are left out are those
            that `ActionSpace` takes for these names.
        cameras: whose frames its observations hold; see `cameras_seen`.
        max_steps: actions after which an episode is cut.
        splits: what there is to run; an environment of one task needs none of its own.
        seats: how many instances may exist at once; 1 for a real robot.
        embodiment: the name of its card; needed only where the policy knows several robots with these actions.
        state_names, state_units: of the numbers of `Observation.state`, those of the policy's proprioception word for
            word; none where it has no state to tell. A policy without proprioception is not told it.

    Raises:
        UserError: a field of a wrong type, no camera, no split, a name that stands twice, or names, units and kinds
            that differ in number.
    """

    action_names: tuple[Name, ...]
    action_units: tuple[str, ...]
    cameras: tuple[Name, ...]
    max_steps: Count
    splits: tuple[Split, ...] = (Split("all"),)
    seats: Annotated[int, msgspec.Meta(ge=1, le=1024)] = SEATS
    embodiment: str = ""
    action_kinds: tuple[Literal[KINDS], ...] = ()
    state_names: tuple[Name, ...] = ()
    state_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "spec")
        if not self.action_kinds:
            object.__setattr__(self, "action_kinds", kinds_of(self.action_names))
        for what, fields in (
            ("an action", ("action_names", "action_units", "action_kinds")),
            ("a state", ("state_names", "state_units")),
        ):
            counts = [len(getattr(self, field)) for field in fields]
            if len(set(counts)) != 1:
                told = ", ".join(f"{count} {field}" for count, field in zip(counts, fields, strict=True))
                raise UserError(f"spec: {told}; give one of each for every number of {what}")
        for field, names, least in (
            ("action_names", self.action_names, 1),
            ("cameras", self.cameras, 1),
            ("splits", tuple(split.name for split in self.splits), 1),
            ("state_names", self.state_names, 0),
        ):
            if len(names) < least or len(set(names)) != len(names):
                raise UserError(f"spec: {field} is {shown(names)}; name {'at least one, ' * least}each once")

    @property
    def skills(self) -> tuple[str, ...]:
        """The skills of all splits, each once."""
        return tuple(dict.fromkeys(skill for split in self.splits for skill in split.skills))


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the policy is shown and told.

    Attributes:
        images: camera name -> uint8[H, W, 3]; any size, the policy resizes them.
        instruction: what it is told.
        judged: the instruction of the task that success is judged by, where a control tells another; None elsewhere.
        state: the robot's own state, float32[S] in the units of `EnvSpec.state_units`; None where that names none.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    judged: str | None = None
    state: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """What came of an action.

    Attributes:
        observation: after it.
        done: the episode is over. The evaluation cuts it after `EnvSpec.max_steps` in any case.
        success: whether the task is done now; what counts is where the episode ends.
        truncated: with `done`, that time ran out; otherwise the policy, or what it did, ended the episode.
        metrics: numbers to be averaged over episodes, by name; those of an episode's last step count.
    """

    observation: Observation
    done: bool
    success: bool
    truncated: bool = False
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Environment(Protocol):
    """One episode at a time. An environment that offers controls has a method `reset_control` as well."""

    @property
    def spec(self) -> EnvSpec:
        """The same for every instance that a factory makes."""
        ...

    def reset(self, split: str, skill: str, seed: int) -> Observation:
        """Sets the task that these name: the same episode for the same arguments.

        Args:
            split, skill: of `EnvSpec.splits`.
            seed: 0 or more; an evaluation counts it up.
        """
        ...

    def step(self, action: np.ndarray) -> Step:
        """Acts.

        Args:
            action: float32[width] in physical units, within the bounds of the policy's action space.
        """
        ...

    def close(self) -> None:
        """Lets go of whatever it holds; called once, whatever happened."""


class ControlledEnvironment(Environment, Protocol):
    """An environment whose splits name controls: episodes in which something is wrong on purpose."""

    def reset_control(self, control: str, split: str, skill: str, seed: int) -> Observation:
        """As `reset`, and success is judged by the same task, but:

        ``wrong_instruction``: the policy is told to do something else in the same scene (`Observation.judged` keeps the
        task's own words). ``other_image``: until the episode ends it is shown another scene, in which its actions are
        carried out as well.
        """
        ...


class Numbers(Protocol):
    """The dimensions of a robot's actions: `actions.space.ActionSpace`, or a server's word on them."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def units(self) -> Sequence[str]: ...
    @property
    def kinds(self) -> Sequence[str]: ...


class Robot(Protocol):
    """What must be known of the robot that a policy acts for: an `Embodiment`, or a `serve.greeting.ServedRobot`."""

    @property
    def name(self) -> str: ...
    @property
    def space(self) -> Numbers: ...
    @property
    def cameras(self) -> tuple[str, ...]: ...
    @property
    def history(self) -> int: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def state_units(self) -> tuple[str, ...]: ...


def cameras_seen(spec: EnvSpec, robot: Robot) -> tuple[str, ...]:
    """The environment's cameras that a policy looks through, in its card's order.

    They go by name; where there is one on each side it is the same one, whatever either calls it.
    """
    return spec.cameras if len(spec.cameras) == len(robot.cameras) == 1 else robot.cameras


def check_robot(spec: EnvSpec, robot: Robot, where: str, policy: str) -> None:
    """Refuses an environment that is not the robot that a policy acts for.

    Args:
        spec: the environment's.
        robot: the policy's.
        where, policy: what the environment and the policy are called in the message.

    Raises:
        UserError: numbers of an action with another name, unit or kind, a camera that the environment has not, or
            another state than the policy's proprioception; with both.
    """
    space = robot.space
    pairs = [
        ("names", space.names, spec.action_names),
        ("units", space.units, spec.action_units),
        ("kinds", space.kinds, spec.action_kinds),
    ]
    for what, wanted, found in pairs:
        if wanted != found:
            raise UserError(
                f"{where} takes actions of {what} {', '.join(found)}, but {policy} decodes {', '.join(wanted)}; name "
                "its numbers as the policy's card does, in that order, and scale them to those units, or take another "
                "policy"
            )
    missing = [camera for camera in cameras_seen(spec, robot) if camera not in spec.cameras]
    if missing:
        raise UserError(
            f"{where} has the cameras {', '.join(spec.cameras)}, but {policy} looks through "
            f"{', '.join(robot.cameras)}; give it camera {missing[0]!r}, called as the policy's card does"
        )
    if robot.state_names:
        for what, wanted, found in (
            ("names", robot.state_names, spec.state_names),
            ("units", robot.state_units, spec.state_units),
        ):
            if wanted != found:
                raise UserError(
                    f"{where} tells a state of {what} {', '.join(found) or 'none'}, but {policy} is told "
                    f"{', '.join(wanted)}; give its spec state_names and state_units, and its observations a state, as "
                    "the policy's card has them"
                )
