"""The ledger: who is granted what, why others are not, and what a restart leaves of it."""

from dataclasses import replace
from math import inf

import pytest

from dhtos.core.limits import GRANTS_MAX, HOLD_S, TOKENS_GONE_MAX
from dhtos.protocol.ledger import Grant, Ledger, NotWritten, Reason, State

OWNER = ("10.0.0.9", 7400)
T0 = 1000.0


class Paper:
    """A journal in memory, whose disk may be full."""

    def __init__(self):
        self.leases = {}
        self.full = False
        self.lying = False  # it fails, and has written nevertheless

    def bound(self, grant):
        if not self.full or self.lying:
            self.leases[grant.token] = grant
        if self.full or self.lying:
            raise NotWritten("disk full")

    def ended(self, token):
        if self.full:
            raise NotWritten("disk full")
        self.leases.pop(token, None)


def token(number):
    return number.to_bytes(16)


def open_ledger(capacity=None, *, measured=None, **options):
    ledger = Ledger(**options)
    ledger.offer(capacity or {"cores": 8.0}, measured or {})
    return ledger


def restart(paper, now, *, epoch):
    """What a node does that starts again: every lease for one more term."""
    bound = [replace(grant, expires=now + grant.ttl_s) for grant in paper.leases.values()]
    return open_ledger(epoch=epoch, bound=bound, journal=paper)


def bind(ledger, number, amount=1.0, now=T0, ttl_s=30.0):
    """Claim and confirm."""
    ledger.hold(token(number), {"cores": amount}, OWNER, now)
    granted = ledger.confirm(token(number), ledger.epoch, ttl_s, now)
    assert isinstance(granted, Grant), granted
    ledger.check()
    return granted


# --- holds ----------------------------------------------------------------------------------------


def test_a_hold_sets_aside_all_of_it_until_its_time_is_over():
    ledger = open_ledger({"cores": 8.0, "mem": 100.0})
    held = ledger.hold(token(1), {"cores": 3.0, "mem": 60.0}, OWNER, T0, priority=7)
    assert (held.state, held.expires, held.owner, held.priority) == (
        State.HELD, T0 + HOLD_S, OWNER, 7,
    )  # fmt: skip
    assert held.fence == 0
    assert ledger.free() == {"cores": 5.0, "mem": 40.0}
    assert ledger.next_deadline() == T0 + HOLD_S
    assert ledger.expire(T0 + HOLD_S - 0.001) == []
    assert ledger.expire(T0 + HOLD_S) == [held]
    assert ledger.free() == {"cores": 8.0, "mem": 100.0}
    assert ledger.next_deadline() == inf
    ledger.check()


def test_all_or_nothing():
    ledger = open_ledger({"cores": 8.0, "mem": 100.0})
    assert ledger.hold(token(1), {"cores": 1.0, "mem": 101.0}, OWNER, T0) is Reason.FULL
    assert ledger.free() == {"cores": 8.0, "mem": 100.0}
    assert ledger.known(token(1)) is None


def test_a_claim_that_comes_twice_is_granted_once():
    ledger = open_ledger()
    held = ledger.hold(token(1), {"cores": 5.0}, OWNER, T0)
    assert ledger.hold(token(1), {"cores": 5.0}, OWNER, T0 + 1) is held
    assert ledger.free() == {"cores": 3.0}
    bound = ledger.confirm(token(1), 1, 30.0, T0)
    assert ledger.hold(token(1), {"cores": 5.0}, OWNER, T0 + 2) is bound
    assert len(ledger) == 1


def test_the_second_of_two_that_do_not_fit_is_refused():
    ledger = open_ledger()
    assert isinstance(ledger.hold(token(1), {"cores": 5.0}, OWNER, T0), Grant)
    assert ledger.hold(token(2), {"cores": 3.000001}, OWNER, T0) is Reason.FULL
    assert isinstance(ledger.hold(token(3), {"cores": 3.0}, OWNER, T0), Grant)
    assert ledger.hold(token(4), {"cores": 0.000001}, OWNER, T0) is Reason.FULL
    assert isinstance(ledger.hold(token(5), {}, OWNER, T0), Grant)


def test_what_others_use_is_not_granted():
    ledger = open_ledger(measured={"cores": 2.0})
    assert ledger.free() == {"cores": 2.0}
    assert ledger.hold(token(1), {"cores": 3.0}, OWNER, T0) is Reason.FULL
    ledger.hold(token(1), {"cores": 2.0}, OWNER, T0)
    assert ledger.hold(token(2), {"cores": 3.0}, OWNER, T0) is Reason.FULL


def test_a_machine_without_the_resource_says_so():
    ledger = open_ledger()
    assert ledger.hold(token(1), {"cores": 1.0, "gpus": 1.0}, OWNER, T0) is Reason.RESOURCE
    assert Ledger().hold(token(1), {"cores": 1.0}, OWNER, T0) is Reason.RESOURCE


def test_who_drains_keeps_its_word_and_gives_no_new_one():
    ledger = open_ledger()
    held = ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    ledger.draining = True
    assert ledger.hold(token(2), {"cores": 1.0}, OWNER, T0) is Reason.DRAINING
    assert ledger.hold(token(1), {"cores": 1.0}, OWNER, T0) is held
    assert isinstance(ledger.confirm(token(1), 1, 30.0, T0), Grant)


def test_grants_are_bounded():
    ledger = open_ledger()
    for number in range(GRANTS_MAX):
        assert isinstance(ledger.hold(token(number), {}, OWNER, T0), Grant)
    assert ledger.hold(token(GRANTS_MAX), {}, OWNER, T0) is Reason.CROWDED
    ledger.release(token(0))
    assert isinstance(ledger.hold(token(GRANTS_MAX), {}, OWNER, T0), Grant)
    ledger.check()


def test_nothing_is_lost_by_adding_up():
    """Ten tenths are one; terabytes are exact to the byte; what is given back is whole again."""
    ledger = open_ledger({"cores": 1.0, "mem": float(2**52 + 1)})
    for number in range(10):
        assert isinstance(ledger.hold(token(number), {"cores": 0.1}, OWNER, T0), Grant)
    assert ledger.free()["cores"] == 0.0
    assert isinstance(ledger.hold(token(20), {"mem": float(2**51 + 1)}, OWNER, T0), Grant)
    assert ledger.hold(token(21), {"mem": float(2**51 + 1)}, OWNER, T0) is Reason.FULL
    assert isinstance(ledger.hold(token(22), {"mem": float(2**51)}, OWNER, T0), Grant)
    assert ledger.free()["mem"] == 0.0
    for number in range(30):
        ledger.release(token(number))
    assert ledger.free() == {"cores": 1.0, "mem": float(2**52 + 1)}
    ledger.check()


def test_a_machine_that_shrinks_takes_nothing_back_and_grants_nothing():
    ledger = open_ledger()
    bind(ledger, 1, 4.0)
    bind(ledger, 2, 4.0)
    ledger.offer({"cores": 6.0}, {})
    assert ledger.free() == {"cores": 0.0}
    assert len(ledger.grants()) == 2
    ledger.release(token(1))
    assert ledger.free() == {"cores": 2.0}
    ledger.offer({}, {})
    assert ledger.free() == {}
    assert ledger.hold(token(3), {"cores": 1.0}, OWNER, T0) is Reason.RESOURCE
    ledger.check()


# --- leases ---------------------------------------------------------------------------------------


def test_a_confirmed_hold_is_a_lease_of_the_term_asked_for():
    ledger = open_ledger()
    ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    bound = ledger.confirm(token(1), 1, 30.0, T0 + 5)
    assert (bound.state, bound.expires, bound.ttl_s) == (State.BOUND, T0 + 35, 30.0)
    assert ledger.expire(T0 + HOLD_S) == []
    assert ledger.known(token(1)) is bound


def test_a_confirm_that_comes_twice_gives_no_second_term():
    """Its owner counts from the first: a longer lease would only keep others waiting."""
    ledger = open_ledger()
    bound = bind(ledger, 1)
    again = ledger.confirm(token(1), 1, 3600.0, T0 + 20)
    assert again is bound
    assert (again.expires, again.ttl_s) == (T0 + 30, 30.0)


def test_who_confirms_too_late_has_nothing():
    ledger = open_ledger()
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.GONE
    ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    ledger.expire(T0 + HOLD_S)
    assert ledger.confirm(token(1), 1, 30.0, T0 + HOLD_S) is Reason.GONE
    assert ledger.hold(token(1), {"cores": 1.0}, OWNER, T0 + HOLD_S) is Reason.GONE


def test_a_hold_of_an_earlier_start_is_refused():
    ledger = open_ledger(epoch=2)
    ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.EPOCH
    assert ledger.confirm(token(2), 1, 30.0, T0) is Reason.EPOCH
    assert isinstance(ledger.confirm(token(1), 2, 30.0, T0), Grant)


def test_a_renewal_counts_from_now_and_never_shortens():
    ledger = open_ledger()
    bound = bind(ledger, 1)
    assert ledger.renew(token(1), bound.fence, T0 + 10) is bound
    assert bound.expires == T0 + 40
    ledger.renew(token(1), bound.fence, T0 + 5)  # overtaken on its way
    assert bound.expires == T0 + 40
    assert ledger.expire(T0 + 39.9) == []
    assert ledger.expire(T0 + 40) == [bound]


@pytest.mark.parametrize("state", ["unknown", "held", "other fence", "released", "revoked"])
def test_only_a_lease_that_stands_is_renewed(state):
    ledger = open_ledger()
    fence = bind(ledger, 1).fence
    if state == "unknown":
        assert ledger.renew(token(2), fence, T0) is Reason.GONE
    elif state == "held":
        ledger.hold(token(2), {"cores": 1.0}, OWNER, T0)
        assert ledger.renew(token(2), 0, T0) is Reason.GONE
    elif state == "other fence":
        assert ledger.renew(token(1), fence + 1, T0) is Reason.GONE
    else:
        ledger.release(token(1)) if state == "released" else ledger.revoke(token(1))
        assert ledger.renew(token(1), fence, T0) is Reason.GONE


def test_fences_only_grow():
    ledger = open_ledger()
    fences = []
    for number in range(20):
        fences.append(bind(ledger, number).fence)
        ledger.release(token(number))
    assert fences == sorted(set(fences))
    assert fences[0] > 0


# --- the end --------------------------------------------------------------------------------------


def test_a_release_ends_a_hold_and_a_lease():
    ledger = open_ledger()
    held = ledger.hold(token(1), {"cores": 4.0}, OWNER, T0)
    assert ledger.release(token(1)) is held
    bound = bind(ledger, 2, 4.0)
    assert ledger.release(token(2)) is bound
    assert ledger.release(token(2)) is None
    assert ledger.free() == {"cores": 8.0}
    assert ledger.known(token(1)) is ledger.known(token(2)) is Reason.GONE
    ledger.check()


def test_a_release_that_overtakes_its_claim_wins():
    ledger = open_ledger()
    assert ledger.release(token(1)) is None
    assert ledger.hold(token(1), {"cores": 1.0}, OWNER, T0) is Reason.GONE
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.GONE
    assert ledger.free() == {"cores": 8.0}


@pytest.mark.parametrize("end", ["release", "expire", "revoke"])
def test_a_token_is_never_revived(end):
    ledger = open_ledger()
    bound = bind(ledger, 1)
    if end == "expire":
        ledger.expire(bound.expires)
    else:
        getattr(ledger, end)(token(1))
    assert ledger.hold(token(1), {"cores": 1.0}, OWNER, T0) is Reason.GONE
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.GONE
    assert ledger.renew(token(1), bound.fence, T0) is Reason.GONE


def test_tokens_that_are_remembered_are_bounded():
    ledger = open_ledger()
    for number in range(TOKENS_GONE_MAX + 1):
        ledger.release(token(number))
    ledger.check()
    assert ledger.known(token(0)) is None
    assert ledger.known(token(1)) is Reason.GONE
    assert ledger.known(token(TOKENS_GONE_MAX)) is Reason.GONE


def test_a_lease_that_is_taken_back_is_not_granted_to_others_while_its_owner_may_believe_in_it():
    ledger = open_ledger()
    bound = bind(ledger, 1, 8.0)
    revoked = ledger.revoke(token(1))
    assert (revoked.state, revoked.expires) == (State.REVOKED, bound.expires)
    assert ledger.grants() == ()
    assert ledger.revoke(token(1)) is None
    assert ledger.hold(token(2), {"cores": 1.0}, OWNER, T0) is Reason.FULL
    ledger.check()
    assert ledger.release(token(1)) is revoked  # its owner has heard of it
    assert ledger.free() == {"cores": 8.0}
    bound = bind(ledger, 3, 8.0)
    ledger.revoke(token(3))
    assert ledger.expire(bound.expires - 0.001) == []
    assert len(ledger.expire(bound.expires)) == 1  # or it has run out
    assert ledger.free() == {"cores": 8.0}


def test_nobody_believes_in_a_hold_that_is_taken_back():
    ledger = open_ledger()
    ledger.hold(token(1), {"cores": 8.0}, OWNER, T0)
    assert ledger.revoke(token(1)).state is State.HELD
    assert ledger.free() == {"cores": 8.0}
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.GONE
    assert ledger.revoke(token(2)) is None


# --- the journal and restarts ---------------------------------------------------------------------


def test_a_lease_is_written_before_it_is_told_and_struck_out_when_it_ends():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    assert paper.leases == {}
    bound = ledger.confirm(token(1), 1, 30.0, T0)
    assert paper.leases == {token(1): bound}
    ledger.release(token(1))
    assert paper.leases == {}
    bound = bind(ledger, 2)
    ledger.expire(bound.expires)
    assert paper.leases == {}


def test_what_cannot_be_written_is_not_granted():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    held = ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    paper.full = True
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.DISK
    assert ledger.known(token(1)) is held
    paper.full = False
    assert ledger.confirm(token(1), 1, 30.0, T0 + 1).state is State.BOUND
    ledger.check()


def test_a_fence_is_not_used_again_even_if_its_lease_was_not_written():
    """Nobody knows what a disk that reports an error has kept."""
    paper = Paper()
    ledger = open_ledger(journal=paper)
    paper.lying = True
    ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    assert ledger.confirm(token(1), 1, 30.0, T0) is Reason.DISK
    paper.lying = False
    bind(ledger, 2)
    again = restart(paper, T0 + 1, epoch=2)
    again.check()
    assert {grant.token for grant in again.grants()} == {token(1), token(2)}


def test_a_lease_that_could_not_be_struck_out_comes_back_for_one_term():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    bind(ledger, 1, 8.0)
    paper.full = True
    assert ledger.release(token(1)) is not None
    assert ledger.free() == {"cores": 8.0}
    paper.full = False
    again = restart(paper, T0 + 5, epoch=2)
    assert again.free() == {"cores": 0.0}
    again.expire(T0 + 35)
    assert again.free() == {"cores": 8.0}
    assert paper.leases == {}


def test_a_restart_forgets_holds_and_keeps_leases_for_one_more_term():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    bound = bind(ledger, 1, 5.0)
    ledger.hold(token(2), {"cores": 3.0}, OWNER, T0)
    again = restart(paper, T0 + 29, epoch=2)
    assert again.free() == {"cores": 3.0}
    assert again.confirm(token(2), 1, 30.0, T0 + 29) is Reason.EPOCH
    # The reply to its confirm was lost, and it asks with the epoch that it knows.
    told = again.confirm(token(1), 1, 30.0, T0 + 29)
    assert (told.fence, told.expires) == (bound.fence, T0 + 59)
    assert again.renew(token(1), bound.fence, T0 + 40).expires == T0 + 70
    assert bind(again, 3, now=T0 + 40).fence > bound.fence
    again.check()


def test_fences_grow_across_starts_that_left_no_lease():
    paper, last = Paper(), 0
    for epoch in range(1, 5):
        ledger = restart(paper, T0, epoch=epoch)
        for number in range(3):
            fence = bind(ledger, 10 * epoch + number).fence
            assert fence > last
            last = fence
            ledger.release(token(10 * epoch + number))


def test_nothing_runs_but_under_a_lease_of_this_start_with_its_fence():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    assert ledger.runs(token(1), 0) is None
    ledger.hold(token(1), {"cores": 1}, OWNER, T0)
    assert ledger.runs(token(1), 0) is None  # a hold has no fence
    lease = ledger.confirm(token(1), ledger.epoch, 30.0, T0)
    assert ledger.runs(token(1), lease.fence) is lease
    assert ledger.runs(token(1), lease.fence + 1) is None
    assert ledger.runs(token(2), lease.fence) is None
    again = restart(paper, T0, epoch=2)
    assert again.known(token(1)).fence == lease.fence  # it is still owed
    assert again.runs(token(1), lease.fence) is None
    later = bind(again, 2)
    assert again.runs(token(2), later.fence) is later
    again.revoke(token(2))
    assert again.runs(token(2), later.fence) is None


def test_a_lease_that_was_taken_back_stays_so_across_a_restart():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    bound = bind(ledger, 1, 8.0)
    ledger.revoke(token(1))
    again = restart(paper, T0 + 1, epoch=2)
    assert again.grants() == ()
    assert again.free() == {"cores": 0.0}
    assert again.renew(token(1), bound.fence, T0 + 1) is Reason.GONE
    again.release(token(1))
    assert paper.leases == {}
    assert again.free() == {"cores": 8.0}


def test_a_lease_whose_end_cannot_be_written_is_taken_back_all_the_same():
    paper = Paper()
    ledger = open_ledger(journal=paper)
    bound = bind(ledger, 1, 8.0)
    paper.full = True
    assert ledger.revoke(token(1)).state is State.REVOKED
    assert ledger.renew(token(1), bound.fence, T0) is Reason.GONE
