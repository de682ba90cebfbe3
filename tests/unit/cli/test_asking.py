"""Whom the commands ask, and that a daemon and a light client answer alike."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from trust_world import Authority

from dhtos.cli import asking
from dhtos.cli.asking import DaemonAsker, Question, asker, control_path, read_cursor
from dhtos.cli.asking_client import ClientAsker
from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.record import make_record
from dhtos.core.schema import default_schema
from dhtos.errors import ConfigError, Unreachable, UsageError
from dhtos.node.config import Config
from dhtos.node.control import default_control_path
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count
from dhtos.node.membership import Membership, default_home, write_membership
from dhtos.node.state import StateDir
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.put import PutResult
from dhtos.protocol.store import StoredValue
from dhtos.trust.keys import KeyPair

COVERAGE = Coverage(1.0, True, False, (), 2.0, 1, 1)


# --- which daemon -------------------------------------------------------------------------------


@contextmanager
def listening(*paths: Path) -> Iterator[None]:
    """Unix sockets that somebody listens on."""
    sockets = []
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sockets.append(server)
            server.bind(str(path))
            server.listen(8)
        yield
    finally:
        for server in sockets:
            server.close()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    # Relative, for the path of a socket is short.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", ".")
    return Path("dhtos")


def test_the_named_socket_is_taken_unseen(runtime: Path) -> None:
    assert control_path(Config(control_path=Path("x.sock"))) == Path("x.sock")


def test_a_state_directory_names_its_socket(runtime: Path) -> None:
    assert control_path(Config(state_dir=Path("state"))) == Path("state/control.sock")


def test_the_node_on_the_usual_port_comes_first(runtime: Path) -> None:
    usual, other = runtime / "7400.sock", runtime / "7401.sock"
    with listening(usual, other):
        assert control_path(Config()) == usual
        assert control_path(Config(port=7401)) == other


def test_the_only_node_that_lives_is_the_one(runtime: Path) -> None:
    with listening(runtime / "7400.sock", runtime / "7402.sock"):
        pass  # killed: their sockets stay behind
    with listening(runtime / "7401.sock"):
        assert control_path(Config()) == runtime / "7401.sock"


def test_one_of_several_must_be_chosen(runtime: Path) -> None:
    with (
        listening(runtime / "7401.sock", runtime / "7402.sock"),
        pytest.raises(ConfigError, match=r"--control: .*7401\.sock, .*7402\.sock"),
    ):
        control_path(Config())


@pytest.mark.parametrize("exists", [True, False])
def test_nobody_there_says_what_to_do(runtime: Path, exists: bool) -> None:
    if exists:
        runtime.mkdir()
    with pytest.raises(Unreachable, match="start one with dhtos-node run"):
        control_path(Config())


def test_the_default_is_where_a_node_listens(runtime: Path) -> None:
    assert default_control_path(None, 7400) == runtime / "7400.sock"


# --- cursors ------------------------------------------------------------------------------------


def test_a_cursor_is_read_or_refused() -> None:
    assert read_cursor(None) is None
    assert read_cursor("/+8=") == b"\xff\xef"
    for odd in ("?", "abc", "ä"):
        with pytest.raises(UsageError, match="is no cursor"):
            read_cursor(odd)


# --- the two askers -----------------------------------------------------------------------------


def hit() -> Hit:
    record = make_record(
        default_schema(),
        {"cores": 8},
        {},
        node_id=bytes(20),
        endpoint=("10.0.0.1", 7400),
        seq=3,
    )
    return Hit(record, default_schema(), 1.0)


class FakeAnswer:
    """An answer of the control client."""

    def __init__(self, items: list[dict[str, Any]], end: dict[str, Any]) -> None:
        self._items = items
        self.end = end

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        for item in self._items:
            yield item


class FakeClient:
    """A control client that answers as a node with one machine."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.ends: dict[str, dict[str, Any]] = {}

    def ask(self, op: str, **args: Any) -> FakeAnswer:
        self.asked.append((op, args))
        return FakeAnswer([{"id": "00" * 20}], self.ends.get(op, {}))

    async def call(self, op: str, **args: Any) -> dict[str, Any]:
        self.asked.append((op, args))
        return dict(self.ends.get(op, {}))


async def test_a_daemon_is_asked_over_its_socket() -> None:
    client = FakeClient()
    client.ends = {"find": {"matches": 1}, "count": {"count": 1}, "status": {"id": "x"}}
    daemon = DaemonAsker(client)  # type: ignore[arg-type]  # what a command uses of it
    hits: list[dict[str, Any]] = []
    question = Question("cores >= 8", 5, "price", descending=True, strict=True, cursor="YWJj")
    assert await daemon.find(question, hits.append) == {"matches": 1}
    assert hits == [{"id": "00" * 20}]
    assert client.asked.pop() == (
        "find",
        {
            "query": "cores >= 8",
            "limit": 5,
            "order_by": "price",
            "descending": True,
            "strict": True,
            "verify": 1,
            "explain": False,
            "cursor": "YWJj",
        },
    )
    assert await daemon.count("true", strict=False, verify=2) == {"count": 1}
    assert client.asked.pop() == ("count", {"query": "true", "strict": False, "verify": 2})
    client.ends |= {"sum": {"sum": 1}, "histogram": {"counts": [1]}, "sample": {"matches": 9}}
    assert await daemon.sum("cores", "true", strict=True, verify=2) == {"sum": 1}
    figures = {"attribute": "cores", "query": "true", "strict": True, "verify": 2}
    assert client.asked.pop() == ("sum", figures)
    found = await daemon.histogram("cores", "true", [4, 8], strict=True, verify=2)
    assert found == {"counts": [1]}
    assert client.asked.pop() == ("histogram", figures | {"edges": [4, 8]})
    drawn = Question("cores >= 8", strict=True, sample=5)
    hits.clear()
    assert await daemon.find(drawn, hits.append) == {"matches": 9}
    assert len(hits) == 1
    assert client.asked.pop() == ("sample", {"query": "cores >= 8", "k": 5, "strict": True})
    assert await daemon.members() == [{"id": "00" * 20}]
    assert await daemon.status() == {"id": "x"}


async def test_bytes_travel_to_a_daemon_as_base64() -> None:
    client = FakeClient()
    daemon = DaemonAsker(client)  # type: ignore[arg-type]
    await daemon.put("k", b"\x00\xff", 60.0)
    assert client.asked.pop() == ("put", {"key": "k", "base64": "AP8=", "ttl_s": 60.0})
    await daemon.put("k", 8, None)
    assert client.asked.pop() == ("put", {"key": "k", "value": 8, "ttl_s": None})
    client.ends["get"] = {"base64": "AP8=", "seq": 1}
    assert await daemon.get("k") == {"value": b"\x00\xff", "seq": 1}
    client.ends["get"] = {"value": "x", "seq": 1}
    assert await daemon.get("k") == {"value": "x", "seq": 1}
    client.asked.clear()
    await daemon.get("k", owner="self", paths=4)
    assert client.asked.pop() == ("get", {"key": "k", "owner": "self", "paths": 4})
    await daemon.put("k", "v", None, owned=True)
    assert client.asked.pop()[1]["owned"] is True
    await daemon.remove("k", paths=2)
    assert client.asked.pop() == ("put", {"key": "k", "remove": True, "paths": 2})


class FakeFind:
    """A running query of a node."""

    def __init__(self) -> None:
        self.result = FindResult((hit(),), COVERAGE, 1, b"abc")
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[Hit]:
        yield hit()


class FakeNode:
    """What a light client uses of a node."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config
        self.asked: list[tuple[Any, ...]] = []
        self.finding = FakeFind()
        self.left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left = True

    def find(self, query: str, **options: Any) -> FakeFind:
        self.asked.append((query, options))
        return self.finding

    async def find_all(self, query: str, **options: Any) -> FindResult:
        self.asked.append((query, options))
        return self.finding.result

    async def count(self, query: str, *, strict: bool = False, verify: int = 1) -> Count:
        self.asked.append((query, strict, verify))
        return Count(1, COVERAGE)

    async def sum(self, *asked: Any, **options: Any) -> Aggregate:
        self.asked.append((*asked, options))
        return Aggregate("cores", 2, 1, 8, 8, 8, COVERAGE)

    async def histogram(self, *asked: Any, **options: Any) -> Histogram:
        self.asked.append((*asked, options))
        return Histogram("cores", (4, 16), (0, 1, 0), 1, COVERAGE)

    async def sample(self, k: int, query: str, *, strict: bool) -> FindResult:
        self.asked.append((k, query, strict))
        return FindResult((hit(),), COVERAGE, 9, None)

    async def put(self, key: str, value: object, *, ttl_s: float) -> PutResult:
        self.asked.append((key, value, ttl_s))
        return PutResult(3, 20, 7)

    async def get(self, key: str) -> StoredValue:
        return StoredValue(b"v", 7, 60.0)


async def test_a_light_client_answers_in_the_same_form() -> None:
    node = FakeNode()
    client = ClientAsker(node)  # type: ignore[arg-type]  # what a command uses of it
    hits: list[dict[str, Any]] = []
    end = await client.find(Question("cores >= 8", 5, "price", cursor="YWJj"), hits.append)
    assert end["matches"] == 1
    assert end["cursor"] == "YWJj"
    assert end["coverage"]["complete"]
    assert hits[0]["endpoint"] == "10.0.0.1:7400"
    assert hits[0]["attributes"] == {"cores": 8}
    assert node.finding.closed
    query, options = node.asked.pop()
    assert query == "cores >= 8"
    assert options["cursor"] == b"abc"
    assert options["order_by"] == "price"
    counted = await client.count("true", strict=True, verify=3)
    assert node.asked.pop() == ("true", True, 3)
    assert counted["count"] == 1
    assert counted["coverage"]["asked"] == 1
    how = {"strict": True, "verify": 2}
    figures = await client.sum("cores", "true", strict=True, verify=2)
    assert node.asked.pop() == ("cores", "true", how)
    assert figures.pop("coverage") == counted["coverage"]
    assert figures == {
        "attribute": "cores", "count": 2, "present": 1, "sum": 8, "mean": 8.0, "minimum": 8,
        "maximum": 8,
    }  # fmt: skip
    bins = await client.histogram("cores", "true", [4, 16], strict=True, verify=2)
    assert node.asked.pop() == ("cores", "true", how | {"edges": [4, 16]})
    assert bins.pop("coverage") == counted["coverage"]
    assert bins == {
        "attribute": "cores", "edges": [4, 16], "counts": [0, 1, 0], "missing": 1, "count": 2,
    }  # fmt: skip
    hits.clear()
    end = await client.find(Question("true", sample=3, strict=True), hits.append)
    assert node.asked.pop() == (3, "true", True)
    assert (len(hits), end["matches"], end["cursor"]) == (1, 9, None)
    assert [member["id"] for member in await client.members()] == ["00" * 20]
    assert await client.put("k", "v", None) == {"stored_on": 3, "wanted": 20, "seq": 7}
    assert node.asked.pop()[2] > 3600
    await client.put("k", "v", 5.0)
    assert node.asked.pop() == ("k", "v", 5.0)
    assert await client.get("k") == {"value": b"v", "seq": 7, "expires_s": 60.0}


async def test_a_seed_makes_a_client_that_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeNode] = []

    def make(config: Config) -> FakeNode:
        made.append(FakeNode(config))
        return made[-1]

    monkeypatch.setattr("dhtos.node.node.Node", make)
    config = Config(seeds=("10.0.0.1:7400",), state_dir=Path("state"))
    async with asker(config, seeded=True) as who:
        assert isinstance(who, ClientAsker)
    (node,) = made
    assert node.left
    assert node.config is not None
    assert node.config.client
    assert node.config.port == 0
    assert node.config.state_dir is None
    assert node.config.seeds == ("10.0.0.1:7400",)


def joined(home: Path, *seeds: str) -> Path:
    """The directory of somebody who joined a cluster."""
    with StateDir(home) as state:
        key = KeyPair(state.identity().secret)
    write_membership(home, Membership(Authority().admit(key, "me"), seeds))
    return home


async def test_who_has_joined_asks_as_who_it_is(
    monkeypatch: pytest.MonkeyPatch, runtime: Path, tmp_path: Path
) -> None:
    made: list[FakeNode] = []

    def make(config: Config) -> FakeNode:
        made.append(FakeNode(config))
        return made[-1]

    def shown() -> tuple[Path | None, tuple[str, ...]]:
        config = made.pop().config
        assert config is not None
        assert config.state_dir is None
        return config.credentials, config.seeds

    monkeypatch.setattr("dhtos.node.node.Node", make)
    seeded = Config(seeds=("10.0.0.9:7400",))
    mine = joined(tmp_path / "mine", "10.0.0.1:7400")
    for config, by_seed in (
        (Config(state_dir=mine), False),  # the seeds of the token are enough
        (replace(seeded, state_dir=mine), True),
        (replace(seeded, credentials=mine), True),
    ):
        async with asker(config, seeded=by_seed):
            assert shown() == (mine, config.seeds)
    async with asker(seeded, seeded=True):
        assert shown() == (None, seeded.seeds)
    usual = joined(default_home(), "10.0.0.1:7400")
    async with asker(Config(), seeded=False):
        assert shown() == (usual, ())
    async with asker(seeded, seeded=True):
        assert shown() == (usual, seeded.seeds)


async def test_who_has_joined_asks_its_own_daemon_first(runtime: Path) -> None:
    usual = joined(default_home(), "10.0.0.1:7400")
    with listening(usual / "control.sock"):
        assert control_path(Config()) == usual / "control.sock"
        async with asker(Config(), seeded=False) as who:
            assert isinstance(who, DaemonAsker)
    with (
        listening(runtime / "7401.sock", usual / "fresh.sock"),
        pytest.raises(Unreachable, match="start one with dhtos-node run"),
    ):
        async with asker(Config(state_dir=joined(Path("first"))), seeded=False):
            pytest.fail("the first of a cluster was told of nobody, so it can ask nobody")


async def test_without_a_seed_the_daemon_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = asyncio.Event()

    class Connection(SimpleNamespace):
        async def __aenter__(self) -> Self:
            entered.set()
            return self

        async def __aexit__(self, *_: object) -> None:
            self.path = None

    monkeypatch.setattr(asking, "ControlClient", lambda path: Connection(path=path))
    async with asker(Config(control_path=Path("x.sock")), seeded=False) as who:
        assert isinstance(who, DaemonAsker)
        assert entered.is_set()
