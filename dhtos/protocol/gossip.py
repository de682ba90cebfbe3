"""How a group keeps one view: gossip that probes, rumours, and eager pushes.

    dh_gossip  args   [hub, key, depth, view, inhabited, nil, [rumour...], repair?]
               reply  [key, depth, view, inhabited, coordinate, [rumour...]
                       (, prefix of the version vector, version vector)]
    dh_push    args   [hub, hops, [rumour...]]          no reply

Every tick a member exchanges news with one other, going round all of them in a shuffled order
(SWIM, Das et al. 2002, section 4.3: every member is probed within one round). The exchange is
the probe: who answers lives (`liveness`). It carries fresh rumours both ways and a 64-bit hash of
the view; what rumours lose, `repair` finds.

Changes that decide placements (joining, leaving, death) do not wait for the tick: they are pushed
to four members, each of which pushes what was news to it while hops are left.

In a cluster nobody is sent away by others. Who leaves signs that, and whoever has the record checks
it. That somebody is dead is no more than a doubt of whoever tells it: each waits for itself whether
it is refuted, and finds the record meanwhile.
"""

from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.curve import version_of
from dhtos.core.group import Member, State
from dhtos.core.ids import Endpoint, Prefix
from dhtos.core.limits import (
    GOSSIP_TICK_S,
    REPLY_BYTES_MAX,
    RUMOUR_HOPS_MAX,
    RUMOURS_PER_MESSAGE_MAX,
    SEQ_LEAD_MAX,
)
from dhtos.core.record import Record, pack_coordinate
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import (
    News,
    as_int,
    as_key,
    as_list,
    as_news,
    as_packed_coordinate,
    bad,
    delta_rumour,
    packs,
    readable_news,
    record_rumour,
    state_rumour,
    unpack,
)
from dhtos.protocol.liveness import Liveness
from dhtos.protocol.operation import MemberGone
from dhtos.protocol.repair import Repair
from dhtos.protocol.rpc import NO_REPLY, Deferred
from dhtos.protocol.rumours import Rumours
from dhtos.protocol.summaries import as_inhabited
from dhtos.trust.leaving import has_left, sign_left

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

REPAIR_EVERY = 10  # ticks between two repairs of one member
REPAIR_EVERY_YOUNG = 2  # who has just joined may have crossed others that were joining
EAGER_FANOUT = 4
_TELLS = 4  # how often each member passes on news of who is there
_TELLS_VALUES = 2  # and a change of dynamic values in a group of more than _LARGE
_LARGE = 32
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
        self._refuted = False  # whether the message at hand took us for dead, or for in doubt
        self.repair = Repair(self, _ROOM)
        self.liveness = Liveness(self)
        self.core.register("dh_gossip", self._on_gossip, verb="publish")
        self.core.register("dh_push", self._on_push, verb="publish")

    def start(self, now: float) -> None:
        """Begin to tick; the first tick comes at a random moment of the interval."""
        self.core.timers.at(now + GOSSIP_TICK_S * self.core.rng.random(), self._tick)

    # --- telling ------------------------------------------------------------------------------

    def spread(self, key: bytes, now: float, *, eager: bool = False, whole: bool = False) -> None:
        """Pass on news of `key`: with the next ticks, and at once if `eager`.

        News of who is there reach all but one member in 2,000 as rumours. In a large group a
        change of dynamic values is told less often, at half the price, unless it is pushed as
        well; one member in eight learns it by repair.
        """
        size = self.hub.group.serving
        member = self.hub.group.members.get(key)
        cheap = not whole and not eager and size > _LARGE
        values = cheap and member is not None and member.state is State.ALIVE
        self.rumours.add(key, _TELLS_VALUES if values else _TELLS, whole=whole)
        if eager:
            hops = min((size.bit_length() + 1) // 2, RUMOUR_HOPS_MAX)  # log4 G
            self.push([key], max(hops - 1, 0), self.partners(EAGER_FANOUT), now)

    def tell(self, key: bytes, now: float, *, whole: bool = False) -> list[Any] | None:
        """The words for the newest that is known of a key."""
        group = self.hub.group
        member = group.members.get(key)
        if member is not None:
            age = now - member.born
            if member.state is State.SUSPECT:
                return state_rumour(key, member.record.seq, State.SUSPECT, age)
            if whole:
                return record_rumour(member.record, age)
            return delta_rumour(key, member.record, age)
        tombstone = group.tombstones.get(key)
        if tombstone is not None:
            age = now - tombstone.since
            return state_rumour(key, tombstone.seq, tombstone.state, age, tombstone.proof)
        return None

    def _take_rumours(self, now: float, known: set[bytes]) -> list[list[Any]]:
        def tell(key: bytes, whole: bool) -> list[Any] | None:
            return self.tell(key, now, whole=whole)

        return list(self.rumours.take(tell, _ROOM, known))

    def push(self, keys: list[bytes], hops: int, to: list[Endpoint], now: float) -> None:
        """Send the newest that is known of keys, in full."""
        words = [self.tell(key, now, whole=True) for key in keys]
        self.push_words([w for w in words if w is not None], hops, to)

    def push_words(self, words: list[list[Any]], hops: int, to: list[Endpoint]) -> None:
        """Send rumours at once, if there are any."""
        if not words:
            return
        for packed in packs(words, _ROOM)[:_PUSHES_MAX]:
            for endpoint in to:
                self.core.calls.notify(endpoint, "dh_push", [self.hub.number, hops, packed])

    def push_own(self, to: list[Endpoint], now: float) -> None:
        """Tell strangers (contacts of other subtrees) that we are here."""
        self.push([self.hub.key], 0, to, now)

    def tell_buried(self, key: bytes, endpoint: Endpoint, now: float) -> None:
        """`key` speaks from `endpoint`: if it has a tombstone here, let it refute that."""
        if key in self.hub.group.tombstones:
            self.push([key], 0, [endpoint], now)

    def answer_refuted(self, source: Endpoint, now: float) -> None:
        """Show whoever took us for dead our newer version: it may not be in our view at all."""
        if self._refuted:
            self._refuted = False
            self.push_own([source], now)

    def partners(self, count: int) -> list[Endpoint]:
        """Up to `count` random members to send to."""
        members = self.hub.group.nodes()
        if len(members) > count:
            members = self.core.rng.sample(members, count)
        return [member.record.endpoint for member in members]

    # --- the tick -----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self.hub.closed:
            return
        rng = self.core.rng
        self.core.timers.at(now + GOSSIP_TICK_S * rng.uniform(0.9, 1.1), self._tick)
        member = self._next_partner()
        if member is not None:
            self._ticks += 1
            self.exchange(member, now)

    def _next_partner(self) -> Member | None:
        hub = self.hub
        for _ in range(2):
            while self._round:
                member: Member | None = hub.group.members.get(self._round.pop())
                if member is not None and member.serves:
                    return member
            self._round = [member.key for member in hub.group.nodes()]
            self.core.rng.shuffle(self._round)
        return None

    def _probe_soon(self, key: bytes) -> None:
        """Give a newcomer a random place in the round that has begun (SWIM, section 4.3)."""
        if len(self._round) < len(self.hub.group):
            self._round.insert(self.core.rng.randrange(len(self._round) + 1), key)

    def exchange(self, member: Member, now: float, deferred: Deferred | None = None) -> None:
        every = REPAIR_EVERY_YOUNG if self.hub.is_young(now) else REPAIR_EVERY
        repair = self._ticks % every == 0 or self.repair.unfinished
        self.core.calls.send(
            member.record.endpoint,
            "dh_gossip",
            [self.hub.number, *self._state(now), int(repair)],
            self,
            now,
            tag=(member.key, member.record.seq, deferred),
        )

    def _state(self, now: float, known: set[bytes] | None = None) -> list[Any]:
        """What both sides of an exchange say: who, how deep, which view, what is new.

        An answer leaves out what the other side has just told: it is `known` there. The time of
        the exchange is taken by who asks, so only an answer says from where on the map it comes.
        """
        hub = self.hub
        group = hub.group
        return [
            hub.key,
            group.depth,
            group.hash,
            hub.summaries.inhabited(group.depth),
            None if known is None else pack_coordinate(hub.coordinate.to_wire()),
            self._take_rumours(now, known or set()),
        ]

    def _hear(
        self, args: list[Any], now: float
    ) -> tuple[bytes, int, int, Coordinate | None, set[bytes]]:
        """Take in what `_state` of the other side said; last, which keys it told of."""
        key, depth, view, inhabited, coordinate, rumours = unpack(
            args,
            as_key,
            lambda v: as_int(v, 0, 160),
            lambda v: as_int(v, 0, _HASH_MAX),
            as_inhabited,
            as_packed_coordinate,
            lambda v: as_list(v, 4 * RUMOURS_PER_MESSAGE_MAX),
        )
        schema = self.hub.schema
        told, fresh = [], []
        for rumour in rumours:
            if self._is_old(rumour):
                told.append((rumour[2], rumour[4], State.ALIVE))
            else:
                news = as_news(rumour, schema)
                told.append((news.key, news.seq, news.state or State.ALIVE))
                fresh.append(news)
        for news in fresh:
            self.take(news, now)
        self.hub.agree(key, depth, now)
        self.hub.summaries.compare(key, depth, inhabited, now)
        known = {k for k, seq, state in told if (seq, state) >= self._held(k)}
        return key, depth, view, coordinate, known

    def _held(self, key: bytes) -> tuple[int, State]:
        """The version of a key that we hold, and what we believe of it."""
        group = self.hub.group
        member = group.members.get(key)
        if member is not None:
            return member.record.seq, member.state
        tombstone = group.tombstones.get(key)
        return (-1, State.ALIVE) if tombstone is None else (tombstone.seq, tombstone.state)

    def _is_old(self, rumour: Any) -> bool:
        """Whether a delta tells what we know: most do, so this is seen before it is parsed."""
        if type(rumour) is not list or len(rumour) < 5 or rumour[0] != 1:
            return False
        key, seq = rumour[2], rumour[4]
        member = self.hub.group.members.get(key) if type(key) is bytes else None
        if member is None or type(seq) is not int or seq > member.record.seq:
            return False
        if seq == member.record.seq:
            self.rumours.tire(key)
        return True

    def _on_gossip(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        if len(args) < 8:
            raise bad("dh_gossip has 8 fields")
        if not hub.serves(args[0]):
            return NO_REPLY
        if version_of(as_key(args[1])) != hub.schema.version:
            return self._as_stranger(args[1], source, now)
        key, depth, view, _, known = self._hear(args[1:7], now)
        self.liveness.heard(key, source, now)
        self.answer_refuted(source, now)
        self.repair.fetch(source, now)
        reply = self._state(now, known)
        if hub.settled and (args[7] or depth != hub.group.depth):
            reply += self.repair.vector(Prefix.of(key, depth), view)
        return reply

    def _as_stranger(self, key: bytes, source: Endpoint, now: float) -> list[Any]:
        """The answer to a node of another schema, which takes us for who was here before.

        What it tells is not ours to read, and the other way round: it learns who lives here now.
        """
        hub = self.hub
        self.liveness.heard(key, source, now)
        return [hub.key, hub.group.depth, 0, hub.summaries.inhabited(hub.group.depth), None, []]

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A partner answered: it lives, and may hold other versions."""
        fields = as_list(value, 16)
        key, _, _, remote, _ = self._hear(fields[:6], now)
        expected, seq, deferred = call.tag
        if deferred is not None:
            self.core.answer(deferred, key == expected)
        if key != expected:  # the address has a new tenant
            self.liveness.doubt(expected, seq, now)
            return
        self.liveness.heard(key, call.endpoint, now)
        self.answer_refuted(call.endpoint, now)
        if remote is not None:
            self.hub.measured(call, remote, now)
        self.repair.fetch(call.endpoint, now)
        self.repair.unfinished = False
        if len(fields) >= 8:
            self.repair.compare(call.endpoint, fields[6], fields[7], now)

    def on_late(self, call: Call, now: float) -> None:
        """The retransmission is out; nothing else to do yet."""

    def on_failure(self, call: Call, now: float) -> None:
        """A probe failed, ours or one that we made for another member."""
        key, seq, deferred = call.tag
        if deferred is not None:
            self.core.answer(deferred, False)
        else:
            self.liveness.unanswered(key, seq, now)

    # --- taking news --------------------------------------------------------------------------

    def _on_push(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        number, hops, rumours = unpack(
            args, lambda v: v, lambda v: as_int(v, 0, RUMOUR_HOPS_MAX), lambda v: as_list(v, 64)
        )
        if self.hub.serves(number):
            taken = readable_news(rumours, self.hub.schema)
            if len(taken) < len(rumours):  # it takes us for who was here under another schema
                self.core.counters["rumours_elsewhere"] += len(rumours) - len(taken)
            fresh = [news.key for news in taken if self.take(news, now)]
            if fresh and hops > 0:
                self.push(fresh, hops - 1, self.partners(EAGER_FANOUT), now)
                for key in fresh:  # it is urgent, and pushes reach 19 of 20
                    self.rumours.urge(key, _TELLS)
            for news in taken:
                if news.record is not None and news.record.endpoint == source:
                    self.tell_buried(news.key, source, now)
                elif news.state is State.LEFT:
                    self.hub.buckets.departed(news.key, source)
            self.answer_refuted(source, now)
            self.repair.fetch(source, now)
        return NO_REPLY

    def take(self, news: News, now: float) -> bool:
        """Apply one rumour; True when it was news, which is then passed on."""
        hub = self.hub
        if news.seq > SEQ_LEAD_MAX and self._is_ahead(news):
            self.core.counters["rumours_ahead"] += 1
            return False
        if news.key == hub.key:
            self._hear_of_self(news, now)
            return False
        if news.state is not None:
            hub.rows.heard_dead(news.key, news.seq)
            return self._take_state(news, now)
        member = hub.group.members.get(news.key)
        record = news.record
        if news.delta is not None:
            if member is not None and member.record.rev == news.delta.rev:
                if news.seq <= member.record.seq:
                    if news.seq == member.record.seq:
                        self.rumours.tire(news.key)
                    return False
                record = member.record.apply(news.delta)
            elif hub.lacks(news.key, news.seq):
                self.repair.wanted.add(news.key)
                return False
        if record is None or not self._believed(record, member):
            return False
        if not hub.group.prefix.holds(news.key):
            if record.serves:
                hub.met(Contact(news.key, record.endpoint), now - news.age, now)
            hub.summaries.met(news.key, record, now)
            return False
        whole = member is None or member.record.rev != record.rev
        if hub.group.put(news.key, record, now - news.age, now):
            if member is None and record.serves:
                self._probe_soon(news.key)
            self.spread(news.key, now, whole=whole)
            return True
        tombstone = hub.group.tombstones.get(news.key)
        if tombstone is not None and tombstone.seq >= news.seq:
            self.rumours.add(news.key, 1)  # whoever told us has not heard of its end
        elif not whole:
            self.rumours.tire(news.key)
        return False

    def _is_ahead(self, news: News) -> bool:
        """Whether nobody can have come to that version: a lie that left no number to refute it."""
        group = self.hub.group
        member, tombstone = group.members.get(news.key), group.tombstones.get(news.key)
        newest = max(member.record.seq if member else 0, tombstone.seq if tombstone else 0)
        return news.seq - newest > SEQ_LEAD_MAX

    def _believed(self, record: Record, member: Member | None) -> bool:
        """Whether a record is worth looking at: one that we have is not verified again."""
        known = member is not None and record.seq <= member.record.seq
        return known or self.core.believes(record)

    def words_of_end(self, key: bytes, seq: int) -> list[Any]:
        """The rumour that a record of ours leaves."""
        return state_rumour(key, seq, State.LEFT, 0.0, self.proof_of_end(key, seq))

    def proof_of_end(self, key: bytes, seq: int) -> bytes:
        """What shows that a record of ours leaves; empty in open mode."""
        sessions = self.core.sessions
        return b"" if sessions is None else sign_left(sessions.member, key, seq)

    def _take_state(self, news: News, now: float) -> bool:
        hub, secured = self.hub, self.core.sessions is not None
        assert news.state is not None
        if news.state is State.SUSPECT or (secured and news.state is State.DEAD):
            if not hub.group.suspect(news.key, news.seq):
                return False
            self.liveness.start_suspicion(news.key, news.seq, now)
        else:
            member = hub.group.members.get(news.key)
            if news.state is State.DEAD and member is not None and not member.serves:
                return False  # nobody probes it, so nobody can know
            if secured and not self._has_left(news, member):
                return False
            hub.buckets.forget(news.key)
            if not hub.group.bury(news.key, news.seq, news.state, now, proof=news.proof):
                return False
            self.core.happened.append(MemberGone(news.key))
        self.spread(news.key, now)
        return True

    def _has_left(self, news: News, member: Member | None) -> bool:
        """Whether who has published a record says itself that it is gone.

        Where the record is not known nothing can be told from the key: whoever tells of the record
        later is told of its end by who knew both.
        """
        if member is None or member.record.seq > news.seq:
            return False
        assert self.core.sessions is not None
        identity = member.record.identity
        if has_left(self.core.sessions.member, identity, news.key, news.seq, news.proof):
            return True
        self.core.counters["departures_forged"] += 1
        return False

    def _hear_of_self(self, news: News, now: float) -> None:
        own = self.hub.own
        if own is None:
            return
        if (news.state is not None and news.seq >= own.seq) or news.seq > own.seq:
            self.core.counters["refutations"] += 1
            self._refuted = True
            self.hub.renew(now, at_least=news.seq + 1, eager=True)
        elif news.state in (State.DEAD, State.LEFT):
            self._refuted = True  # refuted long ago, but not everybody has heard
