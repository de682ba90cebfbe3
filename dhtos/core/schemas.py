"""The schemas of one fleet by version: the own one, and others that some machines still run.

A question is written once, in the words of all of them, and translated for each version: an
attribute of the same name, kind and unit is the same attribute, whatever its scale, role or
place in the key. What a version does not have, its machines do not say: such a term is undefined
there, so that it matches neither plain nor negated. This module must not know who runs what.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from dhtos.core.limits import ATTRIBUTES_MAX
from dhtos.core.predicate import (
    Attested,
    Box,
    Exists,
    Label,
    LabelExists,
    Near,
    OneOf,
    Predicate,
    Range,
    StartsWith,
    Term,
)
from dhtos.core.schema import Attribute, Schema, Value
from dhtos.errors import ConfigError, UsageError


class Schemas:
    """The own schema and others of the same fleet, each of another version.

    Raises ConfigError where two have one version, or all together too many attributes.
    """

    def __init__(self, own: Schema, others: Iterable[Schema] = ()) -> None:
        self.own = own
        self._by_version = {own.version: own}
        for schema in others:
            held = self._by_version.setdefault(schema.version, schema)
            if held is not schema:
                raise ConfigError(
                    f"schemas {held.name!r} and {schema.name!r} both have version "
                    f"{schema.version}: give the changed schema the next version"
                )
        self._by_tag = {schema.tag: schema for schema in self._by_version.values()}
        names = {a.name for schema in self._by_version.values() for a in schema.attributes}
        if len(names) > ATTRIBUTES_MAX:
            raise ConfigError(
                f"all schemas together have at most {ATTRIBUTES_MAX} attributes, got {len(names)}"
            )

    def __len__(self) -> int:
        return len(self._by_version)

    def at(self, version: int) -> Schema | None:
        """The schema of a version, if it is known."""
        return self._by_version.get(version)

    def of_tag(self, tag: int) -> Schema | None:
        """The schema that a record was made under, if it is known."""
        return self._by_tag.get(tag)

    @cached_property
    def vocabulary(self) -> Schema:
        """What a question may name: the own attributes, then those that only others have.

        Of two attributes of one name that differ in kind or unit the own one is meant.
        """
        if len(self) == 1:
            return self.own
        known = {a.name: a for a in self.own.attributes}
        for _, schema in sorted(self._by_version.items(), reverse=True):
            for attribute in schema.attributes:
                known.setdefault(attribute.name, replace(attribute, keyed_bits=0))
        return Schema(self.own.name, self.own.version, tuple(known.values()), self.own.key_order)

    def translated(self, predicate: Predicate, schema: Schema) -> Predicate | None:
        """What a predicate in the words of the vocabulary asks of machines of one schema.

        None where no machine of that schema can match.
        """
        if schema is self.vocabulary:
            return predicate
        boxes = [self._box(box, schema) for box in predicate.boxes]
        left = tuple(box for box in boxes if box is not None)
        return Predicate(left) if left else None

    def place(self, index: int, schema: Schema) -> int | None:
        """Where an attribute of the vocabulary stands in one schema; None if it is not there."""
        wanted = self.vocabulary.attributes[index]
        if wanted.name not in schema:
            return None
        place = schema.index(wanted.name)
        found = schema.attributes[place]
        return place if (found.kind, found.unit) == (wanted.kind, wanted.unit) else None

    def _box(self, box: Box, schema: Schema) -> Box | None:
        terms: list[Term] = []
        for term in box.terms:
            if isinstance(term, Label | LabelExists | Near | Attested):
                terms.append(term)
                continue
            place = self.place(term.attribute, schema)
            if place is None:
                if isinstance(term, Exists) and term.negated:
                    continue  # nobody there has it
                return None
            told = _term(term, place, schema.attributes[place])
            if told is None:
                return None
            terms.append(told)
        return Box(tuple(terms))


def _term(
    term: Range | OneOf | Exists | StartsWith, place: int, attribute: Attribute
) -> Term | None:
    """The same condition on an attribute of another scale; None if no value there satisfies it."""
    match term:
        case Range():
            return _range(term, place, attribute)
        case OneOf(_, values, negated):
            possible = tuple(value for value in values if _fits(attribute, value))
            if possible:
                return OneOf(place, possible, negated)
            return Exists(place) if negated else None
    return replace(term, attribute=place)


def _range(term: Range, place: int, attribute: Attribute) -> Term | None:
    """A bound that no value of the attribute lies beyond is no bound."""
    low, low_open = term.low, term.low_open
    if term.high != math.inf and not _fits(attribute, term.high):
        return None  # all its values are above
    if low != -math.inf and not _fits(attribute, low):
        low, low_open = -math.inf, False
    if low == -math.inf and term.high == math.inf:
        return Exists(place)
    return Range(place, low, term.high, low_open, term.high_open)


def _fits(attribute: Attribute, value: Value) -> bool:
    try:
        attribute.check(value)
    except UsageError:
        return False
    return True
