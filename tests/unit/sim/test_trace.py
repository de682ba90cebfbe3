"""The fingerprint of a run."""

from random import Random

import pytest

from dhtos.sim.node import SimNode
from dhtos.sim.trace import BATCH, Trace

ONE, TWO = (SimNode(index, bytes(20), ("10.0.0.1", index), rng=Random(0)) for index in (1, 2))


def _events(count):
    return [(n * 0.5, n, ONE, b"datagram %d" % n, TWO) for n in range(count)]


def _trace(events):
    trace = Trace()
    for event in events:
        trace.add(event)
    return trace


def test_equal_runs_have_equal_digests():
    assert _trace(_events(10)).digest == _trace(_events(10)).digest
    assert len(_trace([]).digest) == 32


@pytest.mark.parametrize(
    "changed",
    [
        (0.6, 1, ONE, b"datagram 1", TWO),
        (0.5, 1, TWO, b"datagram 1", TWO),
        (0.5, 1, ONE, b"datagram 2", TWO),
        (0.5, 1, ONE, b"datagram 1", ONE),
        (0.5, 1, ONE, b"", TWO),
    ],
)
def test_every_field_counts(changed):
    events = _events(3)
    other = [events[0], changed, events[2]]
    assert _trace(events).digest != _trace(other).digest


def test_the_ticket_does_not_count():
    assert _trace([(1.0, 1, ONE, b"x", TWO)]).digest == _trace([(1.0, 9, ONE, b"x", TWO)]).digest


def test_bytes_cannot_move_between_datagrams():
    left = _trace([(1.0, 1, ONE, b"ab", TWO), (1.0, 2, ONE, b"c", TWO)])
    right = _trace([(1.0, 1, ONE, b"a", TWO), (1.0, 2, ONE, b"bc", TWO)])
    assert left.digest != right.digest


def test_looking_at_a_digest_does_not_change_a_later_one():
    looked, blind = Trace(), Trace()
    for event in _events(BATCH + 100):
        looked.add(event)
        blind.add(event)
        if event[1] % 1000 == 0:
            assert looked.digest
    assert looked.digest == blind.digest
    assert looked.deliveries == BATCH + 100
    assert looked.bytes == sum(len(event[3]) for event in _events(BATCH + 100))


def test_a_late_flush_cuts_the_same_batches():
    """The delivery loop may append past a full batch before it packs."""
    events = _events(BATCH + 7)
    late = Trace()
    late.pending.extend(events)
    before = late.digest
    late.flush()
    assert late.digest == before == _trace(events).digest
    assert late.deliveries == len(events)


def test_the_tail_reaches_back_over_a_flush():
    trace = _trace(_events(BATCH + 1))
    lines = trace.recent(3)
    assert [line.split()[0] for line in lines] == ["2047.000000", "2047.500000", "2048.000000"]
    assert "2->1" in lines[-1]
    assert trace.recent(0) == []


def test_the_tail_shortens_long_datagrams():
    (line,) = _trace([(1.0, 1, ONE, b"x" * 100, TWO)]).recent(5)
    assert "100 B" in line
    assert line.endswith("…")
