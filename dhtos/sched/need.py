"""A need: what one placement asks of a machine.

Only resources can be asked for in amounts: attributes with a partner that says how much of them
nobody holds (`Schema.resources`).

`where` is opaque here: the floor above translates it into a predicate and asks the hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from dhtos.core.limits import PRIORITY_MAX
from dhtos.core.schema import Schema
from dhtos.core.value import is_number
from dhtos.errors import UsageError
from dhtos.sched.weights import Weights, weights_of

GPUS = "gpus"
"""The resource that comes in devices: a need below 1 takes a share of one of them."""


@dataclass(frozen=True, slots=True, init=False)
class Need:
    """How much of which resources, where, and which of the machines that can is the best.

    >>> Need(cores=4, mem=8 * 2**30, where="arch == 'x86_64'").resources["cores"]
    4
    """

    resources: Mapping[str, float]
    where: object
    prefer: str | Weights
    priority: int
    max_price: float | None
    preempt: bool

    def __init__(
        self,
        *,
        where: object = None,
        prefer: str | Weights = "pack",
        priority: int = 0,
        max_price: float | None = None,
        preempt: bool = False,
        **resources: float,
    ) -> None:
        for name, amount in resources.items():
            _check_amount(name, amount)
        weights_of(prefer)
        if type(priority) is not int or abs(priority) > PRIORITY_MAX:
            raise UsageError(f"priority must be a whole number, got {priority!r}")
        if max_price is not None and (not is_number(max_price) or max_price < 0):
            raise UsageError(f"max_price must be a number >= 0 or None, got {max_price!r}")
        if type(preempt) is not bool:
            raise UsageError(f"preempt must be True or False, got {preempt!r}")
        ordered = {name: resources[name] for name in sorted(resources)}
        object.__setattr__(self, "resources", MappingProxyType(ordered))
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "prefer", prefer)
        object.__setattr__(self, "priority", priority)
        object.__setattr__(self, "max_price", max_price)
        object.__setattr__(self, "preempt", preempt)

    @property
    def weights(self) -> Weights:
        """What `prefer` stands for."""
        return weights_of(self.prefer)

    def where_is(self, where: object) -> "Need":
        """The same need of other machines."""
        _, *others = self._others()
        return _remade(self.resources, where, *others)

    def of(self, resources: Mapping[str, float]) -> "Need":
        """The same need of other amounts."""
        return _remade(resources, *self._others())

    def __hash__(self) -> int:
        return hash((tuple(self.resources.items()), *self._others()))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what made it: a read-only view of a mapping cannot be pickled."""
        return _remade, (dict(self.resources), *self._others())

    def _others(self) -> tuple[object, ...]:
        """All but the resources."""
        return self.where, self.prefer, self.priority, self.max_price, self.preempt

    def __repr__(self) -> str:
        parts = [f"{name}={amount!r}" for name, amount in self.resources.items()]
        defaults: dict[str, object] = {
            "where": None, "prefer": "pack", "priority": 0, "max_price": None, "preempt": False,
        }  # fmt: skip
        for name, default in defaults.items():
            value = getattr(self, name)
            if value is not default and value != default:
                parts.append(f"{name}={value!r}")
        return f"Need({', '.join(parts)})"


def _remade(resources: Mapping[str, float], *others: object) -> Need:
    names = ("where", "prefer", "priority", "max_price", "preempt")
    return Need(**dict[str, Any](zip(names, others, strict=True)), **dict[str, Any](resources))


def _check_amount(name: str, amount: object) -> None:
    if not is_number(amount) or amount <= 0:
        raise UsageError(f"{name} must be a number above 0, got {amount!r}")
    if name == GPUS and amount > 1 and amount != int(amount):
        raise UsageError(f"{name} must be a share below 1 or a whole number, got {amount!r}")


def check(need: Need, schema: Schema) -> None:
    """Raise UsageError where the schema has no such resource, with the nearest that it has."""
    known = schema.resources
    for name, amount in need.resources.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            listed = ", ".join(known) or "none: no number attribute has a partner NAME_free"
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {listed}"
            also = " is no resource but an attribute: say it in where" if name in schema else ""
            raise UsageError(f"unknown resource {name!r}{also}{hint}")
        _check_amount(name, amount)
    weights_of(need.prefer)
