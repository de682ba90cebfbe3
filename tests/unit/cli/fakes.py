"""Stand-ins for the fleet behind the commands."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dhtos.cli.asking import Edges, Names, Plain, Question, Stored
from dhtos.errors import DhtosError, KeyNotFound
from dhtos.node.config import Config

COMPLETE: Plain = {
    "fraction": 1.0,
    "complete": True,
    "limited": False,
    "failed_prefixes": [],
    "max_age_s": 12.0,
    "asked": 3,
    "rtt": 2,
    "pruned": 0,
    "verified": 1,
}
GAPS: Plain = COMPLETE | {"complete": False, "fraction": 0.75, "failed_prefixes": ["01", "110"]}
LIMITED: Plain = COMPLETE | {"complete": False, "limited": True, "fraction": 0.3}


def machine(number: int, **attributes: Any) -> Plain:
    """A machine in plain values."""
    return {
        "id": f"{number:040x}",
        "endpoint": f"10.0.0.{number}:7400",
        "seq": number,
        "gateway": False,
        "age_s": 1.5 * number,
        "rtt_s": 0.001 * number,
        "rtt_measured": number % 2 == 1,
        "coordinate": [0.01 * number, 0.02, 0.0, 0.03, 0.0, 0.001 * number, 0.1],
        "attributes": attributes,
        "labels": {},
    }


def lease(number: int, name: str | None = None) -> Plain:
    """A lease in plain values."""
    return {
        "node": f"{number:040x}",
        "endpoint": f"10.0.0.{number}:7400",
        "token": f"{number:032x}",
        "fence": 7 + number,
        "expires_s": 29.5,
        "resources": {"cores": 2, "mem": 2**30},
        "labels": {} if name is None else {"name": name},
    }


def step(**changes: Any) -> Plain:
    """A step of a walk in plain values: the own view answered, and nothing was in it."""
    return {
        "prefix": "", "means": {}, "asked": None, "start_s": 0.0, "took_s": None, "round": 0,
        "voice": 1, "page": False, "hedge": False, "late": False, "expected": 1.0, "bound": None,
        "outcome": "answered", "covers": "", "matches": 0, "hits": 0, "found": [], "cut": [],
        "pruned": 0,
    } | changes  # fmt: skip


class FakeAsker:
    """Answers from what it was given, and remembers what it was asked."""

    def __init__(self) -> None:
        self.machines: list[Plain] = []
        self.coverage = COMPLETE
        self.cursor: str | None = None
        self.steps: list[Plain] = []
        self.values: dict[str, Stored] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.error: DhtosError | None = None
        self.configs: list[tuple[Config, bool]] = []
        self.figures: Plain = {}
        self.changes: list[Plain] = []
        self.lost: DhtosError | None = None

    @asynccontextmanager
    async def open(self, config: Config, *, seeded: bool) -> AsyncIterator["FakeAsker"]:
        """In the place of `dhtos.cli.asking.asker`."""
        self.configs.append((config, seeded))
        yield self

    def _ask(self, *question: Any) -> None:
        self.asked.append(question)
        if self.error is not None:
            raise self.error

    async def find(self, question: Question, on_hit: Callable[[Plain], None]) -> Plain:
        self._ask("find", question)
        for hit in self.machines:
            on_hit(hit)
        matches = len(self.machines)
        end = {"matches": matches, "coverage": self.coverage, "cursor": self.cursor}
        return end | {"steps": self.steps} if question.explain else end

    async def count(self, query: str, *, strict: bool, verify: int) -> Plain:
        self._ask("count", query, strict, verify)
        return {"count": len(self.machines), "coverage": self.coverage}

    async def sum(self, attribute: str, query: str, *, strict: bool, verify: int) -> Plain:
        self._ask("sum", attribute, query, strict, verify)
        return self.figures | {"attribute": attribute, "coverage": self.coverage}

    async def histogram(
        self, attribute: str, query: str, edges: Edges, *, strict: bool, verify: int
    ) -> Plain:
        self._ask("histogram", attribute, query, edges, strict, verify)
        return self.figures | {"attribute": attribute, "coverage": self.coverage}

    async def gang(self, need: Plain, gang: Plain, on_lease: Callable[[Plain], None]) -> None:
        self._ask("gang", need, gang)
        for number in range(gang["size"]):
            on_lease(lease(number, "lab-1" if number else None))
        await asyncio.sleep(0)

    async def replicas(
        self, need: Plain, replicas: Plain, on_change: Callable[[Plain], None]
    ) -> None:
        self._ask("replicas", need, replicas)
        for change in self.changes:
            on_change(change)
        if self.lost is not None:
            raise self.lost

    async def rtt(self, a: str, b: str) -> Plain:
        self._ask("rtt", a, b)
        return {"rtt_s": 0.0123, "measured": b == "self", "error": 0.08 * (b != "self")}

    async def closest(self, k: int, query: str, probes: int) -> list[Plain]:
        self._ask("closest", k, query, probes)
        return self.machines

    async def within(self, seconds: float, query: str, limit: int, probes: int) -> list[Plain]:
        self._ask("within", seconds, query, limit, probes)
        return self.machines

    async def central(self, others: Names, k: int, query: str, probes: int) -> list[Plain]:
        self._ask("central", tuple(others), k, query, probes)
        legs = [{"rtt_s": 0.02 + i / 100, "measured": False} for i in range(len(others))]
        return [m | {"worst_s": 0.03, "mean_s": 0.025, "others": legs} for m in self.machines]

    async def members(self) -> list[Plain]:
        self._ask("members")
        return [m | {"state": "alive", "self": False} for m in self.machines]

    async def put(self, key: str, value: Stored, ttl_s: float | None) -> Plain:
        self._ask("put", key, value, ttl_s)
        self.values[key] = value
        return {"stored_on": 3, "wanted": 20, "seq": 7}

    async def get(self, key: str) -> Plain:
        self._ask("get", key)
        if key not in self.values:
            raise KeyNotFound("no reachable node holds a value under 0123abcd")
        return {"value": self.values[key], "seq": 7, "expires_s": 60.0}

    async def status(self) -> Plain:
        self._ask("status")
        return {
            "id": "0" * 40,
            "name": None,
            "endpoint": "10.0.0.1:7400",
            "client": False,
            "joined": True,
            "kernels": "compiled",
            "coordinate": [0.012, -0.0345, 0.0, 0.0, 0.0, 0.0015, 0.12],
            "group": {"prefix": "0110", "members": 9},
            "attributes": {"cores": 8, "mem": 2**35},
            "labels": {"team": "video"},
            "warnings": [],
            "stats": {"peers": 4.0, "calls_open": 0.0},
        }
