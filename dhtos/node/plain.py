"""Answers in plain values, as JSON shows them: on the control socket and with `--json`."""

import asyncio
import os
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from dhtos.core.coordinate import Coordinate
from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.schema import Schema
from dhtos.kernels import COMPILED
from dhtos.node.config import format_endpoint
from dhtos.node.distance import Central, Rtt
from dhtos.node.figures import Aggregate, Histogram
from dhtos.protocol.explain import Step, narrowed
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.put import PutResult
from dhtos.protocol.store import StoredValue, ValueOwner

if TYPE_CHECKING:
    from dhtos.node.node import Node

_STEP_FIELDS = (
    "start_s", "took_s", "round", "voice", "page", "hedge", "late", "expected", "bound",
    "matches", "hits", "pruned",
)  # fmt: skip


def hit_to_plain(hit: Hit) -> dict[str, Any]:
    """A hit in plain values."""
    packed = hit.record.packed
    return {
        "id": str(hit.id),
        "endpoint": hit.endpoint,
        "seq": hit.seq,
        "age_s": hit.age_s,
        "rtt_s": hit.rtt_s,
        "rtt_measured": hit.rtt_measured,
        "coordinate": None if packed is None else place_to_plain(Coordinate.from_bytes(packed)),
        "gateway": hit.gateway,
        "attributes": dict(hit.attributes),
        "labels": dict(hit.labels),
    }


def put_to_plain(result: PutResult) -> dict[str, Any]:
    """What became of a put; its owner in a cluster."""
    plain = {"stored_on": result.stored_on, "wanted": result.wanted, "seq": result.seq}
    return plain | _owner_to_plain(result.owner)


def value_to_plain(found: StoredValue) -> dict[str, Any]:
    """A value as it was found; its owner in a cluster."""
    plain = {"value": found.value, "seq": found.seq, "expires_s": found.expires_s}
    return plain | _owner_to_plain(found.owner)


def _owner_to_plain(owner: ValueOwner | None) -> dict[str, Any]:
    if owner is None:
        return {}
    return {"owner": {"key": owner.key.hex(), "name": owner.name, "groups": list(owner.groups)}}


def place_to_plain(place: Coordinate) -> list[float]:
    """Position and height in seconds, to the microsecond, then the relative error.

    >>> place_to_plain(Coordinate((0.0123456, -0.02), 0.001, 0.1))
    [0.012346, -0.02, 0.001, 0.1]
    """
    return [round(part, 6) for part in (*place.position, place.height, place.error)]


def rtt_to_plain(rtt: Rtt) -> dict[str, Any]:
    """A round trip in plain values."""
    return {"rtt_s": float(rtt), "measured": rtt.measured, "error": rtt.error}


def central_to_plain(central: Central) -> dict[str, Any]:
    """A central machine in plain values: a hit with the round trips to the others."""
    return hit_to_plain(central.hit) | {
        "worst_s": float(central.worst_s),
        "mean_s": float(central.mean_s),
        "others": [rtt_to_plain(rtt) for rtt in central.rtts_s],
    }


def coverage_to_plain(coverage: Coverage) -> dict[str, Any]:
    """A coverage in plain values."""
    return {
        "fraction": coverage.fraction,
        "complete": coverage.complete,
        "limited": coverage.limited,
        "failed_prefixes": [str(prefix) for prefix in coverage.failed_prefixes],
        "max_age_s": coverage.max_age_s,
        "asked": coverage.asked,
        "rtt": coverage.rtt,
        "pruned": coverage.pruned,
        "verified": coverage.verified,
    }


def result_to_plain(result: FindResult, explain: Schema | None = None) -> dict[str, Any]:
    """The end of a find in plain values; the hits went before it.

    The steps of the walk are told where a schema is given that says what their prefixes mean.
    """
    cursor = None if result.cursor is None else b64encode(result.cursor).decode()
    end = {
        "matches": result.matches,
        "coverage": coverage_to_plain(result.coverage),
        "cursor": cursor,
    }
    if explain is not None:
        end["steps"] = [step_to_plain(step, explain) for step in result.steps]
    return end


def aggregate_to_plain(found: Aggregate) -> dict[str, Any]:
    """The figures of an attribute in plain values."""
    return {
        "attribute": found.attribute,
        "count": found.count,
        "present": found.present,
        "sum": found.sum,
        "mean": found.mean,
        "minimum": found.minimum,
        "maximum": found.maximum,
        "coverage": coverage_to_plain(found.coverage),
    }


def histogram_to_plain(found: Histogram) -> dict[str, Any]:
    """A histogram in plain values."""
    return {
        "attribute": found.attribute,
        "edges": list(found.edges),
        "counts": list(found.counts),
        "missing": found.missing,
        "count": found.count,
        "coverage": coverage_to_plain(found.coverage),
    }


def step_to_plain(step: Step, schema: Schema) -> dict[str, Any]:
    """A step of a walk in plain values; prefixes are bits, and `means` what they say."""
    told = {name: getattr(step, name) for name in _STEP_FIELDS}
    return told | {
        "prefix": str(step.prefix),
        "means": narrowed(step.schema or schema, step.prefix),
        "asked": step.asked and format_endpoint(step.asked),
        "outcome": str(step.outcome),
        "covers": None if step.covers is None else str(step.covers),
        "found": [[str(prefix), expected] for prefix, expected in step.found],
        "cut": [str(prefix) for prefix in step.cut],
    }


def status_to_plain(node: "Node") -> dict[str, Any]:
    """What a person wants to know first about a running node, in plain values."""
    hub, schema = node.engine.hub, node.schema
    return {
        "id": str(node.id),
        "name": node.config.name,
        "endpoint": node.endpoint,
        "port": node.port,
        "pid": os.getpid(),
        "client": node.config.client,
        "joined": hub.settled,
        "schema": f"{schema.name} version {schema.version} (tag {schema.tag:08x})",
        "group": {"prefix": str(hub.group.prefix), "members": len(hub.group)},
        "coordinate": place_to_plain(node.coordinate),
        "contacts": len(node.engine.base.routing),
        "kernels": "compiled" if COMPILED else "reference",
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "python": sys.version.split()[0],
        "attributes": dict(node.attributes),
        "labels": dict(node.labels),
        "warnings": list(node.warnings),
        "gateway": node.gateway and node.gateway.to_plain(),
        "stats": dict(node.stats()),
    }
