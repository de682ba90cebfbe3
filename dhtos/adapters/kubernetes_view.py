"""The machines of the fleet by the names that Kubernetes has for them: a view, seconds old.

A scheduler asks about thousands of names for each pod, and a question to the fleet takes some round
trips. So one question is asked for all pods: everybody who has a name, again two seconds after its
answer, or twenty times as long as that took, while anybody wants to know. What a name can take is
judged from columns of the view, once for all pods that need the same.

It is advice, like every answer. Whoever binds asks the machine itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dhtos.core.hit import Hit
from dhtos.core.limits import EXTENDER_MACHINES_MAX
from dhtos.errors import DhtosError, PredicateError, Unreachable
from dhtos.node.background import Background
from dhtos.node.node import Node
from dhtos.query import F
from dhtos.sched import Candidate, Need
from dhtos.sched.candidate import TOLERANCE

PAUSE_S = 2.0  # after an answer, until the question is asked again
PAUSE_S_MAX = 15.0
PAUSE_SHARE = 20  # times as long as the answer took, so that asking costs a twentieth of the time
IDLE_S = 60.0  # nobody wanted the view for so long: it is no longer kept
AGE_S_MAX = 60.0  # an older view is no answer
FIRST_S = 4.0  # so long one who asks waits for a view: below the time-out of a scheduler
TAKEN_S = 5.0  # so long a claim of ours counts, until records say it
_YIELD = 200  # hits between two turns of the loop
_NEEDS_MAX = 32  # judgements that are remembered

ABLE = 0


class Verdicts:
    """What each machine of a view says to one need: an index into `reasons`, 0 for yes."""

    def __init__(self, count: int) -> None:
        self.codes = bytearray(count)
        self.reasons = [""]
        self.hopeless: set[int] = set()  # reasons that nothing which ends elsewhere will change

    def code(self, reason: str, *, hopeless: bool) -> int:
        """The index of one more reason."""
        self.reasons.append(reason)
        if hopeless:
            self.hopeless.add(len(self.reasons) - 1)
        return len(self.reasons) - 1


@dataclass(slots=True, eq=False)
class Snapshot:
    """All machines with a name, as they were at `born`; `complete` if nobody was missed."""

    born: float
    index: dict[str, int]
    hits: list[Hit]
    candidates: list[Candidate]
    complete: bool
    twice: frozenset[str] = frozenset()
    free: dict[str, list[float]] = field(default_factory=dict)
    capacity: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {name for one in self.candidates for name in one.capacity}
        for name in names:
            self.free[name] = [one.free.get(name, -1.0) for one in self.candidates]
            self.capacity[name] = [one.capacity.get(name, -1.0) for one in self.candidates]

    def take(self, at: int, need: Need) -> None:
        """A need was granted there: so much less is free."""
        candidate = self.candidates[at]
        left = {name: has - need.resources.get(name, 0.0) for name, has in candidate.free.items()}
        self.candidates[at] = replace(candidate, free=left)
        for name, column in self.free.items():
            column[at] = self.candidates[at].free.get(name, -1.0)


class View:
    """The newest snapshot, and who keeps it new."""

    def __init__(self, node: Node, label: str) -> None:
        self._node = node
        self._label = label
        self._query = F.label(label).exists()
        self._snapshot: Snapshot | None = None
        self._verdicts: OrderedDict[Need, Verdicts] = OrderedDict()
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
        index: dict[str, int] = {}
        twice: set[str] = set()
        async with node.find(self._query, limit=EXTENDER_MACHINES_MAX) as finding:
            async for hit in finding:
                name = hit.labels[self._label]
                if name in index:
                    twice.add(name)
                    continue
                index[name] = len(hits)
                hits.append(hit)
                candidates.append(self._candidate(hit, known))
                if len(hits) % _YIELD == 0:
                    await asyncio.sleep(0)
            complete = finding.result.coverage.complete
        self._known = known
        self._snapshot = Snapshot(born, index, hits, candidates, complete, frozenset(twice))
        self._verdicts.clear()
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
        self._verdicts.clear()

    def _subtract(self, name: str, need: Need) -> None:
        snapshot = self._snapshot
        if snapshot is not None and name in snapshot.index:
            snapshot.take(snapshot.index[name], need)

    # --- verdicts ---------------------------------------------------------------------------------

    def verdicts(self, snapshot: Snapshot, need: Need) -> Verdicts:
        """What all machines say to a need; O(machines) once for all that need the same."""
        found = self._verdicts.get(need)
        if found is None or len(found.codes) != len(snapshot.hits):
            found = self._judge(snapshot, need)
            self._verdicts[need] = found
            if len(self._verdicts) > _NEEDS_MAX:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(need)
        return found

    def _judge(self, snapshot: Snapshot, need: Need) -> Verdicts:
        found = Verdicts(len(snapshot.hits))
        codes = found.codes
        self._judge_where(snapshot, need, found)
        gateway = found.code("runs no node that grants", hopeless=True)
        for at, hit in enumerate(snapshot.hits):
            if hit.record.is_foreign:
                codes[at] = gateway
        for name, amount in need.resources.items():
            _judge_resource(snapshot, name, amount - TOLERANCE, found)
        if need.max_price is not None:
            dear = found.code("costs more than dhtos.io/max-price, or says no price", hopeless=True)
            for at, candidate in enumerate(snapshot.candidates):
                price = candidate.price
                if not codes[at] and (price is None or price > need.max_price):
                    codes[at] = dear
        if snapshot.twice:
            doubtful = found.code("is the name of several machines", hopeless=True)
            for name in snapshot.twice:
                codes[snapshot.index[name]] = doubtful
        return found

    def _judge_where(self, snapshot: Snapshot, need: Need, found: Verdicts) -> None:
        if need.where is None:
            return
        assert isinstance(need.where, str)
        try:
            asked = self._node.predicate(need.where)
        except PredicateError as error:
            raise PredicateError(
                f"dhtos.io/where: {error}", column=error.column, hint=error.hint
            ) from error
        other = found.code("is not what dhtos.io/where asks for", hopeless=True)
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
                found.codes[at] = other


def _judge_resource(snapshot: Snapshot, name: str, least: float, found: Verdicts) -> None:
    """Mark who has less than that; `Candidate.refusal` says the same of one machine."""
    codes = found.codes
    nowhere = [-1.0] * len(codes)
    free = snapshot.free.get(name, nowhere)
    short = [at for at, left in enumerate(free) if left < least]
    if not short:
        return
    capacity = snapshot.capacity.get(name, nowhere)
    busy = found.code(f"not enough {name} free", hopeless=False)
    small = found.code(f"not enough {name} in all", hopeless=True)
    silent = found.code(f"does not say its {name}", hopeless=True)
    for at in short:
        if not codes[at]:
            has = capacity[at]
            codes[at] = busy if has >= least else small if has >= 0 else silent


def able(snapshot: Snapshot, verdicts: Verdicts, names: Sequence[str]) -> list[str]:
    """Those of the names that can take it."""
    index, codes = snapshot.index, verdicts.codes
    return [name for name in names if (at := index.get(name)) is not None and not codes[at]]
