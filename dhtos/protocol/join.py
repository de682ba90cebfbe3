"""How a node finds its place in a hub: locate the group of its key, copy it, announce itself.

    LOCATE   ask a gateway about the one-id prefix of the own key; follow the contacts it names
             to those nearer, until one covers the key or nobody nearer is known
    COPY     walk the group's prefix with the predicate that matches everything
    BUCKETS  take the nearest node's knowledge of the other subtrees
    ANNOUNCE push the own record to members at once, and to a contact of every other subtree

Nobody nearer and nobody who covers the key means that the own subtree is empty: the node starts
a group of its own one bit below the fork. The first node of a new schema version begins like that:
the nodes of other versions are asked and name whom they know there. Members of the own version with
another schema end the join: see `versions`. Until BUCKETS is done the node answers no range
query: what it does not know yet would look empty.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import OPERATION_DEADLINE_S
from dhtos.errors import DhtosError, MalformedMessage, NoPeers, SchemaConflict
from dhtos.protocol.bundle import Assembly
from dhtos.protocol.calls import Call
from dhtos.protocol.frontier import FindResult, range_args, read_answer, read_item
from dhtos.protocol.hubwire import as_bytes, as_int, as_key, as_list, as_prefix, bad
from dhtos.protocol.operation import Operation
from dhtos.protocol.timers import Timer
from dhtos.protocol.walk import Walk
from dhtos.protocol.wire import decode_plain

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_ASKED_MAX = 64
_PATIENCE_S = 0.4  # until gateways that are joining themselves are asked again


class Join:
    """One attempt to join, or to re-join, through some gateways; its result is the group size."""

    def __init__(self, hub: "Hub", gateways: list[Endpoint], now: float) -> None:
        self.hub = hub
        self.core = hub.core
        self.key = hub.key
        self.operation: Operation[int] = self.core.operation(self._on_cancel)
        self._candidates: list[Contact] = [Contact(b"", endpoint) for endpoint in gateways]
        self._asked: set[Endpoint] = set()
        self._proved: set[Endpoint] = set()  # whom we showed a cookie to get the whole answer
        self._open: set[Call] = set()
        self._nearest: tuple[int, Contact, int] | None = None  # shared bits, who, its depth
        self._covered = False
        self._still_joining: list[Contact] = []
        self._conflict: SchemaConflict | None = None
        self._again: Timer | None = None
        self._walk: Walk | None = None
        self._timer = self.core.timers.at(now + OPERATION_DEADLINE_S, self._on_deadline)
        self._locate(now)

    def _on_cancel(self, now: float) -> None:
        self._timer.cancel()
        if self._again is not None:
            self._again.cancel()
        for call in self._open:
            self.core.calls.cancel(call)
        self._open.clear()
        if self._walk is not None:
            self._walk.operation.cancel(now)

    def _on_deadline(self, now: float) -> None:
        self._fail(now, self._conflict or NoPeers("the hub did not answer in time"))

    def _fail(self, now: float, why: DhtosError) -> None:
        if isinstance(why, SchemaConflict) and not self.hub.settled:
            self.hub.conflict = why
        self.operation.fail(why)
        self._on_cancel(now)

    # --- LOCATE -----------------------------------------------------------------------------------

    def _locate(self, now: float) -> None:
        while self._candidates and len(self._asked) < _ASKED_MAX:
            contact = self._candidates.pop(0)
            if contact.endpoint not in self._asked:
                self._asked.add(contact.endpoint)
                self._ask(contact, now)
                return
        if self._open:
            return
        if self._conflict is not None:
            self._fail(now, self._conflict)
        elif self._nearest is None and self._still_joining:
            self._candidates, self._still_joining = self._still_joining, []
            self._asked.difference_update(c.endpoint for c in self._candidates)
            wait = _PATIENCE_S * self.core.rng.uniform(0.5, 1.0)
            self._again = self.core.timers.at(now + wait, self._locate)
        elif self._nearest is None:
            self._fail(now, NoPeers("no dhtos node answered for the hub"))
        else:
            self._copy(now)

    def _ask(self, contact: Contact, now: float) -> None:
        point = Prefix.of(self.key, ID_BITS)
        question = replace(self.hub.match_all(), limit=1)
        args = range_args(self.hub, contact.endpoint, point, question, None)
        self._open.add(
            self.core.calls.send(
                contact.endpoint,
                "dh_range",
                args,
                self,
                now,
                tag=(contact, Assembly()),
                stream=True,
            )
        )

    def on_late(self, call: Call, now: float) -> None:
        """Do not wait for a slow gateway alone."""
        if call.name == "dh_range" and len(self._open) < 3:
            self._locate(now)

    def on_failure(self, call: Call, now: float) -> None:
        """A dead candidate: the next one."""
        self._open.discard(call)
        if call.name == "dh_range":
            self._locate(now)
        else:
            self._fail(now, NoPeers("the nearest node died while we joined"))

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """One answer of LOCATE or BUCKETS."""
        try:
            if call.name == "dh_range":
                self._located(call, value, now)
            else:
                self.hub.summaries.take(value, call.endpoint, now)
                part = as_list(value, 8)
                call.tag.add(part[0])
                if len(call.tag) >= part[1]:
                    self._open.discard(call)
                    self.core.calls.cancel(call)
                    self._done(now)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            self.core.calls.cancel(call)
            self.on_failure(call, now)

    def _located(self, call: Call, value: Any, now: float) -> None:
        asked, assembly = call.tag
        body = assembly.add(value)
        if body is None:
            return
        plain = decode_plain(body)
        told = read_answer(plain)
        self.core.calls.cancel(call)
        self._open.discard(call)
        if told is None:
            conflict = self.hub.versions.hear(call.endpoint, plain, now)
            if conflict is None:
                self._still_joining.append(asked)
            self._conflict = conflict or self._conflict
            self._locate(now)
            return
        header, items, _ = told
        contact = Contact(as_key(header[0]), call.endpoint)
        self.core.remember_cookie(call.endpoint, as_bytes(header[2], 8))
        if items is None:
            if call.endpoint in self._proved:
                raise bad("we have proved our address")
            self._proved.add(call.endpoint)
            self._ask(contact, now)
            return
        depth = as_int(header[1], 0, ID_BITS)
        covers = [as_prefix(prefix) for prefix in as_list(header[3], 1)]
        bits = common_prefix_bits(self.key, contact.id)
        if contact.id != self.key and (self._nearest is None or bits > self._nearest[0]):
            self._nearest = (bits, contact, depth)
        if covers and contact.id != self.key:
            self._covered = True
            self._nearest = (bits, contact, depth)
            self._copy(now)
            return
        hints = [c for item in items for c in read_item(item).contacts]
        nearer = [c for c in hints if common_prefix_bits(self.key, c.id) > bits]
        nearer.sort(key=lambda c: -common_prefix_bits(self.key, c.id))
        self._candidates = nearer + self._candidates
        self._locate(now)

    # --- COPY, BUCKETS, ANNOUNCE ------------------------------------------------------------------

    def _copy(self, now: float) -> None:
        assert self._nearest is not None
        for call in self._open:
            self.core.calls.cancel(call)
        self._open.clear()
        bits, contact, depth = self._nearest
        if not self._covered:
            self.hub.enter(bits + 1, [], now)
            self._ask_buckets(now)
            return
        prefix = Prefix.of(self.key, depth)
        self._walk = Walk(self.hub, self.hub.match_all(), now, prefix=prefix, contacts=[contact])
        self.hub.when_finished(self._walk.operation, self._copied)

    def _copied(self, now: float) -> None:
        assert self._walk is not None
        assert self._nearest is not None
        if self.operation.done:
            return
        result = self._walk.operation.result() if self._walk.operation.error is None else None
        if not isinstance(result, FindResult) or not result.coverage.complete:
            self._fail(now, NoPeers("the group could not be copied"))
            return
        found = [(key, record, born) for key, (record, born, _) in self._walk.found.items()]
        self.hub.enter(self._nearest[2], found, now)
        self._ask_buckets(now)

    def _ask_buckets(self, now: float) -> None:
        assert self._nearest is not None
        endpoint = self._nearest[1].endpoint
        args = [self.hub.number, self.core.cookies.get(endpoint, b""), self.key, [-1], []]
        call = self.core.calls.send(endpoint, "dh_summary", args, self, now, tag=set(), stream=True)
        self._open.add(call)

    def _done(self, now: float) -> None:
        self._timer.cancel()
        self.hub.settle(now)
        self.operation.finish(len(self.hub.group))
