"""The demo's course, its examiner and its workers, without processes or sockets."""

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from dhtos.cli import demo, demo_fleet, demo_worker
from dhtos.cli.demo import DemoOptions, Examiner, run_demo
from dhtos.cli.demo_fleet import Fleet, WorkerFailed
from dhtos.cli.demo_queries import Clause, Query
from dhtos.cli.failure import WrongAnswer
from dhtos.cli.screen import Screen
from dhtos.core.coverage import Coverage
from dhtos.core.schema import Value, default_schema
from dhtos.errors import ConfigError, LookupExpired, NoPeers
from dhtos.query import parse

SCHEMA = default_schema()
SEED = 5


class Truth:
    """Machines in memory and an asking node that knows all of them."""

    def __init__(self) -> None:
        self.machines: dict[str, Mapping[str, Value]] = {}
        self.dead: frozenset[str] = frozenset()
        self.endpoints = [("127.0.0.1", 1)] * 20
        self.lose = 0
        self.error: Exception | None = None
        self.joining: list[int] = []
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def start(self, processes: int, on_joined: Callable[[int], None]) -> None:
        self.joining.append(processes)
        on_joined(len(self.machines))

    async def kill(self, ids: Sequence[str]) -> None:
        self.dead |= frozenset(ids)

    def meet(self, gateways: Sequence[tuple[str, int]]) -> None:
        assert gateways

    async def ask(
        self, text: str, *, limit: int = 0, order_by: str = "", count_only: bool = False
    ) -> Any:
        predicate = parse(text, SCHEMA)
        if self.error is not None:
            raise self.error
        wanted = matching(self.machines, predicate)
        if order_by:
            wanted.sort(key=lambda id_: float(self.machines[id_][order_by]))  # type: ignore[arg-type]
        hits = wanted[self.lose :][: limit or None]
        return SimpleNamespace(
            matches=len(wanted),
            hits=[] if count_only else [SimpleNamespace(id=id_) for id_ in hits],
            coverage=Coverage(1.0, True, False, (), 0.0, 2, 1),
        )

    async def aclose(self) -> None:
        self.closed = True


def matching(machines: Mapping[str, Mapping[str, Value]], predicate: Any) -> list[str]:
    """The ids that match, by the predicate's own evaluation."""
    from dhtos.core.record import make_record

    bound = predicate.bind(SCHEMA)
    return [
        id_
        for id_, attributes in machines.items()
        if bound.matches(
            make_record(
                SCHEMA,
                attributes,
                {},
                node_id=bytes.fromhex(id_),
                endpoint=("127.0.0.1", 1),
                seq=1,
            )
        )
    ]


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Truth:
    fake = Truth()

    def fleet(
        machines: Mapping[str, Any], *, seed: int, group_size: int, badges: Mapping[str, Any]
    ) -> Truth:
        assert seed == SEED
        assert group_size == 32
        assert list(badges) == list(machines)
        fake.machines = dict(machines)
        return fake

    monkeypatch.setattr(demo, "Fleet", fleet)
    monkeypatch.setattr(demo, "DemoNode", lambda *_, badge: fake)
    monkeypatch.setattr(demo, "LOOK_S", 0)
    monkeypatch.setattr(demo, "SPREAD_S", 0)
    return fake


# --- the course ---------------------------------------------------------------------------------


def test_a_right_fleet_ends_well(truth: Truth) -> None:
    out = io.StringIO()
    run_demo(DemoOptions(nodes=60, seed=SEED), Screen(as_json=True, out=out))
    document = json.loads(out.getvalue())
    assert document["right"]
    assert document["killed"] == 18
    assert len(document["before"]) == 8
    assert len(document["after"]) == 7
    assert truth.joining == [2]
    assert truth.closed
    assert set(document["seconds"]) == {"join", "settle", "all"}


def test_a_fleet_that_forgets_makes_the_demo_fail(truth: Truth) -> None:
    truth.lose = 2
    out = io.StringIO()
    with pytest.raises(WrongAnswer, match=f"matches missing.*--seed {SEED}"):
        run_demo(DemoOptions(nodes=60, seed=SEED), Screen(out=out))
    assert "answers are right" in out.getvalue()
    assert "NO: 2 matches missing" in out.getvalue()


def test_an_unreachable_fleet_is_a_wrong_answer(truth: Truth) -> None:
    class Silent(Truth):
        async def ask(self, text: str, **options: Any) -> Any:
            if text != "true":
                raise LookupExpired("no answer in time")
            return await Truth.ask(self, text, **options)

    truth.__class__ = Silent
    with pytest.raises(WrongAnswer, match="no answer in time"):
        run_demo(DemoOptions(nodes=60, seed=SEED), Screen(out=io.StringIO()))


def test_a_fleet_that_never_agrees_is_warned_of(
    truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SETTLE_S", 0.01)
    monkeypatch.setattr(demo, "STEADY", 10**9)
    beside = io.StringIO()
    run_demo(DemoOptions(nodes=12, seed=SEED), Screen(out=io.StringIO(), err=beside))
    assert beside.getvalue() == "warning: after 0 s the nodes still count differently\n"


def test_a_seed_is_chosen_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {demo.Demo(DemoOptions(), Screen()).report.seed for _ in range(3)}
    assert len(seeds) > 1


def test_bad_data_fails_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("colour\nred\n")
    with pytest.raises(ConfigError, match="no column names an attribute"):
        run_demo(DemoOptions(data=path), Screen(out=io.StringIO()))


def test_the_command_passes_on_its_options(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[DemoOptions, bool]] = []
    monkeypatch.setattr(demo, "run_demo", lambda o, screen: ran.append((o, screen.as_json)))
    shell.run("demo", "--nodes", "50", "--seed", "3", "--group-size", "16", "--processes", "4")
    assert ran == [(DemoOptions(50, 3, None, 16, 4), False)]
    shell.run("demo", "--data", __file__, "--json")
    assert ran[1] == (DemoOptions(data=Path(__file__)), True)


# --- the examiner -------------------------------------------------------------------------------


async def test_the_examiner_counts_the_dead_apart() -> None:
    truth = Truth()
    truth.machines = {f"{n:040x}": {"cores": n} for n in range(1, 11)}
    truth.dead = frozenset([f"{10:040x}"])
    examiner = Examiner(truth, truth, SCHEMA)  # type: ignore[arg-type]  # what it uses of both
    answer = await examiner.ask(Query("big", (Clause("cores", ">=", 8),)))
    assert (answer.found, answer.true, answer.stale) == (3, 2, 1)
    assert answer.faults == ()


async def test_the_examiner_expects_a_refusal_only_of_the_wrong_one() -> None:
    truth = Truth()
    examiner = Examiner(truth, truth, SCHEMA)  # type: ignore[arg-type]
    refused = await examiner.ask(Query("typo", wrong="coers >= 8"))
    assert "coers" in refused.refusal
    assert refused.faults == ()
    accepted = await examiner.ask(Query("no typo", wrong="cores >= 8"))
    assert accepted.faults == ("it was not refused",)


# --- workers ------------------------------------------------------------------------------------


class FakeDemoNode:
    """A node that joins at once."""

    def __init__(
        self, node_id: bytes, _schema: object, _config: object, seed: str, *, badge: object
    ) -> None:
        assert badge is None
        self.endpoint = ("127.0.0.1", node_id[-1])
        self.seed = seed
        self.dead = self.closed = False

    async def join(self, attributes: Mapping[str, Value], seeds: Sequence[Any]) -> None:
        await asyncio.sleep(0)
        if attributes.get("cores") == 13:
            raise NoPeers("no dhtos node answered for the hub")

    def die(self) -> None:
        assert not self.closed
        self.dead = True

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> demo_worker.Worker:
    monkeypatch.setattr(demo_worker, "DemoNode", FakeDemoNode)
    return demo_worker.Worker()


def joining(*cores: int) -> dict[str, Any]:
    machines = [{"id": f"{n:040x}", "attributes": {"cores": n}} for n in cores]
    return {"do": "join", "seed": 5, "group_size": 32, "seeds": [], "machines": machines}


async def test_a_worker_joins_all_and_tells_each(
    worker: demo_worker.Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await worker.obey(joining(1, 2, 3))
    assert answer == {"ready": [("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]}
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"joined": 1}, {"joined": 2}, {"joined": 3}]
    assert worker.nodes[f"{1:040x}"].seed == f"5/{1:040x}"  # type: ignore[attr-defined]


async def test_a_worker_kills_all_sockets_before_it_tidies_up(worker: demo_worker.Worker) -> None:
    await worker.obey(joining(1, 2, 3))
    nodes = dict(worker.nodes)
    assert await worker.obey({"do": "kill", "ids": [f"{1:040x}", f"{2:040x}"]}) == {"killed": 2}
    assert list(worker.nodes) == [f"{3:040x}"]
    assert [(n.dead, n.closed) for n in nodes.values()] == [  # type: ignore[attr-defined]
        (True, True),
        (True, True),
        (False, False),
    ]


async def test_a_worker_knows_its_commands(worker: demo_worker.Worker) -> None:
    with pytest.raises(ValueError, match="no such command: 'dance'"):
        await worker.obey({"do": "dance"})
    with pytest.raises(ExceptionGroup):
        await worker.obey(joining(13))


class FakeProcess:
    """A worker process that answers with the lines it was given."""

    def __init__(self, *answers: dict[str, Any], stays: bool = False) -> None:
        self.told: list[dict[str, Any]] = []
        self.killed = False
        self._stays = stays
        self._lines = [json.dumps(answer).encode() + b"\n" for answer in answers]
        self.stdin = SimpleNamespace(write=self._write, drain=self._drain, close=lambda: None)
        self.stdout = SimpleNamespace(readline=self._readline)

    def _write(self, line: bytes) -> None:
        self.told.append(json.loads(line))

    async def _drain(self) -> None:
        return

    async def _readline(self) -> bytes:
        return self._lines.pop(0) if self._lines else b""

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> int:
        if self._stays and not self.killed:
            await asyncio.Event().wait()
        return -9


def fleet(count: int = 4) -> Fleet:
    machines = {f"{n:040x}": {"cores": n} for n in range(1, count + 1)}
    return Fleet(machines, seed=5, group_size=32)


async def test_a_fleet_starts_its_first_node_then_the_others_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = FakeProcess(
        {"joined": 1}, {"ready": [["h", 1]]}, {"joined": 2}, {"ready": [["h", 3]]}, {"killed": 1}
    )
    second = FakeProcess(
        {"joined": 1}, {"joined": 2}, {"ready": [["h", 2], ["h", 4]]}, {"killed": 1}
    )
    waiting = [first, second]

    async def spawn() -> FakeProcess:
        return waiting.pop(0)

    monkeypatch.setattr(demo_fleet, "_spawn", spawn)
    progress: list[int] = []
    async with fleet() as started:
        await started.start(2, progress.append)
        assert started.endpoints == [("h", 1), ("h", 3), ("h", 2), ("h", 4)]
        assert max(progress) == 4
        await started.kill([f"{2:040x}", f"{3:040x}"])
        assert started.dead == {f"{2:040x}", f"{3:040x}"}
    assert first.told[0]["seeds"] == []
    assert [machine["id"] for machine in first.told[0]["machines"]] == [f"{1:040x}"]
    assert second.told[0]["seeds"] == [["h", 1]]
    assert second.told[1] == {"do": "kill", "ids": [f"{2:040x}"]}
    assert first.told[2] == {"do": "kill", "ids": [f"{3:040x}"]}


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (({"failed": "no dhtos node answered"},), "no dhtos node answered"),
        ((), "ended with code -9"),
    ],
)
async def test_a_worker_that_fails_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[dict[str, Any], ...], says: str
) -> None:
    async def spawn() -> FakeProcess:
        return FakeProcess(*answers)

    monkeypatch.setattr(demo_fleet, "_spawn", spawn)
    async with fleet() as started:
        with pytest.raises(WorkerFailed, match=says):
            await started.start(1, lambda _: None)


async def test_a_worker_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeProcess({"ready": [["h", 1]]}, {"ready": []}, stays=True)

    async def spawn() -> FakeProcess:
        return process

    monkeypatch.setattr(demo_fleet, "_spawn", spawn)
    monkeypatch.setattr(demo_fleet, "END_S", 0.001)
    async with fleet(1) as started:
        await started.start(1, lambda _: None)
    assert process.killed
