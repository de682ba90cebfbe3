"""A candidate: one machine as the scheduler sees it, whatever the record it came from looked like.

What it says is advice and some seconds old: the machine itself decides when it is claimed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from dhtos.core.hit import Hit
from dhtos.core.schema import FREE, PRICES, is_number
from dhtos.sched.need import GPUS, Need

TOLERANCE = 1e-9
"""Amounts that differ by less are the same: ten tenths of a core make one core."""
_DIGITS = 9  # of a share: what was taken and given back is the same share again


@dataclass(frozen=True, slots=True)
class Candidate:
    """One machine: what it has, what of it is free, and what else a choice may depend on.

    `devices` is the free share of each GPU; empty means that GPUs are given out whole. `domain` is
    what a gang spreads over, `refusals` how often the machine said no lately. `free` is made to
    hold all that `capacity` does: a resource without a figure counts as free altogether, and never
    more is free than there is.
    """

    node_id: bytes
    capacity: Mapping[str, float]
    free: Mapping[str, float]
    devices: tuple[float, ...] = ()
    price: float | None = None
    rtt_s: float | None = None
    age_s: float = 0.0
    domain: str = ""
    refusals: int = 0

    def __post_init__(self) -> None:
        free = {
            name: max(0.0, min(self.free.get(name, has), has))
            for name, has in self.capacity.items()
        }
        if self.devices:
            shares = tuple([max(0.0, min(round(share, _DIGITS), 1.0)) for share in self.devices])
            object.__setattr__(self, "devices", shares)
            if GPUS in free:
                free[GPUS] = round(sum(shares), _DIGITS)
        object.__setattr__(self, "free", free)

    @classmethod
    def of(cls, hit: Hit, need: Need, *, spread: str | None = None) -> Self:
        """The machine of a hit; `spread` names the attribute or label that makes its domain."""
        schema = hit.schema
        capacity: dict[str, float] = {}
        free: dict[str, float] = {}
        said = hit.record.attributes(schema)
        for name in (*schema.resources, *need.resources):
            for known, attribute in ((capacity, name), (free, name + FREE)):
                amount = said.get(attribute)
                if is_number(amount):
                    known[name] = float(amount)
        prices = (said.get(name) for name in PRICES)
        price = next((float(value) for value in prices if is_number(value)), None)
        domain = None
        if spread is not None:
            domain = said.get(spread) if spread in schema else hit.labels.get(spread)
        return cls(
            hit.record.node_id,
            capacity,
            free,
            price=price,
            rtt_s=hit.rtt_s,
            age_s=hit.age_s,
            domain="" if domain is None else str(domain),
        )

    def refusal(self, need: Need) -> str | None:
        """Why it cannot take the need, as `what: how`; None where it can."""
        free, devices = self.free, self.devices
        for name, amount in need.resources.items():
            if name != GPUS or (not devices and amount >= 1):
                if amount <= free.get(name, -1.0) + TOLERANCE:
                    continue
            elif amount < 1 and devices and name in free and amount <= max(devices) + TOLERANCE:
                continue
            reason = self._short_of(name, amount)
            if reason is not None:
                return reason
        if need.max_price is not None:
            if self.price is None:
                return f"price: not said, at most {need.max_price:g} wanted"
            if self.price > need.max_price:
                return f"price: {self.price:g}, at most {need.max_price:g} wanted"
        return None

    def _short_of(self, name: str, amount: float) -> str | None:
        if name not in self.capacity:
            return f"{name}: not said, {amount_text(amount)} needed"
        if name == GPUS and (amount < 1 or self.devices):
            return self._short_of_devices(amount)
        free, has = self.free[name], self.capacity[name]
        if amount > has + TOLERANCE:
            return f"{name}: {amount_text(has)} in all, {amount_text(amount)} needed"
        return (
            f"{name}: {amount_text(free)} free of {amount_text(has)}, {amount_text(amount)} needed"
        )

    def _short_of_devices(self, amount: float) -> str | None:
        has, needed = amount_text(self.capacity[GPUS]), amount_text(amount)
        if not self.devices:
            return f"{GPUS}: {has} given out whole, {needed} of one needed"
        if amount < 1:
            most = amount_text(max(self.devices))
            return f"{GPUS}: {most} free of one of {has}, {needed} needed"
        whole = sum(share >= 1 - TOLERANCE for share in self.devices)
        if amount <= whole:
            return None
        return f"{GPUS}: {whole} wholly free of {has}, {needed} needed"


def after(candidate: Candidate, need: Need) -> Candidate:
    """The machine once it holds the need too, which it can."""
    asked = need.resources
    free = {name: has - asked.get(name, 0.0) for name, has in candidate.free.items()}
    devices = candidate.devices
    if devices and GPUS in asked:
        devices = _devices_after(devices, asked[GPUS])
    return replace(candidate, free=free, devices=devices)


def _devices_after(devices: tuple[float, ...], gpus: float) -> tuple[float, ...]:
    """A share comes from the device with the least room for it, whole ones from those unused."""
    left = sorted(devices)
    if gpus < 1:
        n = next(n for n, share in enumerate(left) if share >= gpus - TOLERANCE)
        left[n] -= gpus
    else:
        left[len(left) - int(gpus) :] = [0.0] * int(gpus)
    return tuple(left)


def amount_text(amount: float) -> str:
    """An amount on a screen; what is a million and more are bytes.

    >>> amount_text(3 * 2**30), amount_text(0.25), amount_text(100)
    ('3 GiB', '0.25', '100')
    """
    for word, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if amount >= size:
            return f"{amount / size:.4g} {word}"
    return f"{amount:.6g}"
