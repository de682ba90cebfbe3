"""One member's answer to a range query: what it covers, what it prunes, how it is cut and paged."""

import random
from math import inf

import msgspec
import pytest
from foreign_world import foreign
from hub_world import (
    ALL,
    GIB,
    JOINING,
    SCHEMA,
    Lone,
    at_least,
    contact_of,
    endpoint_of,
    equal,
    machine,
    order,
    question,
    unbundled,
)

from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.group import Member
from dhtos.core.ids import ID_BITS, Prefix
from dhtos.core.limits import (
    AMPLIFICATION_MAX,
    ANSWER_PARTS_MAX,
    HIT_PARTS_MAX,
    HUB_BUCKET_CONTACTS_MAX,
    ITEM_CONTACTS,
    REPLY_BYTES_MAX,
    WALK_HITS_MAX,
)
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import Box, Predicate, Range
from dhtos.core.record import Record
from dhtos.core.summary import Summary
from dhtos.errors import MalformedMessage
from dhtos.protocol.answer import (
    COUNT_ONLY,
    NAME_OTHERS,
    STRICT,
    answer,
    as_after,
    as_order,
    order_value,
    sort_key,
)
from dhtos.protocol.wire import encode_request, encode_trailer

WHOLE = Prefix(0, 0)
SOURCE = ("10.9.9.9", 9)


def machines(count: int, **values: object) -> list[Record]:
    """Machines that are alike but for their number, so that they share a deep subtree."""
    given = {"cores": 4, "mem": 8 * GIB, **values}
    return [machine(n, **given) for n in range(1, count + 1)]


def keys(members: list[Member]) -> list[bytes]:
    return [member.key for member in members]


def sorted_keys(records: list[Record]) -> list[bytes]:
    return sorted(record.key(SCHEMA) for record in records)


@pytest.fixture
def split() -> Lone:
    """A settled node below the root: small machines inside, others in sibling subtrees."""
    inside = machines(5, cores=2)
    outside = [machine(n, cores=4 << (n % 5), mem=64 * GIB) for n in range(20, 40)]
    return Lone(inside[0], size=8).settle(inside[1:] + outside)


def ask_args(
    lone: Lone,
    *,
    prefix: Prefix = WHOLE,
    predicate: bytes | None = None,
    cookie: bytes = b"",
    limit: object = 0,
    by: object = None,
    flags: object = 0,
    after: object = None,
) -> list[object]:
    """The arguments of `dh_range`."""
    wire = lone.hub.everything if predicate is None else predicate
    return [lone.hub.number, cookie, prefix.to_wire(), wire, limit, by, flags, after]


def ask(lone: Lone, **options: object) -> list[list[object]]:
    """All datagrams of the answer, for an asker that has proved its address."""
    options.setdefault("cookie", lone.core.cookie(SOURCE))
    return lone.request("dh_range", ask_args(lone, **options), SOURCE)


def joined(parts: list[list[object]]) -> tuple[list[object], list[object], list[object]]:
    """Header, items and hits of an answer."""
    header, items, hits = unbundled(parts)
    return header, items, hits


def request(args: list[object]) -> bytes:
    return encode_request(b"m" * 20, "dh_range", args) + encode_trailer([1])


# --- what an answer covers ------------------------------------------------------------------------


def test_a_prefix_above_the_group_is_covered_as_far_as_the_group_goes(split: Lone) -> None:
    hub = split.hub
    found = answer(hub, WHOLE, question(), None)
    assert found.covers == [hub.group.prefix]
    assert keys(found.hits) == list(hub.group.members)
    assert found.matches == len(hub.group)
    assert [item.prefix for item in found.items] == [
        hub.buckets.prefix(index) for index, _ in hub.buckets.inhabited()
    ]
    covered = [*found.covers, *(item.prefix for item in found.items)]
    assert not any(a.covers(b) for a in covered for b in covered if a is not b)


def test_only_subtrees_below_the_asked_prefix_become_items(split: Lone) -> None:
    hub = split.hub
    inhabited = [index for index, _ in hub.buckets.inhabited()]
    depth = inhabited[-1]
    found = answer(hub, Prefix.of(hub.key, depth), question(), None)
    assert [item.prefix for item in found.items] == [hub.buckets.prefix(depth)]
    assert found.covers == [hub.group.prefix]


def test_a_prefix_within_the_group_is_covered_whole(split: Lone) -> None:
    hub = split.hub
    for prefix in (hub.group.prefix, Prefix.of(hub.key, ID_BITS)):
        found = answer(hub, prefix, question(), None)
        assert found.covers == [prefix]
        assert found.items == []
        assert keys(found.hits) == [key for key in hub.group.members if prefix.holds(key)]


def test_a_disjoint_prefix_is_left_to_those_who_are_nearer(split: Lone) -> None:
    hub = split.hub
    index, bucket = hub.buckets.inhabited()[0]
    found = answer(hub, hub.buckets.prefix(index), question(), None)
    assert (found.covers, found.hits, found.matches, found.more) == ([], [], 0, False)
    (item,) = found.items
    assert {contact.id for contact in item.contacts} == {*bucket.contacts}


def test_for_a_point_outside_those_below_it_are_named_before_the_others(split: Lone) -> None:
    hub = split.hub
    index, bucket = hub.buckets.inhabited()[0]
    target = next(iter(bucket.contacts))
    (item,) = answer(hub, Prefix.of(target, ID_BITS), question(), None).items
    assert [contact.id for contact in item.contacts] == [target]
    free = hub.buckets.prefix(index)
    nobody = free.first if free.first not in bucket.contacts else free.last
    (item,) = answer(hub, Prefix.of(nobody, ID_BITS), question(), None).items
    assert {contact.id for contact in item.contacts} == {*bucket.contacts}


def test_nobody_is_named_for_an_empty_subtree(split: Lone) -> None:
    hub = split.hub
    empty = next(i for i in range(hub.group.depth) if hub.buckets.get(i) is None)
    (item,) = answer(hub, hub.buckets.prefix(empty), question(), None).items
    assert item.contacts == []


# --- pruning --------------------------------------------------------------------------------------


def test_a_subtree_whose_keys_cannot_match_is_passed_over(split: Lone) -> None:
    hub = split.hub
    asked = question(equal(cores=2, mem=8 * GIB))
    found = answer(hub, WHOLE, asked, None)
    assert found.matches == 5
    assert found.pruned == 0  # the key alone says so, no summary is needed
    for item in found.items:
        assert asked.bound.intersects(item.prefix)
    assert len(found.items) < len(hub.buckets.inhabited())


def test_a_subtree_whose_summary_rules_a_match_out_is_counted_as_pruned(split: Lone) -> None:
    hub = split.hub
    found = answer(hub, WHOLE, question(at_least(mem_free=1 * GIB)), None)
    assert found.items == []
    assert found.pruned == len(hub.buckets.inhabited())


def test_without_a_summary_a_subtree_is_asked(split: Lone) -> None:
    hub = split.hub
    for _, bucket in hub.buckets.inhabited():
        bucket.summary = None
    found = answer(hub, WHOLE, question(at_least(mem_free=1 * GIB), by=order("price")), None)
    assert len(found.items) == len(hub.buckets.inhabited())
    assert all(item.bound is None for item in found.items)
    assert all(item.estimate == item.count for item in found.items)


def test_strict_does_not_believe_summaries_of_what_changes(split: Lone) -> None:
    hub = split.hub
    dynamic, static = at_least(mem_free=1 * GIB), at_least(gpu_mem=1 * GIB)
    count = len(hub.buckets.inhabited())
    assert len(answer(hub, WHOLE, question(dynamic, strict=True), None).items) == count
    assert answer(hub, WHOLE, question(static, strict=True), None).items == []


def test_items_carry_what_ranks_them(split: Lone) -> None:
    hub = split.hub
    wanted = question(at_least(cores=8), by=order("cores"))
    for item in answer(hub, WHOLE, wanted, None).items:
        bucket = hub.buckets.get(hub.buckets.index_of(item.prefix.first))
        assert bucket is not None
        assert bucket.summary is not None
        assert item.count == bucket.count
        assert item.estimate == wanted.bound.estimate(bucket.summary)
        assert item.bound is not None
        assert item.bound <= 64


def test_a_descending_bound_is_negated_so_that_smaller_is_better(split: Lone) -> None:
    hub = split.hub
    (up, down) = (
        answer(hub, WHOLE, question(by=order("cores", descending=d)), None) for d in (False, True)
    )
    for one, other in zip(up.items, down.items, strict=True):
        assert one.bound is not None
        assert other.bound is not None
        assert 0 < one.bound <= -other.bound


# --- limits and places ----------------------------------------------------------------------------


def test_hits_come_in_key_order_and_more_says_what_the_limit_left() -> None:
    records = machines(6)
    hub = Lone(records[0]).settle(records[1:]).hub
    every = sorted_keys(records)
    for limit in (1, 3, 5):
        found = answer(hub, WHOLE, question(limit=limit), None)
        assert keys(found.hits) == every[:limit]
        assert found.more
        assert found.matches == 6
    for limit in (0, 6, 9):
        found = answer(hub, WHOLE, question(limit=limit), None)
        assert keys(found.hits) == every
        assert not found.more


def test_after_continues_behind_a_key() -> None:
    records = machines(6)
    hub = Lone(records[0]).settle(records[1:]).hub
    every = sorted_keys(records)
    seen: list[bytes] = []
    after = None
    for more in (True, True, False):
        found = answer(hub, WHOLE, question(limit=2), after)
        seen += keys(found.hits)
        assert found.more is more
        assert found.matches == 6
        after = [seen[-1]]
    assert seen == every
    assert answer(hub, WHOLE, question(limit=2), after).hits == []


@pytest.mark.parametrize("descending", [False, True])
def test_after_continues_an_order_with_ties_and_missing_values(descending: bool) -> None:
    prices = [0.5, 0.25, None, 0.5, 0.5, None, 1.0]
    records = [
        machine(n, cores=4, **({} if price is None else {"price": price}))
        for n, price in enumerate(prices, 1)
    ]
    hub = Lone(records[0]).settle(records[1:]).hub
    by = order("price", descending=descending)
    truth = sorted(records, key=lambda r: sort_key(r.key(SCHEMA), r, SCHEMA, by))
    assert [order_value(record, SCHEMA, by) for record in truth[-2:]] == [inf, inf]
    seen: list[Record] = []
    after = None
    while True:
        found = answer(hub, WHOLE, question(limit=2, by=by), after)
        if not found.hits:
            break
        seen += [member.record for member in found.hits]
        last = found.hits[-1]
        after = sort_key(last.key, last.record, SCHEMA, by)
    assert seen == truth
    assert [m.record for m in answer(hub, WHOLE, question(by=by), None).hits] == truth
    assert not answer(hub, WHOLE, question(by=by), None).more


def test_counting_sends_no_hits() -> None:
    records = machines(6)
    hub = Lone(records[0]).settle(records[1:]).hub
    found = answer(hub, WHOLE, question(limit=2, count_only=True), None)
    assert (found.hits, found.matches, found.more) == ([], 6, False)


def test_a_text_has_no_place_in_an_order() -> None:
    record = machine(1, cores=4, arch="x86_64", load1=2.5)
    index = SCHEMA.index("arch")
    assert order_value(record, SCHEMA, (index, False)) == inf
    assert order_value(record, SCHEMA, order("load1")) == 2.5
    assert order_value(record, SCHEMA, order("load1", descending=True)) == -2.5
    assert sort_key(b"k", record, SCHEMA, None) == [b"k"]
    assert sort_key(b"k", record, SCHEMA, order("cores")) == [4.0, b"k"]


# --- the handler ----------------------------------------------------------------------------------


def test_the_question_travels_and_comes_back() -> None:
    asked = question(at_least(cores=4), 7, order("price"), strict=True, count_only=True)
    predicate, limit, by, flags = asked.to_wire()
    lone = Lone(machine(1, cores=4)).settle()
    assert lone.hub.answering.bound(predicate).predicate == at_least(cores=4)
    assert (limit, as_order(by, SCHEMA), flags) == (7, order("price"), STRICT | COUNT_ONLY)
    assert question().to_wire()[2:] == [None, 0]


def test_an_answer_on_the_wire_says_who_how_deep_and_what_it_covers(split: Lone) -> None:
    hub = split.hub
    header, items, hits = joined(ask(split))
    key, depth, cookie, covers, matches, cut_at, pruned = header
    assert (key, depth, cookie) == (hub.key, hub.group.depth, split.core.cookie(SOURCE))
    assert covers == [hub.group.prefix.to_wire()]
    assert (matches, cut_at, pruned) == (len(hub.group), None, 0)
    assert len(items) == len(hub.buckets.inhabited())
    assert len(hits) == len(hub.group)
    assert all(age == 0.0 for age, _ in hits)


def test_ages_of_hits_are_relative(split: Lone) -> None:
    split.now += 12.5
    _, _, hits = joined(ask(split))
    assert [age for age, _ in hits] == [12.5] * len(split.hub.group)


def test_flags_reach_the_answer(split: Lone) -> None:
    wire = msgspec.msgpack.encode(at_least(mem_free=1 * GIB).to_wire())
    header, items, _ = joined(ask(split, predicate=wire))
    assert (items, header[6]) == ([], len(split.hub.buckets.inhabited()))
    header, items, _ = joined(ask(split, predicate=wire, flags=STRICT))
    assert (len(items), header[6]) == (len(split.hub.buckets.inhabited()), 0)
    header, _, hits = joined(ask(split, flags=COUNT_ONLY))
    assert (header[4], hits) == (len(split.hub.group), [])


def test_a_node_that_is_still_joining_says_only_that() -> None:
    lone = Lone(machine(1, cores=4))
    assert ask(lone) == [JOINING]


def test_another_hub_and_a_node_that_left_are_silent(split: Lone) -> None:
    args = ask_args(split)
    args[0] = 1
    assert split.request("dh_range", args) == []
    split.hub.leave(split.now)
    split.engine.outbox()
    assert ask(split) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (1, "cookie"),
        (1, bytes(9)),
        (2, [161, bytes(21)]),
        (2, None),
        (3, "text"),
        (3, b"\xc1"),
        (3, b"\x93"),
        (3, bytes(6001)),
        (3, msgspec.msgpack.encode([])),
        (3, msgspec.msgpack.encode([[[0, 99, 1, None, 0]]])),
        (3, msgspec.msgpack.encode([[[0, 0, 1, float("nan"), 0]]])),
        (3, b"\x91" * 5000),
        (4, -1),
        (4, WALK_HITS_MAX + 1),
        (4, True),
        (5, [0]),
        (5, [SCHEMA.index("arch"), False]),
        (5, [99, False]),
        (5, [0, 1]),
        (6, 256),
        (6, None),
        (7, [b"short"]),
        (7, [1.0, bytes(20)]),
        (7, bytes(20)),
    ],
)
def test_a_malformed_question_is_counted_and_dropped(
    split: Lone, field: int, value: object
) -> None:
    args = ask_args(split)
    args[field] = value
    assert split.request("dh_range", args) == []
    assert split.engine.counters["malformed"] == 1
    assert split.request("dh_range", ask_args(split)[:7]) == []
    assert split.engine.counters["malformed"] == 2
    assert len(split.request("dh_range", [*ask_args(split), b"", None, "of a later version"])) == 1


def test_places_fit_their_order() -> None:
    by = order("cores")
    key = bytes(20)
    assert as_after(None, by) is None
    assert as_after([key], None) == [key]
    assert as_after([2.0, key], by) == [2.0, key]
    assert as_after([2, key], by) == [2, key]
    for value, given in (([key], by), ([2.0, key], None), ([2.0, b"k"], by), ([], None), (7, by)):
        with pytest.raises(MalformedMessage):
            as_after(value, given)


def test_an_order_on_the_wire_is_an_attribute_or_a_place() -> None:
    near = Nearest.to(Coordinate((0.01, 0.0, 0.0, 0.0, 0.0), 0.001, 0.2))
    cores = SCHEMA.index("cores")
    for asked in (None, (cores, True), near):
        wire = msgspec.msgpack.encode(question(by=asked).to_wire()[2])
        assert as_order(msgspec.msgpack.decode(wire), SCHEMA) == asked
    for value in ([b""], [b"nonsense"], [SCHEMA.index("arch"), True], [cores], [cores, 1], 7, []):
        with pytest.raises(MalformedMessage):
            as_order(value, SCHEMA)


def test_the_nearest_come_first_and_those_without_a_place_last() -> None:
    places = {4: (0.03, 0.002), 2: (0.01, 0.001), 3: (0.01, 0.004)}
    records = [
        machine(n, cores=4).updated(2, machine(n, cores=4).dynamic, (x, 0, 0, 0, 0, height, 0.1))
        for n, (x, height) in places.items()
    ]
    hub = Lone(machine(1, cores=4)).settle(records).hub
    near = Nearest.to(Coordinate((0.0, 0.0, 0.0, 0.0, 0.0), 0.001, 0.1))
    found = answer(hub, WHOLE, question(by=near), None)
    numbers = [int.from_bytes(member.record.node_id) for member in found.hits]
    assert numbers == [2, 3, 4, 1]
    first = answer(hub, WHOLE, question(limit=2, by=near), None)
    assert first.more
    last = first.hits[-1]
    after = sort_key(last.key, last.record, SCHEMA, near)
    rest = answer(hub, WHOLE, question(limit=2, by=near), as_after(after, near))
    assert [m.key for m in first.hits + rest.hits] == [m.key for m in found.hits]


def test_bound_predicates_are_remembered_up_to_a_limit() -> None:
    answering = Lone(machine(1, cores=4)).settle().hub.answering
    wires = [
        msgspec.msgpack.encode(Predicate((Box((Range(0, n, inf),)),)).to_wire())
        for n in range(1, 66)
    ]
    bounds = [answering.bound(wire) for wire in wires]
    assert answering.bound(wires[-1]) is bounds[-1]
    assert answering.bound(wires[0]) is not bounds[0]  # the oldest made room


# --- datagrams ------------------------------------------------------------------------------------


def large(number: int) -> Record:
    """A record that nearly fills a datagram."""
    labels = {f"label-{n:02}": "x" * 50 for n in range(11)}
    return machine(number, cores=4, labels=labels)


def padded(lone: Lone, size: int, **options: object) -> list[object]:
    """A stranger's arguments with so many bytes of padding."""
    return [*ask_args(lone, cookie=b"", **options), bytes(size)]


def test_no_datagram_is_over_the_limit_with_its_trailer() -> None:
    records = [noisy(n) for n in range(1, 41)]
    lone = Lone(records[0], size=64).settle(records[1:])
    sizes = []
    for limit in range(1, 40):
        args = ask_args(lone, cookie=lone.core.cookie(SOURCE), limit=limit)
        lone.engine.receive(request(args), SOURCE, lone.now)
        sizes += [size for _, size, _ in lone.replies()]
    assert REPLY_BYTES_MAX - 64 < max(sizes) <= REPLY_BYTES_MAX


def test_a_long_answer_comes_in_parts_that_together_are_the_answer() -> None:
    records = [noisy(n) for n in range(1, 9)]
    lone = Lone(records[0], size=48).settle(records[1:])
    parts = ask(lone)
    assert len(parts) > 1
    assert [part[0] for part in parts] == [*range(len(parts))]
    assert {part[1] for part in parts} == {len(parts)}
    header, _, hits = joined(parts)
    assert header[5] is None
    assert len({bytes(record[0]) for _, record in hits}) == len(hits) == len(records)


@pytest.mark.parametrize("padding", [0, 300, 700, REPLY_BYTES_MAX])
def test_a_stranger_gets_at_most_three_times_what_it_sent(padding: int) -> None:
    records = [noisy(n) for n in range(1, 41)]
    lone = Lone(records[0], size=64).settle(records[1:])
    datagram = request(padded(lone, padding))
    lone.engine.receive(datagram, SOURCE, lone.now)
    replies = lone.replies()
    total = sum(size for _, size, _ in replies)
    assert len(replies) == 1 or total <= AMPLIFICATION_MAX * len(datagram)
    header, items, hits = joined([reply.value for reply, _, _ in replies])
    assert items == []
    assert 0 < len(hits) < 40
    assert header[4] == 40
    assert header[5] == [sorted_keys(records)[len(hits) - 1]]


def test_a_stranger_whose_share_holds_no_items_gets_a_cookie_to_come_back_with() -> None:
    lone = crowded()
    header, items, hits = joined(lone.request("dh_range", padded(lone, 0), SOURCE))
    key, depth, cookie, covers, matches, after, _ = header
    assert (key, depth, covers, matches, after) == (lone.hub.key, 150, [], 0, None)
    assert (items, hits) == (None, [])
    header, items, hits = joined(ask(lone, cookie=cookie))
    assert items
    assert header[3] == [lone.hub.group.prefix.to_wire()]
    other = ("10.9.9.8", 9)  # a cookie is good for its own address only
    args = ask_args(lone, cookie=cookie)
    assert joined(lone.request("dh_range", args, other))[1] is None


def test_padding_is_bytes_and_not_too_many(split: Lone) -> None:
    for padding in (bytes(REPLY_BYTES_MAX + 1), "text", 7):
        args = [*ask_args(split, cookie=b""), padding]
        assert split.request("dh_range", args) == []
    assert split.engine.counters["malformed"] == 3


def test_a_stranger_gets_a_short_answer_at_once(split: Lone) -> None:
    header, items, hits = joined(ask(split, cookie=b"", prefix=split.hub.group.prefix, limit=2))
    assert header[3] == [split.hub.group.prefix.to_wire()]
    assert items == []
    assert len(hits) == 2


def test_who_has_answered_us_needs_no_cookie() -> None:
    records = [noisy(n) for n in range(1, 41)]
    lone = Lone(records[0], size=48).settle(records[1:])
    assert len(ask(lone, cookie=b"")) == 1
    lone.core.peers.of(SOURCE).last_heard = lone.now
    assert len(ask(lone, cookie=b"")) > 1


def test_an_answer_has_a_limited_number_of_datagrams_and_says_where_it_was_cut() -> None:
    records = [noisy(n) for n in range(1, 61)]
    lone = Lone(records[0], size=64).settle(records[1:])
    seen: list[bytes] = []
    after = None
    pages = 0
    while True:
        parts = ask(lone, after=after)
        assert len(parts) <= HIT_PARTS_MAX
        header, _, hits = joined(parts)
        assert header[4] == len(records)
        seen += [records[int.from_bytes(wire[0]) - 1].key(SCHEMA) for _, wire in hits]
        pages += 1
        after = header[5]
        if after is None:
            break
        assert after == [seen[-1]]
    assert pages > 1
    assert seen == sorted_keys(records)


def noisy(number: int) -> Record:
    """A record of nearly a thousand bytes that do not compress well."""
    rng = random.Random(number)
    labels = {f"label-{n:02}": rng.randbytes(25).hex() for n in range(11)}
    return machine(number, cores=4, labels=labels)


def crowded() -> Lone:
    """A node of a very deep group, with contacts of long names in every subtree beside it."""
    rng = random.Random(3)
    lone = Lone(machine(1, cores=4), size=64).settle([large(n) for n in range(2, 40)])
    hub = lone.hub
    hub.group.narrow(150)
    for index in range(150):
        for tail in range(8):
            value = int.from_bytes(hub.key) ^ (1 << (159 - index)) ^ tail
            host = rng.randbytes(31).hex()
            hub.buckets.heard(Contact(value.to_bytes(20), (host, 7400)), lone.now, lone.now)
    return lone


def test_items_are_never_cut_off() -> None:
    """Without one of them the asker would miss a subtree."""
    lone = crowded()
    hub = lone.hub
    parts = ask(lone)
    assert HIT_PARTS_MAX < len(parts) <= ANSWER_PARTS_MAX
    _, items, _ = joined(parts)
    inhabited = [hub.buckets.prefix(i) for i, _ in hub.buckets.inhabited()]
    mine = [prefix for prefix in inhabited if question().bound.intersects(prefix)]
    other_versions = [prefix for prefix in inhabited if not question().bound.speaks_of(prefix)]
    assert len(items) == len(mine) + len(other_versions)
    assert all(1 <= len(contacts) <= ITEM_CONTACTS for *_, contacts in items)
    lone.engine.receive(request(ask_args(lone, cookie=lone.core.cookie(SOURCE))), SOURCE, lone.now)
    assert max(size for _, size, _ in lone.replies()) <= REPLY_BYTES_MAX


def test_contacts_that_sit_among_matches_are_told_first(split: Lone) -> None:
    wire = msgspec.msgpack.encode(at_least(cores=32).to_wire())
    bound = split.hub.answering.bound(wire)
    _, items, _ = joined(ask(split, predicate=wire))
    assert items
    for *_, contacts in items:
        reaches = [bound.reach(contact[0]) for contact in contacts]
        assert reaches == sorted(reaches, reverse=True)


def test_a_limit_that_left_hits_behind_says_where() -> None:
    records = machines(6)
    lone = Lone(records[0]).settle(records[1:])
    every = sorted_keys(records)
    header, _, hits = joined(ask(lone, limit=4))
    assert len(hits) == 4
    assert header[5] == [every[3]]
    by = [SCHEMA.index("cores"), True]
    header, _, _ = joined(ask(lone, limit=4, by=by))
    assert header[5] == [-4.0, every[3]]
    header, _, hits = joined(ask(lone, limit=4, by=by, after=header[5]))
    assert (len(hits), header[5]) == (2, None)


def test_summaries_of_nobody_and_contacts_of_hearsay_do_not_make_an_item_of_the_own_group() -> None:
    records = machines(4)
    lone = Lone(records[0]).settle(records[1:])
    lone.hub.met(contact_of(records[1]), lone.now, lone.now)
    assert lone.hub.buckets.inhabited() == []
    lone.hub.buckets.summarise(3, Summary.of(SCHEMA, records), lone.now, SCHEMA)
    assert answer(lone.hub, WHOLE, question(ALL), None).items == []


def test_an_endpoint_is_where_hits_say() -> None:
    lone = Lone(machine(1, cores=4)).settle()
    _, _, hits = joined(ask(lone))
    assert tuple(hits[0][1][2:4]) == endpoint_of(1)


def test_who_wants_more_members_is_told_of_others_that_are_alive() -> None:
    records = machines(7, cores=2)
    lone = Lone(records[0], size=16).settle([*records[1:], foreign("vm-1", cores=2)])
    doubted = records[1]
    lone.hub.group.suspect(doubted.key(SCHEMA), doubted.seq)
    header, _, _ = joined(ask(lone, flags=NAME_OTHERS))
    told = {key: (host, port) for key, host, port in header[7]}  # type: ignore[attr-defined]
    fit = {record.key(SCHEMA): record.endpoint for record in records[2:]}
    assert len(told) == ITEM_CONTACTS
    assert told.items() <= fit.items()
    assert len(joined(ask(lone))[0]) == 7
    alone = Lone(records[0], size=16).settle()
    assert joined(ask(alone, flags=NAME_OTHERS))[0][7] == []


def test_all_contacts_are_for_ourselves_and_the_best_for_others(split: Lone) -> None:
    """The asker of its own view has nobody yet to ask for more of them."""
    index, bucket = split.hub.buckets.inhabited()[0]
    first = int.from_bytes(split.hub.buckets.prefix(index).first)
    for tail in range(HUB_BUCKET_CONTACTS_MAX):
        contact = Contact((first + tail).to_bytes(20), endpoint_of(100 + tail))
        split.hub.met(contact, split.now, split.now)
    assert len(bucket.contacts) == HUB_BUCKET_CONTACTS_MAX
    item = answer(split.hub, WHOLE, question(ALL), None).items[0]
    assert len(item.contacts) == HUB_BUCKET_CONTACTS_MAX
    assert item.to_wire()[4] == [contact.to_wire() for contact in item.contacts[:ITEM_CONTACTS]]
