"""The steps of a walk: what was asked, why, and what came of it."""

from typing import Any

import pytest
from hub_world import (
    ALL,
    GIB,
    JOINING,
    SCHEMA,
    Asked,
    Fleet,
    Lone,
    at_least,
    endpoint_of,
    item,
    machine,
    order,
    told,
)

from dhtos.core.contact import Contact
from dhtos.core.ids import Endpoint, Prefix
from dhtos.protocol.explain import Outcome, Silence, Step, narrowed
from dhtos.protocol.operation import Operation

GATES: list[Endpoint] = [("10.2.0.1", 7400), ("10.2.0.2", 7400)]
WHOLE, LOW, HIGH = Prefix(0, 0), Prefix(0b000, 3), Prefix(0b001, 3)
SMALL = [machine(n, cores=2, mem=4 * GIB) for n in range(1, 5)]
BIG = [machine(n, cores=512, mem=4 * GIB) for n in range(11, 15)]


def client(*gateways: Endpoint) -> Lone:
    lone = Lone()
    lone.hub.gateways = list(gateways or GATES[:1])
    return lone


def explained(lone: Lone, predicate: Any = ALL, **options: Any) -> Operation[Any]:
    return lone.hub.find(predicate, lone.now, explain=True, **options)


def asks(lone: Lone) -> list[Asked]:
    return lone.sent("dh_range")


def steps(operation: Operation[Any]) -> tuple[Step, ...]:
    found: tuple[Step, ...] = operation.result().steps
    return found


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    lone = client()
    operation = lone.hub.find(ALL, lone.now)
    lone.reply(asks(lone)[0], told(WHOLE, hits=SMALL))
    assert operation.result().steps == ()
    assert Silence().steps == ()


def test_a_walk_tells_whom_it_asked_why_and_what_came() -> None:
    lone = client()
    operation = explained(lone, at_least(cores=64))
    (gate,) = asks(lone)
    lone.now += 0.02
    items = [item(HIGH, endpoint_of(1), estimate=7.5)]
    lone.reply(gate, told(LOW.child(0), items=items, pruned=3))
    lone.now += 0.03
    lone.reply(asks(lone)[0], told(HIGH, hits=BIG, matches=4))
    first, second = steps(operation)
    assert (first.prefix, first.asked, first.round, first.outcome) == (
        WHOLE, GATES[0], 1, Outcome.ANSWERED,
    )  # fmt: skip
    assert (first.start_s, first.took_s) == (0.0, pytest.approx(0.02))
    assert (first.covers, first.hits, first.found) == (LOW.child(0), 0, ((HIGH, 7.5),))
    assert first.pruned == 3
    # Machines of a later schema's version cannot match, nor small ones.
    assert first.cut == (Prefix(1, 1), Prefix(1, 2), LOW.child(1))
    assert (second.prefix, second.expected, second.round) == (HIGH, 7.5, 2)
    assert (second.start_s, second.took_s) == (pytest.approx(0.02), pytest.approx(0.03))
    assert (second.hits, second.matches, second.late, second.hedge) == (4, 4, False, False)


def test_the_own_view_is_a_step_that_asked_nobody() -> None:
    lone = Lone(SMALL[0], size=16).settle([*SMALL[1:], *BIG])
    (step,) = steps(explained(lone))
    assert (step.asked, step.round, step.covers, step.hits) == (None, 0, Prefix(0, 2), 8)
    assert step.took_s is None


def test_a_hedge_shows_who_was_late_and_who_was_not_waited_for() -> None:
    lone = client(*GATES)
    operation = explained(lone)
    asks(lone)
    second = lone.until_sent("dh_range")[-1]
    lone.reply(second, told(WHOLE, hits=SMALL))
    late, hedge = steps(operation)
    assert (late.outcome, late.took_s, late.hedge) == (Outcome.DROPPED, None, False)
    assert (hedge.outcome, hedge.hedge, hedge.hits) == (Outcome.ANSWERED, True, 4)
    assert hedge.start_s > 0


def test_every_way_an_answer_can_fail_has_a_name() -> None:
    lone = client(*GATES, ("10.2.0.3", 7400), ("10.2.0.4", 7400))
    operation = explained(lone)
    (first,) = asks(lone)
    lone.reply(first, JOINING)
    (second,) = asks(lone)
    lone.reply(second, ["nonsense"])
    (third,) = asks(lone)
    lone.reply(third, told(None, items=[item(LOW, endpoint_of(1))]))
    asks(lone)
    lone.wait(12.0)
    outcomes = [step.outcome for step in steps(operation)]
    assert outcomes[:4] == [
        Outcome.JOINING, Outcome.UNREADABLE, Outcome.HANDED_ON, Outcome.SILENT,
    ]  # fmt: skip
    assert all(step.covers is None for step in steps(operation))
    assert steps(operation)[3].late


def test_a_second_member_and_a_page_say_so() -> None:
    lone = client()
    operation = explained(lone, verify=2)
    (first,) = asks(lone)
    ordered = sorted(SMALL, key=lambda record: record.key(SCHEMA))
    by, other = SMALL[0].key(SCHEMA), SMALL[1].key(SCHEMA)
    after = [ordered[1].key(SCHEMA)]
    lone.reply(first, told(WHOLE, key=by, hits=ordered[:2], matches=4, after=after))
    lone.reply(asks(lone)[0], told(WHOLE, key=by, hits=ordered[2:], others=SMALL[1:2]))
    lone.reply(asks(lone)[0], told(WHOLE, key=other, hits=ordered))
    assert [(s.voice, s.page, s.hits) for s in steps(operation)] == [
        (1, False, 2), (1, True, 2), (2, False, 4),
    ]  # fmt: skip


def test_an_ordered_walk_tells_the_bound_that_decided() -> None:
    lone = client()
    operation = explained(lone, order=order("price"))
    (gate,) = asks(lone)
    items = [item(HIGH, endpoint_of(1), bound=0.25)]
    lone.reply(gate, told(LOW, items=items))
    lone.reply(asks(lone)[0], told(HIGH))
    assert [step.bound for step in steps(operation)] == [None, 0.25]


def test_as_many_steps_as_calls_in_a_fleet_and_the_same_answer() -> None:
    fleet = Fleet(seed=9, size=8)
    fleet.grow(30)
    for _ in range(10):
        predicate, node = fleet.some_predicate(), fleet.rng.choice(fleet.cluster.nodes)
        plain = fleet.find(node, predicate)
        result = fleet.find(node, predicate, explain=True)
        assert set(result.hits) == set(plain.hits)
        asked = [step for step in result.steps if step.asked is not None]
        assert len(asked) == result.coverage.asked
        assert sum(step.hits for step in result.steps) == len(result.hits)
        assert sum(step.pruned for step in result.steps) == result.coverage.pruned
        assert max((step.round for step in result.steps), default=0) == result.coverage.rtt


# --- what a prefix means --------------------------------------------------------------------------


def test_the_whole_space_narrows_nothing() -> None:
    assert narrowed(SCHEMA, WHOLE) == {}
    assert narrowed(SCHEMA, Prefix(0, 2)) == {}  # the version alone


@pytest.mark.parametrize("length", range(3, 98, 5))
def test_a_record_lies_in_what_its_prefixes_mean(length: int) -> None:
    values = {"cores": 16, "mem": 64 * GIB, "gpus": 2, "arch": "arm64", "site": "x", "price": 0.5}
    record = machine(3, **values)
    meaning = narrowed(SCHEMA, Prefix.of(record.key(SCHEMA), length))
    for name, told_of in meaning.items():
        if name not in values:
            assert told_of is None or told_of[0] is None or "in" in str(told_of[0])
        elif name == "arch":
            assert "arm64" in (told_of or ())
        elif name == "site":
            assert told_of is not None
            assert str(told_of[0]).startswith("1 in ")
        else:
            low, high = told_of  # type: ignore[misc]
            assert low is None or low <= values[name]
            assert high is None or values[name] <= high


def test_an_attribute_that_nobody_has_is_none() -> None:
    record = machine(3, cores=16)
    meaning = narrowed(SCHEMA, Prefix.of(record.key(SCHEMA), 98))
    assert (meaning["mem"], meaning["arch"], meaning["site"]) == (None, None, None)
    assert meaning["cores"] is not None


def test_a_step_says_by_its_schema_what_its_bits_mean() -> None:
    lone = Lone(SMALL[0], size=16).settle([*SMALL[1:], *BIG])
    (step,) = steps(explained(lone))
    assert step.schema is SCHEMA
    assert "schema" not in repr(step)


def test_an_inhabited_version_is_named_and_not_called_cut() -> None:
    lone = Lone(SMALL[0], size=16).settle([*SMALL[1:], *BIG])
    (step,) = steps(explained(lone))
    assert step.cut == (Prefix(1, 1), Prefix(1, 2)), "nobody of another version is there"
    stranger = Contact((1 << 158).to_bytes(20), endpoint_of(99))
    lone.hub.met(stranger, lone.now, lone.now)
    step = steps(explained(lone))[0]
    assert (step.cut, [p for p, _ in step.found]) == ((Prefix(1, 1),), [Prefix(1, 2)])
