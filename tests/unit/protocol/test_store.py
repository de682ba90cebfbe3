"""What the value store keeps, what replaces what, and when it forgets."""

import random

import pytest

from dhtos.core import limits
from dhtos.core.limits import VALUE_TTL_S, VALUES_PER_SOURCE_MAX
from dhtos.protocol import store as module
from dhtos.protocol.store import Held, Store, StoredValue, Verdict

KEY = b"k" * 20
SOURCE = ("10.0.0.1", 7400)
HELD, SUPERSEDED, NO_ROOM = Verdict.HELD, Verdict.SUPERSEDED, Verdict.NO_ROOM


def key(number: int) -> bytes:
    return number.to_bytes(20)


@pytest.fixture
def store():
    made = Store()
    yield made
    made.check()


class TestOrder:
    def test_a_higher_number_wins(self, store):
        assert store.put(KEY, "old", 0.0, seq=1) is HELD
        assert store.put(KEY, "new", 1.0, seq=2) is HELD
        assert store.put(KEY, "old", 2.0, seq=1) is SUPERSEDED
        assert store.get(KEY, 3.0).value == "new"

    def test_ties_are_settled_alike_in_any_order(self):
        for values in (("a", "b"), ("b", "a")):
            store = Store()
            verdicts = [store.put(KEY, value, 0.0, seq=5) for value in values]
            winner = store.get(KEY, 1.0).value
            assert verdicts[values.index(winner)] is HELD
            assert winner == max("ab", key=lambda value: Held(value, 5, 1.0).rank)

    def test_types_are_told_apart(self, store):
        store.put(KEY, 1, 0.0)
        store.put(KEY, True, 1.0)
        assert store.get(KEY, 1.0).value is True

    def test_without_numbers_the_last_store_wins_as_stock(self, store):
        store.put(KEY, "first", 0.0)
        assert store.put(KEY, "second", 1.0) is HELD
        assert store.get(KEY, 1.0).value == "second"

    def test_without_numbers_an_old_copy_does_not_come_back(self, store):
        store.put(KEY, "new", 100.0)
        assert store.put(KEY, "old", 200.0, ttl_s=VALUE_TTL_S - 150.0) is SUPERSEDED
        assert store.get(KEY, 200.0).value == "new"

    def test_a_stock_store_never_replaces_a_live_number(self, store):
        store.put(KEY, "numbered", 0.0, seq=1, ttl_s=100.0)
        assert store.put(KEY, "stock", 50.0) is SUPERSEDED
        assert store.get(KEY, 50.0).value == "numbered"
        assert store.put(KEY, "stock", 100.0) is HELD
        assert store.get(KEY, 100.0).value == "stock"

    def test_a_number_replaces_a_stock_store(self, store):
        store.put(KEY, "stock", 0.0)
        assert store.put(KEY, "numbered", 0.0, seq=1, ttl_s=1.0) is HELD


class TestLife:
    def test_values_expire(self, store):
        store.put(KEY, "v", 10.0, ttl_s=5.0)
        assert store.get(KEY, 14.9).value == "v"
        assert store.get(KEY, 15.0) is None
        store.put(key(1), "other", 16.0)
        assert len(store) == 1

    def test_a_copy_never_lengthens_a_numbered_life(self, store):
        store.put(KEY, "v", 0.0, seq=3, ttl_s=10.0)
        assert store.put(KEY, "v", 5.0, seq=3, ttl_s=10.0) is HELD
        assert store.get(KEY, 10.0) is None

    def test_a_stock_node_may_set_its_value_again(self, store):
        store.put(KEY, "v", 0.0, ttl_s=10.0)
        store.put(KEY, "v", 5.0, ttl_s=10.0)
        assert store.get(KEY, 12.0).value == "v"
        assert store.put(KEY, "v", 6.0, ttl_s=1.0) is HELD
        assert store.get(KEY, 12.0).value == "v"
        assert store.get(KEY, 15.0) is None

    def test_a_newer_value_may_live_shorter(self, store):
        store.put(KEY, "long", 0.0, seq=1, ttl_s=100.0)
        store.put(KEY, "short", 0.0, seq=2, ttl_s=1.0)
        assert store.get(KEY, 1.0) is None
        store.put(key(2), "x", 2.0)
        assert store.keys() == [key(2)]

    def test_items_are_the_live_values(self, store):
        store.put(key(1), "a", 0.0, seq=4, ttl_s=10.0)
        store.put(key(2), "b", 0.0, ttl_s=2.0)
        assert list(store.items(5.0)) == [(key(1), StoredValue("a", 4, 5.0))]


class TestRepublication:
    def test_what_nobody_stored_for_long_is_due(self, store):
        store.put(key(1), "a", 0.0)
        store.put(key(2), "b", 10.0)
        assert store.due(99.0, 100.0) == []
        assert store.due(100.0, 100.0) == [key(1)]
        store.put(key(1), "a", 101.0)
        assert store.due(110.0, 100.0) == [key(2)]

    def test_our_own_republication_counts(self, store):
        store.put(key(1), "a", 0.0, seq=1)
        store.republished(key(1), 100.0)
        assert store.due(150.0, 100.0) == []
        assert store.due(200.0, 100.0) == [key(1)]
        store.republished(key(9), 100.0)

    def test_what_has_expired_is_not_due(self, store):
        store.put(key(1), "a", 0.0, ttl_s=50.0)
        assert store.due(100.0, 100.0) == []


class TestBounds:
    def test_one_source_has_a_share(self, store, monkeypatch):
        monkeypatch.setattr(module, "VALUES_PER_SOURCE_MAX", 3)
        assert [store.put(key(n), n, 0.0, source=SOURCE) for n in range(4)] == [HELD] * 3 + [
            NO_ROOM
        ]
        assert store.put(key(9), 9, 0.0, source=("10.0.0.1", 7401)) is HELD
        assert store.put(key(8), 8, 0.0) is HELD
        assert store.put(key(0), "again", 0.0, source=SOURCE, seq=1) is HELD

    def test_a_public_subnet_is_one_source(self, store, monkeypatch):
        monkeypatch.setattr(module, "VALUES_PER_SOURCE_MAX", 2)
        hosts = ["8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.9.1"]
        verdicts = [store.put(key(n), n, 0.0, source=(host, n + 1)) for n, host in enumerate(hosts)]
        assert verdicts == [HELD, HELD, NO_ROOM, HELD]

    def test_expiry_gives_the_share_back(self, store, monkeypatch):
        monkeypatch.setattr(module, "VALUES_PER_SOURCE_MAX", 1)
        store.put(key(1), 1, 0.0, source=SOURCE, ttl_s=5.0)
        assert store.put(key(2), 2, 1.0, source=SOURCE) is NO_ROOM
        assert store.put(key(2), 2, 6.0, source=SOURCE) is HELD

    def test_values_and_bytes_are_bounded(self, store, monkeypatch):
        monkeypatch.setattr(module, "VALUES_MAX", 2)
        assert [store.put(key(n), n, 0.0) for n in range(3)] == [HELD, HELD, NO_ROOM]
        monkeypatch.setattr(module, "VALUES_MAX", 100)
        monkeypatch.setattr(module, "VALUES_BYTES_MAX", 2000)
        assert store.put(key(3), b"v" * 1500, 0.0) is NO_ROOM
        assert store.put(key(1), b"v" * 1500, 0.0, seq=1) is NO_ROOM
        assert store.put(key(1), b"v" * 500, 0.0, seq=1) is HELD

    def test_one_key_set_again_and_again_does_not_grow(self, store):
        for number in range(1, 1000):
            store.put(KEY, number, 0.0, seq=number, ttl_s=1000.0 - number / 10)
        assert len(store._expiries) < 150
        assert store.get(KEY, 1.0).value == 999
        store.check()

    def test_the_limits_are_sane(self):
        assert VALUES_PER_SOURCE_MAX <= limits.VALUES_MAX
        assert limits.VALUES_MAX * 300 < limits.VALUES_BYTES_MAX


@pytest.mark.parametrize("seed", range(5))
def test_random_histories_keep_the_invariants(seed):
    """Whatever is offered in whatever order, the store stays bounded and ordered."""
    rng = random.Random(seed)
    store = Store()
    now = 0.0
    best: dict[bytes, tuple[int, bytes]] = {}
    for _ in range(600):
        now += rng.random() * 5
        name = key(rng.randrange(12))
        value = rng.choice(["x", "yy", 3, b"zzz", 1.5, True])
        seq = rng.randrange(1, 5)
        old = store.get(name, now)
        verdict = store.put(name, value, now, seq=seq, ttl_s=rng.uniform(1, 60))
        new = (seq, Held(value, seq, 0.0).rank)
        if old is not None:
            assert (verdict is HELD) == (new >= (old.seq, old.rank)), seed
        held = store.get(name, now)
        if old is not None:
            assert (held.seq, held.rank) >= (old.seq, old.rank), seed
        best[name] = (held.seq, held.rank)
        store.check()
    assert len(best) == 12
