"""Whom a machine grants to: its owner's own word on every claim, in the language of queries.

    priority >= 5 and address.startswith('10.0.') and cores <= 4
    user == 'alice' or attested(team) == 'render'

A claim has `address`, `priority`, `max_price`, `preempt`, and what it asks for of each resource. In
a cluster it also has `user`, the name in the certificate of who asks, and `attested(...)` is about
the groups in it. What a claim does not say is undefined, and matches nothing, as in any query. It
is two-sided matchmaking: a need says which machines will do, a machine says which needs (Raman,
Livny and Solomon, "Matchmaking", HPDC 1998).
"""

from dhtos.core.ids import ID_BYTES
from dhtos.core.limits import PRIORITY_MAX
from dhtos.core.record import make_record
from dhtos.core.scale import Flag, Hashed, Linear
from dhtos.core.schema import NUMBER_MAX, Attribute, Schema, Value
from dhtos.errors import ConfigError, PredicateError
from dhtos.protocol.grants import Claim
from dhtos.query import parse

_NOBODY = bytes(ID_BYTES)


class Accept:
    """A predicate on claims; raises ConfigError for one that cannot be read."""

    def __init__(self, text: str, schema: Schema) -> None:
        self._schema = _claims(schema)
        self._resources = frozenset(schema.resources)
        try:
            self._bound = parse(text, self._schema).bind(self._schema)
        except PredicateError as error:
            raise ConfigError(f"accept: {error}") from error

    def __call__(self, claim: Claim) -> bool:
        """Whether the owner of the machine takes such work."""
        said: dict[str, Value] = {
            "address": claim.owner[0], "priority": claim.priority, "preempt": claim.preempt,
        }  # fmt: skip
        if claim.price is not None:
            said["max_price"] = claim.price
        if claim.who is not None:
            said["user"] = claim.who.name
        said |= {name: n for name, n in claim.resources.items() if name in self._resources}
        record = make_record(
            self._schema, said, {}, node_id=_NOBODY, endpoint=claim.owner, seq=1
        )  # fmt: skip
        return self._bound.matches(record, groups=None if claim.who is None else claim.groups)


def _claims(schema: Schema) -> Schema:
    """What a claim says, for a fleet of this schema."""
    attributes = [
        Attribute("address", "text", "static", Hashed(), doc="from where it is asked"),
        Attribute("user", "text", "static", Hashed(), doc="who asks, by the certificate"),
        Attribute("priority", "number", "static", Linear(-PRIORITY_MAX, PRIORITY_MAX)),
        Attribute("preempt", "bool", "static", Flag()),
        Attribute("max_price", "number", "static", Linear(0, NUMBER_MAX)),
    ]
    for name in schema.resources:
        known = schema.attribute(name)
        attributes.append(Attribute(name, "number", "static", known.scale, known.unit))
    return Schema(name="claim", version=0, attributes=tuple(attributes))
