"""Replicas on machines: apart, away from where one was lost, and what gives way first."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dhtos.sched import Candidate, Need, elect


def machine(name, cores=4.0, *, domain=""):
    return Candidate(name.encode(), {"cores": 64.0}, {"cores": cores}, domain=domain)


def sites(letters, each, cores=4.0):
    return [machine(f"{site}{n}", cores, domain=site) for site in letters for n in range(each)]


def names(candidates):
    return [one.node_id.decode() for one in candidates]


def placed(machines, count, *, need=None, seed=1, **options):
    need = need or Need(cores=1)
    return names(elect(need, machines, count, rng=Random(seed), **options))


def places(*told):
    return [(name.encode(), name[0]) for name in told]


def test_each_has_a_machine_of_its_own_as_long_as_there_are_any():
    machines = [machine("a", 64), machine("b", 2), machine("c", 3)]
    assert sorted(placed(machines, 3)) == ["a", "b", "c"]
    assert Counter(placed(machines, 6)) == {"a": 2, "b": 2, "c": 2}
    assert Counter(placed(machines, 9)) == {"a": 4, "b": 2, "c": 3}  # they are used up
    assert placed(machines, 0) == placed([], 3) == []
    assert placed(machines, 3, need=Need(cores=65)) == []


def test_who_has_one_already_comes_last():
    machines = [machine(name) for name in "abc"]
    standing = [(b"a", ""), (b"b", ""), (b"b", "")]
    assert placed(machines, 1, standing=standing) == ["c"]
    assert sorted(placed(machines, 2, standing=standing)) in (["a", "c"], ["c", "c"])
    assert placed(machines[:2], 1, standing=standing) == ["a"]


def test_the_emptiest_domain_comes_before_the_emptiest_machine():
    machines = sites("xyz", 2)
    elected = placed(machines, 6)
    assert sorted(elected) == sorted(names(machines))
    assert {name[0] for name in elected[:3]} == {name[0] for name in elected[3:]} == set("xyz")
    standing = places("x0", "y0", "z0", "z1")
    assert {name[0] for name in placed(machines, 2, standing=standing)} == {"x", "y"}
    assert sorted(placed(machines, 2, standing=standing)) == ["x1", "y1"]


def test_a_domain_takes_so_many_and_no_more():
    machines = sites("xy", 3)
    assert Counter(name[0] for name in placed(machines, 9, at_most=2)) == {"x": 2, "y": 2}
    assert placed(machines, 9, at_most=1, standing=places("x0", "y2")) == []
    assert [n[0] for n in placed(machines, 9, at_most=1, standing=places("x0"))] == ["y"]


def test_where_one_was_lost_comes_after_all_else():
    machines = sites("xy", 2)
    shunned = places("x0")
    standing = places("y0", "y1", "y1")
    assert placed(machines, 1, standing=standing, shunned=shunned) == ["y0"]
    assert placed(machines[:2], 1, standing=standing, shunned=shunned) == ["x1"]
    assert placed(machines[:1], 1, standing=standing, shunned=shunned) == ["x0"]  # or nowhere
    assert placed(machines, 1, standing=standing, shunned=shunned, at_most=3) == ["x1"]


def test_among_equals_the_score_decides_and_then_chance():
    machines = [machine("a", 8), machine("b", 2), machine("c", 5)]
    assert placed(machines, 3) == ["b", "c", "a"]  # pack: the tightest fit first
    assert placed(machines, 3, need=Need(cores=1, prefer="spread")) == ["a", "c", "b"]
    equals = [machine(str(n)) for n in range(6)]
    assert len({placed(equals, 1, seed=seed)[0] for seed in range(40)}) > 3
    assert placed(equals, 4, seed=3) == placed(equals, 4, seed=3)


@given(
    free=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("xyz")), max_size=7),
    amount=st.integers(1, 4),
    count=st.integers(0, 12),
    at_most=st.none() | st.integers(1, 4),
    lost=st.sets(st.integers(0, 6)),
)
def test_nobody_is_given_more_than_there_is_and_nothing_is_left_undone(
    free, amount, count, at_most, lost
):
    machines = [machine(str(n), cores, domain=site) for n, (cores, site) in enumerate(free)]
    shunned = [(one.node_id, one.domain) for n, one in enumerate(machines) if n in lost]
    elected = elect(
        Need(cores=amount), machines, count, rng=Random(1), shunned=shunned, at_most=at_most
    )
    held, full = Counter(names(elected)), Counter(one.domain for one in elected)
    rooms = Counter()
    for n, (cores, site) in enumerate(free):
        assert held[str(n)] <= cores // amount
        rooms[site] += cores // amount
    for site, room in rooms.items():
        assert full[site] <= (room if at_most is None else min(room, at_most))
    most = sum(room if at_most is None else min(room, at_most) for room in rooms.values())
    assert len(elected) == min(count, most)
