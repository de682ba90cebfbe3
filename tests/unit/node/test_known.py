"""Whom a node asks for a place in the hub, or a client for everything."""

import random

from dhtos.core.contact import Contact
from dhtos.node.known import GATEWAYS_MAX, gateways
from dhtos.protocol.engine import Engine
from dhtos.protocol.peers import Capability

SEED, CONTACT, PASSER, STOCK, SILENT = (("192.0.2.1", port) for port in range(7401, 7406))


def engine_that_heard(*heard, speaks=Capability.DHTOS):
    """An engine with peers, the first heard longest ago."""
    rng = random.Random(1)
    engine = Engine(rng.randbytes(20), rng=rng, now=0.0)
    for now, endpoint in enumerate(heard, 1):
        peer = engine.core.peers.of(endpoint)
        peer.capability, peer.last_heard = speaks, float(now)
    return engine


def test_those_heard_last_come_first_whoever_they_are():
    engine = engine_that_heard(SEED, CONTACT, PASSER)
    engine.base.routing.add(Contact(bytes(20), CONTACT), 0.0, verified=True)
    assert gateways(engine, [SEED]) == [PASSER, CONTACT, SEED]
    engine.core.peers.of(SEED).last_heard = 9.0
    assert gateways(engine, [SEED]) == [SEED, PASSER, CONTACT]


def test_who_speaks_another_wire_or_was_never_heard_is_left_out():
    engine = engine_that_heard(SEED)
    engine.core.peers.of(STOCK).capability = Capability.STOCK
    engine.core.peers.of(STOCK).last_heard = 5.0
    engine.core.peers.of(SILENT)
    assert gateways(engine, [SILENT, STOCK, SEED, ("192.0.2.9", 1)]) == [SEED]


def test_there_are_only_so_many():
    everybody = [("192.0.2.7", port) for port in range(1, 3 * GATEWAYS_MAX)]
    found = gateways(engine_that_heard(*everybody), everybody[:2])
    assert found == everybody[: -GATEWAYS_MAX - 1 : -1]
