"""Answers in plain values, as JSON shows them: on the control socket and with `--json`."""

import asyncio
import os
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.kernels import COMPILED
from dhtos.protocol.frontier import FindResult

if TYPE_CHECKING:
    from dhtos.node.node import Node


def hit_to_plain(hit: Hit) -> dict[str, Any]:
    """A hit in plain values."""
    return {
        "id": str(hit.id),
        "endpoint": hit.endpoint,
        "seq": hit.seq,
        "age_s": hit.age_s,
        "rtt_s": hit.rtt_s,
        "gateway": hit.gateway,
        "attributes": dict(hit.attributes),
        "labels": dict(hit.labels),
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


def result_to_plain(result: FindResult) -> dict[str, Any]:
    """The end of a find in plain values; the hits went before it."""
    cursor = None if result.cursor is None else b64encode(result.cursor).decode()
    return {
        "matches": result.matches,
        "coverage": coverage_to_plain(result.coverage),
        "cursor": cursor,
    }


def status_to_plain(node: "Node") -> dict[str, Any]:
    """What a person wants to know first about a running node, in plain values."""
    hub = node.engine.hub
    return {
        "id": str(node.id),
        "name": node.config.name,
        "endpoint": node.endpoint,
        "port": node.port,
        "pid": os.getpid(),
        "client": node.config.client,
        "joined": hub.settled,
        "group": {"prefix": str(hub.group.prefix), "members": len(hub.group)},
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
