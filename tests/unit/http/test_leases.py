"""Leases of clients: held while renewed, buried with a reason, bounded in number and memory."""

import asyncio

import pytest

from dhtos.errors import ClaimsRefused, LeaseLost, Preempted
from dhtos.http import leases
from dhtos.http.leases import HeldLeases
from dhtos.http.problems import HttpError


class FakeLease:
    """A lease that ends when the test says so."""

    def __init__(self, token):
        self.token = token
        self.expires_s = 7.0
        self.released = 0
        self.end = asyncio.get_running_loop().create_future()

    async def ended(self):
        await asyncio.shield(self.end)

    async def release(self):
        self.released += 1
        if not self.end.done():
            self.end.set_result(None)


async def granted(lease):
    return lease


async def refused():
    raise ClaimsRefused("none granted it", {"full": 1})


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_is_held_until_it_is_released():
    held, lease = HeldLeases(), FakeLease("a")
    assert (await held.place(granted(lease), 30)).lease is lease
    assert len(held) == 1
    assert held.find("a").ttl_s == 30
    await held.release("a")
    await turns()
    assert (lease.released, len(held)) == (1, 0)
    for again in (held.find, held.renew):
        with pytest.raises(HttpError, match="no lease with the token 'a'"):
            again("a")
    await held.aclose()


async def test_a_renewal_begins_another_term():
    held = HeldLeases()
    one = await held.place(granted(FakeLease("a")), 30)
    before = one.timer
    assert held.renew("a") is one
    assert before.cancelled()
    assert one.timer.when() > before.when()
    await held.aclose()


async def test_silence_ends_it_and_is_remembered():
    held, lease = HeldLeases(), FakeLease("a")
    await held.place(granted(lease), 0)  # its term is over at the next turn
    await turns()
    assert lease.released == 1
    with pytest.raises(LeaseLost, match="did not renew it within 0 s"):
        held.renew("a")
    await held.aclose()


async def test_a_loss_is_told_and_what_gives_way_may_go_sooner():
    held, lease = HeldLeases(), FakeLease("a")
    one = await held.place(granted(lease), 30)
    lease.end.set_exception(Preempted("something of a higher priority needs it", 20.0))
    await turns()
    assert one.timer.cancelled()
    with pytest.raises(Preempted) as told:
        held.find("a")
    assert told.value.grace_s == 7.0  # what is left of it now
    with pytest.raises(Preempted):
        await held.release("a")
    assert lease.released == 1
    await held.aclose()


async def test_a_refusal_takes_no_place(monkeypatch):
    monkeypatch.setattr(leases, "HTTP_LEASES_MAX", 1)
    held = HeldLeases()
    for _ in range(3):
        with pytest.raises(ClaimsRefused):
            await held.place(refused(), 30)
    await held.place(granted(FakeLease("a")), 30)
    second = granted(FakeLease("b"))
    with pytest.raises(HttpError, match="at most 1 leases") as told:
        await held.place(second, 30)
    second.close()
    assert told.value.status == 503
    await held.aclose()


async def test_reasons_are_remembered_of_the_last_ones(monkeypatch):
    monkeypatch.setattr(leases, "HTTP_LEASES_GONE_MAX", 2)
    held = HeldLeases()
    for token in "abc":
        lease = FakeLease(token)
        await held.place(granted(lease), 30)
        lease.end.set_exception(LeaseLost(f"{token} is lost"))
        await turns()
    with pytest.raises(HttpError):
        held.find("a")
    for token in "bc":
        with pytest.raises(LeaseLost, match=f"{token} is lost"):
            held.find(token)
    await held.aclose()


async def test_closing_gives_all_of_them_back():
    held = HeldLeases()
    fakes = [FakeLease(token) for token in "abc"]
    kept = [await held.place(granted(lease), 30) for lease in fakes]
    await turns()
    await held.aclose()
    assert [lease.released for lease in fakes] == [1, 1, 1]
    assert all(one.timer.cancelled() for one in kept)
    assert len(held) == 0
