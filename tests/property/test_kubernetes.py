"""What holds for any quantity, any pod and any fleet: columns say what candidates say."""

import contextlib
from fractions import Fraction
from types import SimpleNamespace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dhtos.adapters.kubernetes_pods import _SUFFIXES, PodSpec, parse_quantity, reserved
from dhtos.adapters.kubernetes_view import UNKNOWN, Snapshot, Verdicts, _judge_resource
from dhtos.errors import UsageError
from dhtos.sched import Candidate, Need
from dhtos.sched.candidate import TOLERANCE

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


machines = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(RESOURCES), st.floats(0, 64), max_size=3),
        st.dictionaries(st.sampled_from(RESOURCES), st.floats(-1, 65), max_size=3),
    ),
    max_size=12,
)
needs = st.dictionaries(
    st.sampled_from(RESOURCES), st.floats(0.001, 64) | st.integers(1, 64), max_size=3
)


def view(told):
    candidates = [Candidate(bytes([n]), has, free) for n, (has, free) in enumerate(told)]
    index = {f"n{n}": n for n in range(len(candidates))}
    hits = [SimpleNamespace(record=SimpleNamespace(is_foreign=False)) for _ in candidates]
    return Snapshot(0.0, index, hits, candidates, True)


def verdicts(snapshot, need):
    found = Verdicts(len(snapshot.hits))
    for name, amount in need.resources.items():
        _judge_resource(snapshot, name, amount - TOLERANCE, found)
    return found


def able(snapshot, found):
    names = list(snapshot.index)
    return [n for n, why in zip(names, found.of(snapshot, names), strict=True) if why is None]


@given(machines, needs)
def test_columns_say_what_candidates_say(told, resources):
    snapshot, need = view(told), Need(**resources)
    found = verdicts(snapshot, need)
    assert found.of(snapshot, ["unknown"]) == [UNKNOWN]
    assert able(snapshot, found) == [
        name for name, at in snapshot.index.items()
        if snapshot.candidates[at].refusal(need) is None
    ]  # fmt: skip
    for at, candidate in enumerate(snapshot.candidates):
        reason = candidate.refusal(need)
        if reason is not None:
            lacking, said = reason.split(":")[0], found.reasons[found.codes[at]]
            assert said is not None
            assert lacking in said
            assert ("in all" in said) == ("in all" in reason)
            assert ("does not say" in said) == ("not said" in reason)
            assert (said in found.hopeless) == ("free of" not in reason)


@given(machines, needs, needs)
def test_what_was_taken_is_missing_for_the_next(told, first, second):
    snapshot, need = view(told), Need(**first)
    for name in able(snapshot, verdicts(snapshot, need)):
        at = snapshot.index[name]
        before = dict(snapshot.candidates[at].free)
        snapshot.take(at, need)
        for resource, left in snapshot.candidates[at].free.items():
            assert left <= before[resource]
            assert snapshot.free[resource][at] == left
    after = Need(**second)
    assert able(snapshot, verdicts(snapshot, after)) == [
        name for name, at in snapshot.index.items()
        if snapshot.candidates[at].refusal(after) is None
    ]  # fmt: skip
