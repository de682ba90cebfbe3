"""One question to machines of several schema versions: a walk for each, and their answers as one.

    part   a version that may be asked: its schema is known, and the question means something there
    found  the first part begins with the whole space. Whoever answers names the subtrees of other
           versions that are inhabited: each becomes a part, or, where its schema is not known here,
           a subtree that could not be asked, which the coverage names
    asked  all parts at once; with a limit and no order one after the other, each for what is left
    late   under an order: a version without that attribute comes last, and only if there is room

Of a machine that moved from one version to the next two records may be known for some seconds; the
newer one counts. (A count moves no records, so there it counts twice until the older one is gone.)
"""

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.contact import Contact
from dhtos.core.coverage import Coverage
from dhtos.core.curve import version_prefix
from dhtos.core.hit import Hit
from dhtos.core.ids import Prefix
from dhtos.core.limits import CURSOR_BYTES_MAX
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import Box, Exists, Predicate
from dhtos.core.schema import SCHEMA_VERSION_MAX, Schema
from dhtos.errors import MalformedMessage, UsageError
from dhtos.protocol.aggregate import Measure
from dhtos.protocol.answer import Item, Order, Question, RttOf, order_value
from dhtos.protocol.explain import Trace
from dhtos.protocol.frontier import FindResult, read_cursor
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, as_prefix
from dhtos.protocol.operation import Operation
from dhtos.protocol.walk import Walk

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

WHOLE = Prefix(0, 0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked, in the words of all schemas that are known."""

    predicate: Predicate
    limit: int = 0
    order: Order | None = None
    strict: bool = False
    count_only: bool = False
    verify: int = 1
    explain: bool = False
    measure: Measure | None = None
    rtt_of: RttOf | None = None  # round trips measured from here, where the question is about them

    @property
    def by_turns(self) -> bool:
        """Whether one version is asked after the other: there may be enough in the first."""
        return self.limit > 0 and self.order is None and not self.count_only

    def question(self, hub: "Hub", schema: Schema) -> Question | None:
        """What it means to machines of one schema; None where none of them can match.

        Raises UsageError for a predicate that other nodes would refuse to read.
        """
        translated = hub.schemas.translated(self.predicate, schema)
        if translated is None:
            return None
        wire = msgspec.msgpack.encode(translated.to_wire())
        try:
            if schema is hub.schema:
                bound = hub.answering.bound(wire)
            else:
                read = Predicate.from_wire(msgspec.msgpack.decode(wire), schema)
                bound = read.bind(schema, vouched=hub.core.sessions is not None)
        except MalformedMessage as error:
            raise UsageError(
                f"{error}: values stand in a predicate as Schema.check returns them"
            ) from error
        order: Order | None = None
        if isinstance(self.order, Nearest):
            order = self.order
        elif self.order is not None:
            place = hub.schemas.place(self.order[0], schema)
            order = None if place is None else (place, self.order[1])
        late = self.order is not None and order is None
        limit = 0 if late else self.limit
        select = None if self.measure is None else self._measured(hub, schema)
        return Question(
            wire,
            bound,
            limit,
            order,
            self.strict,
            self.count_only,
            self.verify,
            select,
            self.rtt_of,
        )

    def _measured(self, hub: "Hub", schema: Schema) -> Measure | None:
        """What to sum of machines of one schema; None where they do not have the attribute."""
        assert self.measure is not None
        place = hub.schemas.place(self.measure.attribute, schema)
        return None if place is None else replace(self.measure, attribute=place)


class _Part:
    """One version of a question."""

    __slots__ = (
        "after_rounds", "contacts", "cursor", "ended", "prefix", "question", "result", "walk",
    )  # fmt: skip

    def __init__(
        self,
        question: Question,
        prefix: Prefix,
        contacts: list[Contact] | None = None,
        cursor: bytes | None = None,
    ) -> None:
        self.question = question
        self.prefix = prefix
        self.contacts = contacts
        self.cursor = cursor
        self.after_rounds = 0  # round trips that had to be waited for before it could begin
        self.walk: Walk | None = None
        self.ended = False
        self.result: FindResult | None = None  # none where nobody was there to be asked

    @property
    def version(self) -> int:
        """Which machines are asked."""
        return self.question.bound.schema.version

    @property
    def is_open(self) -> bool:
        """Whether its walk ended with something left to be asked."""
        return self.result is not None and not self.result.coverage.complete


class Union:
    """One running question; its operation ends with one `FindResult`, as that of a walk."""

    def __init__(self, hub: "Hub", wish: Wish, now: float, *, cursor: bytes | None = None) -> None:
        self.hub = hub
        self.wish = wish
        self._started = now
        schemas = [hub.schemas.at(version) for version in range(SCHEMA_VERSION_MAX, -1, -1)]
        self._questions = {s.version: wish.question(hub, s) for s in schemas if s is not None}
        self._parts: dict[int, _Part] = {}  # by version
        self._over: set[int] = set()  # versions of which earlier pages have told all
        self._unasked: dict[Prefix, float] = {}  # subtrees of unknown schemas, machines there
        self._hits: dict[bytes, Hit] = {}  # by node id: the newest version of each
        self._twice: set[bytes] = set()  # machines that came from two versions
        self._after: list[Any] | None = None  # ordered: where an earlier page ended
        self._begin_with(cursor)
        self.operation: Operation[FindResult] = hub.core.operation(self._on_cancel)
        self.proceed(now)

    # --- parts ----------------------------------------------------------------------------------

    def _begin_with(self, cursor: bytes | None) -> None:
        if cursor is not None:
            resumed = _read_cursor(cursor)
            if resumed is not None:
                self._resume(*resumed)
                return
            self._after = read_cursor(cursor, self.wish.order, self.wish.verify).after
        own = self._questions[self.hub.schema.version]
        possible = [question for question in self._questions.values() if question is not None]
        if not possible:
            raise UsageError("no version of the schema has all attributes that are asked for")
        if own is not None or not self.hub.settled:  # whoever answers tells of other versions
            inner = cursor if self.wish.order is None else None  # an order has one for all parts
            self._add(_Part(own or possible[0], WHOLE, cursor=inner))
            return
        for item in self.hub.versions.items():
            self._discover(item)

    def _resume(self, entries: list[Any], unasked: list[Any], over: list[Any]) -> None:
        """Go on where an earlier page ended."""
        if self.wish.order is not None:
            raise UsageError("the cursor belongs to a query with another order or verify")
        self._over = {as_int(version, 0, SCHEMA_VERSION_MAX) for version in over}
        for entry in entries:
            version, prefix, inner = as_list(entry, 3)
            schema = self.hub.schemas.at(as_int(version, 0, SCHEMA_VERSION_MAX))
            if schema is None:
                raise UsageError("the cursor belongs to a query with other schemas")
            question = self._questions[version] or _nobody(schema)
            if inner is not None:
                read_cursor(inner, None, self.wish.verify)
            self._add(_Part(question, as_prefix(prefix), cursor=inner))
        for prefix in unasked:
            self._discover(Item(as_prefix(prefix), 1, 1.0, None, []))

    def _add(self, part: _Part) -> None:
        if self._after is not None and part.question.order is not None:
            part.cursor = msgspec.msgpack.encode([2, self._after])
        self._parts[part.version] = part

    def _discover(self, told: Item) -> None:
        """Machines of another version live in a subtree of one or two versions."""
        asked = False
        everywhere = range(SCHEMA_VERSION_MAX + 1)
        there = [v for v in everywhere if told.prefix.covers(version_prefix(v))]
        for version in there:
            question = self._questions.get(version)
            if version not in self._parts and version not in self._over and question is not None:
                contacts = told.contacts if self._after is None else None
                self._add(_Part(question, told.prefix, contacts or None))
            asked |= version in self._parts or version in self._over
        unknown = [version for version in there if version not in self._questions]
        if asked or not unknown:
            return
        known = [schema for version in there if (schema := self.hub.schemas.at(version))]
        if known:  # they cannot match, but they know whether the unknown ones are there
            self._add(_Part(_nobody(known[0]), told.prefix, told.contacts or None))
        else:
            self._unasked[told.prefix] = max(told.estimate, 1.0)

    # --- asking ---------------------------------------------------------------------------------

    def proceed(self, now: float) -> None:
        """Take what the walks have brought, and begin those whose turn it is."""
        while not self.operation.done:
            for part in self._parts.values():
                self._take(part)
            due = [p for p in self._parts.values() if p.walk is None and self._is_due(p)]
            if due:
                self._begin(due[0], now)
            elif all(part.walk is None or part.ended for part in self._parts.values()):
                self._finish()
            else:
                return

    def _is_due(self, part: _Part) -> bool:
        begun = [p for p in self._parts.values() if p.walk is not None]
        if self.wish.by_turns:
            return all(p.ended for p in begun) and len(self._hits) < self.wish.limit
        if self.wish.order is not None and part.question.order is None:
            ahead = [p for p in self._parts.values() if p.question.order is not None]
            return all(p.ended for p in ahead) and self._has_room(part)
        return True

    def _has_room(self, part: _Part) -> bool:
        """Whether machines without the attribute of the order can be among the first."""
        best = self._in_order()[: self.wish.limit or None]
        full = 0 < self.wish.limit <= len(best)
        return not full or best[-1][0] >= [inf, part.prefix.first]

    def _begin(self, part: _Part, now: float) -> None:
        question = part.question
        if self.wish.by_turns:
            question = replace(question, limit=self.wish.limit - len(self._hits))
        waited = [p.after_rounds + p.result.coverage.rtt for p in self._parts.values() if p.result]
        found_late = 0 if self.hub.settled or part.prefix == WHOLE else 1
        part.after_rounds = max(waited, default=found_late)
        part.walk = Walk(
            self.hub,
            question,
            now,
            prefix=part.prefix,
            contacts=part.contacts,
            cursor=part.cursor,
            trace=Trace(question.bound, self._started) if self.wish.explain else None,
            beyond=self._discover,
        )

    def _on_cancel(self, now: float) -> None:
        for part in self._parts.values():
            if part.walk is not None:
                part.walk.operation.cancel(now)

    # --- hits -----------------------------------------------------------------------------------

    def _take(self, part: _Part) -> None:
        """Pass on what a walk has found; under an order nothing is sure before the end."""
        if part.walk is None or part.ended:
            return
        operation = part.walk.operation
        found = list(operation.items)
        operation.items.clear()
        fresh = [hit for hit in found if self._is_new(hit)]
        if self.wish.order is None:
            self.operation.push(fresh)
        if operation.done:
            part.ended = True
            if operation.error is None:
                part.result = operation.result()
                for hit in part.result.hits:
                    self._is_new(hit)

    def _is_new(self, hit: Hit) -> bool:
        """Keep the newest version of a machine; True when it was not known at all."""
        node_id = hit.record.node_id
        held = self._hits.get(node_id)
        if held is not None and held.schema is not hit.schema:
            self._twice.add(node_id)
        if held is None or held.seq < hit.seq:
            self._hits[node_id] = hit
        return held is None

    def _in_order(self) -> list[tuple[list[Any], Hit]]:
        """The hits with their places, those of earlier pages left out."""
        placed = []
        for hit in self._hits.values():
            order = self._parts[hit.schema.version].question.order
            value = inf if order is None else order_value(hit.record, hit.schema, order)
            placed.append(([value, hit.record.key(hit.schema)], hit))
        placed.sort(key=lambda entry: entry[0])
        return [entry for entry in placed if self._after is None or entry[0] > self._after]

    # --- the end --------------------------------------------------------------------------------

    def _finish(self) -> None:
        results = [part.result for part in self._parts.values() if part.result is not None]
        errors = [p.walk.operation.error for p in self._parts.values() if p.walk and not p.result]
        conflict = self.hub.versions.conflict
        unheard = not results or all(WHOLE in r.coverage.failed_prefixes for r in results)
        if conflict is not None and unheard and self._parts:
            self.operation.fail(conflict)
            return
        if errors and not results and errors[0] is not None:
            self.operation.fail(errors[0])
            return
        hits, cursor = self._page()
        if self.wish.order is not None:
            self.operation.push(hits)
        matches = sum(result.matches for result in results) - len(self._twice)
        steps = sorted((s for r in results for s in r.steps), key=lambda step: step.start_s)
        coverage = self._coverage(results)
        told = [result.partial for result in results if result.partial is not None]
        partial = None if self.wish.measure is None else self.wish.measure.merged(told)
        self.operation.finish(
            FindResult(tuple(hits), coverage, matches, cursor, tuple(steps), partial)
        )

    def _page(self) -> tuple[list[Hit], bytes | None]:
        """The hits of this page, and where the next one begins."""
        limit = self.wish.limit
        if self.wish.order is None:
            return list(self._hits.values()), self._cursor()
        placed = self._in_order()[: limit or None]
        full = 0 < limit <= len(placed)
        cursor = msgspec.msgpack.encode([2, placed[-1][0]]) if full else None
        return [hit for _, hit in placed], cursor

    def _cursor(self) -> bytes | None:
        left = [part for part in self._parts.values() if part.result is None or part.is_open]
        only = next(iter(self._parts.values())) if len(self._parts) == 1 else None
        if only is not None and only.prefix == WHOLE and not self._unasked and not self._over:
            return None if only.result is None else only.result.cursor
        if not left and not self._unasked:
            return None
        if any(part.is_open and part.result and part.result.cursor is None for part in left):
            return None  # too much is left to be written down
        entries = [
            [part.version, part.prefix.to_wire(), part.result and part.result.cursor]
            for part in left
        ]
        done = {part.version for part in self._parts.values()} - {part.version for part in left}
        unasked = [prefix.to_wire() for prefix in self._unasked]
        cursor = msgspec.msgpack.encode([4, entries, unasked, sorted(done | self._over)])
        return cursor if len(cursor) <= CURSOR_BYTES_MAX else None

    def _coverage(self, results: list[FindResult]) -> Coverage:
        parts = list(self._parts.values())
        told = [result.coverage for result in results]
        silent = [part.prefix for part in parts if part.walk is not None and part.result is None]
        failed = [*(p for one in told for p in one.failed_prefixes), *silent, *self._unasked]
        left = any(part.walk is None for part in parts)
        missed = sum(map(_missed, results)) + len(silent) + sum(self._unasked.values())
        matches = sum(result.matches for result in results)
        return Coverage(
            fraction=matches / (matches + missed) if missed else 1.0,
            complete=all(one.complete for one in told) and not failed and not left,
            limited=(left or any(one.limited for one in told)) and not failed,
            failed_prefixes=tuple(dict.fromkeys(failed)),
            max_age_s=max((one.max_age_s for one in told), default=0.0),
            asked=sum(one.asked for one in told),
            rtt=max((p.after_rounds + p.result.coverage.rtt for p in parts if p.result), default=0),
            pruned=sum(one.pruned for one in told),
            verified=min((one.verified for one in told), default=self.wish.verify),
        )


def ask(hub: "Hub", wish: Wish, now: float, cursor: bytes | None = None) -> Operation[FindResult]:
    """Ask the whole hub: with one walk where all that is known is one version, and all of it.

    A union is driven by the hub. Raises UsageError for a predicate that others refuse to read.
    """
    if len(hub.schemas) > 1 or not hub.settled:
        union = Union(hub, wish, now, cursor=cursor)
        hub.running.append(union)
        return union.operation
    question = wish.question(hub, hub.schema)
    assert question is not None, "the words are those of the only schema"
    trace = Trace(question.bound, now) if wish.explain else None
    return Walk(hub, question, now, cursor=cursor, trace=trace).operation


def _nobody(schema: Schema) -> Question:
    """A question that nobody matches: whoever answers it tells which subtrees are inhabited."""
    place = schema.index((schema.key_order or (schema.attributes[0].name,))[0])
    predicate = Predicate((Box((Exists(place), Exists(place, negated=True))),))
    wire = msgspec.msgpack.encode(predicate.to_wire())
    return Question(wire, predicate.bind(schema), 0, None, count_only=True)


def _missed(result: FindResult) -> float:
    """About how many matches a walk did not get, as its own coverage says."""
    fraction = result.coverage.fraction
    if fraction >= 1.0:
        return 0.0
    if fraction > 0.0:
        return result.matches * (1.0 - fraction) / fraction
    return float(max(len(result.coverage.failed_prefixes), 1))


def _read_cursor(cursor: bytes) -> tuple[list[Any], list[Any], list[Any]] | None:
    """The parts that a cursor of several versions names; None for the cursor of one walk.

    Raises UsageError for anything that no query returned.
    """
    try:
        fields = as_list(msgspec.msgpack.decode(as_bytes(cursor, CURSOR_BYTES_MAX)), 4)
        if not fields or fields[0] != 4:
            return None
        _, entries, unasked, over = fields
        for version, prefix, inner in as_list(entries, SCHEMA_VERSION_MAX + 1):
            as_int(version, 0, SCHEMA_VERSION_MAX)
            as_prefix(prefix)
            if inner is not None:
                as_bytes(inner, CURSOR_BYTES_MAX)
        for prefix in as_list(unasked, SCHEMA_VERSION_MAX + 1):
            as_prefix(prefix)
        for version in as_list(over, SCHEMA_VERSION_MAX + 1):
            as_int(version, 0, SCHEMA_VERSION_MAX)
    except (MalformedMessage, msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise UsageError("the cursor is not one that a query returned") from error
    return entries, unasked, over
