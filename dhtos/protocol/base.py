"""The base overlay: exact keys, put and get, on the stock Kademlia wire.

Theory of operation. Five calls are answered, as kademlia 2.x defines them: `ping(id)`,
`store(id, key, value)`, `find_node(id, key)`, `find_value(id, key)` and `stun()`. Three things
are told to dhtos peers beside them, where stock peers do not look: a `store` carries
`[capabilities, seq, milliseconds left to live]` in its trailer, and a `find_value` reply adds
"s" (seq) and "t" (seconds left) to the map that holds the value.

Who enters the routing table: whoever answered a call of ours from the address it was sent to.
A request proves nothing (its source and the id in it are the sender's claim), so an unknown
requester is first pinged (`upkeep.Greeter`). A forged request therefore makes us send its reply,
which is no larger than the request except for `find_node` and `find_value`, and at most one ping
each GREETING_INTERVAL_S; never a store.

What a `get` returns: the value with the highest sequence number that one round of answers shows
(`lookup`); holders that showed an older one are sent the newer, and the closest node that
answered without it is sent a copy; neither is waited for. Our own copy is one voice among them.

In a cluster each value is signed by its owner (`signed`): a `store` has the proof as its fourth
argument, a `find_value` reply has it as "p", and whoever holds the value hands it on verbatim. A
key that matters is looked up over several disjoint paths (`paths`).

The overlay does no input or output: it acts through the calls and timers of `Core`.
"""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import (
    ALPHA,
    CALL_DEADLINE_S,
    VALUE_BYTES_MAX,
    VALUE_TTL_S,
    K,
)
from dhtos.core.ranges import Ranges
from dhtos.core.routing import Added, Pending, RoutingTable
from dhtos.errors import (
    KeyNotFound,
    LookupExpired,
    MalformedMessage,
    NoPeers,
    UsageError,
    ValueTooLarge,
)
from dhtos.kernels import common_prefix_bits
from dhtos.protocol.bootstrap import Bootstrap
from dhtos.protocol.operation import Operation
from dhtos.protocol.paths import Paths, Walk, Way, check_paths
from dhtos.protocol.peers import Capability
from dhtos.protocol.put import Put, PutResult, copy_of, send_value
from dhtos.protocol.replies import SEQ_MAX, Reader, read_value
from dhtos.protocol.signed import SHARED, Terms, believed, reader, signed
from dhtos.protocol.store import VALUE_TYPES, Held, Store, StoredValue, Value, Verdict
from dhtos.protocol.upkeep import Greeter, Handoff, Upkeep
from dhtos.protocol.wire import encode_value
from dhtos.trust.value import is_believed

if TYPE_CHECKING:
    from dhtos.protocol.rpc import Core


class BaseOverlay:
    """The base overlay of one node, registered with `core` under the stock RPC names."""

    def __init__(
        self,
        core: "Core",
        node_id: bytes,
        now: float,
        *,
        k: int = K,
        alpha: int = ALPHA,
        client: bool = False,
        store: Store | None = None,
    ) -> None:
        assert len(node_id) == ID_BYTES
        self.core = core
        self.id = node_id
        self.k = k
        self.alpha = alpha
        self.client = client
        self.routing = RoutingTable(node_id, k)
        self.ranges = Ranges(node_id)
        self.store = Store() if store is None else store
        if core.sessions is not None:
            self.store.believes = partial(is_believed, core.sessions.member)
        self._heard = now  # when anybody answered last
        self._lookups: set[Walk] = set()
        self._greeter = Greeter(self)
        self._handoff = Handoff(self)
        self._upkeep = Upkeep(self, now)
        if not client:
            core.register("ping", self._on_ping, verb="query")
            core.register("store", self._on_store, verb="publish")
            core.register("find_node", self._on_find_node, verb="query")
            core.register("find_value", self._on_find_value, verb="query")
            core.register("stun", self._on_stun, verb=None)

    # --- operations -----------------------------------------------------------------------------

    def bootstrap(self, seeds: list[Endpoint], now: float) -> Operation[int]:
        """Join through `seeds`; ends with the number of contacts known, or NoPeers."""
        operation = self.core.operation(lambda _: joining.cancel())
        joining = Bootstrap(self, operation)
        joining.start(seeds, now)
        return operation

    def put(
        self,
        key: bytes,
        value: Value,
        now: float,
        *,
        ttl_s: float = VALUE_TTL_S,
        seq: int = 0,
        terms: Terms = SHARED,
        paths: int = 1,
    ) -> Operation[PutResult]:
        """Store a value on the k nodes closest to `key`; nothing happens if it is refused here.

        Raises UsageError and ValueTooLarge at once. The operation ends with Conflict when a
        holder has a newer value (readers will see that one) or most have another owner's, with
        Unreachable when nobody took it. In a cluster the value is signed, on these `terms`.
        """
        checked(key, value, ttl_s, seq)
        check_paths(paths)
        sessions = self.core.sessions
        if sessions is not None:
            member = sessions.member
            held = signed(member, key, value, now, seq=seq, ttl_s=ttl_s, terms=terms)
        elif terms == SHARED:
            held = Held(value, seq, now + ttl_s)
        else:
            raise UsageError("in open mode nobody can say whose a value is: start a cluster")
        operation = self.core.operation(lambda _: put.cancel())

        def finish(put: Put, _: float) -> None:
            result, refusal = put.result(), put.refusal()
            if refusal is not None:
                operation.fail(refusal)
            elif result.stored_on:
                operation.finish(result)
            else:
                operation.fail(self._nobody())

        put = Put(self, key, held, finish, paths)
        put.start(now)
        return operation

    def get(
        self, key: bytes, now: float, *, owner: bytes = b"", paths: int = 1
    ) -> Operation[StoredValue]:
        """The newest value that one round of answers shows; ends with KeyNotFound without one.

        With an `owner`, a public key, `key` is one of its own. Over several disjoint `paths` it is
        the best that any of them found.
        """
        _check_key(key)
        check_paths(paths)
        operation = self.core.operation(lambda _: self.forget(lookup))

        def finish(lookup: Walk, now: float) -> None:
            self._lookups.discard(lookup)
            best = lookup.best
            if best is not None and best.is_gone:
                operation.fail(KeyNotFound(f"the value under {key.hex()} was removed"))
            elif best is not None:
                left_s = best.expires - now
                operation.finish(StoredValue(best.value, best.seq, left_s, best.signer))
            elif lookup.answers() or self._alone():
                operation.fail(KeyNotFound(f"no reachable node holds a value under {key.hex()}"))
            else:
                operation.fail(self._nobody())
            if best is not None:
                self._spread(lookup, best, now)

        lookup = self._new_lookup(
            key,
            finish,
            reader=self._reader(key, owner),
            paths=paths,
            thorough=self.core.sessions is not None and not owner,
        )
        local = self.store.get(key, now)
        if local is not None and local.is_owned != bool(owner):
            local = None
        lookup.start(self._start(key, now), now, local)
        return operation

    def find_contacts(self, target: bytes, now: float) -> Operation[list[Contact]]:
        """The k closest contacts to `target` that answer, closest first."""
        _check_key(target)
        operation = self.core.operation(lambda _: self.forget(lookup))
        lookup = self.lookup(target, lambda lookup, _: operation.finish(lookup.closest()), now)
        return operation

    def contacts(self) -> list[Contact]:
        """Every contact of the routing table."""
        return list(self.routing)

    # --- for the parts of the overlay -----------------------------------------------------------

    def lookup(
        self,
        target: bytes,
        finish: Callable[[Any, float], None],
        now: float,
        contacts: tuple[Contact, ...] = (),
        *,
        paths: int = 1,
    ) -> Walk:
        """Start a node lookup from the table and `contacts`."""

        def finished(lookup: Walk, now: float) -> None:
            self._lookups.discard(lookup)
            finish(lookup, now)

        lookup = self._new_lookup(target, finished, paths=paths)
        lookup.start([*contacts, *self._start(target, now)], now)
        return lookup

    def believed(self, key: bytes, value: object, proof: object, now: float) -> Held:
        """A value of a cluster, verified; raises MalformedMessage and counts what is not."""
        assert self.core.sessions is not None
        try:
            return believed(self.core.sessions.member, key, value, proof, now)
        except MalformedMessage:
            self._forged()
            raise

    def forget(self, lookup: Walk) -> None:
        """Cancel a lookup; its `finish` is never called."""
        lookup.cancel()
        self._lookups.discard(lookup)

    def answered(self, contact: Contact, now: float) -> None:
        """A contact answered us: it is fresh, or it enters the table."""
        if not self.core.owns(contact.id, contact.endpoint):
            self.core.counters["ids_false"] += 1
            return
        self._heard = now
        if self.routing.seen(contact.id, contact.endpoint, now):
            return
        outcome = self.routing.add(contact, now, verified=True)
        if type(outcome) is Pending:
            self._greeter.challenge(outcome.candidate, now)
        elif type(outcome) is Added and outcome.is_new:
            self._handoff.welcome(contact, now)
            self._upkeep.seek(now)

    def failed(self, contact: Contact, now: float) -> None:
        """A call to a contact failed; an id known at another address is left alone.

        When nobody at all has answered for a while it is we who are cut off: then nobody is
        forgotten, or an outage of a few seconds would leave us without a way back.
        """
        if now - self._heard > CALL_DEADLINE_S:
            self.core.counters["failures_of_ours"] += 1
            self.core.peers.of(contact.endpoint).failures = 0
            return
        known = self.routing.get(contact.id)
        if known is None or known.endpoint == contact.endpoint:
            gone = self.routing.failed(contact.id, now)
            if gone is not None and (
                common_prefix_bits(self.id, gone.id) not in self.routing.shares()
            ):
                self._upkeep.seek(now, again=True)

    def spares(self, target: bytes) -> list[Contact]:
        """More contacts than a lookup starts from: farther ones, and who waits for a place."""
        return self.routing.closest(target, 2 * self.k) + self.routing.spares(target, self.k)

    def keep(self, key: bytes, held: Held, now: float) -> Verdict:
        """Keep a value ourselves, as one of its holders."""
        if held.said is not None:
            return self.store.offer(key, copy(held), now)
        ttl_s = min(held.expires - now, VALUE_TTL_S)
        return self.store.put(key, held.value, now, seq=held.seq, ttl_s=ttl_s)

    def joined(self, now: float) -> None:
        """Our own neighbourhood is known: look into the rest of the space, unhurried."""
        self._upkeep.refresh(now)

    # --- handlers -------------------------------------------------------------------------------

    def _on_ping(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> bytes:
        if len(args) != 1:
            raise MalformedMessage("ping(id)")
        self._met(args[0], source, now)
        return self.id

    def _on_stun(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, _now: float
    ) -> list[str | int]:
        if args:
            raise MalformedMessage("stun()")
        return [source[0], source[1]]

    def _on_find_node(
        self, args: list[Any], source: Endpoint, _trailer: list[Any] | None, now: float
    ) -> list[list[bytes | str | int]]:
        if len(args) != 2 or not _is_id(args[1]):
            raise MalformedMessage("find_node(id, key)")
        self._met(args[0], source, now)
        found = self.routing.closest(args[1], self.k, exclude=source)
        return [[contact.id, *contact.endpoint] for contact in found]

    def _on_find_value(
        self, args: list[Any], source: Endpoint, trailer: list[Any] | None, now: float
    ) -> dict[str, Any] | list[list[bytes | str | int]]:
        if len(args) != 2 or not _is_id(args[1]):
            raise MalformedMessage("find_value(id, key)")
        held = self.store.get(args[1], now)
        if held is None:
            return self._on_find_node(args, source, trailer, now)
        self._met(args[0], source, now)
        if held.said is not None:
            return {"value": held.value, "p": held.said.proof}
        if trailer is None and not self._speaks_dhtos(source):
            return {"value": held.value}
        return {"value": held.value, "s": held.seq, "t": min(held.expires - now, VALUE_TTL_S)}

    def _on_store(
        self, args: list[Any], source: Endpoint, trailer: list[Any] | None, now: float
    ) -> object:
        if self.core.sessions is not None:
            return self._on_signed(args, source, now)
        if len(args) != 3 or not _is_id(args[1]) or type(args[2]) not in VALUE_TYPES:
            raise MalformedMessage("store(id, key, value)")
        seq, ttl_s = 0, VALUE_TTL_S
        if trailer is not None and len(trailer) >= 3:
            seq, ttl_s = _stored_as(trailer)
        self._met(args[0], source, now)
        verdict = self.store.put(args[1], args[2], now, seq=seq, ttl_s=ttl_s, source=source)
        if verdict is not Verdict.HELD:
            self.core.counters[f"stores_{verdict.name.lower()}"] += 1
        return verdict.value

    def _on_signed(self, args: list[Any], source: Endpoint, now: float) -> object:
        """A `store` in a cluster; who has another value shows it, since its word proves nothing."""
        if not 3 <= len(args) <= 4 or not _is_id(args[1]):
            raise MalformedMessage("store(id, key, value, proof)")
        self._met(args[0], source, now)
        key, proof = args[1], None if len(args) == 3 else args[3]
        try:
            held = self.believed(key, args[2], proof, now)
        except MalformedMessage:
            return Verdict.NO_ROOM.value
        verdict = self.store.offer(key, held, now)
        if verdict is Verdict.HELD:
            return verdict.value
        self.core.counters[f"stores_{verdict.name.lower()}"] += 1
        other = None if verdict is Verdict.NO_ROOM else self.store.get(key, now)
        if other is None or other.said is None:
            return Verdict.NO_ROOM.value
        return {"value": other.value, "p": other.said.proof}

    def _met(self, claimed: object, source: Endpoint, now: float) -> None:
        """A request came from somebody who calls itself `claimed`: see whether that is so."""
        if type(claimed) is not bytes or len(claimed) != ID_BYTES:
            raise MalformedMessage("a request starts with the id of its sender")
        if not self.core.owns(claimed, source):
            return  # one that only asks, or one that lies
        known = self.routing.get(claimed)
        if claimed == self.id or (known is not None and known.endpoint == source):
            return
        contact = Contact(claimed, source)
        if known is not None or self.routing.has_room(contact):  # no ping is spent on others
            self._greeter.consider(contact, now)

    # --- inside ---------------------------------------------------------------------------------

    def _speaks_dhtos(self, source: Endpoint) -> bool:
        peer = self.core.peers.known(source)
        return peer is not None and peer.capability is Capability.DHTOS

    def _start(self, target: bytes, now: float) -> list[Contact]:
        self.ranges.touch(target, now)
        return self.routing.closest(target, self.k)

    def _reader(self, key: bytes, owner: bytes) -> Reader:
        sessions = self.core.sessions
        if sessions is None:
            return read_value
        return reader(sessions.member, key, owner, self._forged)

    def _forged(self) -> None:
        self.core.counters["values_forged"] += 1

    def _new_lookup(
        self,
        target: bytes,
        finish: Callable[[Any, float], None],
        *,
        reader: Reader | None = None,
        paths: int = 1,
        thorough: bool = False,
    ) -> Walk:
        """One lookup, or several over disjoint paths; a `reader` makes it one for a value."""
        how = Way(self.core, self.id, self, self.k, self.alpha, reader, thorough)
        lookup = how.lookup(target, finish) if paths == 1 else Paths(how, target, finish, paths)
        self._lookups.add(lookup)
        return lookup

    def _alone(self) -> bool:
        """Whether we are the network: what we do not hold, nobody does."""
        return not self.client and not len(self.routing)

    def _nobody(self) -> NoPeers | LookupExpired:
        if not len(self.routing):
            return NoPeers("no other node is known: bootstrap first")
        return LookupExpired(f"none of {len(self.routing)} known contacts answered")

    def _spread(self, lookup: Walk, best: Held, now: float) -> None:
        """Repair what is behind, and leave one copy on the way; wait for nothing.

        The copy goes to the closest node that answered without the value (section 2.3), if it is
        closer than all holders that answered or the walk passed `alpha` such nodes; a value found
        in the first round is near enough.
        """
        copy = copy_of(best)
        if copy.expires <= now:
            return
        local = lookup.local
        if local is not None and local.seq < best.seq:
            self.keep(lookup.target, copy, now)
        answers = lookup.answers()
        without = [candidate for candidate in answers if candidate.held is None]
        behind = [c for c in answers if c.held is not None and c.held.seq < best.seq]
        if without and (without[0] is answers[0] or len(without) >= self.alpha):
            behind.append(without[0])
        for candidate in behind:
            send_value(self, candidate.contact, lookup.target, copy, now, owner=self._handoff)

    def check(self) -> None:
        """Assert the invariants of the overlay and all its parts."""
        self.routing.check()
        self.ranges.check()
        self.store.check()
        self._greeter.check()
        self._handoff.check()
        self._upkeep.check()
        for lookup in self._lookups:
            assert not lookup.done
            lookup.check()


def checked(key: bytes, value: Value, ttl_s: float, seq: int) -> Value:
    """The value, if it may be stored; raises UsageError or ValueTooLarge."""
    _check_key(key)
    if type(value) not in VALUE_TYPES:
        raise UsageError(f"a value is str, bytes, int, float or bool, got {type(value).__name__}")
    size = len(encode_value(value))
    if size > VALUE_BYTES_MAX:
        raise ValueTooLarge(f"a value has at most {VALUE_BYTES_MAX} bytes, got {size}")
    if not 0 < ttl_s <= VALUE_TTL_S:
        raise UsageError(f"ttl_s must be above 0 and at most {VALUE_TTL_S:.0f}, got {ttl_s}")
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        raise UsageError(f"seq must be 0..2**63-1, got {seq}")
    return value


def _check_key(key: bytes) -> None:
    if not _is_id(key):
        raise UsageError(f"a key is {ID_BYTES} bytes: pass dhtos.core.ids.digest(name)")


def _is_id(value: object) -> bool:
    return type(value) is bytes and len(value) == ID_BYTES


def _stored_as(trailer: list[Any]) -> tuple[int, float]:
    """The sequence number and the life of a value, from the trailer of its `store`."""
    seq, ttl_ms = trailer[1], trailer[2]
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        raise MalformedMessage("a sequence number is 0..2**63-1")
    if type(ttl_ms) is not int or not 0 < ttl_ms <= VALUE_TTL_S * 1000:
        raise MalformedMessage("a stored value has 0 < ttl <= a week")
    return seq, ttl_ms / 1000
