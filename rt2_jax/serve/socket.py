"""One WebSocket connection, whatever it speaks: reads in order, answers, and forgets a client that goes."""

import asyncio
import contextlib

from aiohttp import WSCloseCode, WSMsgType, web

from rt2_jax.serve.dialects.contract import Dialect, Heard, Misread
from rt2_jax.serve.limits import Limits
from rt2_jax.serve.refusal import Refusal
from rt2_jax.serve.service import Service
from rt2_jax.serve.session import Session
from rt2_jax.serve.structured_log import tell


class Conversation:
    """A client on a WebSocket.

    Args:
        service: what answers.
        dialect: what is spoken; of this connection alone.
        client: whose it is, for rates and logs.
    """

    def __init__(self, service: Service, dialect: Dialect, client: str):
        self._service, self._dialect, self._client = service, dialect, client
        self._socket = _socket(service.limits)
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = False
        self._sending = asyncio.Lock()
        self._transport: asyncio.Transport | None = None

    async def run(self, request: web.Request) -> web.WebSocketResponse:
        """Speaks with the client until it goes or the server stops."""
        service, socket, self._transport = self._service, self._socket, request.transport
        await socket.prepare(request)
        session = service.session(self._dialect.name, self._client)
        rate = service.connection_rate()
        requests = 0
        try:
            await self._send(self._dialect.greeting(service.engine.serving, service.limits.deadline))
            tell("session_opened", session=session.number, client=self._client, path=request.path)
            async for message in socket:
                arrived = asyncio.get_running_loop().time()
                requests += 1
                self._reading = True
                try:
                    service.admit(self._client, rate)
                    if message.type != WSMsgType.BINARY:
                        raise Refusal("invalid", "a text frame; send binary frames of msgpack")
                    heard = await service.engine.aside(self._dialect.read, message.data)
                    await self._obey(session, heard, arrived)
                except Misread as error:
                    await self._refuse(error.id, error.cause)
                except Refusal as error:
                    await self._refuse(None, error)
                finally:
                    self._reading = False
        except (ConnectionError, TimeoutError):
            pass  # the client has gone, or takes no reply
        finally:
            await self._end()
            tell("session_closed", session=session.number, dialect=self._dialect.name, client=self._client,
                 messages=requests, code=socket.close_code)  # fmt: skip
        return socket

    async def close(self) -> None:
        """Says goodbye: the server is being stopped."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is being stopped")

    @property
    def busy(self) -> bool:
        """Whether a message that was read is not answered yet."""
        return self._reading or bool(self._answering)

    async def _obey(self, session: Session, heard: Heard, arrived: float) -> None:
        session.dialect = self._dialect.name
        if heard.kind == "reset" or heard.begins:
            session.reset()
        if heard.kind == "reply" and heard.reply is not None:
            await self._send(heard.reply)
        if heard.kind != "observation" or heard.observation is None:
            return
        single = self._dialect.single
        try:
            asked = await self._service.read(session, heard.observation, arrived, single=single)
        except Exception as error:
            await self._refuse(heard.id, error)
            return

        async def answer() -> None:
            try:
                found = await self._service.answer(asked, single=single)
                await self._send(self._dialect.answer(heard.id, found))
            except (ConnectionError, TimeoutError):
                pass  # as above: nobody is left to tell
            except Exception as error:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await self._refuse(heard.id, error)

        task = asyncio.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _refuse(self, id: int | None, error: BaseException) -> None:
        refusal = self._service.refused(self._dialect.name, self._client, error)
        await self._send(self._dialect.refusal(id, refusal))

    async def _send(self, message: bytes | str) -> None:
        """Sends a frame; a client that does not take it in time is cut off.

        Raises:
            ConnectionError, TimeoutError: the client has gone.
        """
        try:
            async with self._sending, asyncio.timeout(self._service.limits.send_timeout):
                if isinstance(message, str):
                    await self._socket.send_str(message)
                else:
                    await self._socket.send_bytes(message)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            raise

    async def _end(self) -> None:
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def _socket(limits: Limits) -> web.WebSocketResponse:
    return web.WebSocketResponse(
        compress=False,  # frames are compressed already, and a bomb needs nothing else
        max_msg_size=limits.max_message + 1,  # aiohttp refuses what reaches it, before it reads the payload
        heartbeat=limits.heartbeat,
        timeout=min(5.0, limits.send_timeout),
    )
