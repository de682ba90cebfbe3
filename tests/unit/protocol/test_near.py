"""Questions about the own distance: who is judged by what was measured, and who is pinged."""

import pytest
from foreign_world import foreign
from hub_world import ALL, SCHEMA, Lone, machine

from dhtos.core.coordinate import Coordinate
from dhtos.core.limits import MEMORY_S, NEAR_PROBES
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import Box, Near, Predicate
from dhtos.errors import Closed
from dhtos.protocol.near import is_about, measured_rtt
from dhtos.query import parse

HERE = Coordinate((0.0,) * 5, 0.001, 0.1)
MS = 0.001


def placed(number, away_s, **values):
    """A machine that says it is so many seconds from here."""
    record = machine(number, cores=4, **values)
    there = Coordinate((away_s - 0.002, 0.0, 0.0, 0.0, 0.0), 0.001, 0.1)
    return record.updated(record.seq + 1, record.dynamic, (*there.position, there.height, 0.1))


def asker(*records):
    """An engine that knows where it is, in a group with these machines."""
    lone = Lone(machine(0, cores=4), size=64).settle(records)
    lone.hub.locator.coordinate = HERE
    return lone


def measure(lone, record, rtt_s):
    """The asker has measured a machine before."""
    lone.hub.locator.memory.add(
        record.endpoint, Coordinate.from_bytes(record.packed), rtt_s, lone.now, lone.core.rng
    )


def about(text="rtt(self) < 20ms", here=HERE):
    return parse(text, SCHEMA, coordinate_of=lambda _: here)


def begin(lone, text="rtt(self) < 20ms", **options):
    return lone.hub.find(about(text), lone.now, here=HERE, **options)


def number_of(hit):
    return int.from_bytes(hit.record.node_id)


def found(operation):
    """The numbers of the machines that were found."""
    return [number_of(hit) for hit in operation.result().hits]


def answer_pings(lone, after_s):
    """Answer the pings to these machines after so many seconds each; the rest stays silent."""
    asked = {int(one.endpoint[0].rpartition(".")[2]): one for one in lone.sent("ping")}
    start = lone.now
    for number, delay in sorted(after_s.items(), key=lambda entry: entry[1]):
        lone.now = start + delay
        lone.reply(asked[number], number.to_bytes(20))
    return set(asked)


def test_what_was_measured_decides_before_anything_is_asked():
    near, far, liar, shy = (placed(n, s) for n, s in ((1, 0.010), (2, 0.050), (3, 0.010), (4, 0.1)))
    lone = asker(near, far, liar, shy)
    measure(lone, near, 0.012)
    measure(lone, liar, 0.080)
    measure(lone, shy, 0.015)
    operation = begin(lone)
    assert lone.sent("ping") == []
    assert operation.done
    assert sorted(found(operation)) == [0, 1, 4]
    rtts = {number_of(hit): (hit.rtt_s, hit.rtt_measured) for hit in operation.items}
    assert rtts == {0: (0.0, True), 1: (0.012, True), 4: (0.015, True)}
    assert int(lone.hub.find(about(), lone.now, count_only=True, here=HERE).result().matches) == 3
    assert operation.result().coverage.asked == 0


def test_without_a_here_predictions_decide():
    near, liar = placed(1, 0.010), placed(2, 0.010)
    lone = asker(near, liar)
    measure(lone, liar, 0.080)
    operation = lone.hub.find(about(), lone.now)
    assert sorted(found(operation)) == [1, 2]
    assert lone.sent("ping") == []


def test_strangers_are_pinged_and_only_those_that_are_near_pass():
    lone = asker(placed(1, 0.010), placed(2, 0.012), placed(3, 0.014))
    operation = begin(lone)
    assert not operation.done
    assert [number_of(hit) for hit in operation.items] == [0]  # the asker itself
    assert answer_pings(lone, {1: 0.011, 2: 0.033}) == {1, 2, 3}
    assert not operation.done
    assert [hit.rtt_s for hit in operation.items] == [0.0, pytest.approx(0.011)]
    lone.wait(30.0)  # nobody hears of the third
    assert found(operation) == [0, 1]
    assert operation.result().coverage.asked == 3
    assert operation.result().coverage.rtt == 1
    assert lone.hub.locator.memory.rtt_s(placed(1, 0.010).endpoint) == pytest.approx(0.011)


def test_the_least_sure_are_pinged_and_no_more_than_a_few():
    lone = asker(*(placed(n, 0.004 + n * MS) for n in range(1, 13)))
    operation = begin(lone)
    passed = {number_of(hit) for hit in operation.items}
    assert passed == {0, 1, 2, 3, 4}
    assert not any(hit.rtt_measured for hit in operation.items if number_of(hit))
    asked = answer_pings(lone, dict.fromkeys(range(5, 13), 0.001))
    assert asked == set(range(5, 13))
    assert len(asked) == NEAR_PROBES
    assert sorted(found(operation)) == list(range(13))


def test_an_order_is_kept():
    lone = asker(*(placed(n, (20 - n) * MS) for n in range(1, 6)))
    operation = begin(lone, order=Nearest.to(HERE))
    assert not operation.items  # nothing is sure before the end
    lone.now += 0.001
    answer_pings(lone, {1: 0.010, 2: 0.001, 3: 0.050, 4: 0.005, 5: 0.003})
    assert found(operation)[:5] == [5, 4, 2, 1, 0]
    assert [hit.id for hit in operation.items] == [hit.id for hit in operation.result().hits]


def test_a_machine_behind_a_gateway_passes_as_predicted():
    row = foreign(cores=4)
    row = row.updated(row.seq + 1, row.dynamic, (0.005, 0.0, 0.0, 0.0, 0.0, 0.001, 0.1))
    lone = asker(row)
    operation = begin(lone)
    assert lone.sent("ping") == []
    hits = {hit.gateway: hit.rtt_measured for hit in operation.result().hits}
    assert hits == {True: False, False: True}
    assert measured_rtt(lone.hub, row, lone.now) is None


def test_another_place_is_predicted():
    lone = asker(placed(1, 0.010))
    there = Coordinate((0.001, 0.0, 0.0, 0.0, 0.0), 0.001, 0.1)
    operation = lone.hub.find(about(here=there), lone.now, here=HERE)
    assert found(operation) == [1]
    assert lone.sent("ping") == []


@pytest.mark.parametrize(
    ("places", "expected"),
    [((HERE,), True), ((HERE, HERE), True), ((), False), ((HERE, Coordinate((1.0,) * 5)), False)],
)
def test_what_a_predicate_is_about(places, expected):
    boxes = [Box((Near((*one.position, one.height), 0.0, 0.02),)) for one in places]
    assert is_about(Predicate(tuple(boxes)) if boxes else ALL, HERE) is expected


def test_a_question_that_is_cancelled_forgets_its_pings():
    lone = asker(placed(1, 0.010))
    operation = begin(lone)
    assert len(lone.sent("ping")) == 1
    operation.cancel(lone.now)
    lone.wait(1.0)
    assert lone.hub.running == []
    with pytest.raises(Closed):
        operation.result()


def test_replies_are_measurements_for_half_an_hour():
    record = placed(1, 0.010)
    lone = asker(record)
    assert measured_rtt(lone.hub, record, lone.now) is None
    peer = lone.core.peers.of(record.endpoint)
    peer.sample(0.042)
    assert measured_rtt(lone.hub, record, lone.now) is None  # when, nobody knows
    peer.last_heard = lone.now
    assert measured_rtt(lone.hub, record, lone.now) == 0.042
    assert measured_rtt(lone.hub, record, lone.now + MEMORY_S + 1.0) is None
    measure(lone, record, 0.040)
    assert measured_rtt(lone.hub, record, lone.now) == 0.040
    assert measured_rtt(lone.hub, lone.own, lone.now) == 0.0
