"""A snapshot of machines and what it says to a need: one reason for each, by name."""

import json
from types import SimpleNamespace

import pytest

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
from dhtos.core.limits import ATTRIBUTES_MAX
from dhtos.sched import Candidate, Need


def snapshot(*machines, foreign=(), twice=(), prices=()):
    """Machines n0, n1, ... with (cores, free cores), or None where they say nothing."""
    candidates = [
        Candidate(
            bytes([n]),
            *(({"cores": one[0]}, {"cores": one[1]}) if one else ({}, {})),
            price=dict(enumerate(prices)).get(n),
        )
        for n, one in enumerate(machines)
    ]
    hits = [
        SimpleNamespace(record=SimpleNamespace(is_foreign=n in foreign))
        for n in range(len(machines))
    ]
    names = [f"n{n}" for n in range(len(machines))]
    return Snapshot(0.0, names, hits, candidates, True, frozenset(twice))


def read(pieces):
    """Pieces of JSON as a dictionary."""
    return json.loads(b"{" + b"".join(pieces) + b"}")


def told(verdicts, names):
    """Who can, why the others cannot, and who of them never will; `able` says the same."""
    kept, failed, never = verdicts.sort(names)
    assert kept == verdicts.able(names)
    failed, never = read(failed), read(never)
    assert never.items() <= failed.items()
    return kept, failed, set(never)


# --- columns --------------------------------------------------------------------------------------


def test_a_column_knows_who_has_less():
    column = Column([3.0, 1.0, 2.0, 1.0])
    assert [column.below(limit) for limit in (1, 1.5, 3, 9)] == [
        [],
        [1, 3],
        [1, 3, 2],
        [1, 3, 2, 0],
    ]
    column.put(0, 0.5)
    column.put(1, 7.0)
    assert [column.below(limit) for limit in (1, 3, 9)] == [[0], [0, 3, 2], [0, 3, 2, 1]]


@pytest.mark.parametrize("values", [[], [-1.0], [float("-inf"), -0.0, float("inf")]])
def test_a_column_of_few_or_of_extremes(values):
    column = Column(values)
    for limit in (-1.0, 0, 1e300):
        assert column.below(limit) == [at for at, value in enumerate(values) if value < limit]


def test_a_snapshot_makes_the_columns_that_are_asked_for():
    found = snapshot((4, 2), None, (8, 8), foreign=(2,), prices=(0.5, None, 0.1))
    free, capacity = found.amounts("cores")
    assert (free.values, capacity.values) == ([2, -1, 8], [4, -1, 8])
    assert found.amounts("cores") == (free, capacity)
    assert found.rebates().values == [-0.5, float("-inf"), -0.1]
    assert found.rebates() is found.rebates()
    assert [column.values for column in found.amounts("gpus")] == [[-1, -1, -1]] * 2
    assert found.foreign == [2]


def test_what_is_taken_is_taken_from_both_forms():
    found = snapshot((4, 4), (8, 8))
    free, capacity = found.amounts("cores")
    found.take(1, Need(cores=5))
    assert free.values == [4, 3]
    assert found.candidates[1].free == {"cores": 3}
    assert told(judge(found, Need(cores=4)), ["n0", "n1"])[0] == ["n0"]
    found.take(1, Need(cores=5))  # never less than nothing
    assert free.values == [4, 0]
    assert capacity.values == [4, 8]


def test_a_column_made_later_knows_what_was_taken():
    found = snapshot((4, 4), (8, 8))
    found.take(1, Need(cores=5))
    assert found.amounts("cores")[0].values == [4, 3]


# --- reasons --------------------------------------------------------------------------------------


def test_each_machine_has_its_reason():
    found = snapshot((4, 4), (8, 2), (2, 2), None)
    names = ["n3", "n2", "n1", "n0", "n9"]
    failed = {
        "n3": "dhtos: does not say its cores",
        "n2": "dhtos: not enough cores in all",
        "n1": "dhtos: not enough cores free",
        "n9": UNKNOWN,
    }
    assert told(judge(found, Need(cores=3)), names) == (["n0"], failed, {"n3", "n2", "n9"})


def test_a_resource_that_nobody_has():
    verdicts = judge(snapshot((4, 4)), Need(gpus=1))
    assert told(verdicts, ["n0", "n0"])[1] == {"n0": "dhtos: does not say its gpus"}


def test_what_costs_too_much_or_says_no_price():
    found = snapshot(*[(4, 4)] * 4, prices=(0.1, 0.2, 0.3, None))
    kept, failed, never = told(judge(found, Need(max_price=0.2)), found.names)
    assert kept == ["n0", "n1"]
    assert failed == dict.fromkeys(("n2", "n3"), DEAR)
    assert never == {"n2", "n3"}
    assert told(judge(found, Need(max_price=0)), found.names)[0] == []


def test_of_many_reasons_the_one_that_says_most_is_given():
    """A machine that has all of them loses the first one each time."""
    need = Need(cores=2, max_price=0.1)
    names = ["n0"]

    def reason(machine, foreign=(), twice=(), price=1.0, **marks):
        found = snapshot(machine, foreign=foreign, twice=twice, prices=(price,))
        return told(judge(found, need, **marks), names)[1].get("n0")

    all_marks = {"elsewhere": [0], "resting": [0]}
    assert reason(None, (0,), ("n0",), **all_marks) == TWICE
    assert reason(None, (0,), **all_marks) == FOREIGN
    assert reason(None, **all_marks) == ELSEWHERE
    assert reason(None, resting=[0]) == "dhtos: does not say its cores"
    assert reason((1, 1), resting=[0]) == "dhtos: not enough cores in all"
    assert reason((2, 1), resting=[0]) == "dhtos: not enough cores free"
    assert reason((2, 2), resting=[0]) == DEAR
    assert reason((2, 2), price=0.1, resting=[0]) == RESTS
    assert reason((2, 2), price=0.1) is None


def test_the_first_resource_that_is_short_is_named():
    candidate = Candidate(b"", {"cores": 1, "mem": 1}, {"cores": 1, "mem": 1})
    hit = SimpleNamespace(record=SimpleNamespace(is_foreign=False))
    found = Snapshot(0.0, ["n0"], [hit], [candidate], True)
    assert told(judge(found, Need(mem=2, cores=2)), ["n0"])[1] == {
        "n0": "dhtos: not enough cores in all",  # in the order of their names
    }


def test_a_machine_that_rests_may_preempt_later():
    verdicts = judge(snapshot((4, 4), (4, 4)), Need(cores=1), resting=[1])
    assert told(verdicts, ["n0", "n1"]) == (["n0"], {"n1": RESTS}, set())


def test_as_many_resources_as_a_schema_can_have():
    need = Need(**{f"r{n}": 1 for n in range(ATTRIBUTES_MAX)}, max_price=1)
    verdicts = judge(snapshot((4, 4)), need, elsewhere=[])
    assert told(verdicts, ["n0"])[1] == {"n0": "dhtos: does not say its r0"}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[], ["n0"], ["n1"], ["n9"], ["n1", "n1"], ["n9", "n0", "n1"]])
def test_any_number_of_names_is_looked_up(names):
    verdicts = judge(snapshot((4, 4), (4, 0)), Need(cores=1))
    reasons = {"n1": "dhtos: not enough cores free", "n9": UNKNOWN}
    kept, failed, _ = told(verdicts, names)
    assert kept == [name for name in names if name == "n0"]
    assert failed == {name: reasons[name] for name in names if name != "n0"}


@pytest.mark.parametrize("name", ['"', "\\", "\\n", '",', ',"', "\n", "é", "\u2028", "", ":"])
def test_any_name_is_written_as_json(name):
    verdicts = judge(snapshot((4, 4)), Need(cores=1))
    assert told(verdicts, [name, "x", name + "y", "n0"]) == (
        ["n0"], dict.fromkeys((name, "x", name + "y"), UNKNOWN), {name, "x", name + "y"},
    )  # fmt: skip


def test_nobody_has_no_members():
    assert judge(snapshot(), Need(cores=1)).sort([]) == ([], [], [])
