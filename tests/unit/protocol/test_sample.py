"""Samples: how lots are dealt, what a walk by lot asks, believes, and ends with."""

from collections import Counter
from math import nextafter
from random import Random
from typing import Any

import pytest
from hub_world import (
    ALL,
    GIB,
    SCHEMA,
    Asked,
    Lone,
    at_least,
    endpoint_of,
    item,
    machine,
    question,
    told,
    unbundled,
)

from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import SAMPLE_MAX
from dhtos.core.predicate import Box, Predicate, Range
from dhtos.core.record import Record
from dhtos.errors import NoPeers, UsageError
from dhtos.protocol.answer import answer
from dhtos.protocol.operation import Operation
from dhtos.protocol.sample import LOTS, sample, shares
from dhtos.protocol.select import Shuffle, read_select

GATE: Endpoint = ("10.2.0.1", 7400)
GATES: list[Endpoint] = [("10.2.0.1", 7400), ("10.2.0.2", 7400)]
WHOLE = Prefix(0, 0)
LOW, HIGH = Prefix(0b000, 3), Prefix(0b001, 3)  # of version 0, by the first bit of the cores
SMALL = [machine(n, cores=2, mem=4 * GIB) for n in range(1, 13)]
BIG = [machine(n, cores=512, mem=4 * GIB) for n in range(21, 33)]


def client(*gateways: Endpoint) -> Lone:
    lone = Lone()
    lone.hub.gateways = list(gateways)
    return lone


def draw(lone: Lone, k: int, predicate: Any = ALL, **options: Any) -> Operation[Any]:
    return sample(lone.hub, predicate, k, lone.now, **options)


def asks(lone: Lone) -> list[Asked]:
    return lone.sent("dh_range")


def shuffled(asked: Asked, records: list[Record]) -> list[Record]:
    """Records in the order that is asked for."""
    select = read_select(asked.args[9], SCHEMA)
    assert isinstance(select, Shuffle)
    return sorted(records, key=lambda record: select.rank(record.key(SCHEMA)))


def drawn(operation: Operation[Any]) -> list[bytes]:
    return [bytes(hit.id) for hit in operation.result().hits]


def nodes(records: list[Record]) -> set[bytes]:
    return {record.node_id for record in records}


# --- dealing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_everybody_gets_a_share_rounded_down_or_up(seed: int) -> None:
    rng = Random(seed)
    weights = [rng.choice((0.0, 1e-9, rng.random(), 40 * rng.random())) for _ in range(9)] + [1.0]
    count = rng.randint(1, 40)
    dealt = shares(count, weights, rng)
    assert sum(dealt) == count
    for number, weight in zip(dealt, weights, strict=True):
        exact = count * weight / sum(weights)
        assert exact - 1 < number < exact + 1


def test_on_average_shares_are_exact() -> None:
    rng = Random(1)
    weights = [1.0, 2.0, 0.5, 4.5]
    got = Counter[int]()
    for _ in range(4000):
        for place, number in enumerate(shares(2, weights, rng)):
            got[place] += number
    for place, weight in enumerate(weights):
        assert abs(got[place] / 4000 - 2 * weight / 8) < 0.03


class Edge(Random):
    """Starts at the very end of a step, or at its beginning."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def random(self) -> float:
        return self.start


@pytest.mark.parametrize("start", [0.0, 1e-17, nextafter(1.0, 0.0)])
def test_rounding_loses_no_step(start: float) -> None:
    for count in (1, 2, 3, 10):
        for weights in ([0.1] * 10, [0.1] * 10 + [0.0], [0.0, 0.7, 0.1, 0.2], [1e300, 1e-300]):
            dealt = shares(count, weights, Edge(start))
            assert sum(dealt) == count
            assert min(dealt) >= 0
            assert all(not n for n, w in zip(dealt, weights, strict=True) if not w)


def test_nothing_is_dealt_to_nobody() -> None:
    rng = Random(1)
    assert shares(3, [], rng) == []
    assert shares(3, [0.0, 0.0], rng) == [0, 0]
    assert shares(0, [1.0], rng) == [0]


# --- the member -----------------------------------------------------------------------------------


def test_a_member_answers_in_the_order_of_the_nonce() -> None:
    lone = Lone(SMALL[0], size=64).settle(SMALL[1:])
    wish = Shuffle(b"nonce..8")
    by_rank = sorted((wish.rank(r.key(SCHEMA)), r.node_id) for r in SMALL)
    first = answer(lone.hub, WHOLE, question(ALL, 5, select=wish), None)
    assert [m.record.node_id for m in first.hits] == [node for _, node in by_rank[:5]]
    assert first.more
    rest = answer(lone.hub, WHOLE, question(ALL, 50, select=wish), [by_rank[4][0]])
    assert [m.record.node_id for m in rest.hits] == [node for _, node in by_rank[5:]]
    assert not rest.more
    other = answer(lone.hub, WHOLE, question(ALL, 50, select=Shuffle(b"another8")), None)
    assert [m.record.node_id for m in other.hits] != [node for _, node in by_rank]


def test_an_answer_that_is_cut_says_where_in_that_order() -> None:
    lone = Lone(SMALL[0], size=64).settle(SMALL[1:])
    asker = client(GATE)
    draw(asker, 4)
    (asked,) = asks(asker)
    header, _, hits = unbundled(lone.request("dh_range", asked.args, ("10.9.9.9", 9)))
    order = shuffled(asked, SMALL)
    assert [bytes(record[0]) for _, record in hits] == [record.node_id for record in order[:4]]
    select = read_select(asked.args[9], SCHEMA)
    assert isinstance(select, Shuffle)
    assert header[5] == [select.rank(order[3].key(SCHEMA))]
    assert header[4] == len(SMALL)


# --- within one group -----------------------------------------------------------------------------


def test_one_group_is_drawn_from_without_a_call_and_evenly() -> None:
    """Each of twelve is in a quarter of the samples of three (chi-squared, p = 0.001)."""
    lone = Lone(SMALL[0], size=64).settle(SMALL[1:])
    counts = Counter[bytes]()
    for _ in range(800):
        operation = draw(lone, 3)
        counts.update(drawn(operation))
        assert operation.result().coverage.asked == 0
    expected = 800 * 3 / 12
    spread = sum((counts[r.node_id] - expected) ** 2 for r in SMALL) / expected / (1 - 3 / 12)
    assert spread < 31.3  # 11 degrees of freedom
    assert lone.sent("dh_range") == []


def test_the_hits_come_in_random_order_and_are_streamed() -> None:
    lone = Lone(SMALL[0], size=64).settle(SMALL[1:])
    operations = [draw(lone, 12) for _ in range(3)]
    orders = {tuple(drawn(operation)) for operation in operations}
    assert len(orders) == 3
    assert [len(operation.items) for operation in operations] == [12, 12, 12]


# --- over groups ----------------------------------------------------------------------------------


def test_a_lot_goes_where_matches_are_and_their_number_counts() -> None:
    """Nothing is expected in the gate's own part, so both lots go on to the other one."""
    lone = client(GATE)
    operation = draw(lone, 4)
    (first,) = asks(lone)
    assert first.args[4] == 4
    lone.reply(first, told(LOW, items=[item(HIGH, endpoint_of(8), estimate=12.0)]))
    (second,) = asks(lone)
    assert second.endpoint == endpoint_of(8)
    lone.reply(second, told(HIGH, hits=shuffled(second, BIG)[:4], matches=12))
    result = operation.result()
    assert len(drawn(operation)) == 4
    assert set(drawn(operation)) <= nodes(BIG)
    assert (result.matches, result.cursor) == (12, None)
    assert result.coverage.complete


def first_and_second(lone: Lone, k: int) -> tuple[Operation[Any], list[Asked]]:
    """A sample whose gate has twelve matches and names as many."""
    operation = draw(lone, k)
    (first,) = asks(lone)
    items = [item(HIGH, endpoint_of(8), estimate=12.0)]
    lone.reply(first, told(LOW, hits=shuffled(first, SMALL)[:k], matches=12, items=items))
    return operation, asks(lone)


def test_what_is_not_asked_is_left_and_said_to_be() -> None:
    """With a lot for each half it sometimes stays: then only one half is known."""
    complete = Counter[bool]()
    for seed in range(40):
        lone = Lone(seed=seed)
        lone.hub.gateways = [GATE]
        operation, more = first_and_second(lone, 4)
        for asked in more:
            lone.reply(asked, told(HIGH, hits=shuffled(asked, BIG)[:4], matches=12))
        coverage = operation.result().coverage
        assert coverage.complete == bool(more)
        assert coverage.limited == (not more)
        assert len(drawn(operation)) == 4
        complete[coverage.complete] += 1
    assert complete[True] > 0


def test_a_subtree_with_more_than_was_expected_counts_for_more() -> None:
    """Twelve were expected, a hundred are there: most of the sample comes from them."""
    big = small = 0
    for seed in range(40):
        lone = Lone(seed=seed)
        lone.hub.gateways = [GATE]
        operation, more = first_and_second(lone, 8)
        for asked in more:
            lone.reply(asked, told(HIGH, hits=shuffled(asked, BIG)[:8], matches=100))
            big += len(set(drawn(operation)) & nodes(BIG))
            small += len(set(drawn(operation)) & nodes(SMALL))
    assert big > 5 * small > 0


def test_too_few_matches_are_all_given() -> None:
    lone = client(GATE)
    operation = draw(lone, 20)
    (first,) = asks(lone)
    items = [item(HIGH, endpoint_of(8), estimate=0.0)]
    lone.reply(first, told(LOW, hits=shuffled(first, SMALL), items=items))
    (second,) = asks(lone)
    lone.reply(second, told(HIGH, hits=shuffled(second, BIG[:3])))
    assert set(drawn(operation)) == nodes(SMALL + BIG[:3])
    assert operation.result().coverage.complete


def test_an_answer_that_was_cut_is_continued_if_it_must() -> None:
    lone = client(GATE)
    operation = draw(lone, 10)
    (first,) = asks(lone)
    order = shuffled(first, SMALL)
    select = read_select(first.args[9], SCHEMA)
    assert isinstance(select, Shuffle)
    after = [select.rank(order[5].key(SCHEMA))]
    lone.reply(first, told(WHOLE, hits=order[:6], matches=12, after=after))
    (second,) = asks(lone)
    assert second.args[7] == after
    lone.reply(second, told(WHOLE, hits=order[6:], matches=12))
    assert len(set(drawn(operation))) == 10
    assert operation.result().matches == 12


def test_a_silent_subtree_is_made_up_for_and_named() -> None:
    lone = client(GATE)
    operation = draw(lone, 4)
    (first,) = asks(lone)
    items = [
        item(HIGH.child(0), endpoint_of(8), estimate=12.0),
        item(HIGH.child(1), endpoint_of(9), estimate=0.0),
    ]
    lone.reply(first, told(LOW, items=items))
    waiting = asks(lone)
    for _ in range(20):
        for asked in waiting:
            if asked.endpoint == endpoint_of(9):
                inside = [r for r in BIG if HIGH.child(1).holds(r.key(SCHEMA))]
                lone.reply(asked, told(HIGH.child(1), hits=shuffled(asked, inside)))
        if operation.done:
            break
        lone.wait(1.0)
        waiting = asks(lone)
    coverage = operation.result().coverage
    assert coverage.failed_prefixes == (HIGH.child(0),)
    assert not coverage.complete
    assert not coverage.limited


def test_hits_that_do_not_match_or_come_twice_do_not_count() -> None:
    lone = client(GATE)
    operation = draw(lone, 6, at_least(cores=512))
    (first,) = asks(lone)
    lone.reply(first, told(WHOLE, hits=[*SMALL[:3], BIG[0], BIG[0], BIG[1]], matches=2))
    assert sorted(drawn(operation)) == sorted(nodes(BIG[:2]))
    assert lone.engine.counters["hits_refused"] == 3


@pytest.mark.parametrize("seed", range(60))
def test_no_answer_however_strange_breaks_a_sample(seed: int) -> None:
    """Absurd estimates and counts, matches that never come, pages without an end."""
    rng = Random(seed)
    lone = client(GATE)
    operation = draw(lone, rng.choice((1, 7, 256)))
    waiting = asks(lone)
    for _ in range(40):
        if operation.done or not waiting:
            break
        for asked in waiting:
            prefix = Prefix.from_wire(asked.args[2])
            below = prefix.child(rng.randint(0, 1)) if prefix.length < 150 else prefix
            inside = [r for r in SMALL + BIG if below.holds(r.key(SCHEMA))]
            beside = item(below.sibling(), endpoint_of(40 + rng.randrange(20)))
            beside[1] = rng.choice((0, 1, 2**32))
            beside[2] = rng.choice((0.0, 1e-308, 1.0, 1.7e308))
            reply = told(
                below,
                hits=rng.sample(inside, rng.randint(0, min(3, len(inside)))),
                items=[beside] if below.length > prefix.length else [],
                matches=rng.choice((0, 1, 200_000)),
                after=rng.choice((None, [rng.randbytes(20)])),
            )
            lone.reply(asked, reply)
        waiting = asks(lone)
    lone.wait(30.0)
    assert len(set(drawn(operation))) == len(drawn(operation)) <= 256


# --- what can be asked ----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, SAMPLE_MAX + 1, True, 2.0, "3"])
def test_a_sample_has_a_size(k: Any) -> None:
    lone = client(GATE)
    with pytest.raises(UsageError, match=rf"1\.\.{SAMPLE_MAX} machines"):
        draw(lone, k)
    assert lone.sent() == []


def test_bad_questions_and_nobody_to_ask() -> None:
    loose = Predicate((Box((Range(SCHEMA.index("cores"), 8.0, float("inf")),)),))
    with pytest.raises(UsageError, match=r"as Schema\.check returns them"):
        draw(client(GATE), 3, loose)
    with pytest.raises(NoPeers):
        draw(client(), 3).result()
    assert LOTS >= 1


def test_a_cancelled_sample_leaves_nothing() -> None:
    lone = client(*GATES)
    timers = len(lone.core.timers)
    operation = draw(lone, 3)
    assert len(asks(lone)) == 1
    operation.cancel(lone.now)
    assert len(lone.core.calls) == 0
    assert len(lone.core.timers) == timers
