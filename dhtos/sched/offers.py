"""What machines offer for one need: a drawn sample that stays true while placements come of it.

A client that places much need not ask for every placement anew. Each of its claims is answered
with what the machine has left, so the sample is brought up to date where this client itself made
it old; what others take meanwhile is as unknown as the age of the sample allows.

    drawn --choose--> best of a few drawn by lot --> expect (it will take the need)
                                 ^                      |  granted, or refused
                                 '------ told what is left: scored again, or set aside

The best of a *few*: schedulers that all choose the best of many choose the same one (placement.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dhtos.sched.candidate import Candidate, after
from dhtos.sched.demand import Demand
from dhtos.sched.need import Need
from dhtos.sched.rank import Scored, context_of, score_of, sift
from dhtos.sched.score import Scorer, StandardScorer

if TYPE_CHECKING:
    from random import Random


class Offers:
    """Candidates for one need, scored once and again when something is told of them."""

    def __init__(
        self,
        need: Need,
        candidates: Iterable[Candidate],
        *,
        demand: Demand | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.need = need
        self._known = {candidate.node_id: candidate for candidate in candidates}
        able, self.refused = sift(need, self._known.values())
        self._scorer = StandardScorer() if scorer is None else scorer
        self._factors = need.weights.factors
        self._context = context_of(able, demand=demand)
        self._able: dict[bytes, Scored] = {one.node_id: self._scored(one) for one in able}

    def __len__(self) -> int:
        """How many machines can take the need."""
        return len(self._able)

    def candidates(self) -> list[Candidate]:
        """Those that can take the need, as they are believed to be now."""
        return [one.candidate for one in self._able.values()]

    def choose(self, count: int, of: int, *, rng: "Random") -> list[Candidate]:
        """The best `count` of so many drawn by lot, the best first; O(n) for n offers."""
        drawn = rng.sample(list(self._able.values()), min(of, len(self._able)))
        order = sorted((one.score, n) for n, one in enumerate(drawn))  # equals as they were drawn
        return [drawn[n].candidate for _, n in order[:count]]

    def expect(self, node_id: bytes) -> None:
        """The machine is about to be asked: until it has answered it counts as having granted."""
        if node_id in self._able:
            self._update(after(self._known[node_id], self.need))

    def told(self, node_id: bytes, free: Mapping[str, float]) -> None:
        """What a machine has left by its own word; of what it does not name nothing is known."""
        known = self._known.get(node_id)
        if known is not None:
            self._update(replace(known, free={**known.free, **free}))

    def forget(self, node_id: bytes) -> None:
        """The machine granted nothing and said nothing of what it has: it is not asked again."""
        self._known.pop(node_id, None)
        self._able.pop(node_id, None)

    def _update(self, candidate: Candidate) -> None:
        node_id = candidate.node_id
        self._known[node_id] = candidate
        if candidate.refusal(self.need) is None:
            self._able[node_id] = self._scored(candidate)
        else:
            self._able.pop(node_id, None)

    def _scored(self, candidate: Candidate) -> Scored:
        terms = self._scorer.terms(self.need, candidate, self._context)
        return score_of(candidate, self._factors, terms)

    def check(self) -> None:
        """Assert that exactly those who can take the need are offered."""
        for node_id, known in self._known.items():
            assert (node_id in self._able) == (known.refusal(self.need) is None)
        assert self._able.keys() <= self._known.keys()
