"""What a node says about itself: what was sampled, what was told, its labels, and their versions.

A value that was told stands over a sampled one, and so does one that is offered: what the ledger
leaves of what was sampled. A change is made in two steps, so that a refused value leaves everything
as it was: `changed` builds the next advert, `record` its next version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from dhtos.core.ids import Endpoint
from dhtos.core.record import Record, make_record
from dhtos.core.schema import Schema, Value
from dhtos.node.state import Identity

V = TypeVar("V")


@dataclass(frozen=True)
class Advert:
    """The attributes and labels of one node at one moment."""

    schema: Schema
    identity: Identity
    endpoint: Endpoint
    told: Mapping[str, Value] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    sampled: Mapping[str, Value] = field(default_factory=dict)
    offered: Mapping[str, Value] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[str, Value]:
        """All values by name."""
        return {**self.sampled, **self.offered, **self.told}

    def changed(
        self,
        *,
        told: Mapping[str, Value | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        sampled: Mapping[str, Value] | None = None,
    ) -> "Advert":
        """The advert with these changes; None as a value takes one back."""
        return replace(
            self,
            told=_overlaid(self.told, told or {}),
            labels=_overlaid(self.labels, labels or {}),
            sampled=self.sampled if sampled is None else dict(sampled),
        )

    def record(
        self, previous: Record | None, first_seq: int, coordinate: tuple[float, ...] | None
    ) -> Record:
        """The version after `previous`, or the first one; raises UsageError for a bad value."""
        record = make_record(
            self.schema,
            self.attributes,
            self.labels,
            node_id=self.identity.node_id,
            endpoint=self.endpoint,
            seq=first_seq if previous is None else previous.seq + 1,
            identity=self.identity.public_key,
            coordinate=coordinate,
        )
        if previous is None or _lasting(previous) != _lasting(record):
            return record
        return msgspec.structs.replace(record, rev=previous.rev)


def _overlaid(known: Mapping[str, V], changes: Mapping[str, V | None]) -> dict[str, V]:
    merged = {**known, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def _lasting(record: Record) -> tuple[object, ...]:
    """What `rev` stands for: all but the dynamic part."""
    return (record.static, record.labels, record.endpoint, record.node_id, record.identity)
