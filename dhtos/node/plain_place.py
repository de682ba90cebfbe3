"""Needs, plans and leases in plain values, as JSON shows them."""

from typing import Any

from dhtos.node.config import format_endpoint
from dhtos.node.lease import Choice, Explanation, Lease, Plan
from dhtos.node.plain import coverage_to_plain, hit_to_plain
from dhtos.node.replicas import Change
from dhtos.protocol.ledger import Grant


def choice_to_plain(choice: Choice) -> dict[str, Any]:
    """A machine of a plan: its hit, and why it has its place."""
    return hit_to_plain(choice.hit) | {"score": choice.score, "terms": dict(choice.terms)}


def plan_end_to_plain(plan: Plan) -> dict[str, Any]:
    """The end of a plan; the choices went before it."""
    return {"refused": plan.reasons, "coverage": coverage_to_plain(plan.coverage)}


def explanation_to_plain(found: Explanation) -> dict[str, Any]:
    """Why a need can be met or not."""
    return {
        "machines": found.machines,
        "matching": found.matching,
        "able": found.able,
        "reasons": dict(found.reasons),
        "coverage": coverage_to_plain(found.coverage),
    }


def lease_to_plain(lease: Lease) -> dict[str, Any]:
    """A lease as its owner has it; in a cluster with the public key of its node."""
    identity = {"identity": lease.identity.hex()} if lease.identity else {}
    return {
        **identity,
        "node": str(lease.node),
        "endpoint": lease.endpoint,
        "token": lease.token,
        "fence": lease.fence,
        "expires_s": lease.expires_s,
        "resources": dict(lease.resources),
        "labels": dict(lease.hit.labels),
    }


def change_to_plain(change: Change) -> dict[str, Any]:
    """What became of replicas."""
    return {
        "what": change.what,
        "lease": None if change.lease is None else lease_to_plain(change.lease),
        "reason": change.reason,
        "alive": change.alive,
        "count": change.count,
    }


def grant_to_plain(grant: Grant, now: float) -> dict[str, Any]:
    """A lease as the node has it that granted it."""
    return {
        "token": grant.token.hex(),
        "state": grant.state.value,
        "owner": format_endpoint(grant.owner),
        "user": grant.user,
        "resources": dict(grant.resources),
        "priority": grant.priority,
        "fence": grant.fence,
        "expires_s": max(grant.expires - now, 0.0),
    }
