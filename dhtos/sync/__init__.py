"""`dhtos.sync.Node`: the same node without asyncio.

A thread of its own runs the event loop; every method hands its work over and waits. The methods
are those of `dhtos.node.node.Node`, written out so that editors and type checkers see them. Any
thread may call them; Ctrl-C in the waiting one cancels the work in the loop.
"""

from dhtos.sync.handles import Find, Gang, Lease, Process
from dhtos.sync.node import Node

__all__ = ["Find", "Gang", "Lease", "Node", "Process"]
