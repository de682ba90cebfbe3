"""What does a hub answer while its machines come and go, and what does that cost?

    python -m bench.churn [--nodes 200] [--hours 24] [--group 128] [--sessions weibull]
                          [--mean-minutes 30] [--verify 1] [--seed 1] ...

A simulated cluster of real engines starts settled, from the truth; from then on it keeps itself
by its own protocol. Every node lives for one session and is replaced at once by a new machine
at a new address, which joins through three nodes that live then and remembers no others. One end
in ten is a goodbye, the others are sudden. Sessions are drawn from a distribution, or from those
of Skype in 2005 (Guha, Daswani, Jain, IPTPS 2006; Repository of Availability Traces), whose own
lengths count then. The rest of a session that has begun before the start is length-biased, so
that the start is like any other moment.

Random settled nodes ask at a steady rate, in turn LIMIT 20 and everything, at 10, 1 and 0.1 % of
the machines. Counted per answer, at its end:

recall       found of the matches that live then and had their place for 10 s when it began; with
             a limit no more is to be found than it leaves room for beside stale hits
stale        hits whose machine is dead or has left by then, over all hits
overclaimed  answers not cut off by their limit whose `coverage.fraction` is more than 1 % above
             their recall
background   UDP payload of everything, joins and queries too, per node and second

Figures go to `bench/results/churn.json`, one entry per setting; a run that is interrupted leaves
those of the hours it had.
"""

import argparse
import inspect
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.arrivals import SCHEMA, SELECTIVITIES, TRACE, Sessions, machines, predicates, record
from dhtos.core.predicate import Predicate
from dhtos.core.record import Record
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.hub import Hub
from dhtos.protocol.operation import Operation
from dhtos.sim import Cluster, EchoEngine, SimNode, Weather, engines, hub_truth

RESULTS = Path(__file__).with_name("results") / "churn.json"
CLEAN_ENDS = 0.1  # share of sessions that end with a goodbye
GATEWAYS = 3
PLACED_S = 10.0  # who has had its place for so long must be found
LIMIT = 20
OVERCLAIM = 0.01
SETTLING_S = 60.0  # after the start, before anything is counted


@dataclass(frozen=True, slots=True)
class Setting:
    """One experiment; the same setting gives the same figures."""

    nodes: int = 200
    hours: float = 24.0
    group: int = 128
    sessions: str = "weibull"
    mean_minutes: float = 30.0
    verify: int = 1
    seed: int = 1
    per_minute: float = 15.0
    change_s: float = 0.0  # each node changes a dynamic value so often; 0: heartbeats alone
    loss: float = 0.0

    @property
    def name(self) -> str:
        """What tells it from the other entries of the results."""
        return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                        for name, value in asdict(self).items())  # fmt: skip


# --- figures --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer against the truth at its end."""

    kind: str
    wanted: int
    found: int
    hits: int
    stale: int
    claimed: float
    limited: bool
    asked: int
    rtt: int

    @property
    def recall(self) -> float:
        """Found of what was to be found; 1 of nothing."""
        return self.found / self.wanted if self.wanted else 1.0

    @property
    def overclaimed(self) -> bool:
        """Whether it says it covers more than it does."""
        return not self.limited and self.claimed > self.recall + OVERCLAIM


@dataclass(slots=True)
class Ledger:
    """Everything that was counted."""

    answers: list[Answered] = field(default_factory=list)
    begun: int = 0
    misses: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The sums, overall and by kind of question."""
        by_kind = defaultdict(list)
        for answer in self.answers:
            by_kind[answer.kind].append(answer)
        return {
            "queries": len(self.answers),
            "asker died": self.begun - len(self.answers),
            **_summed(self.answers),
            "kinds": {kind: _summed(answers) for kind, answers in sorted(by_kind.items())},
        }


def _summed(answers: list[Answered]) -> dict[str, float]:
    if not answers:
        return {}
    wanted, hits = sum(a.wanted for a in answers), sum(a.hits for a in answers)
    with_any = [a.recall for a in answers if a.wanted]
    return {
        "recall of matches": sum(a.found for a in answers) / max(wanted, 1),
        "recall of answers": fmean(with_any) if with_any else 1.0,
        "answers that missed": sum(a.recall < 1 for a in answers) / len(answers),
        "stale hits": sum(a.stale for a in answers) / max(hits, 1),
        "answers with stale hits": sum(a.stale > 0 for a in answers) / len(answers),
        "overclaimed": sum(a.overclaimed for a in answers) / len(answers),
        "rpcs": fmean(a.asked for a in answers),
        "round trips": fmean(a.rtt for a in answers),
    }


# --- the world ------------------------------------------------------------------------------------


class World:
    """A cluster under churn, and the truth about it."""

    def __init__(self, setting: Setting, *, trace: Path = TRACE) -> None:
        self.setting = setting
        self.cluster: Cluster[Engine] = Cluster(
            engines(schema=SCHEMA, config=EngineConfig(group_size=setting.group)),
            seed=setting.seed,
            accounting=True,
            weather=Weather(loss=setting.loss),
        )
        self.ledger = Ledger()
        self.alive: dict[SimNode[Engine], dict[str, Any]] = {}  # with what each machine says
        self._by_id: dict[bytes, SimNode[Engine]] = {}
        self.ends: Counter[str] = Counter()
        self._since = 0.0  # when counting began
        self._rng = self.cluster.stream("churn")
        mean_s = 60 * setting.mean_minutes
        self._sessions = Sessions(setting.sessions, mean_s, self.cluster.stream("sessions"), trace)
        self._machines = machines(self.cluster.stream("machines"))
        self._predicates = predicates()
        known = inspect.signature(Hub.find).parameters
        if setting.verify > 1 and "verify" not in known:
            raise SystemExit("this hub cannot verify: leave --verify at 1")
        self._options = {"verify": setting.verify} if "verify" in known else {}

    def start(self) -> None:
        """Settle everybody from the truth; nothing has been counted yet."""
        nodes = self.cluster.add(self.setting.nodes)
        for node in nodes:
            self._equip(node)
        self.cluster.warm_start(hub_truth(lambda node: self._advert(node, 1)))
        for node in nodes:
            node.engine.hub.gateways = self._gateways(node)
            self._vary(node)

    def churn(self) -> None:
        """Let sessions end from now on."""
        nodes = list(self.alive)
        for node, rest_s in zip(nodes, self._sessions.rests(len(nodes)), strict=True):
            self._end_after(node, rest_s)

    def count(self, hours: float, progress: bool = False) -> None:
        """Ask at a steady rate for so long; the bill begins anew."""
        assert self.cluster.traffic is not None
        self.cluster.traffic.requests.clear()
        self.cluster.traffic.replies.clear()
        self._since = self.cluster.now
        until = self.cluster.now + 3600 * hours
        began = time.perf_counter()
        number = 0
        while (at := self.cluster.now + 60 / self.setting.per_minute) <= until:
            self.cluster.run_for(at - self.cluster.now)
            self.ask(number)
            number += 1
            if progress and number % int(20 * self.setting.per_minute) == 0:
                self._report(until, time.perf_counter() - began)
        self.cluster.run_for(max(until - self.cluster.now, 0))

    def _report(self, until: float, real_s: float) -> None:
        figures = _summed(self.ledger.answers)
        told = ", ".join(f"{name} {value:.5g}" for name, value in list(figures.items())[:6])
        sys.stderr.write(
            f"{(until - self.cluster.now) / 3600:.1f} h to go, {real_s:.0f} s gone: {told}\n"
        )

    @property
    def hours(self) -> float:
        """Virtual hours that were counted."""
        return (self.cluster.now - self._since) / 3600

    def figures(self) -> dict[str, Any]:
        """What was counted."""
        assert self.cluster.traffic is not None
        total, node_s = self.cluster.traffic.total, 3600 * self.hours * self.setting.nodes
        bill = Counter[str]()
        for book in (self.cluster.traffic.requests, self.cluster.traffic.replies):
            for name, count in book.items():
                bill[name] += count.bytes
        return {
            **self.ledger.figures(),
            "ends": dict(self.ends),
            "bytes/s per node": total.bytes / node_s,
            "datagrams/s per node": total.datagrams / node_s,
            "bytes/s per node by call": {n: b / node_s for n, b in bill.most_common()},
        }

    # --- coming and going -------------------------------------------------------------------------

    def _equip(self, node: SimNode[Engine]) -> None:
        self.alive[node] = next(self._machines)
        self._by_id[node.id] = node

    def _advert(self, node: SimNode[Engine], seq: int) -> Record:
        return record(self.alive[node], node.id, node.endpoint, seq)

    def _gateways(self, node: SimNode[Engine]) -> list[tuple[str, int]]:
        others = [other for other in self.alive if other is not node and other.engine.hub.settled]
        return [o.endpoint for o in self._rng.sample(others, min(GATEWAYS, len(others)))]

    def _end_after(self, node: SimNode[Engine], seconds: float) -> None:
        self.cluster.call_at(self.cluster.now + seconds, lambda: self._end(node))

    def _end(self, node: SimNode[Engine]) -> None:
        """A session is over: another machine takes the place in the count."""
        how = "clean" if self._rng.random() < CLEAN_ENDS else "sudden"
        self.ends[how] += 1
        if how == "clean":
            self.cluster.begin(node, lambda e, now: e.hub.leave(now))
        self.remove(node)
        (newcomer,) = self.cluster.add()
        self._equip(newcomer)
        record, gateways = self._advert(newcomer, 1), self._gateways(newcomer)
        newcomer.engine.hub.gateways = gateways
        self.cluster.begin(newcomer, lambda e, now: e.hub.advertise(record, now))
        self.cluster.begin(newcomer, lambda e, now: e.hub.join(gateways, now))
        self._end_after(newcomer, self._sessions.draw())
        self._vary(newcomer)

    def remove(self, node: SimNode[Engine]) -> None:
        """Take a machine away for good, and its memory from ours."""
        self.cluster.crash([node])
        del self.alive[node], self._by_id[node.id]
        node.engine = EchoEngine()  # type: ignore[assignment]  # it never runs

    def _vary(self, node: SimNode[Engine]) -> None:
        """Let a dynamic value change now and then that no question is about."""
        every_s = self.setting.change_s
        if not every_s:
            return

        def change() -> None:
            if node in self.alive:
                self.alive[node]["cpu_free"] = round(self._rng.uniform(0, 100), 1)
                hub = node.engine.hub
                assert hub.own is not None
                record = replace_version(hub.own, self._advert(node, hub.own.seq + 1))
                self.cluster.begin(node, lambda e, now: e.hub.advertise(record, now))
                self._vary(node)

        self.cluster.call_at(self.cluster.now + every_s * self._rng.uniform(0.8, 1.2), change)

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, number: int) -> None:
        """One question from a random settled node; its answer is judged when it ends."""
        share = SELECTIVITIES[number // 2 % len(SELECTIVITIES)]
        limit = LIMIT if number % 2 else 0
        predicate = self._rng.choice(self._predicates[share])
        asker = self._rng.choice([node for node in self.alive if node.engine.hub.settled])
        began = self.cluster.now
        kind = f"{f'limit {limit}' if limit else 'all'} at {share:.1%}"
        self.ledger.begun += 1
        operation: Operation[FindResult] = self.cluster.begin(
            asker, lambda e, now: e.hub.find(predicate, now, limit=limit, **self._options)
        )

        def judge(_now: float) -> None:
            self._judge(kind, asker, predicate, limit, began, operation.result())

        if operation.done:
            judge(began)
        else:
            asker.engine.hub.when_finished(operation, judge)

    def truth(self, predicate: Predicate, began: float) -> set[SimNode[Engine]]:
        """Who matches, lives, and had its place for PLACED_S at `began`."""
        matches = predicate.bind(SCHEMA).matches
        found = set()
        for node in self.alive:
            hub = node.engine.hub
            placed = hub.settled and hub.settled_at - node.offset_s <= began - PLACED_S
            if placed and hub.own is not None and matches(hub.own):
                found.add(node)
        return found

    def _judge(
        self,
        kind: str,
        asker: SimNode[Engine],
        predicate: Predicate,
        limit: int,
        began: float,
        result: FindResult,
    ) -> None:  # fmt: skip
        truth = self.truth(predicate, began)
        hits = [self._by_id.get(bytes(hit.id)) for hit in result.hits]
        coverage = result.coverage
        stale = hits.count(None)
        found, wanted = len(truth.intersection(hits)), len(truth)
        if limit:  # any live match will do
            wanted = min(wanted, limit - stale)
            found = min(len(hits) - stale, wanted)
        self.ledger.answers.append(
            Answered(
                kind, wanted, found, len(hits), stale,
                coverage.fraction, coverage.limited, coverage.asked, coverage.rtt,
            )
        )  # fmt: skip
        if found < wanted:
            for missed in sorted(truth.difference(hits), key=lambda node: node.index):
                told = self.explain(asker, missed)
                self.ledger.misses.append(f"{began:.1f} s, {kind}, {coverage}: {told}")

    def explain(self, asker: SimNode[Engine], missed: SimNode[Engine]) -> str:
        """Who should know a machine that was not found, and what they believe of it."""
        hub = missed.engine.hub
        age_s = self.cluster.now + missed.offset_s - hub.settled_at
        lines = [f"{missed} placed {age_s:.1f} s ago, depth {hub.group.depth}, asked by {asker}"]
        for node in self.alive:
            fault = _ignorance(node.engine.hub, hub.key) if node.engine.hub.settled else None
            if fault is not None:
                lines.append(f"  {node} depth {node.engine.hub.group.depth}: {fault}")
        return "\n".join(lines)


def _ignorance(hub: Hub, key: bytes) -> str | None:
    """Why a node would not lead to `key`, if so."""
    if not hub.group.prefix.holds(key):
        bucket = hub.buckets.get(hub.buckets.index_of(key))
        return "has no bucket for it" if bucket is None else None
    if key in hub.group.members:
        return None
    grave = hub.group.tombstones.get(key)
    return "lacks it" if grave is None else f"holds it for {grave.state.name} at {grave.seq}"


def replace_version(held: Record, changed: Record) -> Record:
    """The next version of a record with the dynamic values of another."""
    return held.updated(changed.seq, changed.dynamic, held.coordinate)


# --- the run --------------------------------------------------------------------------------------


def measure(setting: Setting, *, trace: Path = TRACE, progress: bool = False) -> World:
    """Run one setting to its end."""
    world = World(setting, trace=trace)
    world.start()
    world.churn()
    world.cluster.run_for(SETTLING_S)
    world.ends.clear()
    try:
        world.count(setting.hours, progress)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the figures are of what was counted by now\n")
        world.setting = replace(setting, hours=round(world.hours, 2))
    return world


def after_deaths(setting: Setting, share: float, queries: int = 600) -> World:
    """Nobody comes or goes, but a share dies at once; questions follow within ten seconds."""
    world = World(replace(setting, sessions="none"))
    world.start()
    world.cluster.run_for(SETTLING_S)
    for node in world.cluster.stream("deaths").sample(
        list(world.alive), round(share * setting.nodes)
    ):
        world.remove(node)
    for number in range(queries):
        world.ask(number)
        world.cluster.run_for(10.0 / queries)
    world.cluster.run_for(15.0)
    return world


def save(name: str, figures: dict[str, Any]) -> None:
    """Put the figures beside those of other settings."""
    held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    held[name] = figures
    RESULTS.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def table(figures: Mapping[str, Any]) -> str:
    """The figures as lines."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            lines.append(f"{name}:")
            lines += [f"    {row}" for row in table(value).splitlines()]
        else:
            lines.append(f"{name:<28}{value:>12.6g}")
    return "\n".join(lines)


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(prog="python -m bench.churn")
    for name, value in asdict(Setting()).items():
        option = f"--{name.replace('_', '-')}"
        if name == "sessions":
            kinds = ("weibull", "exponential", "skype")
            parser.add_argument(option, choices=kinds, default=value)
        else:
            parser.add_argument(option, type=type(value), default=value)
    parser.add_argument("--trace", type=Path, default=TRACE, help="an .avt.xz file of sessions")
    parser.add_argument("--dead", type=float, help="no churn: this share dies at once")
    parser.add_argument("--misses", type=int, default=0, help="show so many misses")
    parser.add_argument("--no-save", action="store_true")
    given = vars(parser.parse_args())
    setting = Setting(**{name: given[name] for name in asdict(Setting())})
    began = time.perf_counter()
    if given["dead"] is None:
        world = measure(setting, trace=given["trace"], progress=True)
        name, figures = world.setting.name, world.figures()
    else:
        world = after_deaths(setting, given["dead"])
        name = f"dead={given['dead']:g} {setting.name}"
        figures = world.ledger.figures()
    for miss in world.ledger.misses[: given["misses"]]:
        sys.stdout.write(f"{miss}\n")
    figures["real s"] = round(time.perf_counter() - began, 1)
    sys.stdout.write(f"{name}\n{table(figures)}\n")
    if not given["no_save"]:
        save(name, {**figures, "digest": world.cluster.trace.digest})


if __name__ == "__main__":
    main()
