"""dhtos: no server; ask by range and by milliseconds; get machines that have said yes."""

from dhtos import errors
from dhtos.core.coverage import Coverage
from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import DhtosError
from dhtos.node.bandwidth import Bandwidth
from dhtos.node.command import RUNS_COMMANDS, Command, Executor, Exit, Running, Sink, Usage
from dhtos.node.command_client import Completed, Process
from dhtos.node.config import Config
from dhtos.node.distance import Central, Rtt
from dhtos.node.figures import Aggregate, Histogram
from dhtos.node.find import Count, Find
from dhtos.node.lease import Choice, Explanation, Gang, Lease, Placement, Plan
from dhtos.node.node import Node
from dhtos.node.replicas import Change, Replicas
from dhtos.node.usage import UsageRow
from dhtos.protocol.frontier import FindResult
from dhtos.protocol.put import PutResult
from dhtos.protocol.store import StoredValue, ValueOwner
from dhtos.query import GB, MB, TB, F, GiB, KiB, MiB, TiB, kB, ms, us
from dhtos.sched import Need

__all__ = [
    "Config",
    "Node",
    "F",
    "Need",
    "Aggregate",
    "Bandwidth",
    "Central",
    "Change",
    "Choice",
    "Count",
    "Coverage",
    "Explanation",
    "Find",
    "FindResult",
    "Gang",
    "Histogram",
    "Hit",
    "Lease",
    "Command",
    "Completed",
    "Executor",
    "Exit",
    "Process",
    "RUNS_COMMANDS",
    "Running",
    "Sink",
    "Usage",
    "UsageRow",
    "NodeId",
    "Placement",
    "Plan",
    "PutResult",
    "Replicas",
    "Rtt",
    "StoredValue",
    "ValueOwner",
    "Attribute",
    "Schema",
    "default_schema",
    "GB",
    "GiB",
    "KiB",
    "MB",
    "MiB",
    "TB",
    "TiB",
    "kB",
    "ms",
    "us",
    "DhtosError",
    "errors",
]
