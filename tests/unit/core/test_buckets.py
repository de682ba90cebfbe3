"""The sibling subtrees of one key: who is kept, what hearsay may do, what age takes away."""

import random

import pytest

from dhtos.core.buckets import STICKY_S, Bucket, Buckets
from dhtos.core.contact import Contact
from dhtos.core.ids import Prefix
from dhtos.core.limits import HUB_BUCKET_CONTACTS_MAX, RECORD_TTL_S
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.core.summary import Summary

OWN = bytes(20)


def contact(index: int, tail: int = 0, *, port: int = 7400) -> Contact:
    """A contact that shares exactly `index` bits with the own key."""
    value = 1 << (159 - index) | (tail if index < 150 else 0)
    return Contact(value.to_bytes(20), (f"10.0.{index}.{tail}", port))


def summary_of(count: int, cores: int = 2) -> Summary:
    machines = [
        make_record(
            MACHINE_SCHEMA,
            {"cores": cores},
            {},
            node_id=bytes(20),
            endpoint=("10.0.0.1", 7400),
            seq=1,
        )
    ] * count
    return Summary.of(MACHINE_SCHEMA, machines)


def known(buckets: Buckets, index: int) -> dict[bytes, float]:
    bucket = buckets.get(index)
    return {} if bucket is None else {k: one.heard for k, one in bucket.contacts.items()}


def full(*, heard: float = 10.0) -> Buckets:
    """A bucket 3 without a free place."""
    buckets = Buckets(OWN)
    for tail in range(HUB_BUCKET_CONTACTS_MAX):
        buckets.heard(contact(3, tail), heard + tail, 20.0)
    return buckets


def test_a_bucket_is_the_subtree_that_shares_its_bits() -> None:
    buckets = Buckets(OWN)
    assert buckets.index_of(contact(0).id) == 0
    assert buckets.index_of(contact(7, 3).id) == 7
    assert buckets.prefix(0) == Prefix(1, 1)
    assert buckets.prefix(2) == Prefix(0b001, 3)
    for index in (0, 1, 9, 100):
        assert buckets.prefix(index).holds(contact(index).id)
        assert not buckets.prefix(index).holds(OWN)


def test_only_the_first_inhabitant_is_news() -> None:
    buckets = Buckets(OWN)
    assert buckets.heard(contact(3), 1.0, 1.0)
    assert not buckets.heard(contact(3, 1), 1.0, 1.0)
    assert buckets.heard(contact(4), 1.0, 1.0)
    assert [index for index, _ in buckets.inhabited()] == [3, 4]
    assert buckets.bits(160) == 0b11000
    assert buckets.bits(4) == 0b1000
    buckets.check(5)


def test_inhabited_buckets_come_widest_first() -> None:
    buckets = Buckets(OWN)
    for index in (9, 2, 40, 0):
        buckets.heard(contact(index), 1.0, 1.0)
    assert [index for index, _ in buckets.inhabited()] == [0, 2, 9, 40]


def test_nobody_is_its_own_contact_and_the_long_silent_is_not_taken() -> None:
    buckets = Buckets(OWN)
    now = 500.0
    assert not buckets.heard(Contact(OWN, ("10.0.0.1", 1)), now, now)
    assert not buckets.heard(contact(3), now - RECORD_TTL_S - 0.1, now)
    assert buckets.inhabited() == []
    assert buckets.heard(contact(3), now - RECORD_TTL_S, now)


def test_later_news_of_a_contact_renews_it_and_earlier_does_not() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 5.0, 5.0)
    buckets.heard(contact(3), 4.0, 6.0)
    assert known(buckets, 3) == {contact(3).id: 5.0}
    buckets.heard(contact(3, port=7401), 7.0, 7.0)
    assert known(buckets, 3) == {contact(3).id: 7.0}
    assert buckets.choose(3, random.Random(1), 1) == [contact(3, port=7401)]


def test_a_mere_requester_cannot_move_a_contact() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 5.0, 5.0)
    buckets.heard(contact(3, port=666), 7.0, 7.0, proven=False)
    assert buckets.choose(3, random.Random(1), 1) == [contact(3)]
    assert known(buckets, 3) == {contact(3).id: 5.0}
    buckets.heard(contact(3), 8.0, 8.0, proven=False)  # from the address that is known
    assert known(buckets, 3) == {contact(3).id: 8.0}


def test_a_full_bucket_gives_the_place_of_the_longest_silent() -> None:
    buckets = full()
    assert not buckets.heard(contact(3, 99), 19.0, 20.0)
    held = known(buckets, 3)
    assert len(held) == HUB_BUCKET_CONTACTS_MAX
    assert contact(3, 99).id in held
    assert contact(3, 0).id not in held
    buckets.check(4)


def test_a_full_bucket_has_no_place_for_the_older_or_the_unproven() -> None:
    buckets = full()
    before = known(buckets, 3)
    buckets.heard(contact(3, 98), 9.0, 20.0)
    buckets.heard(contact(3, 99), 20.0, 20.0, proven=False)
    assert known(buckets, 3) == before


def test_the_unproven_takes_a_free_place() -> None:
    buckets = Buckets(OWN)
    assert buckets.heard(contact(3), 1.0, 1.0, proven=False)
    assert not buckets.heard(contact(3, 1), 1.0, 1.0, proven=False)
    assert len(known(buckets, 3)) == 2


def test_only_who_lives_at_an_address_leaves_there() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    buckets.departed(contact(3).id, contact(3, port=666).endpoint)
    buckets.departed(contact(3, 5).id, contact(3, 5).endpoint)  # not a contact
    buckets.departed(contact(9).id, contact(9).endpoint)  # not a bucket
    assert set(known(buckets, 3)) == {contact(3).id}
    buckets.departed(contact(3).id, contact(3).endpoint)
    assert buckets.get(3) is None


def test_without_contacts_a_bucket_is_gone_with_its_summary() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    buckets.heard(contact(3, 1), 1.0, 1.0)
    buckets.summarise(3, summary_of(7), 1.0, MACHINE_SCHEMA)
    buckets.forget(contact(3).id)
    assert len(known(buckets, 3)) == 1
    buckets.forget(contact(3, 5).id)  # not a contact
    buckets.forget(contact(9).id)  # not a bucket
    buckets.forget(contact(3, 1).id)
    assert buckets.get(3) is None
    buckets.heard(contact(3), 2.0, 2.0)
    bucket = buckets.get(3)
    assert bucket is not None
    assert bucket.summary is None


def test_hearsay_ends_with_the_life_of_a_record() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 10.0, 10.0)
    buckets.heard(contact(3, 1), 50.0, 50.0)
    buckets.heard(contact(5), 10.0, 10.0)
    buckets.expire(10.0 + RECORD_TTL_S)
    assert buckets.bits(160) == 0b101000
    buckets.expire(10.0 + RECORD_TTL_S + 0.1)
    assert known(buckets, 3) == {contact(3, 1).id: 50.0}
    assert buckets.get(5) is None
    buckets.check(4)


def test_the_newest_summary_is_kept() -> None:
    buckets = Buckets(OWN)
    buckets.summarise(
        3, summary_of(1), 5.0, MACHINE_SCHEMA
    )  # nobody lives there: nothing to keep it for
    assert buckets.get(3) is None
    buckets.heard(contact(3), 1.0, 1.0)
    bucket = buckets.get(3)
    assert bucket is not None
    assert bucket.count == 1
    buckets.summarise(3, summary_of(9), 5.0, MACHINE_SCHEMA)
    buckets.summarise(3, summary_of(2), 4.0, MACHINE_SCHEMA)
    assert (bucket.count, bucket.summary_born) == (9, 5.0)
    buckets.summarise(3, summary_of(3), 5.0, MACHINE_SCHEMA)  # as old, later heard
    assert bucket.count == 3
    buckets.summarise(3, summary_of(0), 6.0, MACHINE_SCHEMA)
    assert bucket.count == 1  # whoever is known to live there lives there


def cores_in(bucket: Bucket) -> tuple[int, int]:
    """Between which positions the summary of a bucket places machines."""
    assert bucket.summary is not None
    return bucket.summary.lows[0], bucket.summary.highs[0]


def described() -> tuple[Buckets, Bucket]:
    """A bucket whose last summary, at 10.0, was the first to tell of a large machine."""
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    bucket = buckets.get(3)
    assert bucket is not None
    buckets.summarise(3, summary_of(5), 5.0, MACHINE_SCHEMA)
    buckets.summarise(3, summary_of(5, cores=512), 10.0, MACHINE_SCHEMA)
    return buckets, bucket


def test_news_of_a_first_machine_outlives_younger_summaries_for_a_while() -> None:
    """They may be put together from parts that have not heard of it."""
    small, large = (s.lows[0] for s in (summary_of(1), summary_of(1, cores=512)))
    buckets, bucket = described()
    assert cores_in(bucket) == (small, large)
    buckets.summarise(3, summary_of(5), 10.0 + STICKY_S / 2, MACHINE_SCHEMA)
    assert cores_in(bucket) == (small, large)
    buckets.summarise(3, summary_of(5), 10.0 + STICKY_S, MACHINE_SCHEMA)
    assert cores_in(bucket) == (small, small)


def test_a_description_may_be_taken_back() -> None:
    """Something lives there that nobody has described yet: nothing may be ruled out."""
    buckets, bucket = described()
    buckets.summarise(3, None, 9.0, MACHINE_SCHEMA)
    assert bucket.summary is not None
    buckets.summarise(3, None, 11.0, MACHINE_SCHEMA)
    assert (bucket.summary, bucket.stamp, bucket.count) == (None, 0, 1)
    buckets.summarise(3, summary_of(4), 12.0, MACHINE_SCHEMA)
    assert bucket.count == 4


def test_a_digest_agrees_between_those_who_describe_the_same() -> None:
    one, _ = described()
    other, bucket = described()
    assert one.digest(160) == other.digest(160) != 0
    assert one.digest(3) == 0  # below that depth there is no bucket
    other.summarise(3, summary_of(900, cores=512), 11.0, MACHINE_SCHEMA)
    assert one.digest(160) == other.digest(160)  # numbers do not matter, places do
    other.summarise(3, summary_of(1, cores=64), 12.0, MACHINE_SCHEMA)
    assert one.digest(160) != other.digest(160)
    assert bucket.stamp != 0
    other.heard(contact(5), 1.0, 1.0)
    before = other.digest(160)
    other.summarise(5, summary_of(1), 1.0, MACHINE_SCHEMA)
    assert other.digest(160) != before
    assert other.digest(5) == before


def test_a_bucket_that_joined_the_group_is_no_more() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    buckets.absorb(3)
    buckets.absorb(3)
    assert buckets.get(3) is None


def test_choices_are_distinct_bounded_and_spread() -> None:
    buckets = full()
    rng = random.Random(3)
    assert buckets.choose(5, rng, 4) == []
    assert len(buckets.choose(3, rng, 99)) == HUB_BUCKET_CONTACTS_MAX
    met = set()
    for _ in range(100):
        chosen = [one.id for one in buckets.choose(3, rng, 2)]
        assert len(set(chosen)) == 2
        met |= {*chosen}
    assert len(met) == HUB_BUCKET_CONTACTS_MAX


def test_check_knows_how_deep_the_group_is() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    buckets.check(4)
    with pytest.raises(AssertionError):
        buckets.check(3)


def test_check_sees_a_contact_in_the_wrong_place() -> None:
    buckets = Buckets(OWN)
    buckets.heard(contact(3), 1.0, 1.0)
    bucket = buckets.get(3)
    assert bucket is not None
    bucket.contacts[contact(4).id] = bucket.contacts.pop(contact(3).id)
    with pytest.raises(AssertionError):
        buckets.check(4)


def test_the_last_contact_of_a_subtree_stays_for_its_life() -> None:
    """Without it a query would pass over whoever else lives there, and call itself complete."""
    buckets = full()
    for tail in range(HUB_BUCKET_CONTACTS_MAX):
        buckets.silent(contact(3, tail).id)
    assert set(known(buckets, 3)) == {contact(3, HUB_BUCKET_CONTACTS_MAX - 1).id}
    buckets.silent(contact(3, 200).id)
    buckets.silent(contact(9, 1).id)
    buckets.expire(20.0 + RECORD_TTL_S)
    assert buckets.get(3) is None
