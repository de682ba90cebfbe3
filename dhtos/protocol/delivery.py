"""How a gateway's records reach the groups that own them.

    LOST    nobody is known who owns the key: `dh_put` goes to the nearest member known, which
            takes it, or names nearer ones (as in `join`). Nobody nearer: nobody serves there
    PLACED  its group is known: records of one group go together, several in a datagram, to
            FOREIGN_COPIES of its members. One that is dead or has split away is replaced at once
    TOLD    a member has taken this version: nothing is sent until the next one

Groups in which the gateway has a place of its own take the record directly. What fails waits for
the next tick. Nothing is lost by forgetting: everything said here is said again at a heartbeat.
"""

from typing import TYPE_CHECKING, Any

from sortedcontainers import SortedDict

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Endpoint, Prefix, common_prefix_bits
from dhtos.core.limits import (
    FOREIGN_COPIES,
    GATEWAY_PLACES_MAX,
    GATEWAY_PUTS_MAX,
    HUB_BUCKET_CONTACTS_MAX,
    PUT_RUMOURS_MAX,
    REPLY_BYTES_MAX,
)
from dhtos.errors import MalformedMessage
from dhtos.protocol.calls import Call
from dhtos.protocol.foreign import Status
from dhtos.protocol.hubwire import (
    SEQ_MAX,
    as_bytes,
    as_contact,
    as_int,
    as_key,
    as_list,
    bad,
    packs,
    unpack,
)

if TYPE_CHECKING:
    from dhtos.protocol.rows import Rows

_SEEKS_MAX = 8  # rows looked for at a time
_HOPS_MAX = 32
_ROOM = REPLY_BYTES_MAX - 100


class _Put:
    """Rumours on their way to the members of one place, or one that is looking for its place."""

    __slots__ = ("asked", "candidates", "keys", "open", "place", "settled", "steps")

    def __init__(self, keys: list[bytes], place: Prefix | None, candidates: list[Contact]) -> None:
        self.keys = keys
        self.place = place
        self.candidates = candidates
        self.asked: set[Endpoint] = set()
        self.settled: set[bytes] = set()  # keys that need no more
        self.steps = 0  # answers so far
        self.open = 0


class _Sent:
    """One request: for which put, to whom, which versions."""

    __slots__ = ("contact", "proved", "put", "told")

    def __init__(
        self, put: _Put, contact: Contact, told: list[tuple[bytes, int]], proved: bool
    ) -> None:
        self.put = put
        self.contact = contact
        self.told = told
        self.proved = proved


class Delivery:
    """The way of one gateway's rumours to their groups."""

    def __init__(self, rows: "Rows") -> None:
        self.rows = rows
        self.hub = rows.hub
        self.core = rows.core
        self.places: dict[Prefix, list[Contact]] = {}  # groups, and whom to put to
        self._todo: SortedDict[bytes, None] = SortedDict()
        self._later: set[bytes] = set()  # tried in vain; the next tick tries again
        self._open: dict[Call, _Sent] = {}
        self._seeking = 0

    @property
    def waiting(self) -> int:
        """Keys that nobody has taken yet."""
        return len(self._todo) + len(self._later)

    def add(self, keys: list[bytes]) -> None:
        """Say these at the next `pump`."""
        self._todo.update(dict.fromkeys(keys))

    def add_later(self, key: bytes) -> None:
        """Say this at the next tick."""
        self._later.add(key)

    def retry(self) -> None:
        """Say again what failed."""
        self._todo.update(dict.fromkeys(self._later))
        self._later.clear()

    def pump(self, now: float) -> None:
        """Send what waits, within the bound of open calls."""
        if not self.hub.settled or self.hub.closed:
            return
        while self._todo and len(self._open) < GATEWAY_PUTS_MAX:
            key = self._todo.peekitem(self.core.rng.randrange(len(self._todo)))[0]
            holder = self.rows.seats.holder(key)
            place = self.place_of(key)
            if holder is not None:
                for held in self._pop(holder.group.prefix):
                    self.rows.keep(holder, held, now)
            elif place is not None:
                self._put(place, now)
            elif self._seeking < _SEEKS_MAX:
                del self._todo[key]
                self._seek(key, now)
            else:
                return

    def _pop(self, prefix: Prefix) -> list[bytes]:
        keys = list(self._todo.irange(prefix.first, prefix.last))
        for key in keys:
            del self._todo[key]
        return keys

    def say_left(self, keys: list[bytes]) -> None:
        """Take keys back without waiting for answers: the gateway stops."""
        left = SortedDict.fromkeys(keys)
        while left:
            key = next(iter(left))
            holder = self.rows.seats.holder(key)
            place = self.place_of(key)
            to: list[Endpoint] = []
            if holder is not None:
                place, to = holder.group.prefix, holder.gossip.partners(FOREIGN_COPIES)
            elif place is not None:
                to = [contact.endpoint for contact in self.places[place][:FOREIGN_COPIES]]
            else:
                place = Prefix.of(key, ID_BITS)
            inside = list(left.irange(place.first, place.last))
            self._notify(inside, to)
            for told in inside:
                del left[told]

    def _notify(self, keys: list[bytes], to: list[Endpoint]) -> None:
        words = [w for key in keys if (w := self.rows.words(key)) is not None]
        for packed in packs(words, _ROOM) if words else ():
            for endpoint in to:
                cookie = self.core.cookies.get(endpoint, b"")
                self.core.calls.notify(endpoint, "dh_put", [self.hub.number, cookie, packed])

    # --- groups that are known ------------------------------------------------------------------

    def place_of(self, key: bytes) -> Prefix | None:
        """The group that a member has said to own this key."""
        for depth in sorted({place.length for place in self.places}, reverse=True):
            place = Prefix.of(key, depth)
            if place in self.places:
                return place
        return None

    def _learn(self, member: Contact, depth: int, told: list[Contact]) -> None:
        """A member answered for its group: it and those it names own what lies there."""
        place = Prefix.of(member.id, depth)
        known = [*(c for c in [member, *told] if place.holds(c.id)), *self.places.get(place, [])]
        if place not in self.places and len(self.places) >= GATEWAY_PLACES_MAX:
            del self.places[next(iter(self.places))]
        fresh = list({contact.endpoint: contact for contact in known}.values())
        self.places[place] = fresh[: 2 * HUB_BUCKET_CONTACTS_MAX]

    def _forget(self, contact: Contact, place: Prefix | None) -> None:
        """A member is gone, or owns the place no more."""
        if place is not None and place in self.places:
            self.places[place] = [c for c in self.places[place] if c.endpoint != contact.endpoint]
            if not self.places[place]:
                del self.places[place]

    def _put(self, place: Prefix, now: float) -> None:
        """All that waits for one group, in as few datagrams as it takes, to three members."""
        contacts = self.places[place]
        named = [(key, w) for key in self._pop(place) if (w := self.rows.words(key)) is not None]
        at = 0
        for packed in packs([words for _, words in named], _ROOM) if named else ():
            keys = [key for key, _ in named[at : at + len(packed)]]
            at += len(keys)
            put = _Put(keys, place, self.core.rng.sample(contacts, len(contacts)))
            for _ in range(min(FOREIGN_COPIES, len(contacts))):
                self._ask(put, now)
            if not put.open:
                self._end(put, now)

    def _ask(self, put: _Put, now: float) -> bool:
        """Send a put to its next candidate; False when there is none."""
        own = self.hub.own
        while put.candidates:
            contact = put.candidates.pop(0)
            ours = own is not None and contact.endpoint == own.endpoint
            if contact.endpoint not in put.asked and not ours:
                put.asked.add(contact.endpoint)
                return self._send(put, contact, put.keys, now)
        return False

    def _send(
        self,
        put: _Put,
        contact: Contact,
        keys: list[bytes],
        now: float,
        *,
        proved: bool = False,
        whole: bool = False,
    ) -> bool:
        """Put what is to be said of these keys now; False when nothing is."""
        said = [
            (key, words)
            for key in keys
            if (words := self.rows.words(key, whole=whole or put.place is None)) is not None
        ]
        if not said:
            return False
        told = [(key, self.rows.version(key)) for key, _ in said]
        cookie = self.core.cookies.get(contact.endpoint, b"")
        args = [self.hub.number, cookie, [words for _, words in said]]
        call = self.core.calls.send(contact.endpoint, "dh_put", args, self, now)
        self._open[call] = _Sent(put, contact, told, proved)
        put.open += 1
        self._seeking += put.place is None
        return True

    # --- keys whose group is unknown ------------------------------------------------------------

    def _seek(self, key: bytes, now: float) -> None:
        near = self.rows.seats.nearest(key)
        index = near.buckets.index_of(key)
        known = near.buckets.choose(index, self.core.rng, HUB_BUCKET_CONTACTS_MAX)
        put = _Put([key], None, _by_nearness(known, key))
        put.steps = not known  # an empty bucket is an answer: our own group knows of nobody there
        if not self._ask(put, now):
            self._end(put, now)

    # --- answers --------------------------------------------------------------------------------

    def on_late(self, call: Call, now: float) -> None:
        """The retransmission is out; another is asked when this one has failed."""

    def on_failure(self, call: Call, now: float) -> None:
        """A dead member: another in its place."""
        sent = self._close(call)
        self._forget(sent.contact, sent.put.place)
        if sent.put.place is None:
            nearest = self.rows.seats.nearest(sent.put.keys[0])
            nearest.buckets.silent(sent.contact.id)
        self._go_on(sent.put, now)

    def _close(self, call: Call) -> _Sent:
        sent = self._open.pop(call)
        sent.put.open -= 1
        self._seeking -= sent.put.place is None
        return sent

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A member has looked at a put."""
        sent = self._close(call)
        try:
            self._take_answer(sent, value, now)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            self._forget(sent.contact, sent.put.place)
            self._go_on(sent.put, now)

    def _take_answer(self, sent: _Sent, value: Any, now: float) -> None:
        key, depth, cookie, statuses, newest, told = unpack(
            as_list(value, 16),
            as_key,
            lambda v: as_int(v, 0, ID_BITS),
            lambda v: as_bytes(v, 8),
            lambda v: None if v is None else as_list(v, PUT_RUMOURS_MAX),
            lambda v: as_int(v, 0, SEQ_MAX),
            lambda v: [as_contact(c) for c in as_list(v, HUB_BUCKET_CONTACTS_MAX)],
        )
        self.core.remember_cookie(sent.contact.endpoint, cookie)
        if statuses is None:  # it does not know us, or is still joining
            keys = [key for key, _ in sent.told]
            again = not sent.proved and self._send(sent.put, sent.contact, keys, now, proved=True)
            if not again:
                self._go_on(sent.put, now)
            return
        if len(statuses) != len(sent.told):
            raise bad("a put is answered by a status for each record")
        found = [Status(as_int(s, 0, max(Status))) for s in statuses]
        member = Contact(key, sent.contact.endpoint)
        strayed = Status.ELSEWHERE in found
        sent.put.steps += 1
        if strayed and sent.put.place is not None:
            self.places.pop(sent.put.place, None)
        self._learn(member, depth, [] if strayed else told)
        self._sort(sent, found, newest, now)
        if strayed and sent.put.place is None:
            self._nearer(sent.put, member, told)
        elif Status.TAKEN in found and len(told) + 1 < FOREIGN_COPIES:
            self.rows.orphaned(sent.told[found.index(Status.TAKEN)][0], now)
        if strayed or sent.put.place is None:
            self._go_on(sent.put, now)
        self.pump(now)

    def _sort(self, sent: _Sent, found: list[Status], newest: int, now: float) -> None:
        """What each status means for its key."""
        put = sent.put
        whole = []
        for (key, seq), status in zip(sent.told, found, strict=True):
            match status:
                case Status.TAKEN:
                    put.settled.add(key)
                    if put.place is not None:
                        self.rows.taken(key, seq)
                    elif self.rows.version(key) == seq:  # its place is known now: the other copies
                        self._todo[key] = None
                case Status.WHOLE:
                    whole.append(key)
                case Status.OUTDATED:
                    put.settled.add(key)
                    if self.rows.version(key) == seq:
                        self.rows.outdated(key, newest)
                    self._later.add(key)
                case Status.REFUSED:
                    put.settled.add(key)
                    self.core.counters["rows_refused"] += 1
                case Status.ELSEWHERE:
                    pass
        if whole:
            self._send(put, sent.contact, whole, now, proved=True, whole=True)

    def _nearer(self, put: _Put, member: Contact, told: list[Contact]) -> None:
        """Go on with who is nearer than this one; everybody else knows less."""
        (key,) = put.keys
        bits = common_prefix_bits(key, member.id)
        nearer = [c for c in [*told, *put.candidates] if common_prefix_bits(key, c.id) > bits]
        put.candidates = _by_nearness(nearer, key) if put.steps < _HOPS_MAX else []

    def _go_on(self, put: _Put, now: float) -> None:
        """Ask another in place of one that did not take everything."""
        if put.place is None and put.settled:
            return
        if not self._ask(put, now) and not put.open:
            self._end(put, now)

    def _end(self, put: _Put, now: float) -> None:
        """Nobody is left to ask: what was not taken waits, or belongs to nobody."""
        left = [key for key in put.keys if key not in put.settled]
        if put.place is None and put.steps and left and self.rows.orphaned(left[0], now):
            left = []
        self._later.update(left)

    def check(self) -> None:
        """Assert every invariant."""
        assert self._seeking == sum(sent.put.place is None for sent in self._open.values())
        assert len(self.places) <= GATEWAY_PLACES_MAX
        assert all(self.places.values())


def _by_nearness(contacts: list[Contact], key: bytes) -> list[Contact]:
    return sorted(contacts, key=lambda contact: -common_prefix_bits(key, contact.id))
