"""How often an address may have us work."""

from dhtos.core.limits import HANDSHAKE_SOURCES_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_S
from dhtos.protocol.rates import Rates, network_of


def admitted(rates, host, now, tries):
    return sum(rates.admit(host, now) for _ in range(tries))


def test_a_burst_and_then_so_many_a_second():
    rates = Rates()
    assert admitted(rates, "10.0.0.1", 0.0, 2 * HANDSHAKES_BURST) == HANDSHAKES_BURST
    assert admitted(rates, "10.0.0.1", 2.0, 2 * HANDSHAKES_BURST) == 2 * HANDSHAKES_PER_S
    assert admitted(rates, "10.0.0.2", 2.0, 1) == 1
    assert admitted(rates, "10.0.0.1", 1e6, 2 * HANDSHAKES_BURST) == HANDSHAKES_BURST


def test_the_table_is_bounded_and_who_comes_often_stays_in_it():
    rates = Rates()
    assert admitted(rates, "busy", 0.0, 2 * HANDSHAKES_BURST) == HANDSHAKES_BURST
    for number in range(2 * HANDSHAKE_SOURCES_MAX):
        rates.admit(f"host {number}", 0.0)
        assert not rates.admit("busy", 0.0)
    assert len(rates._left) == HANDSHAKE_SOURCES_MAX


def test_of_ipv6_the_first_half_counts():
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9%eth0")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("what:is:this") == "what:is:this"
