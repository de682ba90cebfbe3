"""How a group keeps one view: gossip that probes, rumours, repair, and burial of the dead.

Every tick a member exchanges news with one other, going round all of them in a shuffled order
(SWIM, Das et al. 2002, section 4.3: every member is probed within one round). The exchange is
the probe: who answers lives. It carries fresh rumours both ways and a 64-bit hash of the view;
every few ticks a mismatch is repaired by a version vector of two bytes a member, then by the
versions of the bins that differ, then by the records themselves.

    probe  --no answer-->  ask 3 others to probe  --none reached it-->  SUSPECT
    SUSPECT --a newer version, or a word from it--> ALIVE
    SUSPECT --SUSPICION_S--> DEAD: a tombstone, told at once to 4 members, then as a rumour

A member that hears of its own suspicion or death answers with a newer version. Changes that
decide placements (joining, leaving, death) do not wait for the tick: they are pushed to four
members, each of which pushes once more while hops are left.
"""

from typing import TYPE_CHECKING, Any

from dhtos.core.coordinate import Coordinate
from dhtos.core.contact import Contact
from dhtos.core.group import BIN_COUNT_MAX, Member, State, bin_count, differing_bins
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import (
    GOSSIP_TICK_S,
    INDIRECT_PROBES,
    REPLY_BYTES_MAX,
    RTO_FLOOR_S,
    RUMOUR_HOPS_MAX,
    RUMOURS_PER_MESSAGE_MAX,
    SUSPICION_S,
)
from dhtos.protocol.calls import Call
from dhtos.protocol.rpc import NO_REPLY, Deferred
from dhtos.protocol.hubwire import (
    News,
    as_bytes,
    as_endpoint,
    as_int,
    as_key,
    as_list,
    as_news,
    as_prefix,
    bad,
    delta_rumour,
    pack,
    packs,
    record_rumour,
    state_rumour,
    unpack,
)
from dhtos.protocol.operation import MemberGone
from dhtos.protocol.rumours import Rumours

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

REPAIR_EVERY = 10  # ticks between two repairs of one member
EAGER_FANOUT = 4
_HASH_MAX = 2**64 - 1
_ROOM = REPLY_BYTES_MAX - 200
_PUSHES_MAX = 8  # datagrams that one repair may push


class Gossip:
    """The membership protocol of one hub node."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.core = hub.core
        self.rumours = Rumours()
        self._round: list[bytes] = []
        self._ticks = 0
        self._repairing = False
        self._wanted: set[bytes] = set()
        self._vouched: dict[bytes, float] = {}  # when another member last reached this one for us
        self._whole: set[bytes] = set()  # keys whose next rumours carry the whole record
        register = self.core.register
        register("dh_gossip", self._on_gossip)
        register("dh_sync", self._on_sync)
        register("dh_fetch", self._on_fetch)
        register("dh_push", self._on_push)
        register("dh_probe", self._on_probe)

    def start(self, now: float) -> None:
        """Begin to tick; the first tick comes at a random moment of the interval."""
        self.core.timers.at(now + GOSSIP_TICK_S * self.core.rng.random(), self._tick)

    # --- telling ------------------------------------------------------------------------------

    def spread(self, key: bytes, now: float, *, eager: bool = False, whole: bool = False) -> None:
        """Pass on news of `key`: with the next ticks, and at once if `eager`."""
        if whole:
            self._whole.add(key)
        self.rumours.add(key, min(len(self.hub.group).bit_length() + 1, 6))
        if eager:
            hops = min((len(self.hub.group).bit_length() + 1) // 2, RUMOUR_HOPS_MAX)  # log4 G
            self._push([key], max(hops - 1, 0), self.partners(EAGER_FANOUT), now)

    def _tell(self, key: bytes, now: float, *, whole: bool = False) -> list[Any] | None:
        """The words for the newest that is known of a key."""
        group = self.hub.group
        member = group.members.get(key)
        if member is not None:
            age = now - member.born
            if member.state is State.SUSPECT:
                return state_rumour(key, member.record.seq, State.SUSPECT, age)
            if whole or key in self._whole:
                return record_rumour(member.record, age)
            return delta_rumour(key, member.record, age)
        tombstone = group.tombstones.get(key)
        if tombstone is not None:
            return state_rumour(key, tombstone.seq, tombstone.state, now - tombstone.since)
        return None

    def _take_rumours(self, now: float) -> list[list[Any]]:
        taken = list(self.rumours.take(lambda key: self._tell(key, now), _ROOM))
        if not len(self.rumours):
            self._whole.clear()
        return taken

    def _push(self, keys: list[bytes], hops: int, to: list[Endpoint], now: float) -> None:
        words = [w for key in keys if (w := self._tell(key, now, whole=True)) is not None]
        for packed in packs(words, _ROOM)[:_PUSHES_MAX]:
            for endpoint in to:
                self.core.calls.notify(endpoint, "dh_push", [self.hub.number, hops, packed])

    def push_own(self, to: list[Endpoint], now: float) -> None:
        """Tell strangers (contacts of other subtrees) that we are here."""
        self._push([self.hub.key], 0, to, now)

    def partners(self, count: int) -> list[Endpoint]:
        """Up to `count` random members to send to."""
        hub = self.hub
        keys = [key for key in hub.group.members if key != hub.key]
        if len(keys) > count:
            keys = self.core.rng.sample(keys, count)
        return [hub.group.members[key].record.endpoint for key in keys]

    # --- the tick -----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self.hub.closed:
            return
        rng = self.core.rng
        self.core.timers.at(now + GOSSIP_TICK_S * rng.uniform(0.9, 1.1), self._tick)
        member = self._next_partner()
        if member is not None:
            self._ticks += 1
            self._exchange(member, now)

    def _next_partner(self) -> Member | None:
        hub = self.hub
        for _ in range(2):
            while self._round:
                member: Member | None = hub.group.members.get(self._round.pop())
                if member is not None:
                    return member
            self._round = [key for key in hub.group.members if key != hub.key]
            self.core.rng.shuffle(self._round)
        return None

    def _exchange(self, member: Member, now: float, deferred: Deferred | None = None) -> None:
        repair = self._ticks % REPAIR_EVERY == 0 or self._repairing
        self.core.calls.send(
            member.record.endpoint,
            "dh_gossip",
            [self.hub.number, *self._state(now), int(repair)],
            self,
            now,
            tag=(member.key, member.record.seq, deferred),
        )

    def _state(self, now: float) -> list[Any]:
        """What both sides of an exchange say: who, how deep, which view, what is new."""
        hub = self.hub
        group = hub.group
        return [
            hub.key,
            group.depth,
            group.hash,
            _bits_bytes(hub.buckets.bits(group.depth)),
            hub.coordinate.to_wire(),
            self._take_rumours(now),
        ]

    def _hear(self, args: list[Any], now: float) -> tuple[bytes, int, int, Coordinate]:
        """Take in what `_state` of the other side said."""
        key, depth, view, bits, coordinate, rumours = unpack(
            args,
            as_key,
            lambda v: as_int(v, 0, 160),
            lambda v: as_int(v, 0, _HASH_MAX),
            _as_bits,
            Coordinate.from_wire,
            lambda v: as_list(v, 4 * RUMOURS_PER_MESSAGE_MAX),
        )
        schema = self.hub.schema
        for news in [as_news(rumour, schema) for rumour in rumours]:
            self._take(news, now)
        self.hub.compare_buckets(key, depth, bits, now)
        return key, depth, view, coordinate

    def _on_gossip(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        if len(args) < 8:
            raise bad("dh_gossip has 8 fields")
        if not hub.serves(args[0]):
            return NO_REPLY
        key, depth, view, _ = self._hear(args[1:7], now)
        self._alive(key, source, now)
        self._fetch(source, now)
        reply = self._state(now)
        if args[7] and hub.settled:
            shared = _shared(hub.group.prefix, Prefix.of(key, depth))
            if shared is not None and hub.group.view_hash(shared) != view:
                count = bin_count(len(hub.group))
                reply += [shared.to_wire(), hub.group.bins(shared, count)]
        return reply

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A partner answered: it lives, and may hold other versions."""
        if call.name == "dh_sync":
            self._on_synced(call, value, now)
        elif call.name == "dh_fetch":
            for news in as_list(value, 64):
                self._take(as_news(news, self.hub.schema), now)
        elif call.name == "dh_gossip":
            self._on_exchanged(call, value, now)
        elif value is True:  # dh_probe: somebody else reached it
            self._vouched[call.tag[0]] = now
            self._clear(call.tag[0])

    def _on_exchanged(self, call: Call, value: Any, now: float) -> None:
        fields = as_list(value, 16)
        key, _, _, remote = self._hear(fields[:6], now)
        expected, _, deferred = call.tag
        if deferred is not None:
            self.core.answer(deferred, key == expected)
        if key != expected:  # the address has a new tenant
            self._doubt(expected, call.tag[1], now)
            return
        self._alive(key, call.endpoint, now)
        self.hub.measured(call, remote, now)
        self._fetch(call.endpoint, now)
        self._repairing = False
        if len(fields) >= 8:
            self._repair(call.endpoint, fields[6], fields[7], now)

    # --- repair -------------------------------------------------------------------------------

    def _repair(self, endpoint: Endpoint, shared: Any, vector: Any, now: float) -> None:
        """Compare version vectors over the part of the space that both sides hold."""
        hub = self.hub
        prefix = as_prefix(shared)
        theirs = as_bytes(vector, 2 * BIN_COUNT_MAX)
        count = len(theirs) // 2
        if count < 1 or count & (count - 1) or len(theirs) % 2:
            raise bad("a version vector has a power of two of bins")
        if not hub.group.prefix.covers(prefix):
            return  # we have split since
        differing = differing_bins(hub.group.bins(prefix, count), theirs)
        if not differing:
            return
        ours = hub.group.in_bins(prefix, count, differing)
        versions = [[m.key, m.record.seq] for m in ours[:200]]
        self.core.calls.send(
            endpoint,
            "dh_sync",
            [hub.number, prefix.to_wire(), count, sorted(differing), versions],
            self,
            now,
        )

    def _on_sync(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        number, prefix, count, bins, versions = unpack(
            args,
            lambda v: v,
            as_prefix,
            lambda v: as_int(v, 1, BIN_COUNT_MAX),
            lambda v: as_list(v, BIN_COUNT_MAX),
            lambda v: as_list(v, 256),
        )
        if not hub.serves(number) or count & (count - 1):
            return NO_REPLY
        theirs = {as_key(k): as_int(s, 0, 2**62) for k, s in map(_as_pair, versions)}
        if not hub.group.prefix.covers(prefix):
            return [[], [], 0]  # we have split since
        wanted_bins = {as_int(b, 0, count - 1) for b in bins}
        news: list[list[Any] | None] = []
        wants = []
        for member in hub.group.in_bins(prefix, count, wanted_bins):
            seq = theirs.pop(member.key, None)
            if seq is None or seq < member.record.seq:
                news.append(self._tell(member.key, now, whole=seq is None))
            elif seq > member.record.seq:
                wants.append(member.key)
        for their_key in theirs:
            if their_key in hub.group.tombstones:
                news.append(self._tell(their_key, now))
            elif prefix.holds(their_key):
                wants.append(their_key)
        packed, _ = pack([n for n in news if n is not None], _ROOM - 24 * len(wants[:20]))
        return [packed, wants[:20], int(len(packed) < len(news))]

    def _on_synced(self, call: Call, value: Any, now: float) -> None:
        fields = as_list(value, 8)
        if len(fields) < 3:
            raise bad("a sync answer is [rumours, wants, more]")
        for rumour in as_list(fields[0], 256):
            self._take(as_news(rumour, self.hub.schema), now)
        wants = [as_key(key) for key in as_list(fields[1], 64)]
        self._push(wants, 0, [call.endpoint], now)
        self._fetch(call.endpoint, now)
        self._repairing = bool(fields[2])

    def _fetch(self, endpoint: Endpoint, now: float) -> None:
        """Ask whoever told of unknown keys for their whole records."""
        if self._wanted:
            keys = list(self._wanted)[:64]
            self._wanted.clear()
            self.core.calls.send(endpoint, "dh_fetch", [self.hub.number, keys], self, now)

    def introduce(self, contact: Contact, now: float) -> None:
        """Somebody told of a node that should be a member: ask it for its record."""
        if contact.id not in self.hub.group.members and self.hub.lacks(contact.id, 0):
            args = [self.hub.number, [contact.id]]
            self.core.calls.send(contact.endpoint, "dh_fetch", args, self, now)

    def _on_fetch(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        number, keys = unpack(args, lambda v: v, lambda v: as_list(v, 64))
        if not self.hub.serves(number):
            return NO_REPLY
        told = (self._tell(as_key(key), now, whole=True) for key in keys)
        return pack([words for words in told if words is not None], _ROOM)[0]

    # --- taking news --------------------------------------------------------------------------

    def _on_push(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        number, hops, rumours = unpack(
            args, lambda v: v, lambda v: as_int(v, 0, RUMOUR_HOPS_MAX), lambda v: as_list(v, 64)
        )
        if self.hub.serves(number):
            taken = [as_news(rumour, self.hub.schema) for rumour in rumours]
            fresh = [news.key for news in taken if self._take(news, now)]
            if fresh and hops > 0:
                self._push(fresh, hops - 1, self.partners(EAGER_FANOUT), now)
            self._fetch(source, now)
        return NO_REPLY

    def _take(self, news: News, now: float) -> bool:
        """Apply one rumour; True when it was news, which is then passed on."""
        hub = self.hub
        if news.key == hub.key:
            self._hear_of_self(news, now)
            return False
        if news.state is not None:
            return self._take_state(news, now)
        member = hub.group.members.get(news.key)
        record = news.record
        if news.delta is not None:
            if member is not None and member.record.rev == news.delta.rev:
                if news.seq <= member.record.seq:
                    return False
                record = member.record.apply(news.delta)
            elif hub.lacks(news.key, news.seq):
                self._wanted.add(news.key)
                return False
        if record is None:
            return False
        if not hub.group.prefix.holds(news.key):
            hub.met(Contact(news.key, record.endpoint), now - news.age, now)
            return False
        whole = member is None or member.record.rev != record.rev
        if hub.group.put(news.key, record, now - news.age, now):
            self.spread(news.key, now, whole=whole)
            return True
        tombstone = hub.group.tombstones.get(news.key)
        if tombstone is not None and tombstone.seq >= news.seq:
            self.rumours.add(news.key, 1)  # whoever told us has not heard of its end
        return False

    def _take_state(self, news: News, now: float) -> bool:
        hub = self.hub
        assert news.state is not None
        if news.state is State.SUSPECT:
            if not hub.group.suspect(news.key, news.seq):
                return False
            self._start_suspicion(news.key, news.seq, now)
        else:
            hub.buckets.forget(news.key)
            if not hub.group.bury(news.key, news.seq, news.state, now):
                return False
            self.core.happened.append(MemberGone(news.key))
        self.spread(news.key, now)
        return True

    def _hear_of_self(self, news: News, now: float) -> None:
        own = self.hub.own
        if own is None:
            return
        if (news.state is not None and news.seq >= own.seq) or news.seq > own.seq:
            self.core.counters["refutations"] += 1
            self.hub.renew(now, at_least=news.seq + 1, eager=True)

    # --- life and death -----------------------------------------------------------------------

    def _alive(self, key: bytes, endpoint: Endpoint, now: float) -> None:
        """`key` spoke to us from `endpoint`."""
        hub = self.hub
        if hub.group.prefix.holds(key):
            if key not in hub.group.members:
                if hub.lacks(key, 0):
                    self._wanted.add(key)
            else:
                self._clear(key)
        else:
            hub.met(Contact(key, endpoint), now, now, proven=False)

    def _clear(self, key: bytes) -> None:
        member = self.hub.group.members.get(key)
        if member is not None:
            member.state = State.ALIVE

    def on_late(self, call: Call, now: float) -> None:
        """The retransmission is out; nothing else to do yet."""

    def on_failure(self, call: Call, now: float) -> None:
        """No answer: a probe asks others before it doubts."""
        if call.name != "dh_gossip":
            return
        key, seq, deferred = call.tag
        if deferred is not None:
            self.core.answer(deferred, False)
            return
        member = self.hub.group.members.get(key)
        if member is None:
            return
        others = [k for k in self.hub.group.members if k not in (key, self.hub.key)]
        if len(others) > INDIRECT_PROBES:
            others = self.core.rng.sample(others, INDIRECT_PROBES)
        if not others:
            self._doubt(key, seq, now)
            return
        host, port = member.record.endpoint
        for other in others:
            endpoint = self.hub.group.members[other].record.endpoint
            self.core.calls.send(
                endpoint, "dh_probe", [self.hub.number, key, host, port], self, now, tag=(key, seq)
            )
        self.core.timers.at(
            now + self.core.peers.of(member.record.endpoint).rto() * 2 + 4 * RTO_FLOOR_S,
            lambda at: self._verdict(key, seq, now, at),
        )

    def _on_probe(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        if len(args) < 4:
            raise bad("dh_probe has 4 fields")
        key, endpoint = as_key(args[1]), as_endpoint(args[2], args[3])
        member = self.hub.group.members.get(key)
        if not self.hub.serves(args[0]) or member is None or member.record.endpoint != endpoint:
            return NO_REPLY  # only members are probed: nobody is sent to strangers by strangers
        deferred = Deferred()
        self._exchange(member, now, deferred)
        return deferred

    def _verdict(self, key: bytes, seq: int, asked: float, now: float) -> None:
        """The indirect probes had their time."""
        member = self.hub.group.members.get(key)
        if member is None or self.hub.closed:
            return
        heard = self.core.peers.of(member.record.endpoint).last_heard
        if (heard is None or heard < asked) and not self._vouched.get(key, asked - 1) >= asked:
            self._doubt(key, seq, now)

    def _doubt(self, key: bytes, seq: int, now: float) -> None:
        if self.hub.group.suspect(key, seq):
            self.core.counters["suspicions"] += 1
            self._start_suspicion(key, seq, now)
            self.spread(key, now, eager=True)

    def _start_suspicion(self, key: bytes, seq: int, now: float) -> None:
        self.core.timers.at(now + SUSPICION_S, lambda at: self._bury(key, seq, at))

    def _bury(self, key: bytes, seq: int, now: float) -> None:
        group = self.hub.group
        member = group.members.get(key)
        if member is None or member.state is not State.SUSPECT or member.record.seq > seq:
            return
        if group.bury(key, member.record.seq, State.DEAD, now):
            self.core.counters["burials"] += 1
            self.core.happened.append(MemberGone(key))
            self.spread(key, now, eager=True)


def _bits_bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8)


def _as_bits(value: object) -> int:
    """Inhabited buckets as a bit set, in 20 bytes."""
    return int.from_bytes(as_bytes(value, 20))


def _shared(one: Prefix, other: Prefix) -> Prefix | None:
    """What two groups both hold: the narrower of nested prefixes."""
    if one.covers(other):
        return other
    return one if other.covers(one) else None


def _as_pair(value: object) -> list[Any]:
    pair = as_list(value, 2)
    if len(pair) != 2:
        raise bad("expected [key, seq]")
    return pair
