"""The machines of the fleet by the names that Kubernetes has for them: a view, seconds old.

A scheduler asks about thousands of names for each pod, and a question to the fleet takes some round
trips. So one question is asked for all pods: everybody who has a name, again two seconds after its
answer, or twenty times as long as that took, while anybody wants to know.

It is advice, like every answer. Whoever binds asks the machine itself.
"""

import asyncio
from collections.abc import Iterable

from dhtos.adapters.kubernetes_verdicts import Snapshot, Verdicts, judge
from dhtos.core.hit import Hit
from dhtos.core.limits import EXTENDER_MACHINES_MAX
from dhtos.errors import DhtosError, PredicateError, Unreachable
from dhtos.node.background import Background
from dhtos.node.node import Node
from dhtos.query import F
from dhtos.sched import Candidate, Need

PAUSE_S = 2.0  # after an answer, until the question is asked again
PAUSE_S_MAX = 15.0
PAUSE_SHARE = 20  # times as long as the answer took, so that asking costs a twentieth of the time
IDLE_S = 60.0  # nobody wanted the view for so long: it is no longer kept
AGE_S_MAX = 60.0  # an older view is no answer
FIRST_S = 4.0  # so long one who asks waits for a view: below the time-out of a scheduler
TAKEN_S = 5.0  # so long a claim of ours counts, until records say it
_YIELD = 200  # hits between two turns of the loop
_PREDICATES_MAX = 32  # whose matches are remembered


class View:
    """The newest snapshot, and who keeps it new."""

    def __init__(self, node: Node, label: str) -> None:
        self._node = node
        self._label = label
        self._query = F.label(label).exists()
        self._snapshot: Snapshot | None = None
        self._taken: list[tuple[float, str, Need]] = []
        self._known: dict[bytes, tuple[int, Candidate]] = {}
        self._background = Background()
        self._keeping = False
        self._renewed = asyncio.Event()
        self._wanted = 0.0
        self.pause_s = PAUSE_S
        self.took_s = 0.0
        self.failure = ""

    async def aclose(self) -> None:
        """Keep it no longer."""
        await self._background.aclose()

    @property
    def age_s(self) -> float | None:
        """How old the snapshot is; None where there is none."""
        if self._snapshot is None:
            return None
        return self._node.driver.clock() - self._snapshot.born

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest one there is."""
        return self._snapshot

    async def current(self) -> Snapshot:
        """A snapshot that is new enough; raises Unreachable where the fleet gives none."""
        self._wanted = self._node.driver.clock()
        if not self._keeping:
            self._keeping = True
            self._renewed.clear()
            self._background.spawn(self._keep())
        age_s = self.age_s
        if age_s is None or age_s > 3 * self.pause_s:
            try:
                async with asyncio.timeout(FIRST_S):
                    await self._renewed.wait()
            except TimeoutError:
                pass  # an older one is better than none, up to a limit
            age_s = self.age_s
        if self._snapshot is None or age_s is None or age_s > AGE_S_MAX:
            raise Unreachable(self._silence(age_s))
        return self._snapshot

    def _silence(self, age_s: float | None) -> str:
        since = "has not answered yet" if age_s is None else f"has not answered for {age_s:.0f} s"
        why = f" ({self.failure})" if self.failure else ""
        return f"the fleet {since}{why}; try dhtos-node status on the machine of the extender"

    async def _keep(self) -> None:
        """Ask again and again while somebody wants to know."""
        clock = self._node.driver.clock
        try:
            while clock() - self._wanted < IDLE_S:
                try:
                    await self._renew()
                except DhtosError as error:
                    self.failure = str(error)
                await asyncio.sleep(self.pause_s)
        finally:
            self._keeping = False

    async def _renew(self) -> None:
        node = self._node
        born = node.driver.clock()
        hits: list[Hit] = []
        candidates: list[Candidate] = []
        known: dict[bytes, tuple[int, Candidate]] = {}
        names: dict[str, None] = {}
        twice: set[str] = set()
        async with node.find(self._query, limit=EXTENDER_MACHINES_MAX) as finding:
            async for hit in finding:
                name = hit.labels[self._label]
                if name in names:
                    twice.add(name)
                    continue
                names[name] = None
                hits.append(hit)
                candidates.append(self._candidate(hit, known))
                if len(hits) % _YIELD == 0:
                    await asyncio.sleep(0)
            complete = finding.result.coverage.complete
        self._known = known
        snapshot = Snapshot(born, list(names), hits, candidates, complete, frozenset(twice))
        for name in [] if self._snapshot is None else self._snapshot.asked:
            snapshot.amounts(name)  # it will be asked for again, and no pod shall wait for it
            await asyncio.sleep(0)
        self._snapshot = snapshot
        self._taken = [one for one in self._taken if born - one[0] < TAKEN_S]
        for _, name, need in self._taken:
            self._subtract(name, need)
        self.took_s = node.driver.clock() - born
        self.pause_s = min(max(PAUSE_S, PAUSE_SHARE * self.took_s), PAUSE_S_MAX)
        self.failure = ""
        self._renewed.set()

    def _candidate(self, hit: Hit, known: dict[bytes, tuple[int, Candidate]]) -> Candidate:
        """Most records are those of the last time."""
        node_id = hit.record.node_id
        before = self._known.get(node_id)
        if before is not None and before[0] == hit.seq:
            found = before
        else:
            found = (hit.seq, Candidate.of(hit, Need()))
        known[node_id] = found
        return found[1]

    # --- what a claim of ours changes -------------------------------------------------------------

    def take(self, name: str, need: Need) -> None:
        """A machine granted it: records will say so, and this view at once."""
        self._taken.append((self._node.driver.clock(), name, need))
        self._subtract(name, need)

    def _subtract(self, name: str, need: Need) -> None:
        snapshot = self._snapshot
        if snapshot is not None and name in snapshot.index:
            snapshot.take(snapshot.index[name], need)

    # --- verdicts ---------------------------------------------------------------------------------

    def verdicts(self, snapshot: Snapshot, need: Need, resting: Iterable[str] = ()) -> Verdicts:
        """What all machines say to a need; those called as in `resting` say no in any case."""
        elsewhere = [] if need.where is None else self._elsewhere(snapshot, need)
        places = [snapshot.index[name] for name in resting if name in snapshot.index]
        return judge(snapshot, need, elsewhere=elsewhere, resting=places)

    def _elsewhere(self, snapshot: Snapshot, need: Need) -> list[int]:
        """Who does not match `where`; kept, since pods that say the same may need other amounts."""
        assert isinstance(need.where, str)
        if need.where in snapshot.elsewhere:
            return snapshot.elsewhere[need.where]
        try:
            asked = self._node.predicate(need.where)
        except PredicateError as error:
            raise PredicateError(
                f"dhtos.io/where: {error}", column=error.column, hint=error.hint
            ) from error
        other: list[int] = []
        schemas = self._node.engine.hub.schemas
        bound = {}
        for at, hit in enumerate(snapshot.hits):
            schema = hit.schema
            if schema.tag not in bound:
                translated = schemas.translated(asked, schema)
                bound[schema.tag] = None if translated is None else translated.bind(schema)
            test = bound[schema.tag]
            rtt = hit.rtt_s if hit.rtt_measured else None
            if test is None or not test.matches(hit.record, rtt=rtt):
                other.append(at)
        if len(snapshot.elsewhere) >= _PREDICATES_MAX:
            del snapshot.elsewhere[next(iter(snapshot.elsewhere))]
        snapshot.elsewhere[need.where] = other
        return other
