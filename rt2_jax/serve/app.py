"""The HTTP side: paths, who may use them, and replies that tell nothing of the server's insides."""

import asyncio
import collections
import json
import time
import urllib.parse
import weakref
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_request import FileField

from rt2_jax.errors import UserError
from rt2_jax.serve.auth import Keys
from rt2_jax.serve.dialects import openvla
from rt2_jax.serve.dialects.contract import Dialect
from rt2_jax.serve.dialects.native import Native, described
from rt2_jax.serve.dialects.root import Root
from rt2_jax.serve.limits import Rate
from rt2_jax.serve.metrics import CONTENT_TYPE
from rt2_jax.serve.refusal import HTTP_STATUS, Refusal, draining
from rt2_jax.serve.service import Service
from rt2_jax.serve.session import Session, modes_served
from rt2_jax.serve.socket import Conversation
from rt2_jax.serve.status_page import POLICY, status_page

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Swap = Callable[[str | None], Awaitable[None]]

# What watches a server has no key.
_OPEN = frozenset({"/healthz", "/health", "/readyz"})
_ADMIN = frozenset({"/admin/bundle"})
_PATHS = """\
rt2 serve: a robot policy.
WebSocket: /v1/act (native), / (openpi-client, vla-eval). REST: POST /act.
What goes on: /status.json, /metrics, /healthz, /readyz.
"""
_CLIENT = web.RequestKey("client", str)


class App:
    """The server's paths.

    Args:
        service: what answers.
        keys: who may ask.
        swap: exchanges the bundle: for that of a path, or with None for the same folder's content of now.

    Attributes:
        web: the aiohttp application.
        spoken: transports whose first request came, headers and all.
        connections: how many are open; set by who listens.
    """

    def __init__(self, service: Service, keys: Keys, swap: Swap):
        self._service, self._keys, self._swap = service, keys, swap
        self._conversations: set[Conversation] = set()
        self._acting = 0
        self._rates: weakref.WeakKeyDictionary[asyncio.BaseTransport, Rate] = weakref.WeakKeyDictionary()
        self._sessions: collections.OrderedDict[tuple[str, str], Session] = collections.OrderedDict()
        self._started = time.time()
        self.spoken: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self.connections: Callable[[], int] = lambda: 0

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        self.web = web.Application(middlewares=[guard], client_max_size=service.limits.max_message)
        self.web.add_routes(
            [
                web.get("/", self._root),
                web.get("/v1/act", self._native),
                web.post("/act", self._act),
                web.get("/healthz", self._healthz),
                web.get("/health", self._health),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status.json", self._status),
                web.post("/admin/bundle", self._bundle),
            ]
        )

    @property
    def busy(self) -> bool:
        """Whether a request that came is not answered yet."""
        return self._acting > 0 or any(conversation.busy for conversation in self._conversations)

    @property
    def sessions(self) -> int:
        """WebSockets that are open."""
        return len(self._conversations)

    async def say_goodbye(self) -> None:
        """Closes all WebSockets, as a server that is being stopped does."""
        await asyncio.gather(*(conversation.close() for conversation in self._conversations))

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.transport is not None:
            self.spoken.add(request.transport)
        client = request.remote or "local"
        try:
            origin = request.headers.get("Origin")
            if origin is not None and urllib.parse.urlsplit(origin).netloc != request.host:
                # Browsers let any page open a WebSocket to any host, and send along what keys they know for it.
                raise Refusal("unauthorized", "a page of another site; open the server's own address")
            if request.path in _ADMIN:
                if not self._keys.is_admin(request.headers.get("Authorization")):
                    raise Refusal("unauthorized", "this path needs the admin's key; send Authorization: Bearer KEY")
                client = "admin"
            elif self._keys.clients and request.path not in _OPEN:
                name = self._keys.client(request.headers.get("Authorization"))
                if name is None:
                    raise Refusal("unauthorized", "no known API key; send Authorization: Api-Key KEY, or Bearer KEY")
                client = name
            if request.path not in _OPEN and self.connections() > self._service.limits.max_connections:
                raise Refusal("busy", f"{self._service.limits.max_connections} connections are open; try again later")
            request[_CLIENT] = client
            return await handler(request)
        except web.HTTPException as error:
            code = "too_large" if error.status == 413 else "invalid"
            self._service.refused("http", client, Refusal(code, error.reason))
            response = _error(error.status, code, f"{request.method} {request.path[:60]}: {error.reason}")
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            refusal = self._service.refused("http", client, error)
            response = _error(HTTP_STATUS[refusal.code], refusal.code, refusal.message)
            if refusal.code == "unauthorized":
                response.headers["WWW-Authenticate"] = 'Basic realm="rt2"'  # so that a browser asks
        if request.headers.get("Upgrade"):
            response.force_close()
        return response

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            if "text/html" not in request.headers.get("Accept", ""):
                return web.Response(text=_PATHS)
            headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
            return web.Response(text=status_page(), content_type="text/html", headers=headers)
        return await self._converse(request, Root(self._service.limits.max_message))

    async def _native(self, request: web.Request) -> web.StreamResponse:
        limits = self._service.limits
        return await self._converse(request, Native(limits.deadline, limits.max_message))

    async def _converse(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        if self._service.draining:
            raise draining()
        conversation = Conversation(self._service, dialect, request[_CLIENT])
        self._conversations.add(conversation)
        try:
            return await conversation.run(request)
        finally:
            self._conversations.discard(conversation)

    async def _act(self, request: web.Request) -> web.StreamResponse:
        service, arrived = self._service, asyncio.get_running_loop().time()
        self._acting += 1
        try:
            client = request[_CLIENT]
            service.admit(client, self._rate(request))
            is_form = request.content_type == "multipart/form-data"
            async with asyncio.timeout(service.limits.body_timeout):
                body = await (_form(request) if is_form else request.read())
            if isinstance(body, bytes):
                call = await service.engine.aside(openvla.read_json, body, service.limits.deadline)
            else:
                call = openvla.read_form(*body, service.limits.deadline)
            session = self._session(client, call.session, request)
            if call.begins:
                session.reset()
            answer = await service.act(session, call.observation, arrived, single=call.session is not None)
            reply = openvla.object_reply(answer) if is_form else openvla.array_reply(answer, call.wrapped)
            return web.Response(body=reply, content_type="application/json")
        except TimeoutError as error:
            raise Refusal(
                "invalid", f"no whole body within {service.limits.body_timeout:g} s; send it faster"
            ) from error
        finally:
            self._acting -= 1

    def _rate(self, request: web.Request) -> Rate | None:
        connection = request.transport
        if connection is None:  # it broke meanwhile
            return None
        rate = self._rates.get(connection) or self._service.connection_rate()
        if rate is not None:
            self._rates[connection] = rate
        return rate

    def _session(self, client: str, name: str | None, request: web.Request) -> Session:
        """The session of a client's robot; one of its own for a request that names none."""
        service = self._service
        if name is None:
            session = service.session(openvla.NAME, client)
            session.lane = request.transport  # who sends much over one connection waits behind itself
            return session
        session = self._sessions.pop((client, name), None) or service.session(openvla.NAME, client)
        self._sessions[client, name] = session
        if len(self._sessions) > service.limits.max_sessions:
            self._sessions.popitem(last=False)
        return session

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="OK\n")

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._service.draining:
            return web.Response(status=503, text="draining\n")
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        service = self._service
        service.metrics.gauges(service.engine.batcher, self.connections(), self.sessions)
        return web.Response(body=service.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, request: web.Request) -> web.Response:
        """What a status page shows; `?since=N` leaves out frames up to number N."""
        service, since = self._service, request.query.get("since", "0")
        if not since.isdecimal() or len(since) > 15:
            raise Refusal("invalid", f"since is {since[:60]!r}; give the number of the last frame that you have")
        serving, batcher = service.engine.serving, service.engine.batcher
        status = {
            "loaded": {
                "identity": serving.identity,
                "path": str(serving.path),
                "model": serving.name,
                "step": serving.step,
                "since": serving.loaded,
                "modes": modes_served(serving),
                "embodiments": described(serving),
            },
            "server": {
                "since": self._started,
                "time": time.time(),
                "deadline_ms": 1000 * service.limits.deadline,
                "draining": service.draining,
                "connections": self.connections(),
                "sessions": self.sessions,
                "waiting": batcher.waiting,
                "running": batcher.running,
            },
            "history": service.recent.history(),
            "frames": await service.engine.aside(service.recent.frames, int(since)),
        }
        return web.json_response(status)

    async def _bundle(self, request: web.Request) -> web.Response:
        """Exchanges the bundle: {"path": str}, or nothing to load the same folder anew."""
        body = await request.read()
        try:
            fields = json.loads(body) if body else {}
        except ValueError as error:
            raise Refusal("invalid", 'the body is no JSON; send {"path": BUNDLE}, or nothing') from error
        path = fields.get("path") if isinstance(fields, dict) else 0
        if path is not None and not isinstance(path, str):
            raise Refusal("invalid", 'send {"path": BUNDLE}, or nothing to load the same folder anew')
        try:
            await self._swap(path)
        except UserError as error:
            raise Refusal("invalid", str(error)) from error
        return web.json_response({"identity": self._service.engine.serving.identity})


async def _form(request: web.Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """A form's texts, and its files by name."""
    try:
        form = await request.post()
    except (ValueError, AssertionError) as error:
        raise Refusal("invalid", "the body is no form; send multipart/form-data with files and texts") from error
    texts, files = {}, {}
    for name, value in form.items():
        if isinstance(value, FileField):
            files[name] = value.file.read()
        elif isinstance(value, str):
            texts[name] = value
        else:
            raise Refusal("invalid", f"form: {name[:60]!r} is bytes without a file name; send it as a file")
    return texts, files


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
