"""What a server says of itself when a robot connects: the bundle, and what each robot's frames and actions are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.actions.envelope import Envelope
from rt2_jax.errors import UserError
from rt2_jax.serve.failures import ProtocolError

PROTOCOL = 1


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """The numbers of an action, as `actions.space.ActionSpace` has them."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ServedRobot:
    """A robot that the server acts for.

    Attributes:
        name: the embodiment's.
        cameras: whose frames an observation has, each of them.
        history: moments that the model sees; the server keeps those before the present one.
        chunk: actions in one answer.
        control_hz: actions a second, or None where nobody knows.
        space: what their numbers mean.
        state_names, state_units: of the state that an observation has; () where it has none.
        envelope: limits that no action leaves, or None.
    """

    name: str
    cameras: tuple[str, ...]
    history: int
    chunk: int
    control_hz: float | None
    space: Dimensions
    state_names: tuple[str, ...]
    state_units: tuple[str, ...]
    envelope: Envelope | None

    def moves_as(self, other: "ServedRobot") -> bool:
        """Whether the two take the same actions, by the same state, from the same cameras."""
        mine, theirs = ((each.space, each.state_names, each.state_units, each.cameras) for each in (self, other))
        return mine == theirs


@dataclasses.dataclass(frozen=True)
class Greeting:
    """The server's first message.

    Attributes:
        bundle: identity of what it serves.
        modes: of "action" and "plan", those that may be asked for.
        deadline_ms: how old an observation may get that says nothing of it, in milliseconds.
        robots: by name.
        image_size: side in pixels that the model sees frames at, to which the server resizes them; None where it does
            not say.
        model: its "name", "parameters" and "step", as far as the server says.
    """

    bundle: str
    modes: tuple[str, ...]
    deadline_ms: float
    robots: Mapping[str, ServedRobot]
    image_size: int | None = None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def robot(self, name: str | None) -> ServedRobot:
        """The robot of that name; None is the only one there is.

        Raises:
            UserError: an unknown name, or none where there are several.
        """
        known = ", ".join(self.robots)
        if name is None and len(self.robots) != 1:
            raise UserError(f"the server acts for {len(self.robots)} embodiments; name one of: {known}")
        name = next(iter(self.robots)) if name is None else name
        if name not in self.robots:
            raise UserError(f"embodiment {name!r} is unknown to the server; choose of: {known}")
        return self.robots[name]


def read_greeting(message: Any) -> Greeting:
    """The greeting of a message.

    Raises:
        ProtocolError: it is none, or of another protocol.
    """
    if not isinstance(message, Mapping) or message.get("type") != "hello":
        raise ProtocolError("the server's first message is no hello; name the address of `rt2 serve`")
    if message.get("protocol") != PROTOCOL:
        raise ProtocolError(
            f"the server speaks protocol {str(message.get('protocol'))[:20]}, this client {PROTOCOL}; update one"
        )
    try:
        robots = {str(name): _robot(str(name), fields) for name, fields in message["embodiments"].items()}
        return Greeting(
            bundle=str(message["bundle"]),
            modes=tuple(str(mode) for mode in message["modes"]),
            deadline_ms=float(message["deadline_ms"]),
            robots=robots,
            image_size=None if message.get("image_size") is None else int(message["image_size"]),
            model=dict(message.get("model") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise ProtocolError(
            f"the server's hello does not say what it must ({type(error).__name__}: {error})"
        ) from error


def _robot(name: str, fields: Mapping[str, Any]) -> ServedRobot:
    action = fields["action"]
    dimensions = Dimensions(
        names=_texts(action["names"]),
        low=tuple(float(bound) for bound in action["low"]),
        high=tuple(float(bound) for bound in action["high"]),
        units=_texts(action["units"]),
        kinds=_texts(action["kinds"]),
    )
    if len({len(values) for values in dataclasses.astuple(dimensions)}) != 1:
        raise ValueError(f"the action of {name} has names, bounds, units and kinds of other numbers")
    told = fields.get("proprioception") or {"names": (), "units": ()}
    envelope = fields.get("envelope")
    robot = ServedRobot(
        name=name,
        cameras=_texts(fields["cameras"]),
        history=int(fields["history"]),
        chunk=int(fields["chunk"]),
        control_hz=None if fields.get("control_hz") is None else float(fields["control_hz"]),
        space=dimensions,
        state_names=_texts(told["names"]),
        state_units=_texts(told["units"]),
        envelope=None if envelope is None else Envelope.from_json(envelope, f"envelope of {name}"),
    )
    if robot.envelope is not None:
        robot.envelope.check(robot.space, robot.state_names)
    return robot


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
