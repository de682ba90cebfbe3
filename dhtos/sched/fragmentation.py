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

from dhtos.core.limits import FRAGMENT_STATES_MAX
from dhtos.sched.candidate import TOLERANCE, Candidate
from dhtos.sched.need import GPUS, Need

Amounts = tuple[tuple[str, float], ...]
"""The resources of one type of need, by name."""
_State = tuple[tuple[float, ...], tuple[float, ...]]  # of each resource; of each device, ascending

_DIGITS = 9  # of a share: what was taken and given back is the same state again


class Fragmentation:
    """The measure for one set of types and their shares; O(resources log types) a new state."""

    def __init__(self, types: Mapping[Amounts, float]) -> None:
        asked = [dict(kind) for kind in types]
        self.names = tuple(sorted({name for kind in asked for name in kind}))
        self._shares = tuple(types.values())
        self._columns = tuple(_Column([kind.get(name) for kind in asked]) for name in self.names)
        self._gpus = self.names.index(GPUS) if GPUS in self.names else -1
        gpus = [kind.get(GPUS, 0.0) for kind in asked]
        self._pieces = _Column([amount if 0 < amount < 1 else None for amount in gpus])
        self._whole = _Column([amount if amount >= 1 else None for amount in gpus])
        self._sums: dict[int, float] = {0: 0.0}
        self._scales = tuple(self._scale([kind.get(name) for kind in asked]) for name in self.names)
        self._states: dict[_State, float] = {}

    def lost(self, name: str, candidate: Candidate) -> float:
        """How much of a resource that is free the next need that asks for it cannot use."""
        if name not in self.names:
            return 0.0
        n = self.names.index(name)
        amounts, devices = self._state(candidate)
        lost = self._lost(n, amounts, devices, self._fitting(amounts, devices))
        return lost / self._sum(self._columns[n].asking)

    def growth(self, need: Need, candidate: Candidate) -> float:
        """What the need adds to the fragmentation of a machine that can take it, in usual needs."""
        return self._best(need, candidate)[0]

    def device(self, need: Need, candidate: Candidate) -> int | None:
        """The device that a share of a GPU is best taken from; None where none is shared."""
        return self._best(need, candidate)[1]

    # --- the next state -------------------------------------------------------------------------

    def _best(self, need: Need, candidate: Candidate) -> tuple[float, int | None]:
        amounts, devices = self._state(candidate)
        before = self._total(amounts, devices)
        asked = need.resources
        left = tuple(
            [max(0.0, a - asked.get(n, 0.0)) for n, a in zip(self.names, amounts, strict=True)]
        )
        gpus = asked.get(GPUS, 0.0)
        if not devices or not gpus:
            return self._total(left, devices) - before, None
        if gpus >= 1:
            taken = int(gpus)
            rest = (*(0.0,) * taken, *devices[: len(devices) - taken])
            return self._total(left, rest) - before, None
        best, device, tried = math.inf, None, set()
        for n, share in enumerate(candidate.devices):
            share = round(share, _DIGITS)
            if share in tried or share + TOLERANCE < gpus:
                continue
            tried.add(share)
            others = list(devices)
            others.remove(share)
            insort(others, max(0.0, round(share - gpus, _DIGITS)))
            grown = self._total(left, tuple(others)) - before
            if grown < best:
                best, device = grown, n
        return best, device

    def _state(self, candidate: Candidate) -> _State:
        amounts = tuple([candidate.available(name) for name in self.names])
        devices = candidate.devices
        return amounts, tuple(sorted([round(share, _DIGITS) for share in devices]))

    # --- the measure ----------------------------------------------------------------------------

    def _total(self, amounts: tuple[float, ...], devices: tuple[float, ...]) -> float:
        """What is lost of all resources, each in needs of the usual size; remembered."""
        state = (amounts, devices)
        known = self._states.get(state)
        if known is None:
            fitting = self._fitting(amounts, devices)
            known = 0.0
            for n, scale in enumerate(self._scales):
                if scale:
                    known += scale * self._lost(n, amounts, devices, fitting)
            if len(self._states) >= FRAGMENT_STATES_MAX:
                self._states.clear()
            self._states[state] = known
        return known

    def _fitting(self, amounts: tuple[float, ...], devices: tuple[float, ...]) -> int:
        """The types that fit, as a bit mask."""
        mask = -1
        for n, column in enumerate(self._columns):
            if n != self._gpus:
                mask &= column.fitting(amounts[n])
        if self._gpus >= 0:
            whole = amounts[self._gpus]
            if devices:
                whole = len(devices) - bisect_left(devices, 1 - TOLERANCE)
            mask &= self._pieces.fitting(devices[-1] if devices else 0.0)
            mask &= self._whole.fitting(whole)
        return mask

    def _lost(
        self, n: int, amounts: tuple[float, ...], devices: tuple[float, ...], fitting: int
    ) -> float:
        """What is lost of one resource, times the share of needs that ask for it."""
        asking = self._columns[n].asking
        lost = amounts[n] * self._sum(asking & ~fitting)
        if n == self._gpus:
            able = asking & fitting
            for share in devices:
                if 0 < share < 1 and able:
                    lost += share * self._sum(able & ~self._pieces.served(share))
        return lost

    def _sum(self, mask: int) -> float:
        """The shares of the types in a mask together."""
        known = self._sums.get(mask)
        if known is None:
            known = math.fsum([share for n, share in enumerate(self._shares) if mask >> n & 1])
            if len(self._sums) >= FRAGMENT_STATES_MAX:
                self._sums.clear()
            self._sums[mask] = known
        return known

    def _scale(self, amounts: Sequence[float | None]) -> float:
        """One over the amount asked for in all, so that what is lost comes in usual needs."""
        return 1 / math.fsum([a * w for a, w in zip(amounts, self._shares, strict=True) if a])


class _Column:
    """What types ask of one resource: which of them some free amount serves."""

    def __init__(self, amounts: Iterable[float | None]) -> None:
        asked = [(amount, n) for n, amount in enumerate(amounts) if amount is not None]
        self.asking = sum(1 << n for _, n in asked)
        self._steps = sorted({amount for amount, _ in asked})
        self._masks = [0] * (len(self._steps) + 1)
        for amount, n in asked:
            for place in range(bisect_right(self._steps, amount), len(self._masks)):
                self._masks[place] |= 1 << n

    def served(self, free: float) -> int:
        """The types that ask for some of it, and not for more than is free."""
        return self._masks[bisect_right(self._steps, free + TOLERANCE)]

    def fitting(self, free: float) -> int:
        """These, and all types that ask for none of it."""
        return self.served(free) | ~self.asking
