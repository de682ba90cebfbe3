"""The five datagrams: their sizes, cookies of addresses and epochs, rates, the replay window."""

from random import Random

import msgspec
import pytest

from dhtos.core.limits import COOKIE_S, HANDSHAKES_BURST, HANDSHAKES_PER_S, REASON_BYTES_MAX
from dhtos.errors import MalformedMessage
from dhtos.protocol import rates
from dhtos.protocol.handshakes import (
    DATA,
    PROBE,
    PROBE_BYTES,
    WHO_BYTES,
    Doorkeeper,
    Ready,
    Window,
    probe,
    read_ready,
    write_ready,
)

HERE = ("192.0.2.1", 7400)
NONCE = bytes(range(16))
EPOCH = 10 * COOKIE_S


@pytest.fixture
def door():
    return Doorkeeper(b"s" * 32, b"p" * 32)


def cookie(door, source=HERE, now=EPOCH, nonce=NONCE):
    return door.who(nonce, source, now)[17:33]


# --- sizes ----------------------------------------------------------------------------------------


def test_the_first_question_is_longer_than_its_answer(door):
    asked, answered = probe(NONCE), door.who(NONCE, HERE, EPOCH)
    assert (len(asked), len(answered)) == (PROBE_BYTES, WHO_BYTES) == (66, 65)
    assert asked[0] == PROBE
    assert answered[1:17] == NONCE
    assert answered[33:] == b"p" * 32
    assert PROBE > 1  # the stock wire begins with 0 and 1
    assert DATA < 256


# --- cookies --------------------------------------------------------------------------------------


def test_a_cookie_is_of_one_address_and_nonce(door):
    right = cookie(door)
    assert door.admits(NONCE, right, HERE, EPOCH)
    for source in [("192.0.2.2", 7400), ("192.0.2.1", 7401), ("192.0.2.17", 400), ("", 0)]:
        assert not door.admits(NONCE, right, source, EPOCH)
    assert not door.admits(bytes(16), right, HERE, EPOCH)
    assert not door.admits(NONCE, bytes(16), HERE, EPOCH)
    assert not door.admits(NONCE, b"", HERE, EPOCH)


def test_a_cookie_is_of_one_node(door):
    assert not Doorkeeper(b"t" * 32, b"p" * 32).admits(NONCE, cookie(door), HERE, EPOCH)


@pytest.mark.parametrize(
    ("after", "good"),
    [
        (-1, False),
        (0, True),
        (COOKIE_S - 1, True),
        (COOKIE_S, True),
        (2 * COOKIE_S - 1, True),
        (2 * COOKIE_S, False),
        (3 * COOKIE_S, False),
    ],
)
def test_a_cookie_lives_one_to_two_epochs(door, after, good):
    assert door.admits(NONCE, cookie(door), HERE, EPOCH + after) is good


def test_hosts_and_ports_do_not_run_together(door):
    """Of `1` + `23` and `12` + `3`, say."""
    assert cookie(door, ("10.0.0.1", 23)) != cookie(door, ("10.0.0.12", 3))
    assert cookie(door, ("10.0.0.1", 23)) != cookie(door, ("10.0.0.1", 2))


# --- rates ----------------------------------------------------------------------------------------


def admitted(door, source, now, tries):
    right = cookie(door, source, now)
    return sum(door.admits(NONCE, right, source, now) for _ in range(tries))


def test_an_address_has_a_burst_then_a_rate(door):
    assert admitted(door, HERE, EPOCH, 1000) == HANDSHAKES_BURST
    assert admitted(door, HERE, EPOCH, 10) == 0
    assert admitted(door, HERE, EPOCH + 0.5, 1000) == HANDSHAKES_PER_S / 2
    assert admitted(door, HERE, EPOCH + 1000.0, 1000) == HANDSHAKES_BURST  # and not more
    assert admitted(door, ("192.0.2.2", 1), EPOCH, 1) == 1  # another is not concerned


def test_all_ports_of_a_host_share_its_rate(door):
    taken = [admitted(door, ("192.0.2.1", port), EPOCH, 1) for port in range(1, 1000)]
    assert sum(taken) == HANDSHAKES_BURST


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("not:an:address", "not:an:address", True),
        ("not:an:address", "nor:this", False),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_a_network_of_version_6_shares_one_rate(door, one, other, shared):
    assert admitted(door, (one, 1), EPOCH, 1000) == HANDSHAKES_BURST
    assert admitted(door, (other, 1), EPOCH, 1) == (not shared)


def test_a_wrong_cookie_costs_nobody_anything(door):
    for _ in range(1000):
        assert not door.admits(NONCE, bytes(16), HERE, EPOCH)
    assert admitted(door, HERE, EPOCH, 1000) == HANDSHAKES_BURST


def test_rates_that_are_remembered_are_bounded(door, monkeypatch):
    monkeypatch.setattr(rates, "HANDSHAKE_SOURCES_MAX", 3)
    for n in range(10):
        assert admitted(door, (f"10.0.0.{n}", 1), EPOCH, 1) == 1
        assert len(door._rates._left) <= 3


# --- the second message ---------------------------------------------------------------------------


def test_what_ready_says_comes_back():
    assert read_ready(write_ready(b"chain", "")) == Ready(b"chain", "")
    assert read_ready(write_ready(b"", "why not")) == Ready(b"", "why not")
    assert read_ready(write_ready(b"", "x" * 1000)).refusal == "x" * REASON_BYTES_MAX


@pytest.mark.parametrize(
    "content",
    [[], [b""] * 3, ["text"], [b"", 1], [b"", "a\nb"], [b"", "x" * 121], {}, None, 7],
)
def test_what_ready_cannot_say(content):
    with pytest.raises(MalformedMessage):
        read_ready(msgspec.msgpack.encode(content))


def test_ready_that_is_no_message_pack():
    rng = Random(1)
    for payload in [b"", b"\xc1", b"\x92\xa1\xff\xa0", *map(rng.randbytes, range(1, 60))]:
        with pytest.raises(MalformedMessage):
            read_ready(payload)


# --- the replay window ----------------------------------------------------------------------------


def test_each_counter_once():
    window = Window()
    for counter in (0, 1, 5, 3, 2, 4, 2000, 1500, 977):
        assert window.fresh(counter)
        window.add(counter)
        assert not window.fresh(counter)


@pytest.mark.parametrize(("behind", "fresh"), [(0, False), (1, True), (1023, True), (1024, False)])
def test_how_far_behind_is_known(behind, fresh):
    window = Window()
    window.add(5000)
    assert window.fresh(5000 - behind) is fresh


def test_what_leaves_the_window_is_old():
    window = Window()
    for counter in range(1024):
        window.add(counter)
    assert not any(map(window.fresh, range(1024)))
    window.add(2**60)
    assert not any(map(window.fresh, range(1024)))
    assert window.fresh(2**60 - 1)
    assert window.fresh(2**60 + 1)
    assert window._seen == 1


@pytest.mark.parametrize("seed", range(5))
def test_it_is_as_a_set_would_say(seed):
    rng = Random(seed)
    window, seen, top = Window(), set(), -1
    for _ in range(3000):
        counter = max(0, top + rng.choice((1, 1, 1, 2, 700, -1, -3, -500, -1023, -1024, -1500)))
        true = counter not in seen and counter > top - Window.BITS
        assert window.fresh(counter) is true
        if true:
            window.add(counter)
            seen.add(counter)
            top = max(top, counter)
        assert window._seen < 1 << Window.BITS
