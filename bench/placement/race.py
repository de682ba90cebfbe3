"""Schedulers race for a few machines while both are killed: does anybody oversell?

    python -m bench.placement.race [--daemons 10] [--schedulers 50] [--processes 5] [--seconds 60]

Real daemons, each a process with a ledger on disk, and processes of schedulers, each a light client
that places, holds for a moment and releases, over and over, wanting more than there is. At random
times a daemon or a process of schedulers is killed (SIGKILL) and started again.

Each scheduler writes down from when to when it believed in a lease: from the grant until it began
to release it, or until the lease would have expired as it knew; of a killed one the latter counts,
which is more than it can have believed. All clocks are the monotonic clock of this machine, so
beliefs can be added up: for no machine may the sum exceed what it has, at any moment.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dhtos
from dhtos import Need
from dhtos.errors import ClaimsRefused, DhtosError, NoCandidates

CORES = 4
TTL_S = 2.0
HOLD_S = 0.3  # the mean; half as long again is rare
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Belief:
    """Somebody believed to hold so many cores of a machine for some time."""

    node: str
    cores: float
    since: float
    until: float


# --- one process of schedulers --------------------------------------------------------------------


async def schedule(node: dhtos.Node, rng: random.Random, report: int) -> None:
    """Place, hold, release, for ever; one line for each lease when it begins and when it ends."""
    while True:
        cores = rng.choice((1, 1, 2, 3))
        try:
            lease = await node.place(Need(cores=cores), ttl_s=TTL_S, deadline_s=5)
        except (NoCandidates, ClaimsRefused):
            tell(report, {"refused": 1})
            await asyncio.sleep(rng.uniform(0, 0.05))
            continue
        except DhtosError as error:
            tell(report, {"error": str(error)})
            await asyncio.sleep(0.1)
            continue
        since = time.monotonic()
        name = {"node": str(lease.node), "token": lease.token, "cores": cores, "since": since}
        until = since + rng.expovariate(1 / HOLD_S)
        while True:
            # Told before it is relied upon: a killed process believed in no more.
            tell(report, {**name, "until": time.monotonic() + lease.expires_s})
            left = until - time.monotonic()
            if left <= 0 or lease.expires_s == 0:
                break
            await asyncio.sleep(min(left, 0.1))
        tell(report, {**name, "until": min(time.monotonic(), time.monotonic() + lease.expires_s)})
        await lease.release()


def tell(report: int, line: dict[str, object]) -> None:
    """One line, whole: a file opened for appending takes it in one write."""
    os.write(report, json.dumps({**line, "at": time.monotonic()}).encode() + b"\n")


async def work(seeds: list[str], count: int, seed: int, report: Path) -> None:
    """`count` schedulers over one light client."""
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rng = random.Random(seed)
    config = dhtos.Config(host="127.0.0.1", port=0, seeds=seeds, client=True, sample=False)
    async with dhtos.Node(config) as node:
        await asyncio.gather(
            *(schedule(node, random.Random(rng.random()), descriptor) for _ in range(count))
        )


# --- the race -------------------------------------------------------------------------------------


class Race:
    """Daemons and processes of schedulers, and their lives."""

    def __init__(self, home: Path, daemons: int, schedulers: int, processes: int, seed: int):
        self.home = home
        self.rng = random.Random(seed)
        self.each = -(-schedulers // processes)
        self.ports = [0] * daemons
        self.daemons: list[subprocess.Popen[str] | None] = [None] * daemons
        self.workers: list[subprocess.Popen[str] | None] = [None] * processes
        self.reports: list[tuple[Path, float]] = []  # with the death of its process
        self.killed = {"daemons": 0, "schedulers": 0}

    def start_daemon(self, index: int) -> None:
        """Start a daemon where it was, or for the first time."""
        seeds = [f"127.0.0.1:{port}" for n, port in enumerate(self.ports) if port and n != index]
        command = [
            sys.executable, "-m", "dhtos.cli.main", "run", "--host", "127.0.0.1",
            "--port", str(self.ports[index]), "--state-dir", str(self.home / f"d{index}"),
            "--set", f"cores={CORES}", *(part for s in seeds[:3] for part in ("--seed", s)),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready"), line
        endpoint = next(word for word in line.split() if word.startswith("endpoint="))
        self.ports[index] = int(endpoint.rpartition(":")[2])
        self.daemons[index] = process

    def start_worker(self, index: int) -> None:
        """Start a process of schedulers; its beliefs go to a file of its own."""
        report = self.home / f"beliefs-{len(self.reports)}"
        seeds = self.rng.sample([f"127.0.0.1:{port}" for port in self.ports], k=3)
        command = [
            sys.executable, "-m", "bench.placement.race", "--worker", str(report),
            "--schedulers", str(self.each), "--seed", str(self.rng.randrange(2**32)),
            *(part for seed in seeds for part in ("--at", seed)),
        ]  # fmt: skip
        self.workers[index] = subprocess.Popen(command, text=True)
        self.reports.append((report, float("inf")))

    def watch(self, within_s: float) -> None:
        """Let them race; one that ends by itself is a fault."""
        everybody = [process for process in (*self.workers, *self.daemons) if process is not None]
        with contextlib.suppress(subprocess.TimeoutExpired):
            everybody[0].wait(within_s)
        ended = [process.args for process in everybody if process.poll() is not None]
        if ended:
            raise RuntimeError(f"ended by itself: {ended}")

    def kill(self) -> None:
        """Kill one process at random, and start it again."""
        if self.rng.random() < 0.5:
            index = self.rng.randrange(len(self.daemons))
            end(self.daemons[index])
            self.killed["daemons"] += 1
            self.start_daemon(index)
        else:
            index = self.rng.randrange(len(self.workers))
            end(self.workers[index])
            self.killed["schedulers"] += self.each
            self.start_worker(index)

    def close(self) -> None:
        """End everything."""
        for process in (*self.workers, *self.daemons):
            end(process)


def end(process: subprocess.Popen[str] | None) -> None:
    """Kill a process and wait for its end."""
    if process is not None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def beliefs(report: Path) -> Iterator[Belief]:
    """What the schedulers of one process believed; the last word about a lease counts."""
    held: dict[str, Belief] = {}
    with contextlib.suppress(FileNotFoundError):
        for text in report.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if "token" in line:
                held[line["token"]] = Belief(
                    line["node"], line["cores"], line["since"], line["until"]
                )
    yield from held.values()


def most_believed(found: list[Belief]) -> dict[str, float]:
    """The largest sum of cores that were believed in at one moment, by machine."""
    steps: dict[str, list[tuple[float, int, float]]] = defaultdict(list)
    for belief in found:
        if belief.until > belief.since:
            steps[belief.node] += [
                (belief.since, 1, belief.cores), (belief.until, 0, -belief.cores),
            ]  # fmt: skip
    most: dict[str, float] = {}
    for node, changes in steps.items():
        held = highest = 0.0
        for _, _, change in sorted(changes):
            held += change
            highest = max(highest, held)
        most[node] = highest
    return most


def race(
    daemons: int, schedulers: int, processes: int, seconds: float, *, kill_every_s: float, seed: int
) -> dict[str, float]:
    """Run it; the figures, among them how many machines were ever oversold."""
    with tempfile.TemporaryDirectory(prefix="dhtos-race") as home:
        world = Race(Path(home), daemons, schedulers, processes, seed)
        try:
            for index in range(daemons):
                world.start_daemon(index)
            for index in range(processes):
                world.start_worker(index)
            over = time.monotonic() + seconds
            while time.monotonic() < over:
                world.watch(world.rng.uniform(0.5, 1.5) * kill_every_s)
                world.kill()
        finally:
            world.close()
        found = [belief for report, _ in world.reports for belief in beliefs(report)]
        refused = sum(
            report.read_text(encoding="utf-8").count('"refused"')
            for report, _ in world.reports
            if report.exists()
        )
    most = most_believed(found)
    return {
        "leases": len(found),
        "refused placements": refused,
        "machines": len(most),
        "cores believed at most": max(most.values(), default=0.0),
        "oversold": sum(cores > CORES for cores in most.values()),
        **{f"killed {what}": count for what, count in world.killed.items()},
    }


def main() -> None:
    """Race, or be one process of schedulers."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement.race", description=__doc__)
    parser.add_argument("--daemons", type=int, default=10)
    parser.add_argument("--schedulers", type=int, default=50)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kill-every", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--at", action="append", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        asyncio.run(work(given.at, given.schedulers, given.seed, given.worker))
        return
    print(f"seed {given.seed}")
    figures = race(
        given.daemons,
        given.schedulers,
        given.processes,
        given.seconds,
        kill_every_s=given.kill_every,
        seed=given.seed,
    )
    for name, figure in figures.items():
        print(f"{name:24} {figure:g}")
    sys.exit(1 if figures["oversold"] else 0)


if __name__ == "__main__":
    main()
