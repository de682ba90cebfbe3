"""Whole clusters in virtual time: one seed replays one run (theory in `cluster`)."""

from dhtos.sim.checkers import (
    BoundedDatagrams,
    BoundedOutbox,
    Checker,
    EngineInvariants,
    RepliesAnswerRequests,
    standard,
)
from dhtos.sim.clock import Clock
from dhtos.sim.cluster import Cluster
from dhtos.sim.engines import bootstrap, closest_nodes, engines
from dhtos.sim.failure import SimulationError
from dhtos.sim.faults import Crash, Fault, FaultPlan, Partition, Pause, Storm
from dhtos.sim.loop import VirtualLoop, run
from dhtos.sim.matrix import LatencyMatrix
from dhtos.sim.network import CLEAR, Network, Weather
from dhtos.sim.node import NodeState, SimEngine, SimNode, SimOperation
from dhtos.sim.socket import SimSocket, sockets
from dhtos.sim.testing import EchoEngine
from dhtos.sim.trace import Trace
from dhtos.sim.traffic import Traffic
from dhtos.sim.truth import HubTruth, base_truth, hub_truth

__all__ = [
    "Cluster", "SimNode", "NodeState", "SimEngine", "SimOperation", "SimulationError",
    "engines", "bootstrap", "base_truth", "hub_truth", "HubTruth", "closest_nodes",
    "Clock", "Network", "Weather", "CLEAR", "LatencyMatrix",
    "Fault", "FaultPlan", "Crash", "Pause", "Partition", "Storm",
    "Checker", "EngineInvariants", "BoundedOutbox", "BoundedDatagrams", "RepliesAnswerRequests",
    "run", "VirtualLoop", "sockets", "SimSocket",
    "standard", "Trace", "Traffic", "EchoEngine",
]  # fmt: skip
