"""Certificates are made anew in good time, by the clocks of the machines, and for members only."""

import asyncio
import json
import time

import pytest
from trust_world import Clock

import dhtos
from dhtos.errors import NoPeers, Refused
from dhtos.node import enrolling
from dhtos.node.audit import read_audit
from dhtos.node.enrolling import join_cluster, make_token
from dhtos.node.founding import found_cluster
from dhtos.node.membership import NAME
from dhtos.node.promoting import rotate
from dhtos.node.root import lock_root
from dhtos.protocol.renewal import ask_renewal

DAY_S = 86_400


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(enrolling, "RENEWAL_INTERVAL_S", 0.02)
    return Clock(time.time())


def node(path, clock, **settings):
    config = dhtos.Config(host="127.0.0.1", port=0, state_dir=path, sample=False, **settings)
    return dhtos.Node(config, wall_clock=clock)


async def joined(path, first, clock, **promise):
    token = await make_token(first, **promise)
    await join_cluster(path, token, host="127.0.0.1", name="new", wall_clock=clock)
    return node(path, clock, advertise={"cores": 4})


def end_of(one):
    return one.membership.chain.leaf.expires


async def until(condition):
    while not condition():  # noqa: ASYNC110 - many things may make it true
        await asyncio.sleep(0)


def test_a_node_lives_longer_than_its_first_certificate(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock())
        async with node(tmp_path / "first", clock, advertise={"cores": 8}) as first:
            async with await joined(tmp_path / "second", first, clock) as second:
                await second.joined()
                before, key = end_of(second), bytes(second.id)
                clock.now += 14 * DAY_S
                with pytest.raises(Refused, match="not half over"):
                    await second.driver.wait(
                        ask_renewal(
                            second.engine.core,
                            second.engine.core.sessions.issuers(),
                            second.driver.clock(),
                        )
                    )
                clock.now += 2 * DAY_S
                await until(lambda: end_of(second) > before)
                assert end_of(second) == pytest.approx(clock.now + 30 * DAY_S, abs=2)
                clock.now += 15 * DAY_S - 60  # the first certificate is over
                assert clock.now > before
                rev = second.engine.hub.own.rev
                await until(
                    lambda: any(
                        member.record.rev == rev and member.record.node_id == key
                        for member in first.engine.hub.members()
                    )
                )
                assert await first.count() == await second.count() == 2
                assert first.engine.counters["records_forged"] == 0
            return second.membership.chain.wire

    renewed = run(main)
    told = [entry["what"] for entry in read_audit(tmp_path / "first")]
    assert told == ["invited", "admitted", "renewed"]
    kept = json.loads((tmp_path / "second" / NAME).read_bytes())
    assert kept["chain"] == renewed.hex()


def test_the_first_node_lives_longer_than_its_own(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock())
        async with node(tmp_path / "first", clock) as first:
            before, key = end_of(first), bytes(first.id)
            clock.now += 200 * DAY_S
            await until(lambda: end_of(first) > before)
            assert first.membership.chain.node_id() == key
            own = first.engine.core.sessions.member
            assert own.issuers[own.key.public].expires == end_of(first)
            clock.now += 170 * DAY_S  # the one that it began with is over
            assert clock.now > before
            async with await joined(tmp_path / "second", first, clock) as second:
                await second.joined()
                assert second.membership.chain.certs[0].expires == end_of(first)
                await until(lambda: len(first.engine.hub.members()) == 2)
                assert await second.count() == await first.count() == 2
                assert first.engine.counters["records_forged"] == 0

    run(main)


def test_a_first_node_without_its_root_says_so_once(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock())
        (tmp_path / "first" / "root.json").unlink()
        first, told = node(tmp_path / "first", clock), []
        first.on_warning = told.append
        async with first:
            clock.now += 200 * DAY_S
            await until(lambda: told)
            for _ in range(5):
                await asyncio.sleep(enrolling.RENEWAL_INTERVAL_S)
            (line,) = told
            assert "the root is not here: restore root.json from a backup" in line

    run(main)


def test_whom_nobody_renews_is_told_so(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock())
        async with node(tmp_path / "first", clock) as first:
            second = await joined(tmp_path / "second", first, clock)
            told = []
            second.on_warning = told.append
            async with second:
                await second.joined()
                await first.aclose()
                clock.now += 16 * DAY_S
                operation = ask_renewal(second.engine.core, [], second.driver.clock())
                with pytest.raises(NoPeers, match="no issuer is known"):
                    await second.driver.wait(operation)
                await until(lambda: told)
                assert "not renewed yet: no issuer answers" in told[0]

    run(main)


def test_who_was_put_out_is_not_renewed(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock())
        async with (
            node(tmp_path / "first", clock) as first,
            await joined(tmp_path / "second", first, clock) as second,
        ):
            await second.joined()
            before = end_of(second)
            taken = await asyncio.to_thread(first.admission.issuer.revoke, "new")
            await first.revoke_members(taken)
            clock.now += 16 * DAY_S
            core, where = second.engine.core, [first.advert.endpoint]
            with pytest.raises(NoPeers):
                await second.driver.wait(ask_renewal(core, where, second.driver.clock()))
            assert end_of(second) == before

    run(main)


def test_an_issuer_is_renewed_by_the_node_that_has_the_root(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock(), issuers=2)
        async with (
            node(tmp_path / "first", clock, advertise={"cores": 8}) as first,
            await joined(tmp_path / "second", first, clock) as second,
        ):
            await second.joined()
            assert second.membership.chain.leaf.may("issue")
            before, key = end_of(second), bytes(second.id)
            serial = second.membership.chain.leaf.serial
            clock.now += 200 * DAY_S
            await until(lambda: end_of(second) > before)
            assert end_of(second) == pytest.approx(clock.now + 365 * DAY_S, abs=2)
            assert second.membership.chain.leaf.serial == serial
            assert second.membership.chain.node_id() == key
            async with await joined(tmp_path / "third", second, clock) as third:
                await third.joined()
                assert third.membership.chain.certs[0].expires == end_of(second)
                assert not third.membership.chain.leaf.may("issue")
                await until(lambda: len(first.engine.hub.members()) == 3)

    run(main)
    told = [entry["what"] for entry in read_audit(tmp_path / "first")]
    assert told == ["invited", "admitted", "renewed"]


def test_a_locked_root_renews_no_issuer_and_says_so(run, tmp_path, clock):
    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock(), issuers=2)
        async with node(tmp_path / "first", clock) as first:
            second, told = await joined(tmp_path / "second", first, clock), []
            second.on_warning = first.on_warning = told.append
            async with second:
                await second.joined()
                await asyncio.to_thread(lock_root, tmp_path / "first", "words")
                clock.now += 200 * DAY_S
                await until(lambda: len(told) == 2)
                assert any("root.json is locked: give its passphrase" in line for line in told)
                assert any("the root is locked, or not here" in line for line in told)
                first.admission.issuer.passphrase = "words"
                before = end_of(second)
                await until(lambda: end_of(second) > before)

    run(main)


def test_members_have_theirs_made_anew_when_the_root_is_changed(run, tmp_path, clock):
    """An issuer that was away then has it when it is back; a plain member asks the one that has."""

    async def main():
        await asyncio.to_thread(found_cluster, tmp_path / "first", "first", clock(), issuers=2)
        async with node(tmp_path / "first", clock, advertise={"cores": 8}) as first:
            second = await joined(tmp_path / "second", first, clock)
            await second.start()
            async with await joined(tmp_path / "third", second, clock) as third:
                await until(lambda: len(third.engine.hub.members()) == 3)
                await second.aclose()
                told = []
                third.on_warning = first.on_warning = told.append
                serial, before = third.membership.chain.leaf.serial, bytes(third.id)
                found = await rotate(first, 2 * DAY_S)
                assert (found.done, found.waiting) == (["first"], ["new"])
                assert found.ends == pytest.approx(clock.now + 2 * DAY_S, abs=2)
                await until(lambda: third.membership.chain.heirs)
                chain = third.membership.chain
                assert (chain.leaf.serial, chain.node_id()) == (serial, before)
                assert chain.certs[0].name == "first"
                async with node(tmp_path / "second", clock, advertise={"cores": 4}) as back:
                    await until(lambda: back.membership.chain.heirs)
                    assert back.membership.chain.leaf.may("issue")
                    clock.now += 3 * DAY_S
                    await until(lambda: len(first.engine.hub.members()) == 3)
                    assert await back.count() == await third.count() == 3
                    assert not told

    run(main)
