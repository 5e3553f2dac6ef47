"""What can go wrong for a client, a class each: one for every code that a server answers with, and the client's own."""

from typing import ClassVar


class ServingError(Exception):
    """An observation that got no action. Nothing was carried out; what to do with the robot is the caller's to say.

    Attributes:
        code: the server's, "" for what the client found itself.
    """

    code: ClassVar[str] = ""


class InvalidRequest(ServingError):
    """The server takes no such observation; sending it again changes nothing."""

    code = "invalid"


class StaleObservation(ServingError):
    """The observation's deadline passed before its turn came; take a new one."""

    code = "stale"


class ServerBusy(ServingError):
    """Too many requests wait; try again a little later, with a new observation."""

    code = "busy"


class Unauthorized(ServingError):
    """The API key is missing or unknown."""

    code = "unauthorized"


class TooLarge(ServingError):
    """A message or an image over the server's limits."""

    code = "too_large"


class RateLimited(ServingError):
    """More requests than this client may send; slow down."""

    code = "rate"


class ServerDraining(ServingError):
    """The server is about to stop. The client has left it: the next call connects again, to whatever serves then."""

    code = "draining"


class ServerFault(ServingError):
    """The server failed; its log says how."""

    code = "internal"


class ConnectionLost(ServingError):
    """The server cannot be reached, or the connection broke before the answer came.

    Whatever the server kept of the episode, such as the frames of its history, is lost with the connection. The next
    call connects again.
    """


class NoAnswer(ServingError):
    """No answer within the time; one that comes later is dropped."""


class ProtocolError(ServingError):
    """What answers is no server of this protocol, or another one than before."""


_CLASSES = {error.code: error for error in ServingError.__subclasses__() if error.code}


def refusal(code: str, message: str) -> ServingError:
    """The error of a code that a server sent; `ServingError` for one that this release does not know."""
    return _CLASSES.get(code, ServingError)(message)
