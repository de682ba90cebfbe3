"""Whatever anybody does: who keeps to its share is served, and nobody has more than there is."""

from hypothesis import given
from hypothesis import strategies as st

from dhtos.core.limits import SHARE_BURST_S, SHARE_CAPACITY
from dhtos.protocol.shares import Shares

COSTS = (2e-5, 1e-3, 0.02)

arrivals = st.lists(
    st.tuples(
        st.sampled_from((0.0, 1e-4, 3e-3, 0.05, 0.6, 4.0, 12.0)),  # after the one before
        st.integers(0, 5),
        st.sampled_from(COSTS),
        st.integers(1, 40),  # as often at once
    ),
    max_size=120,
)


class Meter:
    """Says whether something is within a rate, and a burst of so many seconds of it."""

    def __init__(self, rate, burst_s):
        self.rate, self.burst_s, self.until = rate, burst_s, 0.0

    def fits(self, cost, now):
        until = max(self.until, now - self.burst_s)
        if until > now:
            return False
        self.until = until + cost / self.rate
        return True


@given(arrivals, st.integers(0, 5))
def test_who_keeps_to_its_share_is_always_served(events, honest):
    """One of six keeps to a sixth; the others do as they please. What they get is bounded."""
    table, own, now, served = Shares(), Meter(SHARE_CAPACITY / 6, SHARE_BURST_S), 0.0, 0.0
    for gap, who, cost, times in events:
        now += gap
        for _ in range(times):
            if who != honest:
                served += cost * table.admits(b"%d" % who, cost, now)
            elif own.fits(cost, now):
                assert not table.refuses(b"%d" % who, now)
                assert table.admits(b"%d" % who, cost, now)
                served += cost
        table.check()
    bursts = 1 + sum(1 / n for n in range(1, 7))
    assert served <= SHARE_CAPACITY * (now + bursts * SHARE_BURST_S) + 7 * max(COSTS)


@given(arrivals)
def test_an_idle_node_refuses_nobody(events):
    """As long as all of it fits into what the node does at all, whoever asks for it."""
    table, all_of_it, now = Shares(), Meter(SHARE_CAPACITY, SHARE_BURST_S / 4), 0.0
    for gap, who, cost, times in events:
        now += gap
        for _ in range(times):
            if all_of_it.fits(cost, now):
                assert table.admits(b"%d" % who, cost, now)


@given(arrivals)
def test_who_is_refused_is_refused_for_others(events):
    """Only what is beyond a share, and only once half of what the node saves up is used."""
    table, now, used = Shares(), 0.0, []
    for gap, who, cost, times in events:
        now += gap
        for _ in range(times):
            if table.admits(b"%d" % who, cost, now):
                used.append((now, cost))
            else:
                assert table._recent[b"%d" % who] > now
                assert now - table._until <= SHARE_BURST_S / 2
