"""The one door: text, an expression or a predicate goes in, a predicate comes out."""

import msgspec

from dhtos.core.limits import PREDICATE_WIRE_BYTES_MAX
from dhtos.core.predicate import Predicate
from dhtos.core.schema import Schema
from dhtos.errors import PredicateError
from dhtos.query.expr import Expr, RttTo
from dhtos.query.leaf import CoordinateOf, Leaves
from dhtos.query.normal import normalise
from dhtos.query.scan import error
from dhtos.query.selector import parse_labels
from dhtos.query.text import parse_subject, parse_text


def parse(
    query: str | Expr | Predicate,
    schema: Schema,
    *,
    coordinate_of: CoordinateOf | None = None,
) -> Predicate:
    """The predicate that a text or an `F` expression means under a schema.

    `coordinate_of` tells where "self" or a node (its id in hexadecimal) is, for `rtt(...)`.
    Raises PredicateError, which names the token and its column and suggests the nearest word.

    >>> from dhtos.core.schema import default_schema
    >>> parse("cores >= 8 and cores <= 64", default_schema()).boxes
    (Box(terms=(Range(attribute=0, low=8, high=64, low_open=False, high_open=False),)),)
    """
    match query:
        case Predicate():
            return query
        case str():
            return _sendable(normalise(parse_text(query), schema, coordinate_of))
        case Expr():
            return _sendable(normalise(query, schema, coordinate_of))
    raise PredicateError(f"a query is a text or an F expression, got {query!r}")


def parse_order(
    text: str, schema: Schema, *, coordinate_of: CoordinateOf | None = None
) -> int | tuple[float, ...]:
    """What `order_by` means: the index of an attribute, or the place that `rtt(...)` names.

    Raises UsageError for an attribute that the schema does not have, PredicateError for a place
    that is not known.
    """
    if text.startswith("rtt"):
        subject = parse_subject(text)
        if isinstance(subject, RttTo):
            return Leaves(schema, coordinate_of).place(subject)
    return schema.index(text)


def parse_selector(text: str, schema: Schema) -> Predicate:
    """The predicate of a Kubernetes label selector such as `team in (video, audio),!legacy`."""
    return _sendable(normalise(parse_labels(text), schema))


def _sendable(predicate: Predicate) -> Predicate:
    size = len(msgspec.msgpack.encode(predicate.to_wire()))
    if size > PREDICATE_WIRE_BYTES_MAX:
        raise error(
            f"the predicate is too large to send: {size} bytes in {len(predicate.boxes)} boxes,"
            f" at most {PREDICATE_WIRE_BYTES_MAX}",
            None,
        )
    return predicate
