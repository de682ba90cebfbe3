"""Listening: the socket, and uvicorn on the loop that the node runs on.

uvicorn is taken without its signals, its logging and its main loop, which only keeps a date. Added
is what it leaves open: a connection that sends no request, and a client that does not read.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from dhtos.adapters.kubernetes import Settings
from dhtos.core.limits import HTTP_CONNECTIONS_MAX, HTTP_HEAD_S, HTTP_STALL_S
from dhtos.errors import ConfigError
from dhtos.http.app import application
from dhtos.http.service import Service
from dhtos.node.config import Config, format_endpoint, parse_listen
from dhtos.node.node import Node

API_VERSION = "1.0"
_KEEP_ALIVE_S = 75
_GRACE_S = 1


class HttpServer:
    """Serves HTTP for a node: bound first, so that a busy port is told before anybody joins."""

    def __init__(self, config: Config) -> None:
        """Listen at `config.http`; raises ConfigError where that cannot be. Blocks for the disk."""
        assert config.http is not None
        self._names = config.http_names
        self._settings = Settings.of(config.kubernetes)
        self._sock = listen(config.http)
        self._server: uvicorn.Server | None = None
        self._service: Service | None = None

    @property
    def endpoint(self) -> str:
        """`address:port` where it listens."""
        host, port = self._sock.getsockname()[:2]
        return format_endpoint((host, port))

    @property
    def url(self) -> str:
        """What to put before a path."""
        return f"http://{self.endpoint}"

    async def start(self, node: Node) -> None:
        """Answer for a started node."""
        self._service = Service(node, self._settings)
        config = uvicorn.Config(
            application(self._service, names=self._names, version=API_VERSION),
            http=Bounded,
            ws="none",
            lifespan="off",
            log_config=None,  # loggers of uvicorn belong to whoever embeds us
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=HTTP_CONNECTIONS_MAX,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._sock])

    async def aclose(self) -> None:
        """Cancel what is asked, give back what is held for clients; may be called again."""
        server, self._server = self._server, None
        if server is not None:
            for listener in server.servers:
                listener.close()
            for task in server.server_state.tasks:
                task.cancel()
            await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
            await server.shutdown(sockets=[self._sock])
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # its client does not read what is left
        service, self._service = self._service, None
        if service is not None:
            await service.aclose()
        self._sock.close()


@asynccontextmanager
async def serve(node: Node, listen: str | None = None) -> AsyncIterator[HttpServer]:
    """Serve HTTP for a started node of one's own; `listen` is `ADDRESS:PORT`.

    Without it, it is what the node's config says. Raises ConfigError.
    """
    config = node.config if listen is None else node.config.merged({"http": listen})
    if config.http is None:
        raise ConfigError('say where to listen: give listen="127.0.0.1:7480"')
    server = await asyncio.to_thread(HttpServer, config)
    try:
        await server.start(node)
        yield server
    finally:
        await server.aclose()


def listen(text: str) -> socket.socket:
    """A listening socket; raises ConfigError."""
    host, port = parse_listen(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio takes Nagle's delay off connections that are declared to be TCP, and off no others.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(HTTP_CONNECTIONS_MAX)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"http {text}: {reason}; choose another with --http") from error
    sock.setblocking(False)
    return sock


class Bounded(H11Protocol):
    """A connection that ends when no request comes, or nobody reads the answer."""

    def __init__(  # as uvicorn makes it
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        # Strangers must not be able to write our logs: this one is nobody's, and says nothing.
        self.logger = logging.Logger("dhtos.http", logging.CRITICAL + 1)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A request has so long to come as a whole, however its bytes trickle."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        super().connection_lost(exc)
        for timer in (self._head, self._stall):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        super().pause_writing()
        self._stall = self.loop.call_later(HTTP_STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def _watch(self) -> None:
        waiting = self._is_waiting()
        if not waiting and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waiting and self._head is None:
            self._head = self.loop.call_later(HTTP_HEAD_S, self._expire)

    def _expire(self) -> None:
        self._head = None
        if self._is_waiting():
            self.transport.abort()

    def _is_waiting(self) -> bool:
        """Whether no request is at work; there is no cycle before the first one."""
        return bool(getattr(self.cycle, "response_complete", True))
