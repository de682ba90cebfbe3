"""Range search: a best-first walk over XOR subtrees, refined inside the network.

The frontier holds subtrees that may hold matches and have not been answered for. The walk asks
up to alpha of them at once, those with the largest expected yield first (under an `order by`,
those with the best bound first). Each answer settles the part of the subtree that lies in the
answering member's group and returns its sibling subtrees as new items, so the query is cut to
the shape of the data by those who know it, not by a cover computed here.

    item: WAITING --ask a contact--> ASKED --answer--> settled
                        ^              |--late or failed: the next contact as well; none left:
                        |              |  whoever answered last is asked for others, 4 times
                        |              `--all of them failed--> FAILED
                        `-- an answer that covers nothing but names nearer contacts

It ends when the limit is met (or, ordered, when the k-th value beats every bound left: exact
top-k), when nothing is left, or at its deadline. What was never answered is reported, never
hidden: see `Coverage`.

With `verify=r` an answered subtree comes back as an item of the next voice, to be asked of a
member that has not spoken for it, until r have; what they say is merged. An item of a later voice
that nobody is left to ask has not failed, it lowers `Coverage.verified`.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.hit import Hit
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import (
    ITEM_CALLS_MAX,
    OPERATION_DEADLINE_S,
    WALK_ALPHA,
    WALK_ALPHA_MAX,
    WALK_FRONTIER_MAX,
    WALK_HITS_MAX,
)
from dhtos.errors import MalformedMessage, NoPeers
from dhtos.protocol import explain
from dhtos.protocol.answer import Item, Question, answer
from dhtos.protocol.bundle import Assembly
from dhtos.protocol.calls import Call
from dhtos.protocol.frontier import (
    Resumption,
    Told,
    WalkItem,
    range_args,
    read_answer,
    read_cursor,
)
from dhtos.protocol.harvest import Harvest, Unanswered
from dhtos.protocol.heard import Heard, own_view, read_heard
from dhtos.protocol.hubwire import as_bytes, as_key, bad
from dhtos.protocol.wire import decode_plain

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_DETOURS_MAX = 4  # times a subtree without living contacts is asked about elsewhere
_FRONTIER_SHARE = 4  # of what waits, this part is asked about at once
_HOPS_MAX = 24  # times an item may be handed to nearer contacts
_YIELD_MARGIN = 1.5  # expected yield in flight, over what is missing, at which no more is asked


class Walk:
    """One running range query."""

    def __init__(
        self,
        hub: "Hub",
        question: Question,
        now: float,
        *,
        prefix: Prefix | None = None,
        contacts: list[Contact] | None = None,
        cursor: bytes | None = None,
        trace: explain.Silence | None = None,
        beyond: Callable[[Item], None] | None = None,
    ) -> None:
        self.hub = hub
        self.core = hub.core
        self.question = question
        self.prefix = prefix or Prefix(0, 0)
        start = Resumption([WalkItem(self.prefix, contacts or [], 0)])
        if cursor is not None:  # it may be refused, so nothing is begun before
            start = read_cursor(cursor, question.order, question.voices)
            if start.after is not None:
                start.items[0].prefix = self.prefix
        self._after = start.after  # ordered: where an earlier page ended
        self.operation = self.core.operation(self._on_cancel)
        self._harvest = Harvest(hub, question, start.given)
        self.found = self._harvest.found
        self._tally = self._harvest.tally
        self._effort = self._harvest.effort
        self._trace = trace or explain.Silence()
        self._beyond = beyond or self._cannot_ask  # who takes subtrees of other schema versions
        self._waiting: list[WalkItem] = []
        self._active: list[WalkItem] = []
        self._failed: list[WalkItem] = []
        self._resume: list[WalkItem] = []
        self._answered: list[Endpoint] = []
        self._timer = self.core.timers.at(now + OPERATION_DEADLINE_S, self._on_deadline)
        self._begin(start.items, now, locally=contacts is None and hub.settled)

    # --- beginning and end ----------------------------------------------------------------------

    def _begin(self, items: list[WalkItem], now: float, *, locally: bool) -> None:
        for item in items:
            if not self.question.bound.speaks_of(item.prefix):
                self._failed.append(item)
            elif locally and self.hub.key not in item.heard:
                self._answer_locally(item, now)
            else:
                item.contacts = item.contacts or self.hub.gateway_contacts()
                self._waiting.append(item)
        unplaced = self._waiting and not self.hub.settled
        if unplaced and not any(item.contacts for item in self._waiting):
            self._timer.cancel()
            self.operation.fail(NoPeers("no dhtos node is known: give --seed HOST:PORT"))
            return
        self._pump(now)

    def _answer_locally(self, item: WalkItem, now: float) -> None:
        question = self._question(item)
        found = answer(self.hub, item.prefix, question, item.after or self._after)
        if not found.covers:
            item.contacts = [*found.items[0].contacts, *item.contacts]
            self._waiting.append(item)
            return
        self._trace.local(item, found, now)
        item.round = -1  # nothing was sent: what follows is the first round
        self._take(item, own_view(self.hub, found, question), None, now)

    def _on_cancel(self, _now: float) -> None:
        self._timer.cancel()
        for item in self._active:
            self._drop_calls(item)
        self._active.clear()
        self._waiting.clear()

    def _on_deadline(self, _now: float) -> None:
        self._failed += self._active + self._waiting
        for item in self._active:
            self._drop_calls(item)
        self._active.clear()
        self._waiting.clear()
        self._finish()

    def _finish(self) -> None:
        assert not self.operation.done
        self._timer.cancel()
        for item in self._active:
            self._drop_calls(item)
        hits = self._hits()
        if self.question.order is not None or self.question.select is not None:
            self.operation.push(hits)  # of others every hit was told as it came
        unanswered = Unanswered(self._active + self._waiting, self._failed, self._resume)
        result = self._harvest.result(hits, unanswered, self._trace.steps)
        self._active, self._waiting = [], []
        self.operation.finish(result)

    def _hits(self) -> list[Hit]:
        """What the answer consists of."""
        if self.question.order is not None:
            return self._harvest.ordered()
        return [hit for _, _, hit in self.found.values()]

    # --- the frontier -----------------------------------------------------------------------------

    def _add(self, told: Item, parent: WalkItem) -> None:
        """A subtree that somebody says is to be asked.

        Behind a place (`after`) it is part of a subtree that was answered for by somebody whose
        group is larger than that of whom we asked for the next page: what is left of it counts.
        """
        if not self.question.bound.speaks_of(told.prefix):
            self._beyond(told)
            return
        if parent.after is None and self._tally.holds(parent.voice, told.prefix):
            return
        if not self.question.bound.intersects(told.prefix):
            return
        item = parent.part(told.prefix, told.contacts)
        if item.after is None:
            item.spoke = frozenset()
        item.estimate = told.estimate
        item.bound = -inf if told.bound is None else told.bound
        if len(self._waiting) >= WALK_FRONTIER_MAX:
            self.core.counters["frontier_overflows"] += 1
            self._failed.append(item)
        else:
            self._waiting.append(item)

    def _cannot_ask(self, told: Item) -> None:
        """Machines of another schema live there: what we want means something else to them."""
        if all(item.prefix != told.prefix for item in self._failed):
            item = WalkItem(told.prefix, told.contacts, 0)
            item.estimate = told.estimate
            self._failed.append(item)

    def _pump(self, now: float) -> None:
        while True:
            if self._satisfied() or (not self._waiting and not self._active):
                self._finish()
                return
            item = self._next() if len(self._active) < self._alpha() else None
            if item is None:
                return
            self._waiting.remove(item)
            self._active.append(item)
            self._ask(item, now)

    def _alpha(self) -> int:
        """How many subtrees are asked about at once: more if all of a long frontier is wanted."""
        wanted = len(self._waiting) // _FRONTIER_SHARE if self.question.exhausts else 0
        return min(max(WALK_ALPHA, wanted), WALK_ALPHA_MAX)

    def _next(self) -> WalkItem | None:
        """Whom to ask about beside those that are asked already."""
        limit = self.question.limit
        if not self.question.exhausts:  # of an ordered query any hit may still be beaten
            missing = limit - (len(self.found) if self.question.order is None else 0)
            if sum(item.estimate for item in self._active) >= _YIELD_MARGIN * missing:
                return None
        return self._best() if self._waiting else None

    def _best(self) -> WalkItem:
        if self.question.order is not None:
            return min(self._waiting, key=lambda item: (item.bound, -item.estimate))
        if self.question.limit:  # what begins to give hits is finished first: shorter cursors
            return max(self._waiting, key=lambda item: (item.voice, item.estimate))
        return max(self._waiting, key=lambda item: item.estimate)

    def _satisfied(self) -> bool:
        limit = self.question.limit
        if not limit or len(self.found) < limit or self.question.count_only:
            return False
        if self.question.order is None:
            return True
        if any(item.after is not None for item in self._waiting + self._active):
            return False
        # Among equals the key decides, or the next page would miss those with smaller keys.
        worst = self._harvest.worst()
        left = self._waiting + self._active
        return all(worst < [item.bound, item.prefix.first] for item in left)

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, item: WalkItem, now: float) -> None:
        """Send the item to its next contact, or give it up."""
        while item.contacts:
            contact = item.contacts.pop(0)
            if contact.endpoint in item.asked and item.after is None:
                continue
            if contact.id in item.heard:
                continue
            item.asked.add(contact.endpoint)
            self._send(item, contact, now)
            return
        if any(not call.late for call in item.open):
            return
        if item.voice == 1 and item.detours < _DETOURS_MAX:
            item.detours += 1
            others = [e for e in reversed(self._answered) if e not in item.asked]
            if others:
                item.contacts = [Contact(b"", others[0])]
                self._ask(item, now)
                return
        if item.open:
            return
        self._active.remove(item)
        self._failed.append(item)

    def _question(self, item: WalkItem) -> Question:
        """What is asked about an item: no more hits than are missing, behind those we have."""
        question = self.question
        if question.limit and question.order is None:
            limit = max(question.limit - len(self.found), 1) + len(self._harvest.given)
            limit += len(self.found) if item.voice > 1 else 0
            question = replace(question, limit=min(limit, WALK_HITS_MAX))
        if question.voices > 1:
            question = replace(question, voices=question.voices - item.voice + 1)
        return question

    def _send(self, item: WalkItem, contact: Contact, now: float) -> None:
        question = self._question(item)
        self._effort.asked += 1
        after = item.after or self._after
        peer = self.core.peers.of(contact.endpoint)
        if not peer.srtt:
            peer.guess = self.core.peers.guess()
        call = self.core.calls.send(
            contact.endpoint,
            "dh_range",
            range_args(self.hub, contact.endpoint, item.prefix, question, after),
            self,
            now,
            tag=(item, contact),
            stream=True,
        )
        self._trace.asked(call)
        item.open.append(call)

    def _drop_calls(self, item: WalkItem) -> None:
        for call in tuple(item.open):
            self._drop_call(item, call)

    def _drop_call(self, item: WalkItem, call: Call) -> None:
        self.core.calls.cancel(call)
        item.open.remove(call)
        item.parts.pop(call, None)

    def on_late(self, call: Call, now: float) -> None:
        """Hedge: ask the next contact as well, keep waiting for this one."""
        item = call.tag[0]
        if len(item.open) < ITEM_CALLS_MAX:
            self._ask(item, now)

    def on_failure(self, call: Call, now: float) -> None:
        """A dead contact: try the next."""
        contact = call.tag[1]
        if contact.id:
            self.hub.buckets.silent(contact.id)
        self._retry(call, explain.Outcome.SILENT, now)

    def _retry(self, call: Call, outcome: explain.Outcome, now: float) -> None:
        item = call.tag[0]
        self._trace.ended(call, outcome, now)
        self._drop_call(item, call)
        if not item.open:
            self._ask(item, now)
        self._pump(now)

    # --- answers ----------------------------------------------------------------------------------

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """Collect the datagrams of an answer; act when all are there."""
        item = call.tag[0]
        try:
            body = item.parts.setdefault(call, Assembly()).add(value)
            if body is None:
                return
            plain = decode_plain(body)
            told = read_answer(plain)
            if told is None or as_key(told[0][0]) in item.heard:
                # It is still joining itself, has spoken under another address, or is in conflict.
                self.hub.versions.hear(call.endpoint, plain, now)
                self._retry(call, explain.Outcome.JOINING, now)
                return
            self._take_answer(call, told, now)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            self._retry(call, explain.Outcome.UNREADABLE, now)
            return
        self._pump(now)

    def _take_answer(self, call: Call, told: Told, now: float) -> None:
        item, contact = call.tag
        fields, told_items, _ = told
        key = as_key(fields[0])
        self.core.remember_cookie(contact.endpoint, as_bytes(fields[2], 8))
        if told_items is None:
            if contact.endpoint in item.proved:
                raise bad("we have proved our address")
            item.proved.add(contact.endpoint)
            self._trace.ended(call, explain.Outcome.PROVE, now)
            self._drop_calls(item)
            self._send(item, contact, now)
            return
        heard = read_heard(told, item.prefix, self.question, self.hub, now)
        self._answered.append(contact.endpoint)
        self._effort.rounds = max(self._effort.rounds, item.round + 1)
        if heard.covers is None:  # whoever else was asked may cover it, and only be slow
            self._drop_call(item, call)
            self._trace.ended(call, explain.Outcome.HANDED_ON, now)
            self._take_hints(item, heard.items, now)
            return
        self._drop_calls(item)
        self._active.remove(item)
        self.core.counters["hits_refused"] += heard.refused
        said = explain.Told(heard.matches, len(heard.hits), heard.items, heard.pruned)
        self._trace.answered(call, heard.covers, said, now)
        self._take(item, heard, Contact(key, contact.endpoint), now)

    def _take(self, item: WalkItem, heard: Heard, again: Contact | None, now: float) -> None:
        """Settle what an answer covers, and add what it leaves to be asked."""
        self._effort.pruned += heard.pruned
        item.spoke |= {heard.key}
        whole = self._settle(item, heard, now)
        for inner in heard.items:
            self._add(inner, item)
        if whole:
            self._go_on(item, heard, again)

    def _go_on(self, item: WalkItem, heard: Heard, again: Contact | None) -> None:
        """After an answer: its next page, now or by the cursor; after the last, the next voice."""
        covers, after = heard.covers, heard.after
        assert covers is not None
        if after is not None:
            contacts = [] if again is None else [again, *item.contacts]
            page = item.page(covers, after, contacts)
            if self.question.order is None and self._harvest.full:
                self._resume.append(page)
                return
            if self._wants_page(after):
                self._waiting.append(page)
                return
        if item.voice == self.question.voices or self._tally.holds(item.voice + 1, covers):
            return
        if self.question.bound.intersects(covers):  # else nobody can have missed a match
            self._waiting.append(item.check(covers, heard.others))

    def _wants_page(self, after: list[Any]) -> bool:
        if self.question.order is None or not self._harvest.full:
            return True
        return after < self._harvest.worst()

    def _take_hints(self, item: WalkItem, items: list[Item], now: float) -> None:
        """The contact covers nothing of the item: it may know who does."""
        nearer = [c for told in items for c in told.contacts if c.endpoint not in item.asked]
        item.round += 1
        item.hops += 1
        if item.hops <= _HOPS_MAX:
            middle = item.prefix.first
            nearer.sort(key=lambda c: int.from_bytes(c.id) ^ int.from_bytes(middle))
            item.contacts = [*nearer, *item.contacts][:16]
        self._ask(item, now)

    def _settle(self, item: WalkItem, heard: Heard, now: float) -> bool:
        """Keep the hits of an answered subtree; False when the limit left some behind."""
        covers, harvest = heard.covers, self._harvest
        assert covers is not None
        if item.after is None:
            self._tally.add(item.voice, covers, heard.matches, heard.partial)
        fresh: list[Hit] = []
        last = item.after
        for found in heard.hits:
            if not harvest.knows(found):
                is_new = found[0] not in self.found and self.question.order is None
                if is_new and harvest.full:
                    self._resume.append(item.page(covers, last, []))
                    self.operation.push(fresh)
                    return False
                hit = harvest.keep(found, now)
                if is_new:
                    fresh.append(hit)
            last = [found[0]]
        self.operation.push(fresh)
        return True
