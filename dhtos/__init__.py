"""dhtos: no server; ask by range and by milliseconds; get machines that said yes."""

from dhtos import errors
from dhtos.core.ids import NodeId

__all__ = ["NodeId", "errors"]
