"""Whom the asking commands ask: the daemon of this machine, or the fleet through a seed.

Both are one `Asker`: plain values in, plain values out, in the form of `dhtos.node.plain`, so
that a command cannot tell them apart. A daemon is asked over its control socket; with `--seed` a
light client joins for the length of one question and serves nobody.
"""

import socket
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

from dhtos.errors import ConfigError, Unreachable, UsageError
from dhtos.node.config import Config
from dhtos.node.control import Answer, ControlClient, default_control_path
from dhtos.node.membership import NAME, member_home, read_credentials
from dhtos.node.sealed_stream import Channels, Keys

Plain = dict[str, Any]
Stored = str | bytes | int | float | bool
Edges = list[int | float] | None
Names = Sequence[str]


class How(TypedDict, total=False):
    """How a value is stored, where not as usual."""

    owned: bool
    paths: int


class Whose(TypedDict, total=False):
    """How a value is looked for, where not as usual."""

    owner: str
    paths: int


@dataclass(frozen=True, slots=True)
class Question:
    """What `find` asks."""

    query: str
    limit: int = 0
    order_by: str | None = None
    descending: bool = False
    strict: bool = False
    cursor: str | None = None
    verify: int = 1
    explain: bool = False
    sample: int = 0  # so many at random, instead of all or the first


class Asker(Protocol):
    """Somebody who answers for the fleet."""

    async def find(self, question: Question, on_hit: Callable[[Plain], None]) -> Plain:
        """Tell every hit as it comes; returns matches, coverage and cursor."""
        ...

    async def count(self, query: str, *, strict: bool, verify: int) -> Plain:
        """How many machines match: count and coverage."""
        ...

    async def sum(self, attribute: str, query: str, *, strict: bool, verify: int) -> Plain:
        """The figures of a number attribute: count, present, sum and so on, and coverage."""
        ...

    async def histogram(
        self, attribute: str, query: str, edges: Edges, *, strict: bool, verify: int
    ) -> Plain:
        """Where the matches lie on a number attribute: edges, counts, missing, and coverage."""
        ...

    async def plan(self, need: Plain, candidates: int, on_choice: Callable[[Plain], None]) -> Plain:
        """Tell the machines for a need, the best first; returns who was refused, and coverage."""
        ...

    async def why(self, need: Plain) -> Plain:
        """How many machines what rules out for a need."""
        ...

    async def place(self, need: Plain, ttl_s: float, on_lease: Callable[[Plain], None]) -> None:
        """Claim what is needed and keep it; returns when it has been released or lost."""
        ...

    @property
    def channels(self) -> Channels | None:
        """Who begins sealed connections for us; None of a light client in open mode."""
        ...

    async def gang(self, need: Plain, gang: Plain, on_lease: Callable[[Plain], None]) -> None:
        """Claim `size` of it, all or none, and keep them; the rest of `gang` is optional."""
        ...

    async def replicas(
        self, need: Plain, replicas: Plain, on_change: Callable[[Plain], None]
    ) -> None:
        """Keep `count` of it alive, and tell each change; the rest of `replicas` is optional."""
        ...

    async def members(self) -> list[Plain]:
        """The machines that the node itself knows."""
        ...

    async def rtt(self, a: str, b: str) -> Plain:
        """How far two machines are apart: rtt_s, measured, error."""
        ...

    async def closest(self, k: int, query: str, probes: int) -> list[Plain]:
        """The machines nearest to the node, pinged."""
        ...

    async def within(self, seconds: float, query: str, limit: int, probes: int) -> list[Plain]:
        """The machines within so many seconds of the node, the unsure ones pinged."""
        ...

    async def central(self, others: Names, k: int, query: str, probes: int) -> list[Plain]:
        """The machines whose farthest of some others is nearest."""
        ...

    async def put(self, key: str, value: Stored, ttl_s: float | None, **how: Unpack[How]) -> Plain:
        """Store a value: stored_on, wanted, seq, and in a cluster owner."""
        ...

    async def remove(self, key: str, **how: Unpack[How]) -> Plain:
        """Take a value back, as `put`."""
        ...

    async def get(self, key: str, **how: Unpack[Whose]) -> Plain:
        """The newest value: value, seq, expires_s, and in a cluster owner."""
        ...

    async def user(self, name: str) -> Plain:
        """Who a user of the cluster is."""
        ...

    async def status(self) -> Plain:
        """What the node is and how it fares."""
        ...


class DaemonAsker:
    """Asks the node that runs on this machine."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def find(self, question: Question, on_hit: Callable[[Plain], None]) -> Plain:
        """Tell every hit as it comes."""
        answer = self._ask(question)
        async for hit in answer:
            on_hit(hit)
        return answer.end

    def _ask(self, question: Question) -> Answer:
        if question.sample:
            k, strict = question.sample, question.strict
            return self._client.ask("sample", query=question.query, k=k, strict=strict)
        return self._client.ask(
            "find",
            query=question.query,
            limit=question.limit,
            order_by=question.order_by,
            descending=question.descending,
            strict=question.strict,
            verify=question.verify,
            explain=question.explain,
            cursor=question.cursor,
        )

    async def count(self, query: str, *, strict: bool, verify: int) -> Plain:
        """How many machines match."""
        return await self._client.call("count", query=query, strict=strict, verify=verify)

    async def sum(self, attribute: str, query: str, *, strict: bool, verify: int) -> Plain:
        """The figures of a number attribute."""
        return await self._client.call(
            "sum", attribute=attribute, query=query, strict=strict, verify=verify
        )

    async def histogram(
        self, attribute: str, query: str, edges: Edges, *, strict: bool, verify: int
    ) -> Plain:
        """Where the matches lie on a number attribute."""
        return await self._client.call(
            "histogram",
            attribute=attribute,
            query=query,
            edges=edges,
            strict=strict,
            verify=verify,
        )

    async def plan(self, need: Plain, candidates: int, on_choice: Callable[[Plain], None]) -> Plain:
        """Tell the machines for a need, the best first."""
        answer = self._client.ask("plan", need=need, candidates=candidates)
        async for choice in answer:
            on_choice(choice)
        return answer.end

    async def why(self, need: Plain) -> Plain:
        """How many machines what rules out."""
        return await self._client.call("explain", need=need)

    async def place(self, need: Plain, ttl_s: float, on_lease: Callable[[Plain], None]) -> None:
        """Claim, and keep until we leave: the node releases it when the connection ends."""
        async for lease in self._client.ask("place", need=need, ttl_s=ttl_s):
            on_lease(lease)

    @property
    def channels(self) -> Channels:
        """The node, which has the key; it is asked beside what it answers now."""
        return DaemonChannels(self._client.path)

    async def gang(self, need: Plain, gang: Plain, on_lease: Callable[[Plain], None]) -> None:
        """Claim, and keep until we leave."""
        async for lease in self._client.ask("gang", need=need, **gang):
            on_lease(lease)

    async def replicas(
        self, need: Plain, replicas: Plain, on_change: Callable[[Plain], None]
    ) -> None:
        """Keep until we leave."""
        async for change in self._client.ask("replicas", need=need, **replicas):
            on_change(change)

    async def members(self) -> list[Plain]:
        """The members of the node's group."""
        return [member async for member in self._client.ask("members")]

    async def rtt(self, a: str, b: str) -> Plain:
        """How far two machines are apart."""
        return await self._client.call("rtt", a=a, b=b)

    async def closest(self, k: int, query: str, probes: int) -> list[Plain]:
        """The machines nearest to the node."""
        answer = self._client.ask("closest", k=k, query=query, probes=probes)
        return [hit async for hit in answer]

    async def within(self, seconds: float, query: str, limit: int, probes: int) -> list[Plain]:
        """The machines within so many seconds of the node."""
        answer = self._client.ask(
            "within", seconds=seconds, query=query, limit=limit, probes=probes
        )
        return [hit async for hit in answer]

    async def central(self, others: Names, k: int, query: str, probes: int) -> list[Plain]:
        """The machines whose farthest of some others is nearest."""
        answer = self._client.ask("central", others=list(others), k=k, query=query, probes=probes)
        return [central async for central in answer]

    async def put(self, key: str, value: Stored, ttl_s: float | None, **how: Unpack[How]) -> Plain:
        """Store a value."""
        if isinstance(value, bytes):
            text = b64encode(value).decode()
            return await self._client.call("put", key=key, base64=text, ttl_s=ttl_s, **how)
        return await self._client.call("put", key=key, value=value, ttl_s=ttl_s, **how)

    async def remove(self, key: str, **how: Unpack[How]) -> Plain:
        """Take a value back."""
        return await self._client.call("put", key=key, remove=True, **how)

    async def get(self, key: str, **how: Unpack[Whose]) -> Plain:
        """The newest value."""
        found = await self._client.call("get", key=key, **how)
        if "base64" in found:
            found["value"] = b64decode(found.pop("base64"))
        return found

    async def user(self, name: str) -> Plain:
        """Who a user is."""
        return await self._client.call("user", name=name)

    async def status(self) -> Plain:
        """What the node is and how it fares."""
        return await self._client.call("status")


class DaemonChannels:
    """Handshakes in the name of the node that runs on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def hello(self, identity: bytes) -> tuple[bytes, bytes]:
        """Begin."""
        async with ControlClient(self._path) as client:
            told = await client.call("channel", identity=identity.hex())
        return bytes.fromhex(told["name"]), b64decode(told["hello"])

    async def keys(self, name: bytes, ready: bytes) -> Keys:
        """End it."""
        async with ControlClient(self._path) as client:
            told = await client.call(
                "channel_keys", name=name.hex(), ready=b64encode(ready).decode()
            )
        return Keys(bytes.fromhex(told["send"]), bytes.fromhex(told["receive"]))


@asynccontextmanager
async def asker(config: Config, *, seeded: bool) -> AsyncIterator[Asker]:
    """Whoever answers: a light client if seeds were given, else the daemon of this machine.

    Where this machine has joined a cluster the client is who joined, and knows whom to ask where
    no daemon runs. Raises Unreachable where none runs, NoPeers when no seed answers.
    """
    home = config.credentials or member_home(config.state_dir)
    joined = home is not None and (home / NAME).exists()
    if not seeded and (not joined or not _knows_whom(home) or _daemon_runs(config)):
        async with ControlClient(control_path(config)) as client:
            yield DaemonAsker(client)
        return
    from dhtos.cli.asking_client import ClientAsker
    from dhtos.node.node import Node

    light = config.merged({"client": True, "port": 0, "sample": False, "state_dir": None})
    if joined:
        light = light.merged({"credentials": home})
    async with Node(light) as node:
        yield ClientAsker(node)


def control_path(config: Config) -> Path:
    """The socket of the daemon that is meant: the one that was named, or the only one there is.

    Raises Unreachable where none runs, ConfigError where one must be chosen.
    """
    if config.control_path is not None:
        return config.control_path
    path = default_control_path(config.state_dir, config.port)
    if config.state_dir is not None or _answers(path):
        return path
    sockets = sorted(path.parent.glob("[0-9]*.sock")) if path.parent.is_dir() else []
    home = member_home(None)
    if home is not None:
        sockets.append(default_control_path(home, config.port))
    running = list(filter(_answers, sockets))
    if len(running) > 1:
        shown = ", ".join(map(str, running[:4]))
        raise ConfigError(f"several nodes run on this machine; choose one with --control: {shown}")
    if not running:
        raise Unreachable(
            "no node runs on this machine; start one with dhtos-node run, "
            "or ask through a member of the fleet: --seed HOST:PORT"
        )
    return running[0]


def _knows_whom(home: Path | None) -> bool:
    """Whether those who joined here were told whom to ask; raises ConfigError."""
    return home is not None and bool(read_credentials(home)[1].seeds)


def _daemon_runs(config: Config) -> bool:
    try:
        return _answers(control_path(config))
    except Unreachable:
        return False


def _answers(path: Path) -> bool:
    """Whether a living node listens there; a killed one leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def read_cursor(text: str | None) -> bytes | None:
    """The cursor of an earlier answer; raises UsageError for anything else.

    >>> read_cursor("YWJj")
    b'abc'
    """
    if text is None:
        return None
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(f"{text[:20]!r} is no cursor; use the one an answer ended with") from error
