"""A hit: a record as the user of a query sees it."""

from collections.abc import Mapping
from types import MappingProxyType

from dhtos.core.ids import NodeId
from dhtos.core.record import Record
from dhtos.core.schema import Schema, Value


class Hit:
    """One machine of an answer; immutable.

    `age_s` is how old the record's version was when the query got it, `rtt_s` the predicted
    round trip from the asking node, None where either side has no coordinate.
    """

    __slots__ = ("_record", "_schema", "age_s", "rtt_s")

    def __init__(
        self, record: Record, schema: Schema, age_s: float, rtt_s: float | None = None
    ) -> None:
        self._record = record
        self._schema = schema
        self.age_s = age_s
        self.rtt_s = rtt_s

    @property
    def id(self) -> NodeId:
        """The node's id."""
        return NodeId(self._record.node_id)

    @property
    def endpoint(self) -> str:
        """Where the node listens: `host:port`, with brackets around IPv6."""
        host, port = self._record.endpoint
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def seq(self) -> int:
        """The version of the record."""
        return self._record.seq

    @property
    def attributes(self) -> Mapping[str, Value]:
        """All values by name; what the machine does not say is left out."""
        return MappingProxyType(self._record.attributes(self._schema))

    @property
    def labels(self) -> Mapping[str, str]:
        """The free-form labels."""
        return MappingProxyType(dict(self._record.labels))

    def __getitem__(self, name: str) -> Value:
        """One value; KeyError where the machine does not say."""
        index = self._schema.index(name)
        part = self._record.static
        if self._schema.attributes[index].role == "dynamic":
            part = self._record.dynamic
        value = part[self._schema.slots[index]]
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
        return isinstance(other, Hit) and self._record == other._record

    def __hash__(self) -> int:
        return hash((self._record.node_id, self._record.seq))

    def __repr__(self) -> str:
        return f"<Hit {self.id} {self.endpoint} seq={self.seq}>"
