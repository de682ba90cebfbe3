"""How long the scheduler extender takes for a pod, with 10,000 names in each request.

    python -m bench.placement.extender [--names 10000] [--rounds 200]

The request is one that a real kube-scheduler sent, with all its names; the view holds as many
machines of a mixed fleet, half of which are too full. Each pod is filtered, and those that are left
are scored, over HTTP on loopback, in random order with the baseline `echo`: a process of the same
make that decodes the same body and encodes it again, which nobody who answers can do without. The
ratio is of CPU time, which other programs on the machine do not change much.

`alike` are pods that all need the same, as those of a deployment; of `each another` no two do, so
that nothing is remembered of the one before; `where` is the latter with the same predicate in each.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import psutil
import uvloop
from starlette.responses import Response

import dhtos
from dhtos.adapters.kubernetes import SCORED
from dhtos.core.hit import Hit
from dhtos.core.record import make_record
from dhtos.core.schema import Schema
from dhtos.http import serve

RECORDED = Path(__file__).resolve().parents[2] / "tests" / "live" / "kubernetes"
GiB = 2**30
CASES = ("alike", "each another", "where")
CALLS = ("filter", "prioritize")
WHERE = "arch == 'x86_64' and site != 'lab' and price < 0.9"


def fleet(schema: Schema, count: int, rng: Random) -> list[Hit]:
    """Machines of a mixed fleet as hits, named n0, n1, ...: half of them nearly full."""
    hits = []
    for n in range(count):
        cores = rng.choice((4, 8, 16, 32, 64))
        mem = cores * rng.choice((2, 4, 8)) * GiB
        busy = rng.random() < 0.5
        told: dict[str, Any] = {
            "cores": cores,
            "mem": mem,
            "arch": rng.choice(("x86_64", "x86_64", "arm64")),
            "site": rng.choice(("lab", "east", "west")),
            "price": round(rng.uniform(0.01, 1.0), 3),
            "cores_free": 0.05 if busy else rng.randint(2, cores),
            "mem_free": mem if busy else rng.randint(GiB, mem),
        }
        record = make_record(
            schema, told, {"name": f"n{n}"}, node_id=rng.randbytes(20),
            endpoint=("10.0.0.1", 7400), seq=1, identity=rng.randbytes(32),
        )  # fmt: skip
        hits.append(Hit(record, schema, rng.uniform(0, 60), rng.uniform(0.001, 0.1)))
    return hits


class Found:
    """What `Node.find` gives, of hits that are at hand."""

    def __init__(self, hits: list[Hit]) -> None:
        self._hits = iter(hits)
        self.result = SimpleNamespace(coverage=SimpleNamespace(complete=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to free."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Hit:
        for hit in self._hits:
            return hit
        raise StopAsyncIteration


async def run(kind: str, count: int) -> None:
    """Serve `ours` over a view of so many machines, or an `echo`; ends with standard input."""
    config = dhtos.Config(host="127.0.0.1", port=0, sample=False, advertise={"cores": 1})
    async with dhtos.Node(config) as node:
        hits = fleet(node.schema, count, Random(1))
        node.find = lambda *_, **__: Found(hits)  # type: ignore[method-assign,assignment]
        async with serve(node, "127.0.0.1:0") as server:
            if kind == "echo":
                server._service.extender = Echo()
            sys.stdout.write(f"{server.endpoint}\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


class Echo:
    """Answers with what came, decoded and encoded again."""

    async def filter(self, body: Any) -> Response:
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def prioritize(self, body: Any) -> Response:
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def aclose(self) -> None:
        """Holds nothing."""


class Server:
    """A process that serves, and a connection to it."""

    def __init__(self, kind: str, count: int, stack: contextlib.ExitStack) -> None:
        command = [sys.executable, "-m", "bench.placement.extender", "--serve", kind]
        process = subprocess.Popen(
            [*command, "--names", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        self._connection = http.client.HTTPConnection(process.stdout.readline().strip())
        stack.callback(self._connection.close)
        self._process = psutil.Process(process.pid)

    def call(self, name: str, body: bytes) -> tuple[float, bytes]:
        """Milliseconds until the answer has come, and the answer."""
        began = time.perf_counter()
        head = {"Content-Type": "application/json"}
        self._connection.request("POST", f"/k8s/{name}", body, head)
        answer = self._connection.getresponse()
        told = answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200, told
        return 1000 * took, told

    def cpu_ms(self) -> float:
        """What the process has used so far."""
        used = self._process.cpu_times()
        return 1000 * (used.user + used.system)


def request(case: str, names: list[str], turn: int) -> bytes:
    """The body of one call."""
    told = json.loads((RECORDED / "names_filter.json").read_text())["req"]
    told["NodeNames"] = names
    pod = told["Pod"]
    cpu = "1" if case == "alike" else f"{1000 + turn % 900}m"
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cpu, "memory": "1Gi"}}
    pod["metadata"]["annotations"] = {"dhtos.io/where": WHERE} if case == "where" else {}
    return json.dumps(told).encode()


@dataclass
class Times:
    """Milliseconds until each answer, by call, and the CPU that the server used for a pod."""

    wall: dict[str, list[float]]
    cpu: float


def measure(count: int, rounds: int) -> dict[str, dict[str, Times]]:
    """By case, of us and of the baseline; what is answered is checked."""
    rng = Random(2)
    names = [f"n{n}" for n in range(count)]
    times: dict[str, dict[str, Times]] = {}
    with contextlib.ExitStack() as stack:
        servers = {kind: Server(kind, count, stack) for kind in ("ours", "echo")}
        for server in servers.values():  # whoever asks first waits for the view
            server.call("filter", request("alike", names, 0))
        for case in CASES:
            before = {kind: server.cpu_ms() for kind, server in servers.items()}
            walls = {kind: {name: [] for name in CALLS} for kind in servers}
            for turn in range(rounds):
                rng.shuffle(names)
                asked = names
                for name in CALLS:
                    body = request(case, asked, turn)
                    for kind in rng.sample(sorted(servers), 2):
                        took, told = servers[kind].call(name, body)
                        walls[kind][name].append(took)
                        if kind == "ours":
                            asked = check(name, told, asked)
            times[case] = {
                kind: Times(walls[kind], (server.cpu_ms() - before[kind]) / rounds)
                for kind, server in servers.items()
            }
    return times


def check(name: str, told: bytes, asked: list[str]) -> list[str]:
    """The answer is one about all names; those that are asked about next."""
    answer = json.loads(told)
    if name == "prioritize":
        assert 0 < len(answer) <= SCORED
        assert max(one["Score"] for one in answer) == 10
        return asked
    assert answer["Error"] == ""
    assert len(answer["NodeNames"]) + len(answer["FailedNodes"]) == len(asked)
    assert answer["NodeNames"]
    assert answer["FailedNodes"]
    kept: list[str] = answer["NodeNames"]
    return kept


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement.extender", description=__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--serve", choices=("ours", "echo"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        uvloop.run(run(given.serve, given.names))
        return
    times = measure(given.names, given.rounds)
    heads = ("filter p50", "p99", "prior. p50", "p99", "echo p50", "CPU ms", "echo CPU", "ratio")
    sys.stdout.write(f"{'':14}" + "".join(f"{head:>11}" for head in heads) + "\n")
    for case, found in times.items():
        ours, echo = found["ours"], found["echo"]
        figures = [figure for name in CALLS for figure in spread(ours.wall[name])]
        figures += [median(echo.wall["filter"]), ours.cpu, echo.cpu]
        figures.append(ours.cpu / echo.cpu if echo.cpu else 0.0)
        sys.stdout.write(f"{case:14}" + "".join(f"{figure:11.2f}" for figure in figures) + "\n")


def spread(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return median(times), sorted(times)[int(0.99 * (len(times) - 1))]


if __name__ == "__main__":
    main()
