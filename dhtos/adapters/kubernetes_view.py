"""The machines of the fleet by the names that Kubernetes has for them: a view, seconds old.

A scheduler asks about thousands of names for each pod, and a question to the fleet takes some round
trips. So one question is asked for all pods: everybody who has a name, again two seconds after its
answer, or twenty times as long as that took, while anybody wants to know. What a name can take is
judged from columns of the view, once for all pods that need the same.

It is advice, like every answer. Whoever binds asks the machine itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

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

UNKNOWN = "dhtos: no machine of the fleet has this name"


class _Reasons(dict[str, str | None]):
    """By name, what rules a machine out; who is not there is unknown."""

    def __missing__(self, name: str) -> str | None:
        return UNKNOWN


class Verdicts:
    """What each machine of a view says to one need: an index into `reasons`, 0 for yes."""

    def __init__(self, count: int) -> None:
        self.codes = bytearray(count)
        self.reasons: list[str | None] = [None]
        self.hopeless = {UNKNOWN}  # reasons that nothing which ends elsewhere will change
        self._by_name: _Reasons | None = None

    def code(self, reason: str, *, hopeless: bool) -> int:
        """The index of one more reason."""
        reason = f"dhtos: {reason}"
        self.reasons.append(reason)
        if hopeless:
            self.hopeless.add(reason)
        return len(self.reasons) - 1

    def mark(self, places: Iterable[int], reason: str, *, hopeless: bool) -> None:
        """Rule out those that nothing has ruled out before."""
        code = self.code(reason, hopeless=hopeless)
        codes = self.codes
        for at in places:
            if not codes[at]:
                codes[at] = code

    def of(self, snapshot: "Snapshot", names: Sequence[str]) -> Sequence[str | None]:
        """What rules out each of the names; None where nothing does."""
        if self._by_name is None:
            said = map(self.reasons.__getitem__, self.codes)
            self._by_name = _Reasons(zip(snapshot.index, said, strict=True))
        if len(names) < 2:
            return [self._by_name[name] for name in names]
        found: tuple[str | None, ...] = itemgetter(*names)(self._by_name)  # twice as fast as a loop
        return found


@dataclass(slots=True, eq=False)
class Snapshot:
    """All machines with a name, as they were at `born`; `complete` if nobody was missed.

    `index` has them in the order of the other lists. The rest is made of those.
    """

    born: float
    index: dict[str, int]
    hits: list[Hit]
    candidates: list[Candidate]
    complete: bool
    twice: frozenset[str] = frozenset()
    free: dict[str, list[float]] = field(default_factory=dict)
    capacity: dict[str, list[float]] = field(default_factory=dict)
    foreign: list[int] = field(default_factory=list)
    elsewhere: dict[str, list[int]] = field(
        default_factory=dict
    )  # by predicate: who does not match

    def __post_init__(self) -> None:
        self.foreign = [at for at, hit in enumerate(self.hits) if hit.record.is_foreign]
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
        if found is None:
            found = self._judge(snapshot, need)
            self._verdicts[need] = found
            if len(self._verdicts) > _NEEDS_MAX:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(need)
        return found

    def _judge(self, snapshot: Snapshot, need: Need) -> Verdicts:
        found = Verdicts(len(snapshot.hits))
        twice = [snapshot.index[name] for name in snapshot.twice]
        found.mark(twice, "is the name of several machines", hopeless=True)
        found.mark(snapshot.foreign, "runs no node that grants", hopeless=True)
        if need.where is not None:
            other = self._elsewhere(snapshot, need)
            found.mark(other, "is not what dhtos.io/where asks for", hopeless=True)
        for name, amount in need.resources.items():
            _judge_resource(snapshot, name, amount - TOLERANCE, found)
        most = need.max_price
        if most is not None:
            dear = [
                at
                for at, one in enumerate(snapshot.candidates)
                if one.price is None or one.price > most
            ]
            reason = "costs more than dhtos.io/max-price, or says no price"
            found.mark(dear, reason, hopeless=True)
        return found

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
        if len(snapshot.elsewhere) >= _NEEDS_MAX:
            del snapshot.elsewhere[next(iter(snapshot.elsewhere))]
        snapshot.elsewhere[need.where] = other
        return other


def _judge_resource(snapshot: Snapshot, name: str, least: float, found: Verdicts) -> None:
    """Mark who has less than that; `Candidate.refusal` says the same of one machine."""
    nowhere = [-1.0] * len(found.codes)
    free = snapshot.free.get(name, nowhere)
    short = [at for at, left in enumerate(free) if left < least]
    if not short:
        return
    capacity = snapshot.capacity.get(name, nowhere)
    silent = [at for at in short if capacity[at] < 0]
    found.mark(silent, f"does not say its {name}", hopeless=True)
    small = [at for at in short if capacity[at] < least]
    found.mark(small, f"not enough {name} in all", hopeless=True)
    found.mark(short, f"not enough {name} free", hopeless=False)
