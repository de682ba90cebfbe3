"""What the adapters share: names from labels, who is ruled out, and calls that may never return."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from placed import NEED, WHOLE, gang, hit, lease, plan

from dhtos import F, Need
from dhtos.adapters import engines
from dhtos.adapters.engines import CLAIMS_MAX, Claims, Engine, in_thread
from dhtos.errors import EngineError, LeaseLost, NoCandidates, UsageError

ENGINE = Engine("Mill", "mill.name", r"m[0-9]+", "an m and a number")


class FakeNode:
    """A fleet of named machines: grants the first that the narrowed need allows."""

    def __init__(self, *names):
        self.machines = [hit(n + 1, mill_name=name) for n, name in enumerate(names)]
        self.needs = []
        self.released = []
        self.labels = {}

    def place(self, need, *, ttl_s, deadline_s):
        self.needs.append(need)
        assert (ttl_s, deadline_s) == (30, 10)
        return self._placed(need.where)

    @asynccontextmanager
    async def _placed(self, where):
        for machine in self.machines:
            name = machine.labels["mill.name"]
            if f"'{name}'" not in str(where) and f'"{name}"' not in str(where):
                try:
                    yield lease(machine, cores=2)
                finally:
                    self.released.append(name)
                return
        raise NoCandidates("no machine can take it")

    async def count(self, query):
        return len(self.machines)

    async def label(self, labels):
        self.labels |= labels


def claims(node, need=NEED):
    return Claims(ENGINE, node, need, ttl_s=30, deadline_s=10)


# --- names ----------------------------------------------------------------------------------------


def test_names_keep_the_order_of_the_plan_and_pass_over_strangers():
    machines = [hit(1, mill_name="m7"), hit(2), hit(3, mill_name="ALL"), hit(4, mill_name="m2")]
    assert ENGINE.names(plan(NEED, *machines)) == ["m7", "m2"]


def test_names_of_what_was_claimed():
    one, other = lease(hit(1, mill_name="m1"), cores=1), lease(hit(2, mill_name="m2"), cores=1)
    assert ENGINE.names(one) == ["m1"]
    assert ENGINE.names(gang(other, one)) == ["m2", "m1"]


def test_a_member_of_a_gang_without_a_name_is_an_error_that_says_what_to_ask():
    members = gang(lease(hit(1, mill_name="m1")), lease(hit(2)))
    with pytest.raises(EngineError, match=r"1 of 2 machines.*Mill.*label\(\"mill.name\"\)"):
        ENGINE.names(members)


def test_a_plan_of_nobody_is_an_error():
    with pytest.raises(EngineError, match="names no machine: its `reasons`"):
        ENGINE.names(plan(NEED))
    with pytest.raises(EngineError, match="1 of 1"):
        ENGINE.names(plan(NEED, hit(1)))


def test_what_is_not_placed_is_refused():
    with pytest.raises(UsageError, match="a plan, a lease or a gang, got 7"):
        ENGINE.names(7)


async def test_register_tells_only_names_of_the_engine():
    node = FakeNode()
    await ENGINE.register(node, "m3")
    assert node.labels == {"mill.name": "m3"}
    with pytest.raises(UsageError, match=r"mill\.name must be an m and a number, got 'm3;rm'"):
        await ENGINE.register(node, "m3;rm")


# --- claims ---------------------------------------------------------------------------------------


async def test_the_next_claim_passes_over_who_was_ruled_out():
    node = FakeNode("m1", "m2")
    work = claims(node, Need(cores=2, where="cores >= 4", prefer="spread", priority=3, max_price=1))
    async with work.next() as (_, name):
        assert name == "m1"
        work.rule_out(name, "gone")
    async with work.next() as (held, name):
        assert name == "m2"
        assert held.resources == {"cores": 2}
        assert node.released == ["m1"]
    assert node.released == ["m1", "m2"]
    need = node.needs[-1]
    assert (need.prefer, need.priority, need.max_price) == ("spread", 3, 1)
    assert "'cores'" in str(need.where)


@pytest.mark.parametrize("where", [None, "", " ", "cores >= 4", F.cores >= 4])
async def test_every_claim_is_of_a_machine_that_has_a_name(where):
    node = FakeNode("m1")
    async with claims(node, Need(cores=2, where=where)).next():
        assert "mill.name" in str(node.needs[0].where)
        assert ("'cores'" in str(node.needs[0].where)) == ("cores" in str(where))


async def test_who_has_no_machine_left_says_why_of_each():
    node = FakeNode("m1")
    work = claims(node)
    async with work.next() as (_, name):
        work.rule_out(name, "drained")
    with pytest.raises(EngineError, match="Mill has no machine left that can take it: m1: drained"):
        async with work.next():
            pass


async def test_there_is_an_end_to_claims():
    node = FakeNode(*(f"m{n}" for n in range(CLAIMS_MAX + 1)))
    work = claims(node)
    for _ in range(CLAIMS_MAX):
        async with work.next() as (_, name):
            work.rule_out(name, "gone")
    with pytest.raises(EngineError, match="m0: gone; m1: gone"):
        async with work.next():
            pass
    assert len(node.needs) == CLAIMS_MAX


async def test_nobody_registered_and_nobody_able_are_told_apart():
    with pytest.raises(EngineError, match="no machine says what Mill calls it"):
        async with claims(FakeNode()).next():
            pass
    node = FakeNode("m1")
    node.machines, node.count = [], lambda query: asyncio.sleep(0, 1)
    with pytest.raises(NoCandidates):
        async with claims(node).next():
            pass


async def test_a_machine_with_a_name_that_is_none_is_ruled_out():
    node = FakeNode("ALL", "m2")
    async with claims(node).next() as (_, name):
        assert name == "m2"
    node = FakeNode("ALL")
    with pytest.raises(EngineError, match="ALL: not an m and a number"):
        async with claims(node).next():
            pass
    assert node.released == ["ALL"]


async def test_what_the_block_raises_comes_out_after_the_release():
    node = FakeNode("m1")
    with pytest.raises(LeaseLost):
        async with claims(node).next():
            raise LeaseLost("revoked")
    assert node.released == ["m1"]


# --- calls that block -----------------------------------------------------------------------------


async def test_a_blocking_call_returns_or_raises_here():
    main = threading.get_ident()
    assert await in_thread(threading.get_ident, 10) != main

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_thread(fail, None)


async def test_a_call_that_never_returns_is_left_behind():
    stuck = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(stuck.wait, 0)
    (thread,) = [one for one in threading.enumerate() if one.name == "dhtos-engine"]
    assert thread.daemon
    stuck.set()
    thread.join()


def test_a_call_that_returns_after_the_loop_harms_nobody():
    stuck, began = threading.Event(), threading.Event()

    def work():
        began.set()
        stuck.wait()

    async def main():
        call = asyncio.ensure_future(in_thread(work, None))
        while not began.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(main())
    (thread,) = [one for one in threading.enumerate() if one.name == "dhtos-engine"]
    stuck.set()
    thread.join()


def test_the_limits_are_of_use():
    assert WHOLE.complete
    assert 1 < CLAIMS_MAX <= 32  # the names ruled out are one term of a predicate
    assert engines.ANSWER_S > 0
