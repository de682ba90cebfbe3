"""What holds for any quantity, any pod and any fleet: columns say what candidates say."""

import contextlib
import json
from fractions import Fraction
from types import SimpleNamespace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dhtos.adapters.kubernetes_pods import _SUFFIXES, PodSpec, parse_quantity, reserved
from dhtos.adapters.kubernetes_verdicts import (
    DEAR,
    ELSEWHERE,
    FOREIGN,
    RESTS,
    TWICE,
    UNKNOWN,
    Column,
    Snapshot,
    judge,
)
from dhtos.errors import UsageError
from dhtos.sched import Candidate, Need

RESOURCES = ("cores", "mem", "disk")


@given(st.integers(-(10**15), 10**15), st.integers(0, 9), st.sampled_from(["", *_SUFFIXES]))
def test_a_quantity_means_what_its_digits_say(digits, places, suffix):
    value = Fraction(digits, 10**places)
    sign, whole = ("-" if digits < 0 else ""), f"{abs(digits):0{places + 1}d}"
    text = sign + (f"{whole[:-places]}.{whole[-places:]}" if places else whole) + suffix
    assert parse_quantity(text) == value * _SUFFIXES.get(suffix, 1)


@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_an_error(text):
    with contextlib.suppress(UsageError):  # and nothing else
        assert abs(parse_quantity(text)) < 10**100


amounts = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(0, 9), max_size=2)
containers = st.lists(
    st.builds(
        lambda requests, always: {
            "resources": {"requests": requests}, "restartPolicy": "Always" if always else None,
        },
        amounts,
        st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(containers, containers)
def test_what_is_reserved_is_the_most_that_runs_at_once(first, others):
    """Play the start of a pod, one container after the other, and watch the most that is there."""
    spec = msgspec.convert({"containers": others, "initContainers": first}, PodSpec)
    most: dict[str, int] = {}

    def seen(running):
        for name in ("cpu", "memory"):
            total = sum(one["resources"]["requests"].get(name, 0) for one in running)
            most[name] = max(most.get(name, 0), total)

    staying = []
    for one in first:
        seen([*staying, one])
        if one["restartPolicy"] == "Always":
            staying.append(one)
    seen([*staying, *others])
    assert {name: found for name, found in reserved(spec).items() if found} == {
        name: found for name, found in most.items() if found
    }


numbers = st.floats(-1, 65) | st.integers(0, 8).map(float)


@given(st.lists(numbers, max_size=20), st.lists(numbers, max_size=5), st.data())
def test_a_column_finds_who_has_less(values, limits, data):
    column = Column(list(values))
    for limit in limits:
        assert sorted(column.below(limit)) == [
            at for at, value in enumerate(column.values) if value < limit
        ]
        if values:
            column.put(data.draw(st.integers(0, len(values) - 1)), data.draw(numbers))


machines = st.lists(
    st.builds(
        lambda has, free, price: Candidate(b"", has, free, price=price),
        st.dictionaries(st.sampled_from(RESOURCES), st.floats(0, 64) | st.integers(0, 4)),
        st.dictionaries(st.sampled_from(RESOURCES), numbers),
        st.none() | st.sampled_from((0.0, 0.1, 0.5)),
    ),
    max_size=12,
)
needs = st.builds(
    lambda resources, price: Need(**resources, max_price=price),
    st.dictionaries(
        st.sampled_from(RESOURCES), st.floats(0.001, 64) | st.integers(1, 4) | st.just(1e-10)
    ),
    st.none() | st.sampled_from((0, 0.1, 0.3)),
)
places = st.frozensets(st.integers(0, 11))


def view(candidates, foreign=frozenset(), twice=frozenset()):
    names = [f"n{n}" for n in range(len(candidates))]
    hits = [
        SimpleNamespace(record=SimpleNamespace(is_foreign=at in foreign))
        for at in range(len(candidates))
    ]
    shared = frozenset(names[at] for at in twice if at < len(names))
    return Snapshot(0.0, names, hits, list(candidates), True, shared)


def reason(candidate, need):
    """What `Candidate.refusal` says, in the words of an event."""
    refusal = candidate.refusal(need)
    if refusal is None:
        return None
    name = refusal.split(":")[0]
    if name == "price":
        return DEAR
    if "not said" in refusal:
        return f"dhtos: does not say its {name}"
    return f"dhtos: not enough {name} {'free' if 'free of' in refusal else 'in all'}"


def answers(verdicts, names):
    """What is answered, as the scheduler reads it."""
    kept, *others = verdicts.sort(names)
    failed, never = (json.loads(b"{" + b"".join(pieces) + b"}") for pieces in others)
    return kept, failed, never


@given(machines, st.lists(needs, min_size=1, max_size=4), places, places, places, places)
def test_columns_say_what_candidates_say(told, asked, foreign, twice, elsewhere, resting):
    """One snapshot, judged for one need after the other, against each machine on its own."""
    snapshot = view(told, foreign, twice)
    names = [*snapshot.names, "unknown"]
    within = range(len(told))
    for need in asked:
        found = judge(
            snapshot,
            need,
            elsewhere=[at for at in elsewhere if at in within],
            resting=[at for at in resting if at in within],
        )
        expected = {"unknown": UNKNOWN}
        for at, candidate in enumerate(told):
            marks = ((twice, TWICE), (foreign, FOREIGN), (elsewhere, ELSEWHERE))
            why = next((why for marked, why in marks if at in marked), None)
            why = why or reason(candidate, need) or (RESTS if at in resting else None)
            if why is not None:
                expected[f"n{at}"] = why
        kept, failed, never = answers(found, names)
        assert kept == found.able(names) == [name for name in names if name not in expected]
        assert failed == expected
        assert never == {
            name: why for name, why in expected.items() if why != RESTS and "free" not in why
        }


@given(machines, st.lists(st.integers(-3, 12)), st.lists(st.text(max_size=3)))
def test_any_list_of_names_is_answered(told, at, others):
    """Known and unknown, in any order, some of them twice, with whatever they are written."""
    names = [f"n{n}" for n in at] + [one.replace("\x7f", "") for one in others]
    snapshot = view(told)
    kept, failed, _ = answers(judge(snapshot, Need(cores=2)), names)
    able = {f"n{at}" for at, one in enumerate(told) if one.refusal(Need(cores=2)) is None}
    assert kept == [name for name in names if name in able]
    assert failed.keys() == set(names) - able
    assert all((why == UNKNOWN) == (name not in snapshot.names) for name, why in failed.items())


@given(machines, needs, needs)
def test_what_was_taken_is_missing_for_the_next(told, first, second):
    snapshot = view(told)
    for name in judge(snapshot, first).able(snapshot.names):
        at = snapshot.index[name]
        before = dict(snapshot.candidates[at].free)
        snapshot.take(at, first)
        for resource, left in snapshot.candidates[at].free.items():
            assert left <= before[resource]
    assert judge(snapshot, second).able(snapshot.names) == [
        name for name, at in snapshot.index.items()
        if snapshot.candidates[at].refusal(second) is None
    ]  # fmt: skip
