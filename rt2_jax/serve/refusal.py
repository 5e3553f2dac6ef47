"""What a request is refused with: a code that programs act on, and one line for people."""

from typing import Literal, get_args

from rt2_jax.errors import UserError
from rt2_jax.serve.wire import WireError

Code = Literal["invalid", "stale", "busy", "unauthorized", "too_large", "rate", "draining", "internal"]
CODES: tuple[Code, ...] = get_args(Code)
HTTP_STATUS: dict[Code, int] = {
    "invalid": 400,
    "stale": 504,
    "busy": 503,
    "unauthorized": 401,
    "too_large": 413,
    "rate": 429,
    "draining": 503,
    "internal": 500,
}


class Refusal(Exception):
    """A request that gets no action.

    Attributes:
        code: of `CODES`; a client may try again after "stale", "busy", "rate" and "draining".
        message: one line that names the value, the limit and the mend; never a detail of a fault of ours.
    """

    def __init__(self, code: Code, message: str):
        super().__init__(message)
        self.code: Code = code
        self.message = message


def internal() -> Refusal:
    """What a client is told of a fault of ours: nothing. The log has the rest."""
    return Refusal("internal", "the server failed at this request; its log says how")


def draining() -> Refusal:
    """What a new request is told by a server that is being stopped."""
    return Refusal("draining", "the server is being stopped; connect to another, or again in a while")


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that a client is sent for an error; "internal" for whatever is no fault of the client's."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, WireError):
        return Refusal("too_large" if error.code == "too_large" else "invalid", str(error))
    if isinstance(error, UserError):
        return Refusal("invalid", str(error))
    return internal()
