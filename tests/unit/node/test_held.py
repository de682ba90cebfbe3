"""Who is meant by a name, and what he holds: by a log and by what is seen, without what went."""

from typing import Any

import pytest
from trust_world import NODE, Authority

from dhtos.errors import UsageError
from dhtos.node.held import held, held_by
from dhtos.trust.cert import Cert
from dhtos.trust.keys import KeyPair

DAY_S = 86_400


@pytest.fixture
def authority() -> Authority:
    return Authority()


def cert_of(authority: Authority, name: str, seed: int = 1, **what: Any) -> Cert:
    return authority.cert(KeyPair(bytes([seed]) * 32), name, **what)


def entry(what: str, cert: Cert, at: float = 1000.5, lasts_s: int = 30 * DAY_S) -> dict[str, Any]:
    """What the log says of a certificate that was given then."""
    one = held(cert)
    named = {"name": one.name, "id": one.id, "subject": one.subject, "serial": one.serial}
    return {"what": what, "at": at, "expires": int(at) + lasts_s, "caps": [*cert.caps], **named}


def test_somebody_is_named_in_three_ways(authority: Authority) -> None:
    mine, other = cert_of(authority, "bench-7"), cert_of(authority, "bench-8", 2)
    log = [entry("admitted", mine), entry("admitted", other)]
    one = held(mine)
    for who in ("bench-7", one.id, one.serial):
        (found,) = held_by(who, log, [])
        assert (found.serial, found.lasts_s, found.issues) == (one.serial, 30 * DAY_S, False)
    for who in ("bench-9", "", one.id[:8], one.subject):
        assert held_by(who, log, []) == []


def test_what_is_seen_counts_as_what_was_written_down(authority: Authority) -> None:
    """Whom another issuer has admitted is in no log here."""
    mine = cert_of(authority, "bench-7")
    assert held_by("bench-7", [], [mine]) == [held(mine)]
    later = cert_of(authority, "bench-7")  # the same key has joined again
    found = held_by("bench-7", [entry("admitted", mine)], [later])
    assert {one.serial for one in found} == {mine.serial.hex(), later.serial.hex()}


def test_of_one_number_the_longest_and_the_highest_counts(authority: Authority) -> None:
    """A revocation has to outlive what any issuer has made of it."""
    mine = cert_of(authority, "bench-7")
    log = [
        entry("admitted", mine, lasts_s=7 * DAY_S),
        entry("renewed", mine, at=9000.0),
        entry("renewed", mine, at=9900.0, lasts_s=DAY_S),
    ]
    (found,) = held_by("bench-7", log, [])
    assert (found.lasts_s, found.issues) == (30 * DAY_S, False)
    promoted = {**log[0], "what": "promoted", "caps": [*NODE, "issue", "admin"]}
    (found,) = held_by("bench-7", [promoted, *log], [])
    assert found.issues


def test_what_was_taken_back_is_held_no_more(authority: Authority) -> None:
    mine = cert_of(authority, "bench-7")
    gone = {"what": "revoked", "name": "bench-7", "id": "", "serial": mine.serial.hex()}
    assert held_by("bench-7", [entry("admitted", mine), gone], [mine]) == []
    again = cert_of(authority, "bench-7", 2)  # another machine of that name
    found = held_by("bench-7", [entry("admitted", mine), gone, entry("admitted", again)], [])
    assert [one.serial for one in found] == [again.serial.hex()]


def test_nobody_is_meant_by_a_name_of_two(authority: Authority) -> None:
    mine, other = cert_of(authority, "twin"), cert_of(authority, "twin", 2)
    with pytest.raises(UsageError, match="several are called 'twin': name one by its id: ") as said:
        held_by("twin", [entry("admitted", mine)], [other])
    for one in (mine, other):
        assert held(one).id in str(said.value)
