"""A hit: a record as the user of a query sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dhtos.core.ids import NodeId
from dhtos.core.record import Record
from dhtos.core.schema import Schema, Value


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Hit:
    """One machine of an answer.

    `age_s` is how old the version was when the query got it, `rtt_s` the round trip from the
    asking node: measured if it was (`rtt_measured`), else predicted, None where neither can be. Two
    hits are equal if they show the same version of the same record. `words` has the names that
    other schema versions of the fleet know: of those that this machine's does not have it says
    nothing.
    """

    record: Record
    schema: Schema
    age_s: float
    rtt_s: float | None = None
    words: Schema | None = None
    rtt_measured: bool = False

    @property
    def id(self) -> NodeId:
        """The node's id."""
        return NodeId(self.record.node_id)

    @property
    def endpoint(self) -> str:
        """Where the node listens: `host:port`, with brackets around IPv6."""
        host, port = self.record.endpoint
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def gateway(self) -> bool:
        """Whether the machine runs no node: `endpoint` is that of the gateway to ask for it."""
        return self.record.is_foreign

    @property
    def seq(self) -> int:
        """The version of the record."""
        return self.record.seq

    @property
    def attributes(self) -> Mapping[str, Value]:
        """All values by name; what the machine does not say is left out."""
        return MappingProxyType(self.record.attributes(self.schema))

    @property
    def labels(self) -> Mapping[str, str]:
        """The free-form labels."""
        return MappingProxyType(dict(self.record.labels))

    def __getitem__(self, name: str) -> Value:
        """One value; KeyError where the machine does not say."""
        if name not in self.schema and self.words is not None and name in self.words:
            raise KeyError(name)
        index = self.schema.index(name)
        part = self.record.static
        if self.schema.attributes[index].role == "dynamic":
            part = self.record.dynamic
        value = part[self.schema.slots[index]]
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Value | None = None) -> Value | None:
        """One value, or `default` where the machine does not say."""
        try:
            return self[name]
        except KeyError:
            return default

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hit) and self.record == other.record

    def __hash__(self) -> int:
        return hash((self.record.node_id, self.record.seq))

    def __repr__(self) -> str:
        return f"<Hit {self.id} {self.endpoint} seq={self.seq}>"
