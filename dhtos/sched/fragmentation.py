"""Fragmentation: how much of what is free nobody will be able to use, and what a choice adds to it.

Q. Weng et al. ("Beware of fragmentation: scheduling GPU-sharing workloads with fragmentation
gradient descent", USENIX ATC 2023) measure a machine by the need that comes next, drawn from the
types of needs of late: what is free there and that need cannot use is lost to it. The expectation
over the types is the machine's fragmentation, and each need goes where it grows least (FGD).

    lost(r) = sum over types t that ask for r of  share(t) * unusable(r, t)
    unusable(r, t) = all of r that is free           where t does not fit on the machine
                   = the GPUs too full for t's piece where it does and r is shared device by device
                   = 0                               else

Types that ask for no r say nothing about it; the paper counts all that is free as lost to them,
which moves every machine by the same amount. A paper's machine has CPUs and GPUs; here any resource
may be lost, and each is counted in needs of the usual size, so that they can be added.

Which types fit is kept as a bit mask per resource and step of what is free, so a machine costs a
bisection a resource whatever the number of types. States that were met are remembered.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import mul, or_

from dhtos.core.limits import FRAGMENT_STATES_MAX
from dhtos.sched.candidate import TOLERANCE, Candidate
from dhtos.sched.need import GPUS, Need

Amounts = tuple[tuple[str, float], ...]
"""The resources of one type of need, by name."""
_State = tuple[tuple[float, ...], tuple[float, ...]]  # of each resource; of each device, ascending
_Choice = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]

BESIDE_GPUS = 0.003
"""What a lost CPU counts where GPUs are asked for: they are short first, so stranded first."""
_DIGITS = 9  # of a share: what was taken and given back is the same state again


class Fragmentation:
    """The measure for one set of types and their shares; O(resources log types) a new state.

    `counting` says how much each resource counts; by default all alike, but little where GPUs are
    asked for too.
    """

    def __init__(
        self, types: Mapping[Amounts, float], counting: Mapping[str, float] | None = None
    ) -> None:
        asked = [dict(kind) for kind in types]
        self.names = tuple(sorted({name for kind in asked for name in kind}))
        self._shares = tuple(types.values())
        self._columns = tuple(_Column([kind.get(name) for kind in asked]) for name in self.names)
        self._gpus = self.names.index(GPUS) if GPUS in self.names else -1
        gpus = [kind.get(GPUS, 0.0) for kind in asked]
        self._pieces = _Column([amount if 0 < amount < 1 else None for amount in gpus])
        self._whole = _Column([amount if amount >= 1 else None for amount in gpus])
        self._tables = _tables(self._shares)
        self._sums: dict[int, float] = {0: 0.0}
        if counting is None:
            others = BESIDE_GPUS if GPUS in self.names else 1.0
            counting = {name: 1.0 if name == GPUS else others for name in self.names}
        self._scales = tuple(
            counting.get(name, 0.0) / self._asked([kind.get(name) for kind in asked])
            for name in self.names
        )
        self._states: dict[_State, float] = {}
        self._choices: dict[_Choice, tuple[float, float | None]] = {}

    def lost(self, name: str, candidate: Candidate) -> float:
        """How much of a resource that is free the next need that asks for it cannot use."""
        if name not in self.names:
            return 0.0
        n = self.names.index(name)
        amounts = tuple([candidate.free.get(known, 0.0) for known in self.names])
        lost = self._losses(amounts, tuple(sorted(candidate.devices)))[n]
        return lost / self._sum(self._columns[n].asking)

    def growth(self, need: Need, candidate: Candidate) -> float:
        """What the need adds to the fragmentation of a machine that can take it, in usual needs."""
        return self._best(need, candidate)[0]

    def device(self, need: Need, candidate: Candidate) -> int | None:
        """The device that a share of a GPU is best taken from; None where none is shared."""
        share = self._best(need, candidate)[1]
        return None if share is None else candidate.devices.index(share)

    # --- the next state -------------------------------------------------------------------------

    def _best(self, need: Need, candidate: Candidate) -> tuple[float, float | None]:
        """The least growth, and how much is free of the device that is then shared; remembered."""
        free, asked = candidate.free, need.resources
        amounts = tuple([free.get(name, 0.0) for name in self.names])
        devices = tuple(sorted(candidate.devices))
        left = tuple([a - asked.get(n, 0.0) for n, a in zip(self.names, amounts, strict=True)])
        gpus = asked.get(GPUS, 0.0) if devices else 0.0
        choice = (amounts, devices, left, gpus)
        known = self._choices.get(choice)
        if known is None:
            grown, share = self._least(left, devices, gpus)
            known = (grown - self._total(amounts, devices), share)
            if len(self._choices) >= FRAGMENT_STATES_MAX:
                self._choices.clear()
            self._choices[choice] = known
        return known

    def _least(
        self, left: tuple[float, ...], devices: tuple[float, ...], gpus: float
    ) -> tuple[float, float | None]:
        """The best of the states after; of devices that are equally free one is looked at."""
        if not gpus:
            return self._total(left, devices), None
        if gpus >= 1:
            taken = int(gpus)
            return self._total(left, (*(0.0,) * taken, *devices[: len(devices) - taken])), None
        best, device = math.inf, None
        for share in set(devices):
            if share + TOLERANCE >= gpus:
                others = list(devices)
                others.remove(share)
                insort(others, max(0.0, round(share - gpus, _DIGITS)))
                after = self._total(left, tuple(others))
                if after < best or (after == best and device is not None and share < device):
                    best, device = after, share
        return best, device

    # --- the measure ----------------------------------------------------------------------------

    def _total(self, amounts: tuple[float, ...], devices: tuple[float, ...]) -> float:
        """What is lost of all resources, each in needs of the usual size; remembered."""
        state = (amounts, devices)
        known = self._states.get(state)
        if known is None:
            known = sum(map(mul, self._scales, self._losses(amounts, devices)))
            if len(self._states) >= FRAGMENT_STATES_MAX:
                self._states.clear()
            self._states[state] = known
        return known

    def _losses(self, amounts: tuple[float, ...], devices: tuple[float, ...]) -> list[float]:
        """What is lost of each resource, times the share of needs that ask for it."""
        fitting, begun = -1, devices[bisect_right(devices, 0.0) : bisect_left(devices, 1.0)]
        for n, column in enumerate(self._columns):
            if n != self._gpus:
                fitting &= column.fits[bisect_right(column.steps, amounts[n] + TOLERANCE)]
            else:
                most, whole = 0.0, amounts[n]
                if devices:
                    most, whole = devices[-1], len(devices) - bisect_left(devices, 1.0)
                fitting &= self._pieces.fits[bisect_right(self._pieces.steps, most + TOLERANCE)]
                fitting &= self._whole.fits[bisect_right(self._whole.steps, whole + TOLERANCE)]
        losses = []
        for n, column in enumerate(self._columns):
            losses.append(amounts[n] * self._sum(column.asking & ~fitting))
            if n == self._gpus and begun:
                able = column.asking & fitting
                for share in begun:
                    losses[n] += share * self._sum(able & ~self._pieces.serves(share))
        return losses

    def _sum(self, mask: int) -> float:
        """The shares of the types in a mask together; remembered."""
        known = self._sums.get(mask)
        if known is None:
            parts = mask.to_bytes(len(self._tables), "little")
            known = sum([table[part] for table, part in zip(self._tables, parts, strict=True)])
            if len(self._sums) >= FRAGMENT_STATES_MAX:
                self._sums.clear()
            self._sums[mask] = known
        return known

    def _asked(self, amounts: Sequence[float | None]) -> float:
        """What a need asks for on average: what is lost divided by it comes in usual needs."""
        return math.fsum([a * w for a, w in zip(amounts, self._shares, strict=True) if a])


class _Column:
    """What types ask of one resource: which of them some free amount serves.

    `fits[n]` are the types served by anything from the n-th step on, and all that ask for none.
    """

    def __init__(self, amounts: Iterable[float | None]) -> None:
        asked: dict[float, int] = {}
        for n, amount in enumerate(amounts):
            if amount is not None:
                asked[amount] = asked.get(amount, 0) | 1 << n
        self.steps = sorted(asked)
        served = list(accumulate((asked[step] for step in self.steps), or_, initial=0))
        self.asking = served[-1]
        self.fits = [mask | ~self.asking for mask in served]

    def serves(self, free: float) -> int:
        """The types that ask for some of it, and not for more than is free."""
        return self.fits[bisect_right(self.steps, free + TOLERANCE)] & self.asking


def _tables(shares: Sequence[float]) -> list[list[float]]:
    """The sum of every set of eight shares in turn, so that a mask is summed byte by byte."""
    tables = []
    for start in range(0, len(shares), 8):
        table = [0.0]
        for share in shares[start : start + 8]:
            table += [total + share for total in table]
        tables.append(table)
    return tables
