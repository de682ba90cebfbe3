"""The rules of every run: each catches its own fault and lets a good run pass."""

from random import Random

import pytest

from dhtos.sim.checkers import (
    BoundedDatagrams,
    BoundedOutbox,
    EngineInvariants,
    RepliesAnswerRequests,
    standard,
)
from dhtos.sim.cluster import Cluster
from dhtos.sim.failure import SimulationError
from dhtos.sim.node import SimNode
from dhtos.sim.testing import EchoEngine

ID = b"i" * 20
OTHER = b"o" * 20


def _node(index):
    node = SimNode(index, bytes(20), ("10.0.0.1", index + 1), rng=Random(0))
    node.boot(EchoEngine())
    return node


@pytest.fixture
def nodes():
    return _node(0), _node(1)


def test_engine_invariants_name_the_node(nodes):
    nodes[1].engine.received = -1
    with pytest.raises(AssertionError) as caught:
        EngineInvariants().inspect(0.0, nodes)
    assert caught.value.__notes__ == ["in <node 1 00000000 up>"]


def test_a_burst_is_bounded(nodes):
    checker = BoundedOutbox(2)
    batch = [(b"x", nodes[1].endpoint)] * 2
    checker.sent(0.0, nodes[0], batch)
    with pytest.raises(AssertionError, match="sends 3 datagrams at once, at most 2"):
        checker.sent(0.0, nodes[0], [*batch, batch[0]])


def test_a_datagram_is_bounded_bytes(nodes):
    checker = BoundedDatagrams(10)
    checker.sent(0.0, nodes[0], [(b"x" * 10, nodes[1].endpoint)])
    with pytest.raises(AssertionError, match="sends 11 bytes"):
        checker.sent(0.0, nodes[0], [(b"x" * 11, nodes[1].endpoint)])
    with pytest.raises(AssertionError, match="sends a bytearray"):
        checker.sent(0.0, nodes[0], [(bytearray(b"x"), nodes[1].endpoint)])


def test_a_reply_to_its_request_passes_as_often_as_needed(nodes):
    one, two = nodes
    checker = RepliesAnswerRequests()
    checker.delivered(1.0, two, b"\x00" + ID + b"ask", one)
    for _ in range(3):  # a reply may span datagrams
        checker.sent(1.5, two, [(b"\x01" + ID + b"part", one.endpoint)])
    checker.sent(1.5, two, [(b"\x00" + OTHER + b"own request", one.endpoint)])


@pytest.mark.parametrize(
    ("replier", "msg_id", "to"), [(1, OTHER, 0), (0, ID, 0), (1, ID, 1)],
    ids=["another id", "another node", "another address"],
)  # fmt: skip
def test_a_reply_to_nothing_is_caught(nodes, replier, msg_id, to):
    checker = RepliesAnswerRequests()
    checker.delivered(1.0, nodes[1], b"\x00" + ID, nodes[0])
    with pytest.raises(AssertionError, match="reply to nothing asked"):
        checker.sent(1.0, nodes[replier], [(b"\x01" + msg_id, nodes[to].endpoint)])


def test_requests_are_forgotten_after_a_while(nodes):
    one, two = nodes
    checker = RepliesAnswerRequests(within_s=10.0)
    checker.delivered(1.0, two, b"\x00" + ID, one)
    checker.delivered(2.0, two, b"\x00" + OTHER, one)
    checker.delivered(10.5, two, b"\x00" + ID, one)  # asked again: remembered longer
    checker.delivered(20.0, two, b"\x01reply", one)
    assert [key[2] for key in checker._asked] == [ID]
    checker.sent(20.0, two, [(b"\x01" + ID, one.endpoint)])
    with pytest.raises(AssertionError):
        checker.sent(20.0, two, [(b"\x01" + OTHER, one.endpoint)])


def test_the_standard_rules_pass_a_good_run():
    cluster = Cluster(lambda node, now: EchoEngine(), seed=1, checkers=standard())
    one, two = cluster.add(2)
    cluster.begin(one, lambda engine, now: engine.send(b"hello", two.endpoint))
    cluster.run_for(1.0)
    assert one.engine.received == 1


def test_a_broken_rule_fails_the_run_with_its_seed():
    cluster = Cluster(lambda node, now: EchoEngine(), seed=42, checkers=standard())
    one, two = cluster.add(2)
    cluster.begin(one, lambda engine, now: engine.send(b"hello", two.endpoint))
    cluster.call_at(0.01, lambda: setattr(two.engine, "received", -5))
    with pytest.raises(SimulationError, match=r"in <node 1 .*\n  seed=42 time=0.01"):
        cluster.run_for(1.0)
