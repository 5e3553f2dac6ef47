"""The safety envelope: limits in physical units that no action of a robot leaves, whatever the policy says.

A bundle carries one for each robot that a team gave one (``rt2 export --envelope``). The server applies it to what it
answers and the client once more to what it hands to the robot. numpy alone: a robot's computer need not have more.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from rt2_jax.errors import UserError

CLIP, HOLD = ON_VIOLATION = ("clip", "hold")
_BINARY, _TERMINATE = "binary", "terminate"  # kinds of `ActionSpace`, whose module needs msgspec


class Space(Protocol):
    """What a guard needs of `actions.space.ActionSpace`; a client builds it from the server's greeting."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def low(self) -> Sequence[float]: ...
    @property
    def high(self) -> Sequence[float]: ...
    @property
    def kinds(self) -> Sequence[str]: ...


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where a position may be.

    Attributes:
        low, high: in the position's unit, inclusive.
        moved_by: the dimension of an action that moves it: one step adds `scale` times that number to the position, and
            the number is limited so that the position stays inside. None: the position is only watched, and while it is
            outside every action is held.
        scale: the position's units that one unit of the action moves it by.
        start: where it is when an episode starts, for a robot whose state has no such dimension; the guard then adds up
            the actions. None takes it from the state.
    """

    low: float
    high: float
    moved_by: str | None = None
    scale: float = 1.0
    start: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.low, self.high, self.scale, *([] if self.start is None else [self.start])]
        if not all(_finite(number) for number in numbers):
            raise UserError(
                f"bounds [{self.low!r}, {self.high!r}], scale {self.scale!r}, start {self.start!r}; give numbers"
            )
        if not self.low < self.high:
            raise UserError(f"bounds are [{self.low}, {self.high}]; give low < high")
        if self.moved_by is not None and not isinstance(self.moved_by, str):
            raise UserError(f"moved_by is {self.moved_by!r}; name a dimension of the action")
        if not self.scale:
            raise UserError("scale is 0, so that no action moves the position; give another, or leave out moved_by")
        if self.start is not None and self.moved_by is None:
            raise UserError("start is given, and no action moves the position; name one by moved_by")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise UserError(f"start is {self.start}, outside [{self.low}, {self.high}]; give one inside")


@dataclasses.dataclass(frozen=True)
class Envelope:
    """The limits of one robot, in the units of its card.

    Attributes:
        step: dimension of an action -> (low, high), inclusive; the action space's own bounds hold in any case.
        rate: dimension of an action -> the largest change from one action to the next. The first action of an episode
            has none before it.
        workspace: position -> `Bounds`: dimensions of the robot's state, or positions that add up the actions.
        still: dimension of an action -> the number that keeps the robot where it is, or None to repeat the last one: 0
            for a displacement or a velocity, None for a target position. Every continuous dimension has one, save
            those that move a position of `workspace`, whose number is 0. A binary dimension repeats its last.
        on_violation: "clip" moves each number to the limit that it is beyond; "hold" replaces the whole action by
            `still`. A number that is not finite, or a position that is unknown or only watched and outside, holds in
            both cases.

    Raises:
        UserError: a limit that is no number or leaves nothing.
    """

    step: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    rate: Mapping[str, float] = dataclasses.field(default_factory=dict)
    workspace: Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    still: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    on_violation: Literal["clip", "hold"] = "clip"

    def __post_init__(self) -> None:
        if self.on_violation not in ON_VIOLATION:
            raise UserError(f"envelope: on_violation is {self.on_violation!r}; choose {' or '.join(ON_VIOLATION)}")
        for name, (low, high) in self.step.items():
            if not (_finite(low) and _finite(high) and low < high):
                raise UserError(f"envelope: step of {name!r} is [{low!r}, {high!r}]; give numbers low < high")
        for name, most in self.rate.items():
            if not (_finite(most) and most > 0):
                raise UserError(f"envelope: rate of {name!r} is {most!r}; give a number above 0")
        for name, number in self.still.items():
            if number is not None and not _finite(number):
                raise UserError(f"envelope: still of {name!r} is {number!r}; give a number, or null to repeat the last")
        movers = [bounds.moved_by for bounds in self.workspace.values() if bounds.moved_by is not None]
        if len(set(movers)) != len(movers):
            raise UserError("envelope: one dimension moves two positions of the workspace; name it in one")

    def check(self, space: Space, state_names: Sequence[str] = ()) -> None:
        """Raises a UserError where the envelope does not fit a robot with this action space and state."""
        limits = dict(zip(space.names, zip(space.low, space.high, space.kinds, strict=True), strict=True))
        for what in ("step", "rate", "still"):
            for name in getattr(self, what):
                if name not in limits:
                    raise UserError(
                        f"envelope: {what} names {name!r}, the action has {', '.join(space.names)}; name one of them"
                    )
                if limits[name][2] in (_BINARY, _TERMINATE):
                    raise UserError(f"envelope: {what} names {name!r}, which is {limits[name][2]}; leave it out")
        moved = {bounds.moved_by: name for name, bounds in self.workspace.items() if bounds.moved_by is not None}
        for name, bounds in self.workspace.items():
            if bounds.moved_by is not None and limits.get(bounds.moved_by, ("", "", _BINARY))[2] in (
                _BINARY,
                _TERMINATE,
            ):
                raise UserError(
                    f"envelope: {name!r} is moved by {bounds.moved_by!r}, which is no continuous dimension of the "
                    f"action ({', '.join(space.names)}); name one"
                )
            if name not in state_names and bounds.start is None:
                known = f"of {', '.join(state_names)}" if state_names else "of nothing"
                raise UserError(
                    f"envelope: nothing tells where {name!r} is: the state is {known}, and there is no start; give one "
                    "of them"
                )
            if name in state_names and bounds.start is not None:
                raise UserError(f"envelope: {name!r} is in the robot's state and has a start as well; leave out start")
        for name, (low, high, kind) in limits.items():
            if kind in (_BINARY, _TERMINATE):
                continue
            low, high = max(low, self.step.get(name, (low, high))[0]), min(high, self.step.get(name, (low, high))[1])
            if not low < high:
                raise UserError(f"envelope: step of {name!r} leaves nothing of the action's own bounds; widen it")
            if name in moved:
                if name in self.still and self.still[name] != 0:
                    raise UserError(f"envelope: {name!r} moves {moved[name]!r}, so its still is 0; leave it out")
            elif name not in self.still:
                raise UserError(
                    f"envelope: still of {name!r} is missing: the number that keeps the robot where it is, or null to "
                    "repeat the last one; give it"
                )
            number = 0.0 if name in moved else self.still[name]
            if number is not None and not low <= number <= high:
                raise UserError(
                    f"envelope: still of {name!r} is {number}, outside its limits [{low}, {high}]; widen them"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file or a message; ``from_json`` reads them back."""
        workspace = {
            name: {key: value for key, value in dataclasses.asdict(bounds).items() if value is not None}
            for name, bounds in self.workspace.items()
        }
        return {
            "step": {name: list(limits) for name, limits in self.step.items()},
            "rate": dict(self.rate),
            "workspace": workspace,
            "still": dict(self.still),
            "on_violation": self.on_violation,
        }

    @classmethod
    def from_json(cls, fields: Any, where: str = "envelope") -> "Envelope":
        """The envelope of plain values, as ``to_json`` or a person wrote them; `where` says in messages what holds it.

        Raises:
            UserError: a field is unknown or malformed, or a value is refused by the constructor.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        _check_keys(fields, known, where)
        for name in known - {"on_violation"}:
            if not isinstance(fields.get(name, {}), Mapping) or any(
                type(key) is not str for key in fields.get(name, {})
            ):
                raise UserError(f"{where}: {name} is {str(fields[name])[:60]!r}; give an object by names")
        step = {}
        for name, pair in fields.get("step", {}).items():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise UserError(f"{where}: step of {name!r} is {str(pair)[:60]!r}; give [low, high]")
            step[name] = (pair[0], pair[1])
        try:
            workspace = {}
            for name, entries in fields.get("workspace", {}).items():
                _check_keys(entries, {field.name for field in dataclasses.fields(Bounds)}, f"workspace.{name}")
                for key in ("low", "high"):
                    if key not in entries:
                        raise UserError(f"workspace.{name}.{key} is missing; give a number")
                workspace[name] = Bounds(**entries)
            return cls(
                step=step,
                rate=dict(fields.get("rate", {})),
                workspace=workspace,
                still=dict(fields.get("still", {})),
                on_violation=fields.get("on_violation", CLIP),
            )
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Guarded:
    """An action inside the envelope.

    Attributes:
        action: float32[width].
        limited: names of the dimensions that were beyond a limit or not finite, and of the positions that were unknown
            or outside without an action that moves them; () where nothing was.
        held: the whole action was replaced by the one that keeps the robot still.
    """

    action: np.ndarray
    limited: tuple[str, ...]
    held: bool


class Guard:
    """Keeps one robot inside its envelope, and remembers what that needs: its last action, and where it is.

    A guarded action is finite and within the action space, the step limits and the workspace. It is within the rate as
    well, save where the workspace leaves nothing of that: then it is the nearest that the workspace allows. Held, the
    robot is brought towards `still` as fast as the rate allows. What is inside all limits stays as it is, bit for bit.

    Not safe to call from several threads at once.

    Args:
        envelope: the robot's.
        space: of its actions.
        state_names: of the numbers of its state; () where it tells none.

    Attributes:
        counts: how many actions there were ("actions"), were held ("held"), and were limited, by `Guarded.limited`
            ("limited:NAME"), since the guard was made.

    Raises:
        UserError: the envelope does not fit the robot.
    """

    def __init__(self, envelope: Envelope, space: Space, state_names: Sequence[str] = ()):
        envelope.check(space, state_names)
        self.envelope = envelope
        self.counts: collections.Counter[str] = collections.Counter()
        names = self._names = tuple(space.names)
        step = [
            envelope.step.get(name, bounds)
            for name, bounds in zip(names, zip(space.low, space.high, strict=True), strict=True)
        ]
        # float32 as the actions are, so that an action at its bound is inside.
        self._low = np.array([max(pair) for pair in zip(space.low, (low for low, _ in step), strict=True)], np.float32)
        self._high = np.array(
            [min(pair) for pair in zip(space.high, (high for _, high in step), strict=True)], np.float32
        )
        self._binary = np.array([kind in (_BINARY, _TERMINATE) for kind in space.kinds])
        self._terminate = np.array([kind == _TERMINATE for kind in space.kinds])
        self._rate = np.array([envelope.rate.get(name, np.inf) for name in names])
        still = [envelope.still.get(name, 0.0) for name in names]
        self._repeats = np.array([number is None for number in still]) | self._binary
        self._still = np.array([0.0 if number is None else number for number in still], np.float32)
        # Each position of the workspace: its bounds, what of the action moves it, where the state tells it.
        self._bounds = list(envelope.workspace.items())
        self._moves = [None if each.moved_by is None else names.index(each.moved_by) for _, each in self._bounds]
        self._told = [state_names.index(name) if name in state_names else None for name, _ in self._bounds]
        self._state_width = len(state_names)
        self.reset()

    def reset(self) -> None:
        """A new episode: the last action and all positions are forgotten; the counts stay."""
        self._last: np.ndarray | None = None
        self._positions: list[float | None] = [bounds.start for _, bounds in self._bounds]
        # What was remembered before the first action of the last chunk, and after each.
        self._trail: list[tuple[np.ndarray | None, tuple[float | None, ...]]] = [(None, tuple(self._positions))]

    def apply(self, action: np.ndarray, state: np.ndarray | None = None) -> Guarded:
        """The action that takes the place of `action`, and counts as carried out from here on.

        Args:
            action: [width], in the units of the space.
            state: [S] in the units of the robot's state; None where it was not told anew, as between the actions of
                one chunk: positions then follow from the actions.

        Raises:
            UserError: another shape or no numbers, which is a mistake in the caller's code and not in a policy.
        """
        action = _numbers(action, len(self._names), "action")
        self._locate(state)
        with np.errstate(over="ignore"):
            wanted = action.astype(np.float32)
        finite = np.isfinite(wanted)
        lost = [
            name for (name, bounds), at in zip(self._bounds, self._positions, strict=True) if self._is_lost(bounds, at)
        ]
        low, high = self._limits()
        inside = finite & np.where(
            self._binary, (wanted == self._low) | (wanted == self._high), (low <= wanted) & (wanted <= high)
        )
        limited = (*(name for name, well in zip(self._names, inside, strict=True) if not well), *lost)
        held = bool(lost) or not finite.all() or bool(limited and self.envelope.on_violation == HOLD)
        guarded = wanted
        if limited:
            target = self._held(wanted) if held else wanted
            clipped = np.where(target < low, low, np.where(target > high, high, target))
            nearer_high = target - self._low > self._high - target
            guarded = np.where(self._binary, np.where(nearer_high, self._high, self._low), clipped)
        self._last = guarded
        for number, (mover, (_, bounds)) in enumerate(zip(self._moves, self._bounds, strict=True)):
            position = self._positions[number]
            if mover is not None and position is not None:
                self._positions[number] = position + bounds.scale * float(guarded[mover])
        self.counts.update(["actions", *["held"][: int(held)], *(f"limited:{name}" for name in limited)])
        return Guarded(guarded.copy(), limited, held)

    def apply_chunk(
        self, chunk: np.ndarray, state: np.ndarray | None = None, carried_out: int | None = None
    ) -> tuple[Guarded, ...]:
        """`apply` for each action of a chunk, `state` being that before the first.

        Args:
            chunk: [k, width].
            state: as `apply` takes it.
            carried_out: how many of the last chunk's actions were carried out before this one was asked for; None is
                all. The rate then counts from the last of them, and positions that the state does not tell from there.

        Raises:
            UserError: as `apply`, or fewer than no action carried out.
        """
        if carried_out is not None:
            if carried_out < 0:
                raise UserError(f"carried_out is {carried_out}; give 0 or more")
            last, positions = self._trail[min(carried_out, len(self._trail) - 1)]
            self._last, self._positions = last, list(positions)
        guarded, trail = [], [(self._last, tuple(self._positions))]
        for number, action in enumerate(chunk):
            guarded.append(self.apply(action, state if number == 0 else None))
            trail.append((self._last, tuple(self._positions)))
        self._trail = trail
        return tuple(guarded)

    def _locate(self, state: np.ndarray | None) -> None:
        """Takes the positions that the state tells; NaN and infinity tell none."""
        if state is None:
            return
        state = _numbers(state, self._state_width, "state")
        for number, told in enumerate(self._told):
            if told is not None:
                value = float(state[told])
                self._positions[number] = value if math.isfinite(value) else None

    @staticmethod
    def _is_lost(bounds: Bounds, position: float | None) -> bool:
        if position is None:
            return True
        return bounds.moved_by is None and not bounds.low <= position <= bounds.high

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), each float32[width]: what is allowed now."""
        low, high = self._low.copy(), self._high.copy()
        for mover, (_, bounds), position in zip(self._moves, self._bounds, self._positions, strict=True):
            if mover is None:
                continue
            # Outside already, by a push or a wrong start: it may come back or stay, not go further.
            least = 0.0 if position is None else min(0.0, bounds.low - position)
            most = 0.0 if position is None else max(0.0, bounds.high - position)
            ends = sorted((least / bounds.scale, most / bounds.scale))
            low[mover] = max(low[mover], _at_least(ends[0]))
            high[mover] = min(high[mover], _at_most(ends[1]))
        if self._last is not None:
            for index in np.flatnonzero(np.isfinite(self._rate)):
                last, most = float(self._last[index]), float(self._rate[index])
                slowest, fastest = _at_least(last - most), _at_most(last + most)
                low[index], high[index] = (
                    np.clip(slowest, low[index], high[index]),
                    np.clip(fastest, low[index], high[index]),
                )
        return low, high

    def _held(self, wanted: np.ndarray) -> np.ndarray:
        """What keeps the robot still; before an episode's first action there is none to repeat."""
        before = np.where(np.isfinite(wanted), wanted, self._still) if self._last is None else self._last
        held = np.where(self._repeats, before, self._still)
        # That the policy wants to end the episode moves nothing.
        return np.where(self._terminate & np.isfinite(wanted), wanted, held)


def _at_least(value: float) -> np.float32:
    """The least float32 that is not below `value`."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return near if float(near) >= value else np.nextafter(near, np.float32(np.inf))


def _at_most(value: float) -> np.float32:
    """The greatest float32 that is not above `value`."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))


def _numbers(values: Any, width: int, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.shape != (width,):
        raise UserError(f"{what}: {array.dtype}{list(array.shape)}, needs {width} numbers; give one for each dimension")
    return array


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _check_keys(fields: Any, known: set[str], where: str) -> None:
    if not isinstance(fields, Mapping):
        raise UserError(f"{where}: holds a {type(fields).__name__}, needs an object with {', '.join(sorted(known))}")
    for key in fields:
        if key not in known:
            raise UserError(f"{where}: unknown key {str(key)[:60]!r}; allowed: {', '.join(sorted(known))}")
