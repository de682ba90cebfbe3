"""Round-trip times follow RFC 6298, and the memory of peers is bounded."""

import pytest

from dhtos.core.limits import (
    PEERS_MAX,
    RTO_CEILING_S,
    RTO_FLOOR_S,
    RTO_SAMPLES_MAX,
    RTO_SAMPLES_MIN,
    RTO_SLACK_S,
    RTO_UNKNOWN_S,
)
from dhtos.protocol.peers import Capability, Peer, Peers


def test_the_time_out_of_an_unknown_peer_is_the_first_guess() -> None:
    assert Peer(("127.0.0.1", 1)).rto() == RTO_UNKNOWN_S


def test_rfc_6298_arithmetic() -> None:
    peer = Peer(("127.0.0.1", 1))
    peer.sample(0.2)
    assert (peer.srtt, peer.rttvar) == (0.2, 0.1)
    assert peer.rto() == pytest.approx(0.6)
    peer.sample(0.4)
    assert peer.rttvar == pytest.approx(0.1 + (0.2 - 0.1) / 4)
    assert peer.srtt == pytest.approx(0.2 + 0.2 / 8)


@pytest.mark.parametrize(("rtt", "expected"), [(0.0001, RTO_FLOOR_S), (5.0, RTO_CEILING_S)])
def test_the_time_out_is_clamped(rtt: float, expected: float) -> None:
    peer = Peer(("127.0.0.1", 1))
    for _ in range(50):
        peer.sample(rtt)
    assert peer.rto() == expected


def test_a_late_reply_doubles_the_patience_until_one_is_in_time() -> None:
    peer = Peer(("127.0.0.1", 1))
    waited = []
    for _ in range(5):
        waited.append(peer.rto())
        peer.was_late()
    assert waited == [RTO_UNKNOWN_S * factor for factor in (1, 2, 4, 8, 8)]
    assert waited[-1] == RTO_CEILING_S
    peer.sample(0.01)
    assert peer.rto() == RTO_FLOOR_S
    for _ in range(1000):
        peer.was_late()
    assert peer.rto() == RTO_CEILING_S


def test_the_longest_known_peer_is_forgotten_over_the_limit() -> None:
    peers = Peers()
    for port in range(1, PEERS_MAX + 2):
        peers.of(("192.0.2.1", port)).capability = Capability.STOCK
    assert len(peers) == PEERS_MAX
    assert peers.known(("192.0.2.1", 1)) is None
    assert peers.known(("192.0.2.1", 2)) is not None
    peers.check()


def test_looking_up_remembers_nothing() -> None:
    peers = Peers()
    assert peers.known(("192.0.2.1", 1)) is None
    assert len(peers) == 0


def _measured(count: int, rtt_s: float = 0.001) -> Peers:
    peers = Peers()
    for port in range(1, count + 1):
        peers.of(("192.0.2.1", port)).sample(rtt_s)
    return peers


def test_a_few_near_peers_make_no_better_guess() -> None:
    assert Peers().guess() == RTO_UNKNOWN_S
    peers = _measured(RTO_SAMPLES_MIN - 1)
    peers.of(("192.0.2.2", 1))  # never measured: no sample
    assert peers.guess() == RTO_UNKNOWN_S


def test_many_near_peers_do() -> None:
    assert _measured(RTO_SAMPLES_MIN).guess() == 2 * RTO_FLOOR_S
    assert _measured(RTO_SAMPLES_MIN, 0.08).guess() == pytest.approx(0.16)


def test_one_far_peer_speaks_against_it() -> None:
    peers = _measured(RTO_SAMPLES_MIN)
    peers.of(("192.0.2.2", 1)).sample(0.15)
    assert peers.guess() == RTO_UNKNOWN_S


def test_only_those_met_last_are_looked_at() -> None:
    peers = Peers()
    peers.of(("192.0.2.2", 1)).sample(0.15)
    for port in range(1, RTO_SAMPLES_MAX + 1):
        peers.of(("192.0.2.1", port)).sample(0.001)
    assert peers.guess() == 2 * RTO_FLOOR_S


def test_the_guess_stands_in_until_the_first_sample() -> None:
    peers = Peers()
    peer = peers.of(("192.0.2.1", 1))
    peer.guess = 2 * RTO_FLOOR_S
    peers.check()
    assert peer.rto() == 2 * RTO_FLOOR_S
    peer.sample(0.2)
    assert peer.rto() == pytest.approx(0.6)


def test_a_steady_path_keeps_some_slack() -> None:
    peer = Peer(("192.0.2.1", 1))
    for _ in range(200):
        peer.sample(0.15)
    assert peer.rto() == pytest.approx(0.15 + RTO_SLACK_S)
