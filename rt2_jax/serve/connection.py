"""A WebSocket to `rt2 serve` that is made again when it breaks: addresses, greetings, pauses, and typed errors."""

import random
import ssl
import time
import urllib.parse
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from rt2_jax.errors import UserError
from rt2_jax.serve.failures import (
    ConnectionLost,
    NoAnswer,
    ProtocolError,
    RateLimited,
    ServerBusy,
    ServerDraining,
    ServingError,
    TooLarge,
    Unauthorized,
    refusal,
)
from rt2_jax.serve.greeting import Greeting, read_greeting
from rt2_jax.serve.wire import MAX_BYTES, WireError, pack, unpack

PATH = "/v1/act"
# Seconds between two attempts to connect: doubled each time, and each drawn between half of it and all of it, so that
# a hundred robots do not come back in the same moment.
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
# What a handshake is answered with by a server that starts or stops, or by what stands before it.
_COMES_BACK = (502, 503, 504)
_LEAST = 0.01  # seconds: one attempt is made whatever is left


class Connection:
    """One robot's WebSocket. Not safe to call from several threads at once, `close` apart.

    Args:
        url: see `address`.
        api_key: sent as ``Authorization: Api-Key KEY``.
        tls: for a certificate that the system does not trust, or one of the client's own.
    """

    def __init__(self, url: str, api_key: str | None = None, tls: ssl.SSLContext | None = None):
        self.url = address(url)
        self._headers = {} if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self._tls = tls
        self._socket: ClientConnection | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether nothing has shown yet that it is broken."""
        return self._socket is not None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def open(self, ends: float) -> Greeting:
        """Connects, and again until the time `ends` of `time.monotonic`, with growing pauses; what the server greets.

        Raises:
            ConnectionLost: nothing greets until then.
            Unauthorized, RateLimited, ProtocolError, ServingError: what answers refuses, or is no such server.
        """
        wait = FIRST_WAIT
        while True:
            try:
                return self._dial(max(ends - time.monotonic(), _LEAST))
            except (ConnectionLost, NoAnswer, ServerBusy, ServerDraining) as error:
                self.leave()
                pause, wait = random.uniform(wait / 2, wait), min(2 * wait, LONGEST_WAIT)
                if self._closed or time.monotonic() + pause >= ends:
                    raise ConnectionLost(f"{self.url} cannot be reached ({error}); see whether it runs") from error
            except ServingError:
                self.leave()
                raise
            time.sleep(pause)  # random and growing: robots that lost one server do not come back all at once

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message.

        Raises:
            ConnectionLost: the connection is broken; `open` it again.
            TooLarge: so it was at an earlier message that was over the server's limit.
            WireError: a value that no message can hold.
        """
        data = pack(message)
        try:
            self._open_socket().send(data)
        except (ConnectionClosed, OSError) as error:
            raise self._broken(error) from error

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next message, waited for `timeout` seconds.

        Raises:
            ConnectionLost: the connection is broken; `open` it again.
            TooLarge: so it is, since the last message was over the server's limit.
            NoAnswer: none came in time.
            ProtocolError: what came is none.
        """
        try:
            data = self._open_socket().recv(max(timeout, 0.0))
            if isinstance(data, str):
                raise WireError("a text, not bytes")
            message = unpack(data)
            if not isinstance(message, dict):
                raise WireError(f"a {type(message).__name__}, not a map")
            return message
        except TimeoutError as error:
            raise NoAnswer(f"{self.url} did not answer in time; give it more, or see what it does") from error
        except WireError as error:
            self.leave()
            raise ProtocolError(f"{self.url} sent what is no message of this protocol ({error})") from error
        except (ConnectionClosed, OSError) as error:
            raise self._broken(error) from error

    def leave(self) -> None:
        """Lets go of the connection; `open` makes another."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def close(self) -> None:
        """Leaves for good; who waits for a message gets `ConnectionLost`. Safe to call from any thread, and twice."""
        self._closed = True
        self.leave()

    def _open_socket(self) -> ClientConnection:
        socket = self._socket
        if socket is None:
            raise ConnectionLost(f"{self.url}: {'the client is closed' if self._closed else 'not connected'}")
        return socket

    def _broken(self, error: ConnectionClosed | OSError) -> ServingError:
        """What a connection that ended means; it is let go of."""
        self.leave()
        closed = error.rcvd if isinstance(error, ConnectionClosed) else None
        if closed is not None and closed.code == CloseCode.MESSAGE_TOO_BIG:
            return TooLarge(f"a message over the limit of {self.url}; send smaller frames, or JPEG")
        return ConnectionLost(f"the connection to {self.url} broke ({_told(error)}); act again")

    def _dial(self, timeout: float) -> Greeting:
        """One attempt."""
        if self._closed:
            raise ConnectionLost("the client is closed")
        ends = time.monotonic() + timeout
        try:
            self._socket = connect(
                self.url,
                additional_headers=self._headers,
                ssl=self._tls,
                compression=None,  # frames do not get smaller by it
                max_size=MAX_BYTES,
                open_timeout=timeout,
                close_timeout=1,
            )
        except InvalidStatus as error:
            raise self._of_status(error.response.status_code) from error
        except ssl.SSLCertVerificationError as error:
            raise ProtocolError(f"{self.url}: {error.verify_message}; trust its certificate by tls") from error
        except (OSError, InvalidHandshake, EOFError) as error:  # TimeoutError is an OSError
            raise ConnectionLost(_told(error)) from error
        if self._closed:  # meanwhile, by another thread
            raise ConnectionLost("the client is closed")
        message = self.receive(ends - time.monotonic())
        if message.get("type") == "error":
            raise refusal(str(message.get("code")), str(message.get("message")))
        return read_greeting(message)

    def _of_status(self, status: int) -> ServingError:
        if status in (401, 403):
            return Unauthorized(f"{self.url} takes no such API key, or needs one; give the one of its operator")
        if status == 429:
            return RateLimited(f"{self.url} takes no more connections of this client now; wait")
        if status in _COMES_BACK:
            return ConnectionLost(f"HTTP status {status}")
        return ProtocolError(f"{self.url} answers with HTTP status {status}; name the address of `rt2 serve`")


def address(url: str) -> str:
    """The WebSocket's URL: of ``ws://host:port`` or ``wss://``, ``http`` and ``https`` meaning the same; the server's
    own path where there is none.

    Raises:
        UserError: no such URL.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        scheme, host, _ = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme), parts.hostname, parts.port
    except ValueError:
        scheme, host, parts = "", None, urllib.parse.urlsplit("")
    if scheme not in ("ws", "wss") or not host:
        raise UserError(f"server {url!r} is no address; give one such as ws://localhost:8000")
    path = PATH if parts.path in ("", "/") else parts.path
    return urllib.parse.urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def _told(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
