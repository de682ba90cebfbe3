"""How members hear within seconds whom to believe no more, who admits, and who is welcome.

Who revokes, or hears of something new, pushes it to FANOUT members it has keys with, who do the
same; each member also asks one of them every PULL_S whether it knows more (anti-entropy), for those
whom a push has missed and those who were away. What is asked for is told only where the hashes of
both sets differ. A newcomer asks the first it has keys with, at once: of records it is shown only
the certificate of their publisher, and must know who signed that.

Whoever is revoked loses its sessions, its place in tables and its records at once, and no handshake
brings them back.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from dhtos.core.group import State
from dhtos.core.ids import Endpoint
from dhtos.core.limits import REPLY_BYTES_MAX, WELCOMES_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol.calls import Call
from dhtos.protocol.hubwire import as_bytes, as_int, as_list, packs, unpack
from dhtos.protocol.rpc import NO_REPLY, Parts
from dhtos.trust.cert import CHAIN_BYTES_MAX
from dhtos.trust.member import REVOKED_MAX
from dhtos.trust.proof import certificate_of
from dhtos.trust.revocation import (
    REVOCATION_BYTES_MAX,
    Revocation,
    read_revocation,
    write_revocation,
)
from dhtos.trust.welcome import WELCOME_BYTES_MAX, Welcome, read_welcome, write_welcome

if TYPE_CHECKING:
    from dhtos.protocol.base import BaseOverlay
    from dhtos.protocol.hub import Hub
    from dhtos.protocol.sessions import Sessions

FANOUT = 4
PULL_S = 5.0
_HASH_BYTES = 8
_TOLD_MAX = REPLY_BYTES_MAX // 100


class Revocations:
    """What is revoked, as this node knows it."""

    def __init__(
        self, sessions: "Sessions", base: "BaseOverlay", hub: "Hub | None", now: float
    ) -> None:
        self.core = core = base.core
        self.sessions = sessions
        self.member = sessions.member
        self._base = base
        self._hub = hub
        core.register("dh_revoked", self._on_told, verb="query")
        core.register("dh_revocations", self._on_asked, verb="query")
        core.timers.at(now + PULL_S * core.rng.random(), self._pull)
        self._before, sessions.on_open = sessions.on_open, self._on_open
        self._asked = False
        if self.member.chain is not None and not self.member.chain.leaf.may("issue"):
            self.member.fresh.clear()  # our own issuer is known to whoever has let us in

    def add(self, revocations: Iterable[Revocation], now: float) -> int:
        """Believe these from now on, as far as they hold; how many were news. They are told on."""
        fresh = [one for one in revocations if self.member.revoke(one)]
        if fresh:
            self.core.counters["revocations"] += len(fresh)
            self._expel(now)
            self._push(revoked=packs(map(write_revocation, fresh)))
        return len(fresh)

    def welcome(self, welcomes: Iterable[Welcome], now: float) -> int:
        """Let those of other clusters in, or no more; how many were news. They are told on."""
        fresh = [one for one in welcomes if self.member.welcome(one)]
        if fresh:
            self.core.counters["welcomes"] += len(fresh)
            self._expel(now)
            self._push(welcomes=packs(map(write_welcome, fresh)))
        return len(fresh)

    def introduce(self, chains: Iterable[bytes]) -> int:
        """Believe whom these issuers admit; how many were news. They are told on."""
        fresh = sum(self.member.meet(wire) for wire in chains)
        self.spread()
        return fresh

    def spread(self) -> None:
        """Tell of issuers that were met lately, also in a handshake."""
        fresh = list(self.member.fresh)
        self.member.fresh.clear()
        if fresh:
            self.core.counters["issuers_met"] += len(fresh)
            self._push(issuers=packs(fresh))

    def _expel(self, now: float) -> None:
        for session in self.sessions.forget_revoked():
            if session.node_id is not None:
                self._base.routing.remove(session.node_id)
        if self._hub is None:
            return
        for member in self._hub.members():
            record = member.record
            if member.key != self._hub.key and self.member.is_revoked(certificate_of(record)):
                self._hub.buckets.forget(member.key)
                self._hub.group.bury(member.key, record.seq, State.DEAD, now)

    def _some(self, count: int) -> list[Endpoint]:
        known = self.sessions.members()
        return self.core.rng.sample(known, min(count, len(known)))

    def _push(self, **told: list[list[Any]]) -> None:
        """Tell a few, who tell others."""
        for endpoint in self._some(FANOUT):
            for part in _parts(**told):
                self.core.calls.notify(endpoint, "dh_revoked", part)

    def _hash(self) -> bytes:
        text = b"".join(self.member.told())
        return blake2b(text, digest_size=_HASH_BYTES).digest()

    # --- asking -----------------------------------------------------------------------------------

    def _pull(self, now: float) -> None:
        self.member.forget_ended()
        self.spread()
        for endpoint in self._some(1):
            self._ask(endpoint, now)
        self.core.timers.at(now + PULL_S * self.core.rng.uniform(0.8, 1.2), self._pull)

    def _on_open(self, endpoint: Endpoint, now: float, lost: bool) -> None:
        self._before(endpoint, now, lost)
        is_guest = self.member.chain is None
        if not self._asked and not is_guest and self.sessions.node_id(endpoint) is not None:
            self._asked = True
            self._ask(endpoint, now)

    def _ask(self, endpoint: Endpoint, now: float) -> None:
        asked = [self._hash()]
        self.core.calls.send(endpoint, "dh_revocations", asked, self, now, tag=set(), stream=True)

    def on_reply(self, call: Call, value: Any, _trailer: list[Any] | None, now: float) -> None:
        """A part of what another knows."""
        try:
            number, parts, *told = unpack(
                [*as_list(value, 8), [], []], _as_count, _as_count, *_AS_TOLD
            )
            call.tag.add(number)
            if len(call.tag) >= parts:
                self.core.calls.cancel(call)
            self._take(now, *told)
        except MalformedMessage:
            self.core.counters["malformed"] += 1
            self.core.calls.cancel(call)

    def on_late(self, call: Call, now: float) -> None:
        """It is asked once more; nothing waits for it."""

    def on_failure(self, call: Call, now: float) -> None:
        """Somebody else is asked next time."""

    # --- answering --------------------------------------------------------------------------------

    def _on_told(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> Any:
        self._take(now, *unpack([*args, [], []], *_AS_TOLD))
        return NO_REPLY

    def _on_asked(
        self, args: list[Any], _source: Endpoint, _trailer: list[Any] | None, _now: float
    ) -> Any:
        (known,) = unpack(args, lambda v: as_bytes(v, _HASH_BYTES))
        if known == self._hash():
            return [0, 0, [], []]
        parts = _parts(
            packs(map(write_revocation, self.member.revoked.values())),
            packs(self.member.introductions().values()),
            packs(map(write_welcome, self.member.welcomed())),
        )
        return Parts([number, len(parts), *part] for number, part in enumerate(parts))

    def _take(
        self, now: float, revoked: list[bytes], issuers: list[bytes], welcomes: list[bytes]
    ) -> None:
        read = [read_revocation(wire) for wire in revoked]
        welcome = [read_welcome(wire) for wire in welcomes]
        self.introduce(issuers)  # who may have signed the others
        self.add(read, now)
        self.welcome(welcome, now)


def _parts(
    revoked: Sequence[list[Any]] = (),
    issuers: Sequence[list[Any]] = (),
    welcomes: Sequence[list[Any]] = (),
) -> list[list[Any]]:
    """Lists that each fit in a datagram, as they are told: at least one."""
    told = [[one, []] for one in revoked if one] + [[[], one] for one in issuers if one]
    return told + [[[], [], one] for one in welcomes if one] or [[[], []]]


def _as_told(value: object) -> list[bytes]:
    return [as_bytes(one, REVOCATION_BYTES_MAX) for one in as_list(value, _TOLD_MAX)]


def _as_chains(value: object) -> list[bytes]:
    return [as_bytes(one, CHAIN_BYTES_MAX) for one in as_list(value, _TOLD_MAX)]


def _as_welcomes(value: object) -> list[bytes]:
    return [as_bytes(one, WELCOME_BYTES_MAX) for one in as_list(value, WELCOMES_MAX)]


_AS_TOLD = (_as_told, _as_chains, _as_welcomes)


def _as_count(value: object) -> int:
    return as_int(value, 0, REVOKED_MAX)
