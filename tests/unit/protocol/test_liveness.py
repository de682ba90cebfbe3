"""Who lives: indirect probes, doubt, its refutation, burial, and the dead who speak."""

from typing import Any

import pytest
from hub_world import GIB, SCHEMA, Asked, Lone, Mates, contact_of, machine

from dhtos.core.group import State
from dhtos.core.limits import INDIRECT_PROBES, SUSPICION_S
from dhtos.protocol.hubwire import record_rumour, state_rumour
from dhtos.protocol.operation import MemberGone
from dhtos.protocol.wire import encode_request

OWN = machine(1, cores=4, mem=GIB)
OTHERS = [machine(n, cores=4, mem=n * GIB) for n in range(2, 8)]
BY_ENDPOINT = {record.endpoint: record for record in OTHERS}
ROUND_S = 1.1  # one tick


def member(count: int = 6) -> Lone:
    return Lone(OWN, size=32).settle(OTHERS[:count])


def unanswered(one: Lone) -> tuple[bytes, list[Asked]]:
    """Let its first probe fail: who was probed, and the requests for help."""
    (asked,) = one.until_sent("dh_gossip")
    probes = one.until_sent("dh_probe")
    return BY_ENDPOINT[asked.endpoint].key(SCHEMA), probes


def answer(record: Any) -> list[Any]:
    """What a member says in reply to an exchange."""
    return [record.key(SCHEMA), 0, 0, bytes(4), None, []]


# --- from a failed probe to a burial --------------------------------------------------------------


def test_before_it_doubts_it_asks_three_others_to_try() -> None:
    one = member()
    key, probes = unanswered(one)
    assert len({p.endpoint for p in probes}) == INDIRECT_PROBES
    for probe in probes:
        number, about, host, port = probe.args
        assert (number, about) == (0, key)
        assert BY_ENDPOINT[host, port].key(SCHEMA) == key
        assert probe.endpoint != (host, port)
    assert one.believes(key) is State.ALIVE


def test_reached_by_another_it_is_not_doubted() -> None:
    one = member()
    key, probes = unanswered(one)
    one.reply(probes[1], True)
    one.wait(1.0)
    assert one.believes(key) is State.ALIVE


def test_reached_too_late_it_is_doubted_and_cleared() -> None:
    one = member()
    key, probes = unanswered(one)
    one.until_sent("dh_push", 1.0)
    assert one.believes(key) is State.SUSPECT
    one.reply(probes[0], True)
    assert one.believes(key) is State.ALIVE


@pytest.mark.parametrize("said", [False, None, 1, "yes"])
def test_reached_by_nobody_it_is_suspected_told_and_buried(said: object) -> None:
    one = member()
    key, probes = unanswered(one)
    one.engine.events()
    for probe in probes:
        one.reply(probe, said)
    pushes = one.until_sent("dh_push", 1.0)
    assert one.believes(key) is State.SUSPECT
    assert one.engine.counters["suspicions"] == 1
    assert pushes[0].args[2][0][2:] == [key, 1, int(State.SUSPECT)]
    one.wait(SUSPICION_S - 0.2)
    assert one.believes(key) is State.SUSPECT
    one.wait(0.3)
    assert one.believes(key) is State.DEAD
    assert MemberGone(key) in one.engine.events()


def test_two_alone_have_nobody_to_ask() -> None:
    one = member(1)
    one.until_sent("dh_gossip")
    one.wait(2.5)
    assert one.believes(OTHERS[0].key(SCHEMA)) is State.SUSPECT
    assert one.engine.counters["suspicions"] == 1


def suspected(one: Lone) -> bytes:
    """Somebody tells that a member is in doubt."""
    key = OTHERS[2].key(SCHEMA)
    one.request("dh_push", [0, 0, [state_rumour(key, 1, State.SUSPECT, 0.0)]])
    assert one.believes(key) is State.SUSPECT
    return key


def test_doubt_that_others_told_of_ends_in_a_burial_too() -> None:
    one = member()
    key = suspected(one)
    one.wait(SUSPICION_S + 0.1)
    assert one.believes(key) is State.DEAD


def test_a_word_from_the_suspect_clears_it() -> None:
    one = member()
    key = suspected(one)
    args = [0, key, 0, 0, bytes(4), None, [], 0]
    one.request("dh_gossip", args, OTHERS[2].endpoint)
    assert one.believes(key) is State.ALIVE
    one.wait(1.5)
    one.hub.gossip.liveness.doubt(key, 1, one.now)
    one.wait(SUSPICION_S - 1.0)
    assert one.believes(key) is State.SUSPECT, "the first doubt is over, the second is young"
    one.wait(1.1)
    assert one.believes(key) is State.DEAD


def test_a_newer_version_clears_it_and_an_older_does_not() -> None:
    one = member()
    key = suspected(one)
    one.request("dh_push", [0, 0, [record_rumour(OTHERS[2], 0.0)]])
    assert one.believes(key) is State.SUSPECT
    newer = OTHERS[2].updated(2, OTHERS[2].dynamic, None)
    one.request("dh_push", [0, 0, [record_rumour(newer, 0.0)]])
    assert one.believes(key) is State.ALIVE
    one.request("dh_push", [0, 0, [state_rumour(key, 1, State.SUSPECT, 0.0)]])
    assert one.believes(key) is State.ALIVE, "the doubt was about the version before"


def test_who_has_left_is_not_doubted() -> None:
    one = member()
    key = OTHERS[2].key(SCHEMA)
    one.request("dh_push", [0, 0, [state_rumour(key, 2, State.LEFT, 0.0)]])
    one.hub.gossip.liveness.unanswered(key, 1, one.now)
    one.hub.gossip.liveness.doubt(key, 1, one.now)
    one.wait(SUSPICION_S + 1)
    assert one.believes(key) is State.LEFT


# --- probing for others ---------------------------------------------------------------------------


def test_it_answers_once_it_knows() -> None:
    for reached in (True, False):
        one = member()
        args = [0, OTHERS[3].key(SCHEMA), *OTHERS[3].endpoint]
        one.engine.receive(_request(args), OTHERS[0].endpoint, one.now)
        (asked,) = one.sent("dh_gossip")
        assert asked.endpoint == OTHERS[3].endpoint
        if reached:
            one.reply(asked, answer(OTHERS[3]))
        else:
            one.wait(2.5)
        (verdict,) = [m.value for m, _, to in one.replies() if to == OTHERS[0].endpoint]
        assert verdict is reached


def _request(args: list[Any]) -> bytes:
    return encode_request(b"p" * 20, "dh_probe", args)


@pytest.mark.parametrize(
    "changed", [{"number": 1}, {"key": bytes(20)}, {"host": "10.66.6.6"}, {"port": 53}]
)
def test_only_members_at_their_own_address_are_probed(changed: dict[str, Any]) -> None:
    one = member()
    args = {"number": 0, "key": OTHERS[3].key(SCHEMA)}
    args |= dict(zip(("host", "port"), OTHERS[3].endpoint, strict=True)) | changed
    one.engine.receive(_request(list(args.values())), OTHERS[0].endpoint, one.now)
    assert one.sent() == []


@pytest.mark.parametrize(
    "args",
    [[], [0, bytes(20), "h"], [0, b"short", "h", 1], [0, bytes(20), "", 1], [0, bytes(20), "h", 0]],
)
def test_a_malformed_probe_is_counted(args: list[Any]) -> None:
    one = member()
    assert one.request("dh_probe", args) == []
    assert one.engine.counters["malformed"] == 1


# --- whole groups ---------------------------------------------------------------------------------


def test_a_death_is_known_to_all_within_ten_seconds() -> None:
    mates = Mates(12)
    dead = mates.all.pop()
    mates.wait(10.0)
    assert set(mates.states(dead.hub.key)) == {State.DEAD}
    assert sum(one.engine.counters["burials"] for one in mates.all) >= 1


def test_one_bad_link_buries_nobody() -> None:
    mates = Mates(6)
    one, two = mates.all[:2]
    mates.broken = {one.own.endpoint, two.own.endpoint}
    mates.wait(40.0)
    assert mates.sent("dh_probe", one)
    assert set(mates.states(one.hub.key) + mates.states(two.hub.key)) == {State.ALIVE}


def test_who_was_cut_off_outbids_its_death_when_it_speaks_again() -> None:
    mates = Mates(6)
    lost = mates.all[2]
    mates.cut = {lost.own.endpoint}
    mates.wait(15.0)
    others = [one for one in mates.all if one is not lost]
    assert {one.believes(lost.hub.key) for one in others} == {State.DEAD}
    assert {lost.believes(one.hub.key) for one in others} == {State.DEAD}
    mates.cut = set()
    lost.hub.gossip.repair.introduce(contact_of(others[0].own), lost.now)
    mates.wait(10.0)
    assert {one.believes(lost.hub.key) for one in others} == {State.ALIVE}
    assert {lost.believes(one.hub.key) for one in others} == {State.ALIVE}
    assert lost.own.seq > 1
    assert lost.engine.counters["refutations"] >= 1


def test_what_it_remembers_of_probes_and_doubts_ends_with_them() -> None:
    mates = Mates(8)
    lost = mates.all.pop()
    mates.wait(30.0)
    for one in mates.all:
        assert one.believes(lost.hub.key) is State.DEAD
        liveness = one.hub.gossip.liveness
        assert not liveness._reached  # no figure shows it
        assert not liveness._doubted
