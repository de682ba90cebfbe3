"""Many schedulers, one fleet that is nearly full: how often do claims collide, and who goes empty?

    python -m bench.placement.crowd [--nodes 240] [--minutes 5] [--load 0.95] [--gang 8] [--seeds 3]

Every machine is a node of the library with its ledger, in virtual time; every scheduler is a light
client with nothing but its own sight of them. Pods come at random, stay for five minutes on the
average, and take GPUs whole. The fleet is filled to the load first; what is counted begins then,
and who comes while the load is above what is asked for is sent away uncounted.

With `--gang` all that comes are gangs of so many pods, placed all or none.

A placement that finds nobody is no fault of a scheduler where no machine could have taken it when
it came: these are counted apart (`no room`), by what the ledgers themselves say.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean
from typing import Any
from unittest.mock import patch

import dhtos
from bench.placement.trace import MILLI, Pod, Trace, load
from dhtos import Need
from dhtos.errors import ClaimsRefused, NoCandidates
from dhtos.sim import Cluster, EchoEngine, run, sockets

MIB = 2**20
SCHEDULERS = 16
STAY_S = 300.0
DELAY_S = 0.005  # one way
_FILL_AT_ONCE = 8
_SETTLED_S = 2.0
_LONGEST_S = 35.0  # longer than any placement may take


@dataclass
class Tally:
    """What became of the placements that were counted."""

    placed: int = 0
    no_room: int = 0
    in_vain: int = 0
    claims: int = 0
    refused: int = 0
    took_s: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def plain(self) -> dict[str, float]:
        """Shares and means."""
        asked = self.placed + self.in_vain
        took = sorted(self.took_s)
        return {
            "placements": asked + self.no_room,
            "load": fmean(self.loads),
            "no room": self.no_room,
            "success": self.placed / asked,
            "claims": self.claims / self.placed,
            "first try": 1 - self.refused / self.claims,
            "p50 ms": 1000 * took[len(took) // 2],
            "p99 ms": 1000 * took[int(0.99 * len(took))],
        }


class Crowd:
    """The fleet, its schedulers, and the pods on their way."""

    def __init__(self, trace: Trace, nodes: int, seed: int, share: float, gang: int = 1) -> None:
        self.rng = Random(f"crowd {seed}")
        self.shapes = [trace.shapes[n * len(trace.shapes) // nodes] for n in range(nodes)]
        self.gpus = sum(shape.gpus for shape in self.shapes)
        self.pods = [pod for pod in trace.pods if pod.gpus]
        self.share = share
        self.gang = gang
        self.cluster = Cluster(lambda node, now: EchoEngine(), seed=seed, delay=DELAY_S)
        self.machines: list[dhtos.Node] = []
        self.schedulers: list[dhtos.Node] = []
        self.tally = Tally()
        mean = fmean(pod.gpus for pod in self.pods)
        self.rate = self.gpus / (mean * gang * STAY_S)  # more than leave: the load is kept

    def node(self, seeds: Sequence[str], **options: Any) -> dhtos.Node:
        """A node of the library on the simulated network."""
        config = dhtos.Config(seeds=tuple(seeds), control=False, sample=False, **options)
        return dhtos.Node(
            config,
            rng=self.cluster.stream(f"program/{len(self.machines) + len(self.schedulers)}"),
            wall_clock=lambda: 1e9,
            open_socket=sockets(self.cluster),
        )

    async def start(self) -> None:
        """All machines and schedulers, until everybody is found."""
        seeds: list[str] = []
        for shape in self.shapes:
            has = {"cores": shape.cpu // MILLI, "mem": shape.mem * MIB, "gpus": shape.gpus}
            machine = self.node(seeds[:3], advertise=has)
            await machine.start()
            await machine.joined()
            self.machines.append(machine)
            seeds.append(machine.endpoint)
        for n in range(SCHEDULERS):
            scheduler = self.node(self.rng.sample(seeds, 3), client=True)
            await scheduler.start()
            self.schedulers.append(scheduler)
            while n == 0 and await scheduler.count("gpus >= 1") != len(self.machines):  # noqa: ASYNC110
                await asyncio.sleep(1.0)

    def need(self, pod: Pod) -> Need:
        """GPUs are given out whole."""
        asked = {"cores": pod.cpu / MILLI, "mem": pod.mem * MIB, "gpus": pod.gpus}
        return Need(**{name: amount for name, amount in asked.items() if amount})

    def room(self, need: Need) -> bool:
        """Whether the machines could take it now, all members of a gang."""
        frees = (machine.grants.ledger.free() for machine in self.machines)
        asked = need.resources.items()
        return sum(min(int(free[name] / n) for name, n in asked) for free in frees) >= self.gang

    @property
    def load(self) -> float:
        """The share of all GPUs that is promised."""
        grants = (grant for machine in self.machines for grant in machine.leases())
        return sum(grant.resources.get("gpus", 0) for grant in grants) / self.gpus

    async def stay(self, scheduler: dhtos.Node, need: Need, *, counted: bool) -> None:
        """One pod, or gang: place it, let it be, give it back."""
        held: dhtos.Lease | dhtos.Gang
        room, began = not counted or self.room(need), self.cluster.now
        try:
            if self.gang > 1:
                held = await scheduler.place_gang(need, self.gang, ttl_s=120.0)
            else:
                held = await scheduler.place(need, ttl_s=120.0)
        except (NoCandidates, ClaimsRefused):
            if counted:
                self.tally.in_vain += room
                self.tally.no_room += not room
            return
        if counted:
            self.tally.placed += 1
            self.tally.took_s.append(self.cluster.now - began)
        await asyncio.sleep(self.rng.expovariate(1 / STAY_S))
        await held.release()

    async def fill(self, group: asyncio.TaskGroup) -> None:
        """Place until the load is reached."""
        while self.load < self.share:
            for scheduler in self.rng.sample(self.schedulers, _FILL_AT_ONCE):
                need = self.need(self.rng.choice(self.pods))
                group.create_task(self.stay(scheduler, need, counted=False))
            await asyncio.sleep(0.25)
        await asyncio.sleep(_SETTLED_S)

    async def live(self, seconds: float) -> None:
        """Pods come and go; what becomes of them is counted."""
        async with asyncio.TaskGroup() as group:
            await self.fill(group)
            before = self.counters()
            ends = self.cluster.now + seconds
            while self.cluster.now < ends:
                await asyncio.sleep(self.rng.expovariate(self.rate))
                if self.load > self.share:
                    continue
                need = self.need(self.rng.choice(self.pods))
                scheduler = self.rng.choice(self.schedulers)
                group.create_task(self.stay(scheduler, need, counted=True))
                self.tally.loads.append(self.load)
            await asyncio.sleep(_LONGEST_S)
            after = self.counters()
            held, refused = (after[word] - before[word] for word in ("held", "refused"))
            self.tally.claims, self.tally.refused = held + refused, refused
            raise _Over

    def counters(self) -> dict[str, int]:
        """What the machines have answered to claims."""
        return {
            word: sum(machine.engine.counters[f"claims_{word}"] for machine in self.machines)
            for word in ("held", "refused")
        }

    def measure(self, seconds: float) -> dict[str, float]:
        """Everything, in virtual time."""

        async def whole() -> None:
            await self.start()
            try:
                await self.live(seconds)
            except* _Over:
                pass
            for node in [*self.schedulers, *self.machines]:
                await node.aclose()

        # Identities and tokens are drawn of the operating system: here of the seed.
        with patch("os.urandom", self.cluster.stream("system").randbytes):
            run(self.cluster, whole(), limit_s=86_400.0)
        return self.tally.plain()


class _Over(Exception):
    """Enough was counted: those who still stay are sent away."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement.crowd", description=__doc__)
    parser.add_argument("--nodes", type=int, default=240)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--load", type=float, default=0.95)
    parser.add_argument("--gang", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trace", default="openb")
    given = parser.parse_args()
    trace = load(given.trace)
    for seed in range(1, given.seeds + 1):
        crowd = Crowd(trace, given.nodes, seed, given.load, given.gang)
        figures = crowd.measure(60 * given.minutes)
        told = ", ".join(f"{name} {figure:.4g}" for name, figure in figures.items())
        sys.stdout.write(f"seed {seed}: {told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
