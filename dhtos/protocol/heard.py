"""An answer as a walk takes it, whoever gave it: another member, or the own view."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dhtos.core.contact import Contact
from dhtos.core.ids import Prefix
from dhtos.core.limits import WALK_FRONTIER_MAX, WALK_HITS_MAX
from dhtos.core.record import Record
from dhtos.protocol.aggregate import Partial, read_partial
from dhtos.protocol.answer import Answer, Item, Question, as_after
from dhtos.protocol.frontier import Told, members_among, read_hit, read_item, read_others
from dhtos.protocol.hubwire import as_int, as_key, as_list, as_prefix, bad

if TYPE_CHECKING:
    from dhtos.protocol.hub import Hub

Found = tuple[bytes, Record, float]
"""A hit: its key, its record, and when that version was made, on our clock."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a member answers for, what is in it, and what is left to be asked of others.

    `covers` is None where it answers for nothing and names nearer contacts. `after` is the place
    behind which it has more hits, `others` are who else can answer for the same, `refused` counts
    hits that do not belong to the answer. Hits that were measured to be too far are left out.
    """

    key: bytes
    covers: Prefix | None
    matches: int
    hits: list[Found]
    after: list[Any] | None
    items: list[Item]
    pruned: int
    others: list[Contact]
    partial: Partial | None = None
    refused: int = 0


def own_view(hub: "Hub", found: Answer, question: Question) -> Heard:
    """What we answer ourselves."""
    after = None
    if found.more:
        last = found.hits[-1]
        after = question.place(last.key, last.record, hub.schema)
    return Heard(
        hub.key,
        found.covers[0],
        found.matches,
        [(member.key, member.record, member.born) for member in found.hits],
        after,
        found.items,
        found.pruned,
        found.others,
        found.partial,
    )


def read_heard(told: Told, asked: Prefix, question: Question, hub: "Hub", now: float) -> Heard:
    """What a member answers about a subtree; raises MalformedMessage."""
    fields, told_items, told_hits = told
    assert told_items is not None
    covers = [as_prefix(prefix) for prefix in as_list(fields[3], 1)]
    if not all(asked.covers(prefix) for prefix in covers):
        raise bad("an answer covers what was not asked")
    matches = as_int(fields[4], 0, WALK_HITS_MAX)
    measure = question.measure
    partial = None
    if measure is not None:
        partial = read_partial(told_hits, matches, measure) if covers else None
        told_hits = []
    items = [read_item(one) for one in told_items]
    hits = [read_hit(one, question.bound.schema, now) for one in told_hits]
    kept = [
        hit
        for hit in hits
        if any(prefix.holds(hit[0]) for prefix in covers)
        and question.bound.matches(hit[1])
        and hub.core.believes(hit[1])
    ]
    return Heard(
        as_key(fields[0]),
        covers[0] if covers else None,
        matches,
        [hit for hit in kept if question.matches(hit[1])],
        as_after(fields[5], question.order),
        [one for one in items if not covers or _is_inside(asked, one.prefix)],
        as_int(fields[6], 0, WALK_FRONTIER_MAX),
        [*read_others(fields), *members_among(kept)],
        partial,
        refused=len(hits) - len(kept) if covers else 0,
    )


def _is_inside(asked: Prefix, prefix: Prefix) -> bool:
    """A part of what was asked, not the whole of it again."""
    return asked.covers(prefix) and prefix.length > asked.length
