"""Members of a gang on machines: room, domains, devices, and what a machine has after each."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dhtos.sched import Candidate, Need, assign


def machine(name, cores, *, domain="", **others):
    return Candidate(name.encode(), {"cores": 64.0, **others}, {"cores": cores}, domain=domain)


def names(members):
    return [member.node_id.decode() for member in members]


def placed(need, machines, count, **options):
    return names(assign(need, machines, count, rng=Random(1), **options))


def test_a_machine_takes_as_many_as_fit():
    machines = [machine("a", 5), machine("b", 3)]
    assert sorted(placed(Need(cores=2), machines, 3)) == ["a", "a", "b"]
    assert sorted(placed(Need(cores=2), machines, 9)) == ["a", "a", "b"]
    assert placed(Need(cores=6), machines, 2) == []
    assert placed(Need(cores=1), [], 2) == []
    assert placed(Need(cores=1), machines, 0) == []


def test_so_many_share_a_domain_and_no_more():
    machines = [machine(f"{site}{n}", 64, domain=site) for site in "xyz" for n in range(3)]
    members = placed(Need(cores=1), machines, 5, at_most=1)
    assert sorted(name[0] for name in members) == ["x", "y", "z"]
    more = placed(Need(cores=1), machines, 5, at_most=2, placed=["x", "x", "y"])
    assert sorted(name[0] for name in more) == ["y", "z", "z"]


def test_a_spread_gang_prefers_where_nobody_is():
    machines = [machine(site, 64, domain=site) for site in "xyz"]
    members = placed(Need(cores=1, prefer="spread"), machines, 6)
    assert sorted(members) == ["x", "x", "y", "y", "z", "z"]


def test_devices_are_used_up():
    shared = Candidate(b"g", {"gpus": 3.0}, {}, devices=(1.0, 0.5, 0.25))
    assert placed(Need(gpus=0.25), [shared], 9) == ["g"] * 7
    assert placed(Need(gpus=0.4), [shared], 9) == ["g"] * 3
    assert placed(Need(gpus=1), [shared], 9) == ["g"]
    whole = Candidate(b"w", {"gpus": 4.0}, {"gpus": 3.0})
    assert placed(Need(gpus=2), [whole], 9) == ["w"]


@given(
    free=st.lists(st.integers(0, 12), max_size=6),
    amount=st.integers(1, 5),
    count=st.integers(0, 12),
    seed=st.integers(0, 9),
)
def test_nobody_is_given_more_than_there_is_and_nothing_is_left_undone(free, amount, count, seed):
    machines = [machine(str(n), cores) for n, cores in enumerate(free)]
    members = assign(Need(cores=amount), machines, count, rng=Random(seed))
    rooms = [cores // amount for cores in free]
    assert len(members) == min(count, sum(rooms))
    for n, room in enumerate(rooms):
        assert names(members).count(str(n)) <= room
