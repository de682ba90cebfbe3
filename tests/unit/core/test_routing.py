"""The routing table, rule by rule."""

import random
import tracemalloc

import pytest

from dhtos.core import limits
from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, ID_BYTES, common_prefix_bits, distance, random_id
from dhtos.core.routing import Added, Pending, Reason, Rejected, RoutingTable
from dhtos.core.shelf import subnet_of

OWN = bytes(ID_BYTES)
LOCAL = "127.0.0.1"


def contact(number: int, *, share: int = 0, host: str = LOCAL, port: int | None = None) -> Contact:
    """A contact that shares exactly `share` bits with OWN; `number` is its tail."""
    value = 1 << (ID_BITS - 1 - share) | number
    return Contact(value.to_bytes(ID_BYTES), (host, 1000 + number if port is None else port))


def full_table(k: int = 3, *, verified: bool = True) -> tuple[RoutingTable, list[Contact]]:
    """A table whose far bucket (no shared bit) is full, seen at 0, 1, 2, ... in order."""
    table = RoutingTable(OWN, k)
    known = [contact(number) for number in range(k)]
    for when, one in enumerate(known):
        assert table.add(one, float(when), verified=verified) == Added(is_new=True)
    table.add(contact(0, share=5), 0.0, verified=True)
    table.check()
    assert table.bucket_count == 2
    return table, known


class TestAdd:
    def test_new_contact_is_kept(self) -> None:
        table = RoutingTable(OWN)
        one = contact(7)
        assert table.add(one, 0.0, verified=True) == Added(is_new=True)
        assert table.get(one.id) is one
        assert one.id in table
        assert list(table) == [one]
        assert len(table) == 1
        assert table.own_id == OWN
        assert "text" not in table
        table.check()

    def test_own_id_is_refused(self) -> None:
        table = RoutingTable(OWN)
        assert table.add(Contact(OWN, (LOCAL, 1)), 0.0, verified=True) == Rejected(Reason.OWN_ID)
        assert len(table) == 0

    @pytest.mark.parametrize("size", [0, 19, 21])
    def test_id_of_another_size_is_an_error(self, size: int) -> None:
        with pytest.raises(ValueError, match="20 bytes"):
            RoutingTable(OWN).add(Contact(bytes(size), (LOCAL, 1)), 0.0, verified=True)
        with pytest.raises(ValueError, match="20 bytes"):
            RoutingTable(bytes(size))

    def test_bucket_size_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="k=0"):
            RoutingTable(OWN, 0)

    def test_known_id_is_not_new(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(7), 0.0, verified=False)
        assert table.add(contact(7), 1.0, verified=True) == Added(is_new=False)
        assert table.is_verified(contact(7).id)
        assert len(table) == 1

    def test_hearsay_does_not_refresh(self) -> None:
        table, known = full_table()
        table.add(known[0], 99.0, verified=False)
        assert table.add(contact(50), 100.0, verified=True) == Pending(known[0])

    def test_unverified_move_is_refused(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(7), 0.0, verified=True)
        moved = contact(7, host="127.0.0.9")
        assert table.add(moved, 1.0, verified=False) == Rejected(Reason.UNVERIFIED_MOVE)
        assert table.get(moved.id) == contact(7)

    def test_verified_move_is_accepted(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(7, host="8.8.8.8"), 0.0, verified=True)
        moved = contact(7, host="9.9.9.9")
        assert table.add(moved, 1.0, verified=True) == Added(is_new=False)
        assert table.get(moved.id) is moved
        assert table.closest(moved.id, 1) == [moved]
        table.check()

    def test_move_inside_a_subnet_keeps_its_place(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(1, host="8.8.8.1"), 0.0, verified=True)
        table.add(contact(2, host="8.8.8.2"), 0.0, verified=True)
        moved = contact(2, host="8.8.8.3")
        assert table.add(moved, 1.0, verified=True) == Added(is_new=False)
        table.check()

    def test_move_beyond_a_share_needs_a_free_place(self) -> None:
        for k, outcome in ((4, Added()), (3, Rejected(Reason.SUBNET_BUCKET))):
            table = RoutingTable(OWN, k)
            for number in range(limits.CONTACTS_PER_SUBNET_BUCKET_MAX):
                table.add(contact(number, host=f"8.8.8.{number}"), 0.0, verified=True)
            table.add(contact(7), 0.0, verified=True)
            moved = contact(7, host="8.8.8.99")
            assert table.add(moved, 1.0, verified=True) == outcome
            assert table.get(moved.id) == (moved if k == 4 else contact(7))
            table.check()

    def test_move_beyond_the_share_of_the_table_needs_one_too(self) -> None:
        table, known = full_table()
        for share in range(1, limits.CONTACTS_PER_SUBNET_MAX + 1):
            table.add(contact(9, share=share, host=f"8.8.8.{share}"), 0.0, verified=True)
        moved = Contact(known[0].id, ("8.8.8.99", 1))
        assert table.add(moved, 1.0, verified=True) == Rejected(Reason.SUBNET_TABLE)
        assert table.get(moved.id) == known[0]
        table.check()


class TestBuckets:
    def test_only_the_bucket_of_our_own_id_splits(self) -> None:
        table = RoutingTable(OWN, 4)
        rng = random.Random(1)
        for _ in range(400):
            table.add(Contact(random_id(rng), (LOCAL, 1)), 0.0, verified=True)
        table.check()
        shares = [common_prefix_bits(one.id, OWN) for one in table]
        for share in range(table.bucket_count - 1):
            assert shares.count(share) == 4
        assert table.bucket_count > 5

    def test_split_keeps_everyone(self) -> None:
        table = RoutingTable(OWN, 2)
        for share in range(ID_BITS):
            assert table.add(contact(0, share=share), 0.0, verified=True) == Added(is_new=True)
        assert len(table) == ID_BITS
        assert table.bucket_count == ID_BITS - 1
        table.check()

    def test_smallest_buckets_reach_full_depth(self) -> None:
        table = RoutingTable(OWN, 1)
        for share in range(ID_BITS):
            table.add(contact(0, share=share), 0.0, verified=True)
        assert table.bucket_count == ID_BITS
        assert len(table) == ID_BITS
        table.check()

    def test_full_bucket_names_the_least_recently_seen(self) -> None:
        table, known = full_table()
        assert table.seen(known[0].id, known[0].endpoint, 10.0)
        assert table.add(contact(50), 11.0, verified=True) == Pending(known[1])
        assert contact(50).id not in table
        table.check()

    def test_verified_newcomer_displaces_the_oldest_unverified(self) -> None:
        table, known = full_table(verified=False)
        table.seen(known[0].id, known[0].endpoint, 5.0)
        result = table.add(contact(50), 6.0, verified=True)
        assert result == Added(is_new=True, evicted=known[1])
        assert known[1].id not in table
        table.check()

    def test_unverified_newcomer_displaces_nobody(self) -> None:
        table, known = full_table(verified=False)
        assert table.add(contact(50), 6.0, verified=False) == Pending(known[0])
        assert all(one.id in table for one in known)


class TestReplacements:
    def test_failure_of_the_candidate_lets_the_newcomer_in(self) -> None:
        table, known = full_table()
        pending = table.add(contact(50), 9.0, verified=True)
        assert isinstance(pending, Pending)
        assert table.failed(pending.candidate.id, 10.0) == known[0]
        assert contact(50).id in table
        assert table.is_verified(contact(50).id)
        table.check()

    def test_without_a_replacement_one_failure_is_forgiven(self) -> None:
        table, known = full_table()
        for _ in range(limits.CONTACT_FAILURES_MAX - 1):
            assert table.failed(known[0].id, 10.0) is None
        table.seen(known[0].id, known[0].endpoint, 11.0)
        for _ in range(limits.CONTACT_FAILURES_MAX - 1):
            assert table.failed(known[0].id, 12.0) is None
        assert table.failed(known[0].id, 12.0) == known[0]
        assert known[0].id not in table
        table.check()

    def test_unverified_contact_fails_once(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(7), 0.0, verified=False)
        assert table.failed(contact(7).id, 1.0) == contact(7)
        assert len(table) == 0

    def test_failure_older_than_the_last_answer_counts_nothing(self) -> None:
        table, known = full_table()
        table.add(contact(50), 9.0, verified=True)
        table.seen(known[0].id, known[0].endpoint, 10.0)
        assert table.failed(known[0].id, 9.5) is None
        assert known[0].id in table

    def test_latest_verified_replacement_goes_first(self) -> None:
        table, known = full_table()
        table.add(contact(50), 10.0, verified=True)
        table.add(contact(51), 11.0, verified=True)
        table.add(contact(52), 12.0, verified=False)
        table.remove(known[0].id)
        assert contact(51).id in table
        table.remove(known[1].id)
        assert contact(50).id in table
        table.remove(known[2].id)
        assert contact(52).id in table
        table.check()

    def test_cache_is_bounded_and_loses_hearsay_first(self) -> None:
        table, known = full_table()
        table.add(contact(50), 10.0, verified=True)
        for number in range(100, 100 + 2 * limits.BUCKET_REPLACEMENTS_MAX):
            table.add(contact(number), 11.0, verified=False)
            table.check()
        table.remove(known[0].id)
        assert contact(50).id in table

    def test_cache_of_verified_loses_the_longest_waiting(self) -> None:
        table, known = full_table()
        for number in range(50, 51 + limits.BUCKET_REPLACEMENTS_MAX):
            table.add(contact(number), 10.0, verified=True)
        table.check()
        for _ in range(limits.BUCKET_REPLACEMENTS_MAX + len(known)):
            table.remove(next(one.id for one in table if common_prefix_bits(one.id, OWN) == 0))
            assert contact(50).id not in table

    def test_hearsay_does_not_move_a_waiting_contact(self) -> None:
        table, known = full_table()
        table.add(contact(50), 10.0, verified=True)
        table.add(contact(50, port=6666), 11.0, verified=False)
        table.remove(known[0].id)
        assert table.get(contact(50).id) == contact(50)
        assert table.is_verified(contact(50).id)

    def test_verified_waiting_contact_moves_to_the_front_with_its_address(self) -> None:
        table, known = full_table()
        table.add(contact(50), 10.0, verified=True)
        table.add(contact(51), 11.0, verified=True)
        table.add(contact(50, port=7777), 12.0, verified=True)
        table.remove(known[0].id)
        assert table.get(contact(50).id) == contact(50, port=7777)
        table.check()

    def test_waiting_contact_can_be_forgotten(self) -> None:
        table, known = full_table()
        table.add(contact(50), 10.0, verified=True)
        table.add(contact(51), 10.0, verified=True)
        assert table.remove(contact(50).id) is None
        assert table.failed(contact(51).id, 11.0) is None
        table.remove(known[0].id)
        assert len(table) == 3
        table.check()

    def test_promotion_prefers_who_is_within_the_share_of_its_subnet(self) -> None:
        table = crowded_table(2, others=2)
        for number, host in ((10, "8.8.8.10"), (11, LOCAL), (12, "8.8.8.12"), (13, "8.8.8.13")):
            table.add(contact(number, host=host), 9.0, verified=number != 13)
        table.remove(contact(3).id)
        assert contact(11).id in table
        table.remove(contact(2).id)  # nobody else wants the place
        assert contact(12).id in table
        table.remove(contact(11).id)
        assert contact(10).id in table
        table.remove(contact(12).id)
        assert contact(13).id in table
        table.check()

    def test_cache_loses_a_crowd_before_the_longest_waiting(self) -> None:
        table = crowded_table(0, others=4)
        table.add(contact(20), 9.0, verified=True)
        for number in range(30, 30 + 2 * limits.BUCKET_REPLACEMENTS_MAX):
            table.add(contact(number, host=f"8.8.8.{number}"), 10.0, verified=True)
            table.check()
        spares = table.spares(contact(0).id, 100)
        assert len(spares) == limits.BUCKET_REPLACEMENTS_MAX
        assert contact(20) in spares

    def test_spares_are_the_closest_of_the_verified_that_wait(self) -> None:
        table, _known = full_table()
        assert table.spares(OWN, 5) == []
        for number in (52, 50, 51):
            table.add(contact(number), 10.0, verified=True)
        table.add(contact(53), 11.0, verified=False)
        assert table.spares(contact(51).id, 2) == [contact(51), contact(50)]
        assert table.spares(contact(51).id, 5) == [contact(51), contact(50), contact(52)]


def crowded_table(crowd: int, *, others: int) -> RoutingTable:
    """A full far bucket: `crowd` contacts of one public subnet, then `others` without one."""
    table = RoutingTable(OWN, crowd + others)
    table.add(contact(0, share=5), 0.0, verified=True)
    for number in range(crowd + others):
        host = f"8.8.8.{number}" if number < crowd else LOCAL
        assert table.add(contact(number, host=host), number, verified=True) == Added(is_new=True)
    assert table.bucket_count == 2
    table.check()
    return table


class TestSubnets:
    @pytest.mark.parametrize(
        ("host", "subnet"),
        [
            ("8.8.8.8", b"\x08\x08\x08"),
            ("::ffff:8.8.8.8", b"\x08\x08\x08"),
            ("2a00:1450:4001:812::1", bytes.fromhex("2a001450400108")),
            ("127.0.0.1", None),
            ("::1", None),
            ("10.1.2.3", None),
            ("192.168.7.1", None),
            ("100.64.0.9", None),
            ("fe80::1%eth0", None),
            ("fd00::1", None),
            ("machine-7", b"machine-7"),
        ],
    )
    def test_subnet_of(self, host: str, subnet: bytes | None) -> None:
        assert subnet_of(host) == subnet

    def test_a_fleet_in_one_subnet_fills_what_is_free(self) -> None:
        table = RoutingTable(OWN, 20)
        for number in range(60):
            share = number % 3
            one = contact(number, share=share, host=f"8.8.8.{number}")
            assert table.add(one, 0.0, verified=True) == Added(is_new=True)
            table.check()
        assert len(table) == 60
        late = contact(99, host="8.8.8.99")
        assert isinstance(table.add(late, 1.0, verified=True), Pending)
        assert table.failed(contact(0).id, 2.0) == contact(0, host="8.8.8.0")
        assert late.id in table

    def test_a_crowd_gives_way_without_a_ping(self) -> None:
        crowd = limits.CONTACTS_PER_SUBNET_BUCKET_MAX + 2
        table = crowded_table(crowd, others=1)
        table.seen(contact(0).id, ("8.8.8.0", 1000), 99.0)
        for number, gone in ((20, 1), (21, 2)):
            outcome = table.add(contact(number), 100.0, verified=True)
            assert outcome == Added(is_new=True, evicted=contact(gone, host=f"8.8.8.{gone}"))
            table.check()
        left = table.add(contact(22), 101.0, verified=True)
        assert left == Pending(contact(3, host="8.8.8.3"))  # now it is within its share
        table.check()

    def test_an_unverified_member_of_a_crowd_gives_way_first(self) -> None:
        table = RoutingTable(OWN, 4)
        table.add(contact(0, share=5), 0.0, verified=True)
        for number in range(4):
            one = contact(number, host=f"8.8.8.{number}" if number else LOCAL)
            table.add(one, number, verified=number != 2 and number != 0)
        outcome = table.add(contact(9), 9.0, verified=True)
        assert outcome == Added(is_new=True, evicted=contact(2, host="8.8.8.2"))
        outcome = table.add(contact(10), 9.0, verified=True)
        assert outcome == Added(is_new=True, evicted=contact(0))
        table.check()

    def test_hearsay_displaces_no_crowd(self) -> None:
        table = crowded_table(4, others=0)
        assert isinstance(table.add(contact(20), 9.0, verified=False), Pending)
        assert contact(20).id not in table
        table.check()

    def test_a_crowd_displaces_nobody_of_another_subnet(self) -> None:
        table = RoutingTable(OWN, 5)
        table.add(contact(0, share=5), 0.0, verified=True)
        for number, host in enumerate((LOCAL, "9.9.9.1", "8.8.8.2", "8.8.8.3", "8.8.8.4")):
            table.add(contact(number, host=host), number, verified=number == 3)
        over = contact(20, host="8.8.8.20")
        outcome = table.add(over, 9.0, verified=True)
        assert outcome == Added(is_new=True, evicted=contact(2, host="8.8.8.2"))
        outcome = table.add(contact(21, host="8.8.8.21"), 10.0, verified=True)
        assert outcome == Added(is_new=True, evicted=contact(4, host="8.8.8.4"))
        assert isinstance(table.add(contact(22, host="8.8.8.22"), 11.0, verified=True), Pending)
        table.check()

    def test_two_crowds_do_not_displace_each_other(self) -> None:
        table = RoutingTable(OWN, 6)
        table.add(contact(0, share=5), 0.0, verified=True)
        for number in range(6):
            host = f"{8 + number % 2}.8.8.{number}"
            table.add(contact(number, host=host), number, verified=True)
        newcomer = contact(20, host="9.8.8.20")
        assert isinstance(table.add(newcomer, 9.0, verified=True), Pending)
        table.check()

    def test_beyond_the_share_of_the_table_is_a_crowd_as_well(self) -> None:
        table, _ = full_table()
        first = contact(1, share=1, host="8.8.8.0")
        fillers = [contact(number, share=1) for number in (2, 3)]
        for one in (first, *fillers, contact(0, share=6), contact(0, share=7)):
            table.add(one, 0.0, verified=True)
        assert table.bucket_count > 2
        assert isinstance(table.add(contact(9, share=1), 1.0, verified=True), Pending)
        for share in range(10, 10 + limits.CONTACTS_PER_SUBNET_MAX):
            table.add(contact(0, share=share, host=f"8.8.8.{share}"), 0.0, verified=True)
        outcome = table.add(contact(10, share=1), 1.0, verified=True)
        assert outcome == Added(is_new=True, evicted=first)
        table.check()

    def test_an_attacker_keeps_its_share_and_no_more(self) -> None:
        """A subnet that came first and answers always, against honest ones that come later."""
        rng = random.Random(8)
        table = RoutingTable(OWN, 8)
        for number in range(400):
            host = f"8.8.8.{number % 256}"
            table.add(Contact(random_id(rng), (host, 1000 + number)), 0.0, verified=True)
        for number in range(400):
            honest = Contact(random_id(rng), (f"9.{number >> 8}.{number & 255}.1", 1))
            table.add(honest, 1.0, verified=True)
        table.check()
        full = 0
        for share in range(4):
            hosts = [one.endpoint[0] for one in table if common_prefix_bits(one.id, OWN) == share]
            full += len(hosts) == 8
            attackers = sum(host.startswith("8.8.8.") for host in hosts)
            assert attackers <= limits.CONTACTS_PER_SUBNET_BUCKET_MAX
        assert full == 4

    def test_room_is_where_a_verified_newcomer_would_get_a_place(self) -> None:
        table = crowded_table(4, others=0)
        assert table.has_room(contact(20))
        assert not table.has_room(contact(20, host="8.8.8.20"))
        assert table.has_room(contact(20, share=7, host="8.8.8.20"))
        table.remove(contact(0).id)
        assert table.has_room(contact(20, host="8.8.8.20"))
        table, _ = full_table()
        assert not table.has_room(contact(20))
        table, _ = full_table(verified=False)
        assert table.has_room(contact(20))

    def test_no_split_makes_room_where_all_go_the_same_way(self) -> None:
        table = RoutingTable(OWN, 3)
        for number in range(3):
            table.add(contact(number), 0.0, verified=True)
        assert not table.has_room(contact(3))
        assert isinstance(table.add(contact(3), 0.0, verified=True), Pending)
        table = RoutingTable(OWN, 3)
        for number, share in enumerate((0, 0, 5)):
            table.add(contact(number, share=share), 0.0, verified=True)
        for newcomer in (contact(3), contact(4, share=5), contact(5, share=9)):
            assert table.has_room(newcomer)
        assert isinstance(table.add(contact(3), 0.0, verified=True), Added)

    def test_private_addresses_have_no_cap(self) -> None:
        table = RoutingTable(OWN)
        for number in range(20):
            one = contact(number, host="10.0.0.1")
            assert table.add(one, 0.0, verified=True) == Added(is_new=True)


class TestClosest:
    def test_exact_order_with_the_target_first(self) -> None:
        table = RoutingTable(random_id(random.Random(2)))
        rng = random.Random(3)
        for number in range(2000):
            table.add(Contact(random_id(rng), (LOCAL, number)), 0.0, verified=True)
        everyone = list(table)
        for target in [random_id(rng) for _ in range(50)] + [one.id for one in everyone]:
            truth = sorted(everyone, key=lambda one: distance(one.id, target))
            assert table.closest(target, 20) == truth[:20]
            assert table.closest(target, 45) == truth[:45]
        assert table.closest(everyone[0].id, 1) == everyone[:1]
        assert len(table.closest(everyone[0].id)) == table.k

    def test_fewer_than_wanted(self) -> None:
        table, known = full_table()
        assert len(table.closest(known[0].id, 50)) == len(known) + 1
        assert RoutingTable(OWN).closest(OWN, 5) == []
        assert table.closest(OWN, 0) == []

    def test_excluded_endpoint_does_not_cost_a_place(self) -> None:
        table = RoutingTable(OWN)
        for number in range(10):
            table.add(contact(number), 0.0, verified=True)
        for number in range(10, 15):
            table.add(contact(number, port=1000), 0.0, verified=True)
        found = table.closest(contact(0).id, 9, exclude=(LOCAL, 1000))
        assert found == [contact(number) for number in range(1, 10)]
        assert len(table.closest(contact(0).id, 12, exclude=(LOCAL, 1000))) == 9


class TestMemory:
    def test_two_hundred_contacts_cost_little(self) -> None:
        """Measured: 14 KiB beside the contacts themselves, which other tables share."""
        rng = random.Random(6)
        offered = [Contact(random_id(rng), (LOCAL, number)) for number in range(3000)]
        tracemalloc.start()
        table = RoutingTable(OWN, 40)
        for one in offered:
            if len(table) < 200:
                table.add(one, 1.0, verified=True)
        here = tracemalloc.Filter(True, "*/dhtos/core/*")
        traces = tracemalloc.take_snapshot().filter_traces([here]).statistics("filename")
        tracemalloc.stop()
        assert len(table) == 200
        assert sum(trace.size for trace in traces) < 20 * 1024


class TestSeenAndShares:
    def test_seen_needs_the_right_endpoint(self) -> None:
        table = RoutingTable(OWN)
        table.add(contact(7), 0.0, verified=False)
        assert not table.seen(contact(7).id, ("127.0.0.9", 1), 1.0)
        assert not table.is_verified(contact(7).id)
        assert not table.seen(contact(8).id, (LOCAL, 1008), 1.0)
        assert table.seen(contact(7).id, contact(7).endpoint, 1.0)
        assert table.is_verified(contact(7).id)
        assert not table.is_verified(contact(8).id)

    def test_unknown_ids_are_harmless(self) -> None:
        table, _ = full_table()
        assert table.get(contact(99).id) is None
        assert table.failed(contact(99).id, 0.0) is None
        assert table.remove(contact(99).id) is None
        table.check()

    def test_shares_tell_in_which_ranges_somebody_is_known(self) -> None:
        table = RoutingTable(OWN, 2)
        assert table.shares() == set()
        for share in (0, 3, 3, 7, 9, 9, 30):
            table.add(contact(len(table), share=share), 0.0, verified=True)
        assert table.bucket_count > 4
        assert table.shares() == {0, 3, 7, 9, 30}
        table.remove(contact(0).id)
        assert table.shares() == {3, 7, 9, 30}
