"""How members take in records of machines that run no node: the owners' side of `dh_put`.

    dh_put   args   [hub, cookie, [rumour, ...]]
             reply  [key, depth, cookie, [status, ...] | nil, newest seq, [contact, ...]]

A gateway puts whole records, later only their deltas as a heartbeat, and at last that they left:
the rumours of gossip, each answered by a status. Once taken, a record spreads like any other;
nobody probes it, and it lives as long as its gateway renews it. `nil` in place of the statuses
asks a stranger to come back with the cookie before anything is kept for it. The contacts are
other members of the same group, or, if a key lies elsewhere, members nearer to it.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from dhtos.core.group import Member, State
from dhtos.core.ids import Endpoint
from dhtos.core.limits import (
    FOREIGN_COPIES,
    HUB_BUCKET_CONTACTS_MAX,
    PUT_RUMOURS_MAX,
    RUMOUR_HOPS_MAX,
)
from dhtos.protocol.gossip import EAGER_FANOUT
from dhtos.protocol.hubwire import (
    News,
    as_bytes,
    as_list,
    as_news,
    bad,
    record_rumour,
    state_rumour,
    unpack,
)
from dhtos.protocol.rpc import NO_REPLY

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub


class Status(IntEnum):
    """What became of one rumour of a put."""

    TAKEN = 0  # held at this version
    WHOLE = 1  # only a delta came, and its record is not known here
    ELSEWHERE = 2  # the key is not of this group
    OUTDATED = 3  # a newer version, or its end, is known: see `newest seq`
    REFUSED = 4  # the group, or the gateway's share of it, is full; or it is none of its records


class Foreign:
    """Takes in what gateways put to one hub node."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.core = hub.core
        self.core.register("dh_put", self._on_put, verb="publish")

    def _on_put(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        hub = self.hub
        number, cookie, rumours = unpack(
            args, lambda v: v, lambda v: as_bytes(v, 8), lambda v: as_list(v, PUT_RUMOURS_MAX)
        )
        if not rumours:
            raise bad("a put carries at least one record")
        put = [as_news(rumour, hub.schema) for rumour in rumours]
        if any(news.record is not None and news.record.serves for news in put):
            raise bad("only records of machines without a node are put")
        if any(news.state not in (None, State.LEFT) for news in put):
            raise bad("a gateway says of a machine that it left, nothing else")
        if not hub.serves(number):
            return NO_REPLY
        head = [hub.key, hub.group.depth, self.core.cookie(source)]
        if not hub.settled or not self.core.proven(source, cookie):
            return [*head, None, 0, []]
        held = {news.key for news in put if news.key in hub.group.members}
        statuses = [self._take(news, now) for news in put]
        self._bid_farewell(sorted(held), now)
        newest = max(self._newest(n) for n in put) if Status.OUTDATED in statuses else 0
        return [*head, [int(s) for s in statuses], newest, self._contacts(put, statuses)]

    def _take(self, news: News, now: float) -> Status:
        group, key = self.hub.group, news.key
        if not group.prefix.holds(key):
            self._pass_on(news)
            return Status.ELSEWHERE
        member = group.members.get(key)
        if news.state is not None:
            if member is not None and member.serves:
                return Status.REFUSED
            self.hub.gossip.take(news, now)
            return Status.TAKEN
        if self._newest(news) > news.seq:
            return Status.OUTDATED
        if news.delta is not None and (member is None or member.record.rev != news.delta.rev):
            return Status.WHOLE
        if news.delta is not None and member is not None and member.serves:
            return Status.REFUSED
        self.hub.gossip.take(news, now)
        member = group.members.get(key)
        held = member is not None and member.record.seq >= news.seq
        return Status.TAKEN if held else Status.REFUSED

    def _bid_farewell(self, keys: list[bytes], now: float) -> None:
        """Push the ends of rows through the group at once, as those of nodes are."""
        group, gossip = self.hub.group, self.hub.gossip
        gone = [key for key in keys if key not in group.members]
        if gone:
            hops = (group.serving.bit_length() + 1) // 2 - 1
            gossip.push(
                gone, min(max(hops, 0), RUMOUR_HOPS_MAX), gossip.partners(EAGER_FANOUT), now
            )

    def _pass_on(self, news: News) -> None:
        """A gateway that stops waits for no answer: its goodbye is passed to who is nearer."""
        if news.state is not None:
            hub = self.hub
            near = hub.buckets.choose(hub.buckets.index_of(news.key), self.core.rng, 2)
            words = state_rumour(news.key, news.seq, news.state, news.age, news.proof)
            hub.gossip.push_words([words], 1, [contact.endpoint for contact in near])

    def _newest(self, news: News) -> int:
        """The version below which nothing can be taken: what is held, or above a grave."""
        member = self.hub.group.members.get(news.key)
        tombstone = self.hub.group.tombstones.get(news.key)
        held = 0 if member is None else member.record.seq
        return held if tombstone is None else max(held, tombstone.seq + 1)

    def _contacts(self, put: list[News], statuses: list[Status]) -> list[Any]:
        """Whom else to put this to: members of our group, or who is nearer to what is elsewhere."""
        hub, rng = self.hub, self.core.rng
        strayed = [n.key for n, s in zip(put, statuses, strict=True) if s is Status.ELSEWHERE]
        if strayed:
            index = hub.buckets.index_of(strayed[0])
            near = hub.buckets.choose(index, rng, HUB_BUCKET_CONTACTS_MAX)
            return [contact.to_wire() for contact in near]
        members = hub.group.nodes()
        if len(members) > HUB_BUCKET_CONTACTS_MAX:
            members = rng.sample(members, HUB_BUCKET_CONTACTS_MAX)
        return [[m.key, *m.record.endpoint] for m in members]

    # --- when the group splits ------------------------------------------------------------------

    def hand_over(self, members: list[Member], nodes: list[Member], now: float) -> None:
        """The group has split, and foreign `members` went with the other half's `nodes`.

        What came lately may not have reached that half: it is told. Where nobody serves the
        record is held no more: its gateway hears that from some of us, and puts it elsewhere.
        """
        if nodes:
            waiting = self.hub.gossip.rumours
            young = [m for m in members if m.key in waiting]
            words = [record_rumour(m.record, now - m.born) for m in young]
            to = nodes if len(nodes) <= 2 else self.core.rng.sample(nodes, 2)
            self.hub.gossip.push_words(words, 0, [member.record.endpoint for member in to])
            return
        by_gateway: dict[Endpoint, list[list[Any]]] = {}
        for m in members:
            if self.core.rng.random() * self.hub.group.serving < FOREIGN_COPIES:
                words = state_rumour(m.key, m.record.seq, State.DEAD, 0.0)
                by_gateway.setdefault(m.record.endpoint, []).append(words)
        for endpoint, told in by_gateway.items():
            self.hub.gossip.push_words(told, 0, [endpoint])
