"""The rows of a gateway: machines that run no node, and the versions of their records.

A gateway advertises a row by putting its record to the group that owns the key (`delivery`),
renews it every HEARTBEAT_S, and takes it back when the row goes or the gateway stops. Where
nobody serves who could own it, the row becomes a seat of the gateway (`seats`). All rows share
one version number, which never decreases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from dhtos.core.group import State
from dhtos.core.limits import GATEWAY_ROWS_MAX, HEARTBEAT_S, SEQ_LEAD_MAX
from dhtos.core.record import Record, make_record, row_id
from dhtos.core.schema import Schema, Value
from dhtos.protocol.delivery import Delivery
from dhtos.protocol.hubwire import News, delta_rumour, record_rumour
from dhtos.protocol.seats import Seats

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

_TICK_S = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One machine as its gateway knows it: a name that stays, and what it says."""

    name: str
    attributes: Mapping[str, Value]
    labels: Mapping[str, str] = field(default_factory=dict)

    def record(self, schema: Schema, own: Record, seq: int) -> Record:
        """Its record, in the name of the gateway whose own record is given.

        Raises UsageError for what the schema does not allow, ValueTooLarge for too much of it.
        """
        return make_record(
            schema,
            self.attributes,
            self.labels,
            node_id=row_id(own.identity, self.name),
            endpoint=own.endpoint,
            seq=seq,
            identity=own.identity,
            coordinate=own.coordinate,
            row=self.name,
        )


class _Entry:
    """A row, the newest version of its record, and how far that has come."""

    __slots__ = ("held", "record", "row", "told_rev")

    def __init__(self, row: Row, record: Record) -> None:
        self.row = row
        self.record = record
        self.held = False  # whether a member has this version
        self.told_rev = -1  # the static part that its group has: then a delta is enough


class Rows:
    """What one hub node advertises for others; without rows it does nothing."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.core = hub.core
        self.seq = 0
        self.seats = Seats(hub)
        self.delivery = Delivery(self)
        self._entries: dict[bytes, _Entry] = {}
        self._keys: dict[str, bytes] = {}  # by name
        self._gone: dict[bytes, int] = {}  # keys to take back, and the version of that
        self._beat_at = inf
        self._running = False

    # --- what there is to tell ------------------------------------------------------------------

    def advertise(self, rows: Sequence[Row], now: float, *, seq: int = 1) -> None:
        """Advertise just these rows from now on; `seq` is above every version told before.

        Raises UsageError and ValueTooLarge for a row that cannot be a record; then all stays.
        """
        own = self.hub.own
        assert own is not None, "a gateway has a record of its own"
        assert len(rows) <= GATEWAY_ROWS_MAX
        assert len({row.name for row in rows}) == len(rows), "every row has a name of its own"
        version = max(self.seq + 1, seq, own.seq)
        made = {r.key(self.hub.schema): (row, r) for row, r in self._made(rows, own, version)}
        self.seq = version
        for name, key in list(self._keys.items()):
            if key not in made:
                self._remove(name, now)
        for key, (row, record) in made.items():
            self._set(key, row, record, now)
        if not self._running and made:
            self._running = True
            self._beat_at = now + HEARTBEAT_S * self.core.rng.uniform(0.8, 1.0)
            self.core.timers.at(now + _TICK_S * self.core.rng.random(), self._tick)
        self.delivery.pump(now)

    def _made(self, rows: Sequence[Row], own: Record, seq: int) -> list[tuple[Row, Record]]:
        return [(row, row.record(self.hub.schema, own, seq)) for row in rows]

    def _set(self, key: bytes, row: Row, record: Record, now: float) -> None:
        held = self._entries.get(key)
        if held is not None and held.row == row and held.record.endpoint == record.endpoint:
            return
        self._keys[row.name] = key
        self._gone.pop(key, None)
        self._entries[key] = _Entry(row, record)
        seat = self.seats.hubs.get(key)
        if seat is not None and seat.own is not None:
            seq = max(seat.own.seq + 1, record.seq)
            seat.advertise(
                msgspec.structs.replace(record, serves=True, seq=seq, rev=seq), now, eager=True
            )
        else:
            self.delivery.add([key])

    def _remove(self, name: str, now: float) -> None:
        key = self._keys.pop(name)
        del self._entries[key]
        seat = self.seats.hubs.get(key)
        if seat is None:
            self._gone[key] = self.seq
            self.delivery.add([key])
            return
        inside = [k for k in self._entries if seat.group.prefix.holds(k)]
        self.seats.leave(key, now)
        self.delivery.add(inside)

    def leave(self, now: float) -> None:
        """Take everything back at once, without waiting for answers."""
        plain = {k: e.record.seq + 1 for k, e in self._entries.items() if k not in self.seats.hubs}
        self._gone |= plain
        self.delivery.say_left(sorted(self._gone))
        for key in list(self.seats.hubs):
            self.seats.leave(key, now)
        self._entries.clear()
        self._gone.clear()

    # --- what delivery asks for -----------------------------------------------------------------

    def words(self, key: bytes, *, whole: bool = False) -> list[Any] | None:
        """The rumour of a row, or of its end; None when there is nothing to say any more."""
        gone = self._gone.get(key)
        if gone is not None:
            return self.hub.gossip.words_of_end(key, gone)
        entry = self._entries.get(key)
        if entry is None or key in self.seats.hubs:
            return None
        record = entry.record = self._proved(entry.record)
        if whole or entry.told_rev != record.rev:
            return record_rumour(record, 0.0)
        return delta_rumour(key, record, 0.0)

    def _proved(self, record: Record) -> Record:
        """Signed when it is first told: not each version is."""
        return record if record.proof else self.hub.core.prove(record)

    def version(self, key: bytes) -> int:
        """The `seq` of what `words` says now."""
        entry = self._entries.get(key)
        return self._gone.get(key, 0) if entry is None else entry.record.seq

    def taken(self, key: bytes, seq: int) -> None:
        """The group of a key has been told version `seq`."""
        entry = self._entries.get(key)
        if entry is None:
            if self._gone.get(key) == seq:
                del self._gone[key]
        elif entry.record.seq == seq:
            entry.held = True
            entry.told_rev = entry.record.rev

    def outdated(self, key: bytes, newest: int) -> None:
        """Members know a version up to `newest`: the next one is above it."""
        if newest - self.seq > SEQ_LEAD_MAX:
            self.core.counters["rumours_ahead"] += 1
            return  # a lie: above it no number would be left
        self.core.counters["rows_outdated"] += 1
        self.seq = max(self.seq, newest) + 1
        entry = self._entries.get(key)
        if key in self._gone:
            self._gone[key] = self.seq
        elif entry is not None:
            own = self.hub.own
            assert own is not None
            entry.record = entry.row.record(self.hub.schema, own, self.seq)
            entry.told_rev = -1

    def heard_dead(self, key: bytes, seq: int) -> None:
        """Somebody says that this version of a row is held no more: say the next one."""
        entry = self._entries.get(key)
        if entry is not None and key not in self.seats.hubs and seq >= entry.record.seq:
            self.outdated(key, seq)
            self.delivery.add_later(key)

    def keep(self, holder: "Hub", key: bytes, now: float) -> None:
        """A place of our own owns the key: it holds what we say."""
        gone = self._gone.pop(key, None)
        entry = self._entries.get(key)
        if gone is not None:
            proof = holder.gossip.proof_of_end(key, gone)
            holder.gossip.take(News(key, gone, 0.0, state=State.LEFT, proof=proof), now)
        elif entry is not None and key not in self.seats.hubs:
            tombstone = holder.group.tombstones.get(key)
            if tombstone is not None and tombstone.seq >= entry.record.seq:
                self.outdated(key, tombstone.seq)
            record = entry.record = self._proved(entry.record)
            holder.gossip.take(News(key, record.seq, 0.0, record=record), now)
            held = holder.group.members.get(key)
            entry.held = held is not None and held.record.seq >= record.seq
            entry.told_rev = record.rev if entry.held else -1

    def orphaned(self, key: bytes, now: float) -> bool:
        """Too few serve where a row belongs, so the gateway does; False if not yet."""
        self._gone.pop(key, None)  # where nobody is, nobody holds it
        entry = self._entries.get(key)
        return entry is None or self.seats.take(entry.record, now)

    # --- time -----------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self.hub.closed:
            return
        self.core.timers.at(now + _TICK_S * self.core.rng.uniform(0.9, 1.1), self._tick)
        for key in self.seats.superfluous():
            self._give_up(key, now)
        self.seats.look_around(now)
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S * self.core.rng.uniform(0.8, 1.0)
            self._renew()
        self.delivery.retry()
        self.delivery.pump(now)

    def _give_up(self, key: bytes, now: float) -> None:
        entry = self._entries[key]
        entry.record = self.seats.give_up(key, now)
        entry.told_rev = -1
        self.seq = max(self.seq, entry.record.seq)
        self.delivery.add([key])

    def _renew(self) -> None:
        """A heartbeat: the next version of every row; a seat renews its own."""
        own = self.hub.own
        assert own is not None
        self.seq = max(self.seq + 1, own.seq)
        coordinate = self.hub.locator.published.to_wire()
        for key, entry in self._entries.items():
            if key in self.seats.hubs:
                continue
            if entry.record.endpoint == own.endpoint:
                entry.record = entry.record.updated(self.seq, entry.record.dynamic, coordinate)
            else:
                entry.record = entry.row.record(self.hub.schema, own, self.seq)
            entry.held = False
            self.delivery.add([key])

    @property
    def seq_told(self) -> int:
        """The highest version that any row or seat was told at."""
        seats = [seat.own.seq for seat in self.seats.hubs.values() if seat.own is not None]
        return max([self.seq, *seats])

    def stats(self) -> Mapping[str, float]:
        """How many rows there are, how many a member holds, and what they cost."""
        seated = sum(seat.settled for seat in self.seats.hubs.values())
        held = sum(e.held for k, e in self._entries.items() if k not in self.seats.hubs)
        return {
            "rows": len(self._entries),
            "rows_advertised": held + seated,
            "rows_waiting": self.delivery.waiting,
            "seats": len(self.seats.hubs),
        }

    def check(self) -> None:
        """Assert every invariant."""
        assert set(self._keys.values()) == set(self._entries)
        assert not set(self._gone) & set(self._entries)
        self.delivery.check()
        for key, seat in self.seats.hubs.items():
            assert key in self._entries
            assert seat.key == key
            seat.check()
