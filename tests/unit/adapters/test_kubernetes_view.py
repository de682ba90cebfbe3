"""A snapshot of machines and what it says to a need: the first reason counts, by name."""

from types import SimpleNamespace

import pytest

from dhtos.adapters.kubernetes_view import UNKNOWN, Snapshot, Verdicts, _judge_resource
from dhtos.sched import Candidate, Need


def snapshot(*machines, foreign=()):
    """Machines n0, n1, ... with (cores, free cores), or None where they say nothing."""
    candidates = [
        Candidate(bytes([n]), *(({"cores": one[0]}, {"cores": one[1]}) if one else ({}, {})))
        for n, one in enumerate(machines)
    ]
    hits = [
        SimpleNamespace(record=SimpleNamespace(is_foreign=n in foreign))
        for n in range(len(machines))
    ]
    index = {f"n{n}": n for n in range(len(machines))}
    return Snapshot(0.0, index, hits, candidates, True)


def test_columns_are_made_of_candidates():
    found = snapshot((4, 2), None, (8, 8), foreign=(2,))
    assert found.free == {"cores": [2, -1, 8]}
    assert found.capacity == {"cores": [4, -1, 8]}
    assert found.foreign == [2]


def test_each_machine_has_its_reason():
    found = snapshot((4, 4), (8, 2), (2, 2), None)
    verdicts = Verdicts(4)
    _judge_resource(found, "cores", 3, verdicts)
    assert verdicts.of(found, ["n3", "n2", "n1", "n0", "n9"]) == (
        "dhtos: does not say its cores",
        "dhtos: not enough cores in all",
        "dhtos: not enough cores free",
        None,
        UNKNOWN,
    )
    assert verdicts.hopeless == {
        UNKNOWN, "dhtos: does not say its cores", "dhtos: not enough cores in all",
    }  # fmt: skip


def test_a_resource_that_nobody_has():
    found = snapshot((4, 4))
    verdicts = Verdicts(1)
    _judge_resource(found, "gpus", 1, verdicts)
    assert verdicts.of(found, ["n0", "n0"]) == ("dhtos: does not say its gpus",) * 2


def test_the_first_reason_counts():
    found = snapshot((4, 1), (4, 1))
    verdicts = Verdicts(2)
    verdicts.mark([0], "is not what was asked for", hopeless=True)
    _judge_resource(found, "cores", 2, verdicts)
    assert verdicts.of(found, ["n0", "n1"]) == (
        "dhtos: is not what was asked for", "dhtos: not enough cores free",
    )  # fmt: skip


@pytest.mark.parametrize("names", [[], ["n1"], ["n9"], ["n1", "n1"]])
def test_any_number_of_names_is_looked_up(names):
    found = snapshot((4, 4), (4, 0))
    verdicts = Verdicts(2)
    _judge_resource(found, "cores", 1, verdicts)
    told = {"n1": "dhtos: not enough cores free", "n9": UNKNOWN}
    assert list(verdicts.of(found, names)) == [told[name] for name in names]


def test_what_is_taken_is_taken_from_both_forms():
    found = snapshot((4, 4), (8, 8))
    found.take(1, Need(cores=5))
    assert found.free == {"cores": [4, 3]}
    assert found.candidates[1].free == {"cores": 3}
    found.take(1, Need(cores=5))  # never less than nothing
    assert found.free == {"cores": [4, 0]}
    assert found.capacity == {"cores": [4, 8]}
