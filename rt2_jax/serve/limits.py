"""What one server allows: sizes, rates, times. Frozen values, and the bucket that counts a rate."""

import dataclasses

from rt2_jax.errors import UserError
from rt2_jax.serve.batcher import BatcherLimits
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.wire import MAX_BYTES


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server; times in seconds.

    Attributes:
        deadline: from a request's arrival to its answer; a client may ask for less.
        batcher: how requests wait for a batch.
        max_message: bytes of one message or request body.
        max_pixels: of one image; 4K has 8.3 million, and takes a tenth of a second to decode.
        max_connections: open at a time, of all clients together.
        max_sessions: that REST clients name, kept at a time; the one unused for longest makes room.
        rate, burst: requests a second of one connection, and how many may come at once; None for no limit.
        key_rate, key_burst: the same of one API key, of all its connections together.
        header_timeout: for TLS's handshake and for a connection's first request, headers and all.
        body_timeout: for the body of a request.
        keepalive: that an idle HTTP connection stays open.
        heartbeat: of silence after which a WebSocket is pinged; half of it later, without a pong, it is closed.
        send_timeout: for a client to take a reply.
        drain: for what waits to be finished after SIGTERM.
    """

    deadline: float = 1.0
    batcher: BatcherLimits = dataclasses.field(default_factory=BatcherLimits)
    max_message: int = MAX_BYTES
    max_pixels: int = 2**23
    max_connections: int = 1024
    max_sessions: int = 1024
    rate: float | None = 200.0
    burst: int = 50
    key_rate: float | None = None
    key_burst: int = 200
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    keepalive: float = 75.0
    heartbeat: float = 60.0
    send_timeout: float = 20.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > 0:
                raise UserError(f"the server's {field.name} is {value}; give a number above 0")


class Rate:
    """A bucket of requests that fills with time: `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: int, what: str):
        self._rate, self._burst, self._what = rate, burst, what
        self._left, self._at = float(burst), 0.0

    def take(self, now: float) -> None:
        """Counts one request at the time `now`, in seconds of any clock that never goes back.

        Raises:
            Refusal: "rate", where none is left.
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            raise Refusal("rate", f"more than {self._rate:g} requests a second of {self._what}; send fewer")
        self._left -= 1.0
