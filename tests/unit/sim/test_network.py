"""The way of a datagram: delay, weather, cuts."""

from math import inf, nan
from random import Random

import pytest

from dhtos.errors import ConfigError, UsageError
from dhtos.sim.clock import Clock
from dhtos.sim.matrix import LatencyMatrix
from dhtos.sim.network import SOCKET_BUFFER_MAX, Network, Weather
from dhtos.sim.node import SimNode
from dhtos.sim.testing import EchoEngine


def _world(count=2, seed=1, **options):
    clock = Clock()
    network = Network(clock, Random(seed), **options)
    nodes = []
    for index in range(count):
        node = SimNode(
            index, bytes(20), ("10.0.0.1", index + 1), rng=Random(0), place=index % network.places
        )
        node.boot(EchoEngine())
        network.attach(node)
        nodes.append(node)
    return clock, network, nodes


def _arrivals(clock):
    return [(event[0], event[2].index, event[3]) for event in sorted(clock.heap)]


def test_a_perfect_network_delivers_in_order_after_the_delay():
    clock, network, (one, two) = _world(delay=0.5)
    network.send(one, [(b"a", two.endpoint), (b"b", two.endpoint)])
    assert _arrivals(clock) == [(0.5, 1, b"a"), (0.5, 1, b"b")]
    assert network.sent == 2
    assert not network.fates
    network.check()


def test_the_datagram_is_not_copied():
    clock, network, (one, two) = _world()
    datagram = b"x" * 100
    network.send(one, [(datagram, two.endpoint)])
    assert clock.pop()[3] is datagram


def test_delays_of_a_matrix_follow_the_places():
    matrix = LatencyMatrix.from_rows([[0, 20], [40, 0]])
    clock, network, nodes = _world(3, delay=matrix)  # places 0, 1, 0
    network.send(nodes[0], [(b"", nodes[1].endpoint), (b"", nodes[2].endpoint)])
    network.send(nodes[1], [(b"", nodes[0].endpoint)])
    assert [event[0] for event in sorted(clock.heap)] == pytest.approx([0.0001, 0.010, 0.020])


def test_a_delay_may_be_a_function_of_the_two_nodes():
    clock, network, nodes = _world(3, delay=lambda source, target: 1.0 + 10 * source + target)
    network.send(nodes[2], [(b"", nodes[1].endpoint)])
    assert clock.next_time() == 22.0


def test_a_delay_function_must_be_positive():
    _, network, (one, two) = _world(delay=lambda source, target: 0.0)
    with pytest.raises(AssertionError, match="positive"):
        network.send(one, [(b"", two.endpoint)])


def test_nobody_at_the_address_is_silence():
    clock, network, (one, _) = _world()
    network.send(one, [(b"x", ("192.0.2.1", 1))])
    assert not clock.heap
    assert network.fates["nobody there"] == 1


def test_an_endpoint_belongs_to_one_node():
    _, network, (one, two) = _world()
    with pytest.raises(UsageError, match="taken"):
        network.attach(SimNode(9, bytes(20), one.endpoint, rng=Random(0)))
    assert network.at(two.endpoint) is two
    assert network.at(("192.0.2.1", 1)) is None


def _send_many(weather, count=2000):
    clock, network, (one, two) = _world(delay=0.1, weather=weather)
    network.send(one, [(b"%d" % number, two.endpoint) for number in range(count)])
    return _arrivals(clock), network.fates


def test_loss_takes_its_share():
    arrivals, fates = _send_many(Weather(loss=0.25))
    assert 0.2 < fates["lost"] / 2000 < 0.3
    assert len(arrivals) == 2000 - fates["lost"]
    assert not _send_many(Weather(loss=1.0))[0]


def test_duplication_adds_copies():
    arrivals, fates = _send_many(Weather(duplication=0.1))
    assert 0.07 < fates["duplicated"] / 2000 < 0.13
    assert len(arrivals) == 2000 + fates["duplicated"]


def test_reordering_holds_back_and_lets_others_overtake():
    arrivals, fates = _send_many(Weather(reordering=0.1, held_back_s=0.3))
    assert 0.07 < fates["held back"] / 2000 < 0.13
    assert [int(data) for _, _, data in arrivals] != list(range(2000))
    assert max(when for when, _, _ in arrivals) <= 0.4


def test_jitter_only_lengthens():
    arrivals, _ = _send_many(Weather(jitter=0.5))
    times = [when for when, _, _ in arrivals]
    assert min(times) >= 0.1
    assert 0.145 < max(times) <= 0.15


def test_one_seed_is_one_weather():
    weather = Weather(loss=0.1, duplication=0.1, reordering=0.1, jitter=0.1)
    assert _send_many(weather) == _send_many(weather)


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss", -0.1), ("loss", 1.1), ("duplication", nan), ("reordering", 2), ("jitter", -1),
     ("jitter", inf), ("held_back_s", nan)],
)  # fmt: skip
def test_impossible_weather_is_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        Weather(**{field: value})


def test_weather_may_change_at_any_time():
    clock, network, (one, two) = _world()
    network.weather = Weather(loss=1.0)
    network.check()
    network.send(one, [(b"x", two.endpoint)])
    assert not clock.heap
    network.weather = Weather()
    network.check()
    network.send(one, [(b"x", two.endpoint)])
    assert len(clock.heap) == 1


def _heard(clock, network, nodes):
    """Who hears whom, as pairs."""
    pairs = set()
    for source in nodes:
        network.send(source, [(b"", target.endpoint) for target in nodes])
        while clock.heap:
            pairs.add((source.index, clock.pop()[2].index))
    return pairs


def test_a_cut_separates_groups_from_one_another_and_from_the_rest():
    clock, network, nodes = _world(6)
    everything = _heard(clock, network, nodes)
    network.cut("split", nodes[:2], nodes[2:4])
    sides = [0, 0, 1, 1, 2, 2]
    assert _heard(clock, network, nodes) == {(a, b) for a, b in everything if sides[a] == sides[b]}
    assert network.cuts == ("split",)
    network.check()
    network.heal("split")
    assert _heard(clock, network, nodes) == everything
    assert network.fates["cut"] == 24


def test_cuts_add_up():
    clock, network, nodes = _world(3)
    network.cut("a", nodes[:1])
    network.cut("b", nodes[1:2])
    assert _heard(clock, network, nodes) == {(0, 0), (1, 1), (2, 2)}
    network.heal("a")
    assert (0, 2) in _heard(clock, network, nodes)
    assert (0, 1) not in _heard(clock, network, nodes)


def test_a_cut_may_be_one_way():
    clock, network, nodes = _world(3)
    network.cut_one_way("mute", nodes[:1], nodes[1:])
    pairs = _heard(clock, network, nodes)
    assert (0, 1) not in pairs
    assert (1, 0) in pairs


def test_a_cut_stops_only_what_is_sent_while_it_stands():
    clock, network, (one, two) = _world()
    network.send(one, [(b"before", two.endpoint)])
    network.cut("x", [one])
    network.send(one, [(b"during", two.endpoint)])
    network.heal("x")
    network.send(one, [(b"after", two.endpoint)])
    assert [data for _, _, data in _arrivals(clock)] == [b"before", b"after"]


def test_cuts_have_names():
    _, network, nodes = _world()
    network.cut("x", nodes[:1])
    with pytest.raises(UsageError, match="already stands"):
        network.cut("x", nodes[1:])
    with pytest.raises(UsageError, match="separates nobody"):
        network.cut("y", [])
    with pytest.raises(UsageError, match="separates nobody"):
        network.cut_one_way("y", [], nodes)
    with pytest.raises(UsageError, match=r"no cut 'z' stands, only \['x'\]"):
        network.heal("z")


def test_a_paused_node_buffers_up_to_a_limit():
    _, network, (one, two) = _world()
    two.pause()
    for number in range(SOCKET_BUFFER_MAX + 5):
        network.hold(two, b"%d" % number, one)
    assert len(two.inbox) == SOCKET_BUFFER_MAX
    assert two.inbox[0] == (b"0", one)
    assert network.fates["buffer full"] == 5
    network.check()


def test_a_node_that_is_down_is_silence():
    _, network, (one, two) = _world()
    two.stop()
    network.hold(two, b"x", one)
    assert not two.inbox
    assert network.fates["node down"] == 1
