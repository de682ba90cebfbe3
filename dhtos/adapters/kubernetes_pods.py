"""Pods as Kubernetes writes them, and the need that one has.

Amounts are quantities (`100m`, `1.5Gi`, `1e3`), exact until they are handed over. What a pod needs
is what the kubelet reserves for it: the sum of its containers, or more where one of those that run
before them needs more (KEP-753), and its overhead. Resources that the fleet does not share out are
the business of Kubernetes alone.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction

from msgspec import Struct

from dhtos.core.limits import PRIORITY_MAX, QUANTITY_BYTES_MAX
from dhtos.core.schema import Schema
from dhtos.errors import UsageError
from dhtos.sched import Need

PREFIX = "dhtos.io/"
WORDS = ("where", "prefer", "max-price")
RESOURCES = {
    "cpu": "cores",
    "memory": "mem",
    "ephemeral-storage": "disk",
    "nvidia.com/gpu": "gpus",
    "amd.com/gpu": "gpus",
}
"""What Kubernetes calls a resource, and what the machine schema does; `dhtos.io/NAME` is NAME."""

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,3})|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]))?"
)
_EXPONENT_MAX = 30  # beyond all that is, below what would cost time
_SUFFIXES = {
    **{
        word: Fraction(1 << (10 * n))
        for n, word in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
    },
    **{word: Fraction(10) ** (3 * n) for n, word in enumerate("numkMGTPE", -3) if n < 0},
    **{word: Fraction(10) ** (3 * n) for n, word in enumerate("kMGTPE", 1)},
}

Quantity = str | int | float
Amounts = dict[str, Fraction]


class Resources(Struct, frozen=True):
    """What a container may use; what is not requested is what it is limited to."""

    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None

    def amounts(self) -> Amounts:
        """By the name of Kubernetes."""
        return _parsed({**(self.limits or {}), **(self.requests or {})})


class Container(Struct, frozen=True, rename="camel"):
    """One container."""

    resources: Resources | None = None
    restart_policy: str | None = None


class PodSpec(Struct, frozen=True, rename="camel"):
    """What a pod runs."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: dict[str, Quantity] | None = None
    resources: Resources | None = None
    priority: int | None = None
    node_name: str | None = None


class Metadata(Struct, frozen=True):
    """Who it is."""

    name: str = ""
    namespace: str = "default"
    uid: str = ""
    annotations: dict[str, str] | None = None


class PodStatus(Struct, frozen=True):
    """How far it is."""

    phase: str = ""


class Pod(Struct, frozen=True):
    """The parts of a pod that matter here."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


def parse_quantity(quantity: Quantity) -> Fraction:
    """The amount that a quantity means; raises UsageError.

    >>> parse_quantity("100m"), parse_quantity("1.5Gi"), parse_quantity("1E"), parse_quantity("1e3")
    (Fraction(1, 10), Fraction(1610612736, 1), Fraction(1000000000000000000, 1), Fraction(1000, 1))
    """
    text = str(quantity)
    found = _QUANTITY.fullmatch(text) if len(text) <= QUANTITY_BYTES_MAX else None
    if found is None or isinstance(quantity, bool) or abs(int(found[2] or 0)) > _EXPONENT_MAX:
        raise UsageError(f"a quantity is a number as 2, 100m, 1.5Gi or 1e3, got {text[:80]!r}")
    number = Fraction(found[1])
    if found[2]:
        return number * Fraction(10) ** int(found[2])
    return number * _SUFFIXES[found[3]] if found[3] else number


def reserved(spec: PodSpec) -> Amounts:
    """What the node sets aside for a pod, by the name of Kubernetes."""
    total = _sum(_amounts(one) for one in spec.containers or ())
    besides: Amounts = {}  # of containers that start first and go on running
    before: Amounts = {}  # the most that is there at once until the others start
    for one in spec.init_containers or ():
        asked = _amounts(one)
        if one.restart_policy == "Always":
            total, besides = _sum((total, asked)), _sum((besides, asked))
            asked = {}
        before = _larger(before, _sum((besides, asked)))
    total = _larger(total, before)
    if spec.resources is not None:
        total |= spec.resources.amounts()  # a pod's own words stand above those of its containers
    return _sum((total, _parsed(spec.overhead or {})))


def _parsed(told: Mapping[str, Quantity]) -> Amounts:
    found = {name: parse_quantity(amount) for name, amount in told.items()}
    for name, amount in found.items():
        if amount < 0:
            raise UsageError(f"{name}: a request must be at least 0, got {told[name]}")
    return found


def _amounts(one: Container) -> Amounts:
    return one.resources.amounts() if one.resources is not None else {}


def _sum(parts: Iterable[Amounts]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Fraction(0)) + amount
    return total


def _larger(a: Amounts, b: Amounts) -> Amounts:
    return {name: max(a.get(name, Fraction(0)), b.get(name, Fraction(0))) for name in {**a, **b}}


def need_of_pod(pod: Pod, schema: Schema) -> Need:
    """What a pod asks of a machine; raises UsageError naming the resource or annotation."""
    resources: dict[str, float] = {}
    for name, amount in reserved(pod.spec).items():
        known = RESOURCES.get(name) or name.removeprefix(PREFIX)
        if known not in schema.resources or (known == name and name not in RESOURCES):
            continue
        if amount > 0:
            resources[known] = resources.get(known, 0) + _number(amount)
    said = _annotations(pod.metadata.annotations or {})
    priority = max(-PRIORITY_MAX, min(pod.spec.priority or 0, PRIORITY_MAX))
    try:
        return Need(
            where=said.get("where", "").strip() or None,
            prefer=said.get("prefer", "pack").strip(),
            priority=priority,
            max_price=_price(said["max-price"]) if "max-price" in said else None,
            preempt=False,
            **resources,
        )
    except UsageError as error:
        raise UsageError(f"pod {pod.metadata.name}: {error}") from error


def _annotations(given: Mapping[str, str]) -> dict[str, str]:
    said = {
        name.removeprefix(PREFIX): text for name, text in given.items() if name.startswith(PREFIX)
    }
    for name in said.keys() - set(WORDS):
        near = get_close_matches(name, WORDS, 1)
        known = ", ".join(PREFIX + word for word in WORDS)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {known}"
        raise UsageError(f"unknown annotation {PREFIX}{name}; {hint}")
    return said


def _price(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{PREFIX}max-price must be a number, got {text[:80]!r}") from error


def _number(amount: Fraction) -> float:
    return int(amount) if amount.denominator == 1 else float(amount)
