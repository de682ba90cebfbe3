"""The node's side of the control socket: each op as the lines it answers with.

Everything is bounded: the length of a line, the connections. A client that does not read its
answer stops its own query, not the node; one that goes away cancels it.
"""

import asyncio
import os
import socket
import stat
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhtos.core.limits import CONTROL_CLIENTS_MAX, CONTROL_LINE_BYTES_MAX, VALUE_TTL_S
from dhtos.core.predicate import EVERYTHING, Predicate
from dhtos.errors import ConfigError, DhtosError, UsageError
from dhtos.node.arguments import Args, Lines, from_base64, no_more, take
from dhtos.node.control import decode_line, default_control_path, encode_line, error_to_wire
from dhtos.node.control_place import placing_ops
from dhtos.node.naming import all_named, named
from dhtos.node.plain import (
    aggregate_to_plain,
    central_to_plain,
    coverage_to_plain,
    histogram_to_plain,
    hit_to_plain,
    result_to_plain,
    rtt_to_plain,
    status_to_plain,
)
from dhtos.query import parse_selector

if TYPE_CHECKING:
    from dhtos.node.node import Node


async def open_control(node: "Node") -> "ControlServer":
    """Listen where programs look for this node; raises ConfigError as `ControlServer.start`."""
    config = node.config
    path = config.control_path or default_control_path(config.state_dir, node.port)
    server = ControlServer(node, path)
    await server.start()
    return server


class ControlServer:
    """Answers programs of the same user on behalf of a started node."""

    def __init__(self, node: "Node", path: Path) -> None:
        self.path = path
        self._node = node
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._ops: dict[str, Callable[[Args], Lines]] = {
            "find": self._find,
            "count": self._count,
            "sum": self._sum,
            "histogram": self._histogram,
            "sample": self._sample,
            "rtt": self._rtt,
            "closest": self._closest,
            "within": self._within,
            "central": self._central,
            "members": self._members,
            "put": self._put,
            "get": self._get,
            "status": self._status,
            "advertise": self._advertise,
            "config": self._config,
            **placing_ops(node),
        }

    async def start(self) -> None:
        """Listen; raises ConfigError when another node listens there or the path is unfit."""
        sock = await asyncio.to_thread(bind_private, self.path)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=sock, limit=CONTROL_LINE_BYTES_MAX
        )

    async def aclose(self) -> None:
        """Stop listening, cancel what clients asked, remove the socket; may be called again."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await server.wait_closed()
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    # --- one connection ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > CONTROL_CLIENTS_MAX:
                busy = UsageError(f"at most {CONTROL_CLIENTS_MAX} clients at a time: try again")
                writer.write(encode_line({"error": error_to_wire(busy)}))
            else:
                await self._converse(reader, writer)
        except OSError:
            return  # The client went away; there is nobody to tell.
        except asyncio.CancelledError:
            # Streams of Python 3.11 report a cancelled handler as a fault; ours is closing.
            if self._server is not None:
                raise
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line after line; the line after the one at work is already read, to see an end."""
        line = await _line(reader)
        while line:
            answering = asyncio.create_task(self._answer(line, writer))
            listening = asyncio.create_task(_line(reader))
            try:
                await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and not listening.result():
                    # The client closed, or half-closed after its last question: a question that
                    # only waits for others is given up, what is ready was sent.
                    return
                await answering
                line = await listening
            finally:
                for task in (answering, listening):
                    task.cancel()
                await asyncio.gather(answering, listening, return_exceptions=True)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            message = decode_line(line)
            op, args = message.get("op"), message.get("args", {})
            handler = self._ops.get(op) if isinstance(op, str) else None
            if handler is None:
                raise UsageError(f"unknown op {op!r}; known: {', '.join(self._ops)}")
            if not isinstance(args, dict):
                raise UsageError("args must be a JSON object")
            async for part in handler(dict(args)):
                writer.write(encode_line(part))
                await writer.drain()
        except DhtosError as error:
            writer.write(encode_line({"error": error_to_wire(error)}))
            await writer.drain()

    # --- the ops ----------------------------------------------------------------------------------

    async def _find(self, args: Args) -> Lines:
        query = self._query(args)
        cursor = take(args, "cursor", str, "")
        finding = self._node.find(
            query,
            limit=take(args, "limit", int, 0),
            order_by=take(args, "order_by", str, "") or None,
            descending=take(args, "descending", bool, False),
            strict=take(args, "strict", bool, False),
            verify=take(args, "verify", int, 1),
            explain=(explain := take(args, "explain", bool, False)),
            cursor=from_base64("cursor", cursor) if cursor else None,
        )
        no_more(args)
        schema = self._node.schema if explain else None
        async with finding:
            async for hit in finding:
                yield {"item": hit_to_plain(hit)}
            yield {"end": result_to_plain(finding.result, schema)}

    async def _count(self, args: Args) -> Lines:
        query = self._query(args)
        strict = take(args, "strict", bool, False)
        verify = take(args, "verify", int, 1)
        no_more(args)
        count = await self._node.count(query, strict=strict, verify=verify)
        yield {"end": {"count": int(count), "coverage": coverage_to_plain(count.coverage)}}

    async def _sum(self, args: Args) -> Lines:
        query = self._query(args)
        attribute = take(args, "attribute", str)
        strict, verify = take(args, "strict", bool, False), take(args, "verify", int, 1)
        no_more(args)
        found = await self._node.sum(attribute, query, strict=strict, verify=verify)
        yield {"end": aggregate_to_plain(found)}

    async def _histogram(self, args: Args) -> Lines:
        query = self._query(args)
        attribute = take(args, "attribute", str)
        edges = take(args, "edges", list) if "edges" in args else None
        strict, verify = take(args, "strict", bool, False), take(args, "verify", int, 1)
        no_more(args)
        found = await self._node.histogram(
            attribute, query, edges=edges, strict=strict, verify=verify
        )
        yield {"end": histogram_to_plain(found)}

    async def _sample(self, args: Args) -> Lines:
        query = self._query(args)
        k, strict = take(args, "k", int), take(args, "strict", bool, False)
        no_more(args)
        result = await self._node.sample(k, query, strict=strict)
        for hit in result.hits:
            yield {"item": hit_to_plain(hit)}
        yield {"end": result_to_plain(result)}

    async def _rtt(self, args: Args) -> Lines:
        a, b = take(args, "a", str), take(args, "b", str, "self")
        no_more(args)
        one, two = await named(self._node, a), await named(self._node, b)
        yield {"end": rtt_to_plain(await self._node.rtt(one, two))}

    async def _closest(self, args: Args) -> Lines:
        query = self._query(args)
        k, probes = take(args, "k", int, 5), take(args, "probes", int, 8)
        no_more(args)
        found = await self._node.closest(k, query, probes=probes)
        for hit in found:
            yield {"item": hit_to_plain(hit)}
        yield {"end": {"machines": len(found)}}

    async def _within(self, args: Args) -> Lines:
        query, seconds = self._query(args), take(args, "seconds", float)
        limit, probes = take(args, "limit", int, 0), take(args, "probes", int, 8)
        no_more(args)
        found = await self._node.within(seconds, query, limit=limit, probes=probes)
        for hit in found:
            yield {"item": hit_to_plain(hit)}
        yield {"end": {"machines": len(found)}}

    async def _central(self, args: Args) -> Lines:
        query, others = self._query(args), take(args, "others", list)
        k, probes = take(args, "k", int, 5), take(args, "probes", int, 8)
        no_more(args)
        where = await all_named(self._node, others)
        found = await self._node.central(where, k, query, probes=probes)
        for central in found:
            yield {"item": central_to_plain(central)}
        yield {"end": {"machines": len(found)}}

    async def _members(self, args: Args) -> Lines:
        no_more(args)
        hub = self._node.engine.hub
        states = {m.record.node_id: m.state.name.lower() for m in hub.members()}
        for hit in self._node.members():
            state = states[bytes(hit.id)]
            yield {"item": hit_to_plain(hit) | {"state": state, "self": hit.id == self._node.id}}
        yield {"end": {"prefix": str(hub.group.prefix), "members": len(states)}}

    async def _put(self, args: Args) -> Lines:
        key = take(args, "key", str)
        if "base64" in args:
            value: Any = from_base64("base64", take(args, "base64", str))
        else:
            value = take(args, "value", object)
        ttl_s = take(args, "ttl_s", float, VALUE_TTL_S)
        seq = take(args, "seq", int) if "seq" in args else None
        no_more(args)
        result = await self._node.put(key, value, ttl_s=ttl_s, seq=seq)
        yield {"end": {"stored_on": result.stored_on, "wanted": result.wanted, "seq": result.seq}}

    async def _get(self, args: Args) -> Lines:
        key = take(args, "key", str)
        no_more(args)
        found = await self._node.get(key)
        end: dict[str, Any] = {"seq": found.seq, "expires_s": found.expires_s}
        if isinstance(found.value, bytes):
            end["base64"] = b64encode(found.value).decode()
        else:
            end["value"] = found.value
        yield {"end": end}

    async def _status(self, args: Args) -> Lines:
        no_more(args)
        yield {"end": status_to_plain(self._node)}

    async def _advertise(self, args: Args) -> Lines:
        attributes = take(args, "attributes", dict, {})
        labels = take(args, "labels", dict, {})
        no_more(args)
        if attributes:
            await self._node.advertise(attributes)
        if labels:
            await self._node.label(labels)
        told = {"attributes": dict(self._node.attributes), "labels": dict(self._node.labels)}
        yield {"end": told}

    async def _config(self, args: Args) -> Lines:
        no_more(args)
        yield {"end": self._node.config.to_mapping()}

    def _query(self, args: Args) -> Predicate:
        """The question of `find` and `count`: a predicate text, or a label selector."""
        query = take(args, "query", str, "")
        selector = take(args, "selector", str, "")
        if query and selector:
            raise UsageError("give a query or a selector, not both")
        if selector:
            return parse_selector(selector, self._node.schema)
        return self._node.predicate(query) if query else EVERYTHING


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing at the end of the connection or after a line over the limit."""
    try:
        return await reader.readline()
    except (ValueError, OSError):
        return b""


def bind_private(path: Path) -> socket.socket:
    """A listening unix socket that only its owner may open. Blocks for the disk.

    It is made under another name and renamed when its rights are set. A socket that a dead node
    left behind is replaced; a living one is a ConfigError.
    """
    try:
        _make_directory(path.parent)
        if _is_alive(path):
            raise ConfigError(
                f"another node answers on {path}: choose another with --state-dir or --port"
            )
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(fresh))
            fresh.chmod(0o600)
            sock.listen(CONTROL_CLIENTS_MAX)
            fresh.rename(path)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _make_directory(path: Path) -> None:
    """In a place that others can write to, a directory made by somebody else is a trap."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"control socket: {path} must be a directory of yours that no other can write to"
        )


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
