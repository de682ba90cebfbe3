"""Plans as node affinity: one name a term, the better the heavier, and nothing of a pod is lost."""

import copy
from types import SimpleNamespace

import pytest

from dhtos.adapters.kubernetes_affinity import node_affinity, patch_affinity
from dhtos.errors import UsageError

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def plan(*names, label="name"):
    """A plan of machines with these names, the best first; None has none."""
    return SimpleNamespace(
        choices=[
            SimpleNamespace(hit=SimpleNamespace(labels={label: n} if n else {})) for n in names
        ]
    )


def term(name):
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}


def test_each_machine_is_a_term_and_the_best_weighs_most():
    affinity = node_affinity(plan("b", None, "a", "b", "c", "d"))
    assert affinity[REQUIRED]["nodeSelectorTerms"] == [term(name) for name in "bacd"]
    assert affinity[PREFERRED] == [
        {"weight": weight, "preference": term(name)}
        for weight, name in zip((100, 75, 50, 25), "bacd", strict=True)
    ]


def test_weights_stay_within_what_kubernetes_takes():
    weights = [one["weight"] for one in node_affinity(plan(*map(str, range(256))))[PREFERRED]]
    assert weights == sorted(weights, reverse=True)
    assert (weights[0], weights[-1]) == (100, 1)


def test_another_label_may_hold_the_names():
    assert node_affinity(plan("x", label="host"), label="host")[REQUIRED]["nodeSelectorTerms"]
    with pytest.raises(UsageError, match="none of the 1 machines of the plan has the label 'name'"):
        node_affinity(plan("x", label="host"))
    with pytest.raises(UsageError, match="none of the 0 machines"):
        patch_affinity({}, plan())


def test_a_pod_without_affinity_gets_that_of_the_plan():
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    before = copy.deepcopy(pod)
    patched = patch_affinity(pod, plan("a", "b"))
    assert pod == before
    assert patched["spec"]["containers"] == [{"name": "c"}]
    assert patched["spec"]["affinity"]["nodeAffinity"] == node_affinity(plan("a", "b"))
    assert "affinity" in patch_affinity({}, plan("a"))["spec"]


def test_what_was_required_still_is():
    zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}]}
    field = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["b"]}]}
    preferred = [{"weight": 7, "preference": zone}]
    node = {REQUIRED: {"nodeSelectorTerms": [zone, field]}, PREFERRED: preferred}
    pod = {"spec": {"affinity": {"podAffinity": {"x": 1}, "nodeAffinity": node}}}
    patched = patch_affinity(pod, plan("a", "b"))["spec"]["affinity"]
    assert patched["podAffinity"] == {"x": 1}
    terms = patched["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms == [
        {**zone, **term("a")},
        {**zone, **term("b")},
        {"matchFields": field["matchFields"] + term("a")["matchFields"]},
        {"matchFields": field["matchFields"] + term("b")["matchFields"]},
    ]
    assert [one["weight"] for one in patched["nodeAffinity"][PREFERRED]] == [7, 100, 50]
