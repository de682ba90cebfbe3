"""Plans as node affinity: the scheduler of the cluster then looks only at the machines of a plan.

Each candidate is one term with one name, since a term with several is refused by Kubernetes; terms
are alternatives. The better a machine, the larger its preferred weight. No extender is needed, and
no cluster setting.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from dhtos.errors import UsageError
from dhtos.node.lease import Plan

WEIGHT_MAX = 100
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Plain = dict[str, Any]


def node_affinity(plan: Plan, *, label: str = "name") -> Plain:
    """The `nodeAffinity` of a plan, in plain values.

    `label` names the label that holds the name of the Kubernetes node. Raises UsageError where no
    machine of the plan has it.
    """
    names = list(dict.fromkeys(c.hit.labels[label] for c in plan.choices if label in c.hit.labels))
    if not names:
        raise UsageError(
            f"none of the {len(plan.choices)} machines of the plan has the label {label!r}: "
            f"start their nodes with --label {label}=NODE"
        )
    step = WEIGHT_MAX / len(names)
    return {
        _REQUIRED: {"nodeSelectorTerms": [_term(name) for name in names]},
        _PREFERRED: [
            {"weight": max(1, round(WEIGHT_MAX - step * n)), "preference": _term(name)}
            for n, name in enumerate(names)
        ],
    }


def patch_affinity(pod: Mapping[str, Any], plan: Plan, *, label: str = "name") -> Plain:
    """A copy of a pod (or of a pod template) that runs only on machines of the plan.

    What its affinity required before is required as well. Raises as `node_affinity`.
    """
    wanted = node_affinity(plan, label=label)
    patched: Plain = deepcopy(dict(pod))
    affinity = patched.setdefault("spec", {}).setdefault("affinity", {})
    before = affinity.get("nodeAffinity") or {}
    terms = (before.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    both = [
        {**term, "matchFields": [*term.get("matchFields", ()), *machine["matchFields"]]}
        for term in terms
        for machine in wanted[_REQUIRED]["nodeSelectorTerms"]
    ]
    affinity["nodeAffinity"] = {
        **before,
        _REQUIRED: {"nodeSelectorTerms": both},
        _PREFERRED: [*before.get(_PREFERRED, ()), *wanted[_PREFERRED]],
    }
    return patched


def _term(name: str) -> Plain:
    field = {"key": "metadata.name", "operator": "In", "values": [name]}
    return {"matchFields": [field]}
