"""Who lives: probes that others repeat, suspicion, and burial (SWIM, Das et al. 2002, section 4).

    probe  --no answer-->  ask 3 others to probe  --none reached it-->  SUSPECT
    SUSPECT --a newer version, or a word from it--> ALIVE
    SUSPECT --SUSPICION_S--> DEAD: a tombstone, told as a rumour

Suspicion is told at once to 4 members, who pass it on, so that most see the end of SUSPICION_S
for themselves.

A member that hears of its own suspicion or death answers with a newer version, so a slow member
is not buried by one bad link. Whoever speaks while we hold it for dead is told so at once, and
tells us its newer version: so the sides of a partition find together again.
"""

from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.group import State
from dhtos.core.ids import Endpoint
from dhtos.core.limits import INDIRECT_PROBES, RTO_FLOOR_S, SUSPICION_S
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import as_endpoint, as_key, bad
from dhtos.protocol.operation import MemberGone
from dhtos.protocol.rpc import NO_REPLY, Deferred

if TYPE_CHECKING:
    from dhtos.protocol.gossip import Gossip


class Liveness:
    """The failure detector of one hub node; `Gossip` makes its direct probes."""

    def __init__(self, gossip: "Gossip") -> None:
        self.gossip = gossip
        self.hub = gossip.hub
        self.core = gossip.core
        self._reached: dict[bytes, bool] = {}  # who is being tried by others, and did one succeed
        self._doubted: dict[bytes, float] = {}  # since when each suspect is one
        self.core.register("dh_probe", self._on_probe, verb="publish")

    def heard(self, key: bytes, endpoint: Endpoint, now: float) -> None:
        """`key` spoke to us from `endpoint`."""
        hub = self.hub
        if hub.group.prefix.holds(key):
            if key in hub.group.members:
                self._clear(key)
            elif hub.lacks(key, 0):
                self.gossip.repair.wanted.add(key)
            else:
                self.gossip.tell_buried(key, endpoint, now)
        else:
            hub.met(Contact(key, endpoint), now, now, proven=False)

    def _clear(self, key: bytes) -> None:
        member = self.hub.group.members.get(key)
        if member is not None:
            member.state = State.ALIVE

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """Another member tried for us."""
        if value is True:
            if call.tag in self._reached:
                self._reached[call.tag] = True
            self._clear(call.tag)

    def on_late(self, call: Call, now: float) -> None:
        """The verdict has its own time."""

    def on_failure(self, call: Call, now: float) -> None:
        """Another member did not answer: that says nothing about the one in doubt."""

    def unanswered(self, key: bytes, seq: int, now: float) -> None:
        """A direct probe failed: ask others before doubting."""
        member = self.hub.group.members.get(key)
        if member is None:
            return
        others = [other for other in self.hub.group.nodes() if other.key != key]
        if len(others) > INDIRECT_PROBES:
            others = self.core.rng.sample(others, INDIRECT_PROBES)
        if not others:
            self.doubt(key, seq, now)
            return
        self._reached[key] = False
        host, port = member.record.endpoint
        for other in others:
            args = [self.hub.number, key, host, port]
            self.core.calls.send(other.record.endpoint, "dh_probe", args, self, now, tag=key)
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
        if not self.hub.serves(args[0]) or member is None or not member.serves:
            return NO_REPLY
        if member.record.endpoint != endpoint:
            return NO_REPLY  # only members are probed: nobody is sent to strangers by strangers
        deferred = Deferred()
        self.gossip.exchange(member, now, deferred)
        return deferred

    def _verdict(self, key: bytes, seq: int, asked: float, now: float) -> None:
        """The indirect probes had their time."""
        reached = self._reached.pop(key, False)
        member = self.hub.group.members.get(key)
        if member is None or self.hub.closed:
            return
        heard = self.core.peers.of(member.record.endpoint).last_heard
        if (heard is None or heard < asked) and not reached:
            self.doubt(key, seq, now)

    def doubt(self, key: bytes, seq: int, now: float) -> None:
        if self.hub.group.suspect(key, seq):
            self.core.counters["suspicions"] += 1
            self.start_suspicion(key, seq, now)
            self.gossip.spread(key, now, eager=True)

    def start_suspicion(self, key: bytes, seq: int, now: float) -> None:
        """From now on it has SUSPICION_S to refute; an earlier doubt that was cleared is over."""
        self._doubted[key] = now
        self.core.timers.at(now + SUSPICION_S, lambda at: self._bury(key, seq, now, at))

    def _bury(self, key: bytes, seq: int, since: float, now: float) -> None:
        if self._doubted.get(key) != since:
            return
        del self._doubted[key]
        group = self.hub.group
        member = group.members.get(key)
        if member is None or member.state is not State.SUSPECT or member.record.seq > seq:
            return
        if group.bury(key, member.record.seq, State.DEAD, now):
            self.core.counters["burials"] += 1
            self.core.happened.append(MemberGone(key))
            self.gossip.spread(key, now)
