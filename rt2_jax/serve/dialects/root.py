"""The dialects that share the path /: openpi-client's and vla-eval's.

openpi-client waits for the server's first frame, vla-eval's harness speaks first and reads one frame in reply. Nothing
in the handshake tells them apart, for both use the same WebSocket library. So the server always speaks first, with one
frame that both take: a hello of vla-eval's with the metadata of openpi in the same map. What the client sends then says
which it is: only vla-eval's maps have a type and a payload. The harness's first hello is thereby answered before it
comes.
"""

from typing import Any

from rt2_jax.serve.dialects import openpi, vla_eval
from rt2_jax.serve.dialects.contract import Heard, Misread
from rt2_jax.serve.dialects.native import described
from rt2_jax.serve.engine import Serving
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.session import Answer, modes_served
from rt2_jax.serve.wire import pack, unpack


class Root:
    """See `Dialect`; one connection's, which speaks as its client does from the first message on."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._serving: Serving | None = None
        self._is_harness: bool | None = None

    @property
    def name(self) -> str:
        """ "vla-eval" once a message of its has come, else "openpi"."""
        return "vla-eval" if self._is_harness else "openpi"

    @property
    def single(self) -> bool:
        """The harness takes one action at a time; openpi's clients have a broker for chunks."""
        return bool(self._is_harness)

    def greeting(self, serving: Serving, deadline: float) -> bytes:
        """A hello for vla-eval's harness, and metadata for openpi-client."""
        self._serving = serving
        metadata: dict[str, Any] = {
            "bundle": serving.identity,
            "modes": modes_served(serving),
            "deadline_ms": 1000 * deadline,
            "embodiments": described(serving),
        }
        return pack(metadata | vla_eval.hello(serving), "vla_eval")

    def read(self, data: bytes) -> Heard:
        """See `Dialect.read`."""
        try:
            message = unpack(data, self._max_bytes)
        except Exception as error:
            raise Misread(error, None) from error
        first = self._is_harness is None
        if first:
            self._is_harness = vla_eval.is_message(message)
        if not self._is_harness:
            return openpi.read(message)
        if first and isinstance(message["type"], str) and message["type"] == "hello":
            return Heard("nothing")  # the greeting was its reply
        if not isinstance(message, dict):
            message = {}
        assert self._serving is not None
        return vla_eval.read(message, self._serving)

    def answer(self, id: int | None, answer: Answer) -> bytes:
        """See `Dialect.answer`."""
        return vla_eval.answer(id, answer) if self._is_harness else openpi.answer(answer)

    def refusal(self, id: int | None, refusal: Refusal) -> bytes | str:
        """See `Dialect.refusal`."""
        return vla_eval.refusal(id, refusal) if self._is_harness else openpi.refusal(refusal)
