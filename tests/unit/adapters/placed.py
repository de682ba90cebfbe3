"""Plans, leases and gangs as the adapters of engines get them."""

from types import SimpleNamespace

from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.record import make_record
from dhtos.core.schema import default_schema
from dhtos.node.lease import Choice, Gang, Lease, Plan
from dhtos.sched import Need

SCHEMA = default_schema()
WHOLE = Coverage(1.0, True, False, (), 0.0, 0, 0)


def hit(number, **labels):
    """A machine with these labels; underscores stand for dots."""
    told = {name.replace("_", "."): value for name, value in labels.items()}
    record = make_record(
        SCHEMA,
        {"cores": 8},
        told,
        node_id=bytes([number] * 20),
        endpoint=(f"10.0.0.{number}", 7400),
        seq=1,
    )
    return Hit(record, SCHEMA, 0.0)


def plan(need, *hits):
    """Candidates in this order."""
    return Plan(need, tuple(Choice(one, 0.0, {}) for one in hits), (), WHOLE)


def lease(one, **resources):
    """A lease of what was claimed on one machine."""
    granted = SimpleNamespace(
        token=bytes(range(16)), fence=1, resources=resources, endpoint=one.record.endpoint
    )
    return Lease(None, SimpleNamespace(granted=granted), one)


def gang(*leases):
    """Several of them."""
    return Gang(leases)


NEED = Need(cores=2)
