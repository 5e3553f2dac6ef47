"""A small server of the native dialect that does what a test wants, and nothing else."""

import contextlib
import http
import socket
import threading

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from rt2_jax.serve.wire import pack, unpack


def robot(history=1, chunk=1, envelope=None, proprioception=None, names=("dx", "dy")):
    return {
        "cameras": ["image"],
        "history": history,
        "chunk": chunk,
        "control_hz": 3.0,
        "action": {
            "names": list(names),
            "low": [-1.0] * len(names),
            "high": [1.0] * len(names),
            "units": ["m"] * len(names),
            "kinds": ["continuous"] * len(names),
        },
        "proprioception": proprioception,
        "envelope": None if envelope is None else envelope.to_json(),
    }


def greeting(robots=None, **changes):
    robots = {"arm": robot()} if robots is None else robots
    fields = {"type": "hello", "protocol": 1, "bundle": "ab" * 32, "modes": ["action", "plan"], "deadline_ms": 60000.0}
    return fields | {"embodiments": robots} | changes


def action(message, rows=((0.25, -0.5),), **changes):
    """An answer to `message`."""
    rows = np.array(rows, np.float32)
    fields = {
        "type": "action",
        "id": message["id"],
        "actions": rows,
        "bins": np.zeros(rows.shape, np.int32),
        "text": "1 2",
    }
    told = {"logprob": -1.5, "envelope": {"limited": [], "held": False}, "timing": {"queue_ms": 0.5, "total_ms": 2.0}}
    return fields | told | changes


class FakeServer:
    """Greets, keeps what it is sent, and answers with what `reply(message)` gives: a map, bytes, a text, or nothing."""

    def __init__(self, reply=action, hello=None, port=0, status=None):
        self.reply, self.hello, self.status = reply, greeting() if hello is None else hello, status
        self.received, self.headers, self._open = [], [], set()
        self._server = serve(self._handle, "localhost", port, process_request=self._request, max_size=None)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self):
        return f"ws://localhost:{self.port}"

    @property
    def observations(self):
        return [message for message in self.received if message["type"] == "observation"]

    def _request(self, connection, request):
        self.headers.append((request.path, request.headers.get("Authorization")))
        return None if self.status is None else connection.respond(http.HTTPStatus(self.status), "no")

    def _handle(self, connection):
        self._open.add(connection)
        with contextlib.suppress(ConnectionClosed):
            self._send(connection, self.hello)
            for data in connection:
                message = unpack(data)
                self.received.append(message)
                if message["type"] == "observation":
                    self._send(connection, self.reply(message))

    @staticmethod
    def _send(connection, message):
        for each in message if isinstance(message, list) else [message]:
            if each is not None:
                connection.send(pack(each) if isinstance(each, dict) else each)

    def drop(self):
        """Closes every connection, as a server that goes away does."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def stop(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self.drop()
