"""What the tests of gateways share: rows, their records, and a gateway among silent members."""

from typing import Any

from hub_world import SCHEMA, Lone, endpoint_of, machine

from dhtos.core.ids import Endpoint
from dhtos.core.record import Record, make_record, row_id
from dhtos.protocol.rows import Row

IDENTITY = bytes(range(32))
GATEWAY = ("10.77.0.1", 7400)


def foreign(
    name: str = "vm-1",
    *,
    seq: int = 1,
    rev: int | None = None,
    endpoint: Endpoint = GATEWAY,
    identity: bytes = IDENTITY,
    **values: Any,
) -> Record:
    """The record of a machine without a node."""
    return make_record(
        SCHEMA,
        values or {"cores": 4},
        {},
        node_id=row_id(identity, name),
        endpoint=endpoint,
        seq=seq,
        rev=rev,
        identity=identity,
        row=name,
    )


def key_of(record: Record) -> bytes:
    return record.key(SCHEMA)


def rows(count: int, **values: Any) -> list[Row]:
    """Machines that say the same."""
    return [Row(f"vm-{number}", values or {"cores": 4}) for number in range(count)]


def gateway(*, size: int = 8, members: int = 0, **values: Any) -> Lone:
    """A settled node that may advertise rows, alone or with members that say nothing."""
    lone = Lone(machine(1, **(values or {"cores": 4})), size=size)
    return lone.settle([machine(n + 2, cores=4) for n in range(members)])


__all__ = ["GATEWAY", "IDENTITY", "endpoint_of", "foreign", "gateway", "key_of", "rows"]
