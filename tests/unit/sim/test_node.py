"""The life of a simulated machine."""

from math import inf
from random import Random

import pytest

from dhtos.sim.node import NodeState, SimNode
from dhtos.sim.testing import EchoEngine


@pytest.fixture
def node():
    return SimNode(3, b"\xab" * 20, ("10.0.0.4", 7400), rng=Random(3), offset_s=10.0, place=2)


def test_a_new_machine_is_down_and_ran_nothing(node):
    assert node.state is NodeState.DOWN
    assert not node.up
    assert node.previous is None
    assert node.wake_at == inf
    assert repr(node) == "<node 3 abababab down>"
    node.check()


def test_boot_counts_incarnations_and_keeps_the_engine_before(node):
    first = EchoEngine()
    node.boot(first)
    assert (node.up, node.incarnation, node.engine) == (True, 1, first)
    node.wake_at = 5.0
    node.stop()
    assert node.wake_at == inf
    assert node.previous is first
    node.boot(EchoEngine())
    assert node.incarnation == 2
    node.check()


def test_pause_keeps_the_engine_and_hands_the_buffer_over(node):
    engine = EchoEngine()
    node.boot(engine)
    node.pause()
    node.inbox.append((b"x", node))
    node.check()
    assert node.unpause() == [(b"x", node)]
    assert node.inbox == []
    assert node.engine is engine
    node.check()


def test_power_loss_empties_the_buffer(node):
    node.boot(EchoEngine())
    node.pause()
    node.inbox.append((b"x", node))
    node.stop()
    assert node.inbox == []
    node.check()


@pytest.mark.parametrize("verb", ["stop", "pause", "unpause"])
def test_a_machine_that_is_down_can_only_boot(node, verb):
    with pytest.raises(AssertionError):
        getattr(node, verb)()


def test_a_running_machine_cannot_boot_again(node):
    node.boot(EchoEngine())
    with pytest.raises(AssertionError):
        node.boot(EchoEngine())


def test_check_asks_the_engine(node):
    node.boot(EchoEngine())
    node.engine.received = -1
    with pytest.raises(AssertionError):
        node.check()
