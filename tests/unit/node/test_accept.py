"""Whose work a machine takes: predicates on claims."""

import pytest
from trust_world import USER, Authority

from dhtos.core.limits import PRIORITY_MAX
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.errors import ConfigError
from dhtos.node.accept import Accept
from dhtos.node.config import Config
from dhtos.protocol.grants import Claim
from dhtos.trust.keys import KeyPair

GIB = 2**30


def claim(
    *, address="10.0.0.7", priority=0, price=None, preempt=False, who=None, groups=(), **resources
):
    return Claim(bytes(16), (address, 7400), resources, priority, price, preempt, who, groups)


def claim_of(name, *groups, **options):
    """A claim in a cluster."""
    authority = Authority()
    cert = authority.cert(KeyPair(b"k" * 32), name, caps=USER, groups=groups)
    return claim(who=cert, groups=groups, **options)


@pytest.mark.parametrize(
    ("text", "taken", "refused"),
    [
        ("priority >= 5", claim(priority=5), claim(priority=4)),
        ("priority > -3", claim(), claim(priority=-PRIORITY_MAX)),
        ("address == '10.0.0.7'", claim(), claim(address="10.0.0.8")),
        ("address.startswith('10.0.')", claim(), claim(address="10.1.0.7")),
        ("address in ('::1', '10.0.0.9')", claim(address="::1"), claim()),
        ("cores <= 4", claim(cores=4.0), claim(cores=4.5)),
        ("not cores > 4", claim(cores=4.0), claim(cores=5.0)),
        ("mem < 8GiB and gpus < 1", claim(mem=GIB, gpus=0.5), claim(mem=GIB, gpus=1.0)),
        ("max_price >= 0.10", claim(price=0.1), claim(price=0.09)),
        ("not preempt", claim(), claim(preempt=True)),
        ("priority >= 5 or cores <= 2", claim(cores=1.0), claim(cores=3.0)),
        ("user == 'alice'", claim_of("alice"), claim_of("mallory")),
        ("user.startswith('ci-')", claim_of("ci-7"), claim_of("alice")),
        ("attested(gpu)", claim_of("alice", "lab", "gpu"), claim_of("alice", "lab")),
        ("attested(team) == 'render'", claim_of("a", "team.ml", "team.render"), claim_of("a", "x")),
        (
            "user == 'alice' or (attested(lab) and cores <= 2)",
            claim_of("bob", "lab", cores=2.0),
            claim_of("bob", "lab", cores=3.0),
        ),
    ],
)
def test_claims_are_taken_or_refused(text, taken, refused):
    accept = Accept(text, MACHINE_SCHEMA)
    assert accept(taken)
    assert not accept(refused)


@pytest.mark.parametrize(
    "text",
    [
        "cores <= 4",
        "not cores > 4",
        "max_price >= 0",
        "user != 'mallory'",
        "attested(lab)",
        "not attested(lab)",
        "attested(team) != 'x'",
    ],
)
def test_what_a_claim_does_not_say_matches_nothing(text):
    assert not Accept(text, MACHINE_SCHEMA)(claim())


def test_what_is_no_resource_here_does_not_matter():
    assert Accept("priority >= 0", MACHINE_SCHEMA)(claim(wheels=4.0, priority=1))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("prority >= 5", "priority"),
        ("site == 'lab'", "site"),  # of the machine, not of the claim
        ("priority >=", "accept"),
        ("usr == 'alice'", "user"),
        ("attestd(gpu)", "attested"),
        ("group == 'gpu'", "unknown attribute 'group'"),
        ("rtt(self) < 5ms", "accept"),
    ],
)
def test_what_cannot_be_read_is_said_at_the_start(text, hint):
    with pytest.raises(ConfigError, match=hint):
        Accept(text, MACHINE_SCHEMA)
    with pytest.raises(ConfigError, match="accept"):
        Config(accept=text)


def test_it_is_a_text():
    with pytest.raises(ConfigError, match="accept must be"):
        Config(accept=5)
    assert Config.from_env({"DHTOS_ACCEPT": "priority >= 5"}).accept == "priority >= 5"
