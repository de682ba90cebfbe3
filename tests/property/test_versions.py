"""Two related schemas of one fleet: what a question means to machines of each, whatever they are.

The reference knows no schema: it evaluates terms on named values, where what a machine's schema
does not have, or measures in another kind, is missing.
"""

from math import inf
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queries_world import Story, _values_of, predicates_of, schemas
from test_schema import number_scales

from dhtos.core.predicate import EVERYTHING, Exists, Label, LabelExists, OneOf, Range, StartsWith
from dhtos.core.record import make_record
from dhtos.core.scale import Codes, Flag, Hashed
from dhtos.core.schema import Attribute, Schema
from dhtos.core.schemas import Schemas
from dhtos.errors import UsageError
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import Cluster


@st.composite
def changed(draw, old):
    """A later version of a schema: attributes gone, new, or of another scale, role, kind, unit."""
    attributes, left = [], 96
    for attribute in old.attributes:
        match draw(st.sampled_from(["keep", "keep", "keep", "drop", "rescale", "other"])):
            case "drop":
                continue
            case "rescale" if attribute.kind == "number":
                kind, scale, unit = "number", draw(number_scales()), attribute.unit
            case "other":
                kind, scale, unit = draw(
                    st.sampled_from(
                        [("text", Hashed(), ""), ("bool", Flag(), ""), ("number", None, "B")]
                    )
                )
                scale = scale or draw(number_scales())
            case _:
                kind, scale, unit = attribute.kind, attribute.scale, attribute.unit
                if isinstance(scale, Codes):
                    words = draw(st.permutations([*scale.words, "new"]))
                    scale = Codes(tuple(words[1:]), scale.open)
        attributes.append(_attribute(draw, attribute.name, kind, scale, unit, left))
        left -= attributes[-1].keyed_bits
    for n in range(draw(st.integers(0 if attributes else 1, 2))):
        attributes.append(_attribute(draw, f"b{n}", "number", draw(number_scales()), "", left))
        left -= attributes[-1].keyed_bits
    keyed = draw(st.permutations([a.name for a in attributes if a.keyed]))
    version = draw(st.sampled_from([v for v in range(4) if v != old.version]))
    return Schema("any", version, tuple(draw(st.permutations(attributes))), tuple(keyed))


def _attribute(draw, name, kind, scale, unit, left):
    static = draw(st.booleans())
    bits = min(left, draw(st.sampled_from([0, 1, 5, 12]))) if static else 0
    return Attribute(name, kind, "static" if static else "dynamic", scale, unit, bits)


@st.composite
def pairs(draw):
    """Two related schemas."""
    old = draw(schemas(attributes_max=5))
    return old, draw(changed(old))


def machines(schemas_, seed, count):
    """What so many machines would say, under the schema each of them runs."""
    rng = Random(f"{seed}/machines")
    said = []
    for n in range(count):
        schema = schemas_[n % len(schemas_)]
        values = {
            a.name: rng.choice(_values_of(a, rng)) for a in schema.attributes if rng.random() < 0.8
        }
        labels = {"team": rng.choice(("red", "blue"))} if rng.random() < 0.5 else {}
        said.append((schema, values, labels))
    return said


@st.composite
def worlds(draw):
    """Schemas that somebody knows, machines, and questions in the words of all schemas."""
    both = draw(pairs())
    if draw(st.booleans()):
        both = both[::-1]
    known = Schemas(both[0], both[1:])
    seed = draw(st.integers(0, 2**16))
    told = machines(both, seed, draw(st.integers(2, 14)))
    rows = tuple((values, labels) for schema, values, labels in told)
    words = known.vocabulary
    asked = predicates_of(Story(words, 8, seed, _fitting(words, rows)))
    return known, told, seed, draw(st.lists(asked, min_size=3, max_size=3))


def _fitting(words, rows):
    """What of the machines' values can be written in a question."""
    kept = []
    for values, labels in rows:
        fit = {}
        for name, value in values.items():
            try:
                fit[name] = words.check(name, value)
            except UsageError:
                continue
        kept.append((fit, labels))
    return tuple(kept)


# --- the reference --------------------------------------------------------------------------------


def expected(known, predicate, schema, values, labels):
    """Whether a machine matches, from the names of things alone."""
    return any(
        all(_holds(known, term, schema, values, labels) for term in box.terms)
        for box in predicate.boxes
    )


def _holds(known, term, schema, values, labels):
    match term:
        case Label(key, chosen, negated):
            return key in labels and (labels[key] in chosen) is not negated
        case LabelExists(key, negated):
            return (key in labels) is not negated
    meant = known.vocabulary.attributes[term.attribute]
    value = None
    if meant.name in schema:
        there = schema.attribute(meant.name)
        if (there.kind, there.unit) == (meant.kind, meant.unit):
            value = values.get(meant.name)
    match term:
        case Exists(_, negated):
            return (value is not None) is not negated
        case _ if value is None:
            return False
        case Range(_, low, high, low_open, high_open):
            above = value > low or (value == low and not low_open)
            return above and (value < high or (value == high and not high_open))
        case OneOf(_, chosen, negated):
            return (value in chosen) is not negated
        case StartsWith(_, text, negated):
            return value.startswith(text) is not negated


def record_of(schema, values, labels, number):
    return make_record(
        schema,
        values,
        labels,
        node_id=number.to_bytes(20),
        endpoint=("10.0.0.1", 7400),
        seq=1,
        identity=number.to_bytes(32),
    )


# --- properties -----------------------------------------------------------------------------------


@given(worlds())
def test_a_translated_question_means_the_same(world):
    known, told, _, predicates = world
    for predicate in predicates:
        for number, (schema, values, labels) in enumerate(told):
            record = record_of(schema, values, labels, number)
            translated = known.translated(predicate, schema)
            matches = translated is not None and translated.bind(schema).matches(record)
            assert matches == expected(known, predicate, schema, values, labels)


@given(worlds())
def test_a_translated_question_can_be_sent(world):
    known, _, _, predicates = world
    for predicate in predicates:
        for schema in (known.at(version) for version in range(4)):
            translated = schema and known.translated(predicate, schema)
            if translated:
                wire = [[term.to_wire() for term in box.terms] for box in translated.boxes]
                assert type(predicate).from_wire(_listed(wire), schema) == translated


def _listed(value):
    """As it comes out of MessagePack: lists, and -0.0 and ints as they were."""
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


@given(pairs())
def test_the_words_of_two_schemas_are_those_of_both(both):
    known = Schemas(both[0], both[1:])
    words = known.vocabulary
    assert words.attributes[: len(both[0].attributes)] == both[0].attributes
    assert {a.name for a in words.attributes} == {a.name for s in both for a in s.attributes}
    for index, attribute in enumerate(words.attributes):
        for schema in both:
            place = known.place(index, schema)
            if place is not None:
                found = schema.attributes[place]
                assert (found.name, found.kind, found.unit) == (
                    attribute.name, attribute.kind, attribute.unit,
                )  # fmt: skip


class Mixed:
    """A cluster whose nodes run the schemas of their machines; all know `known`, or only theirs."""

    def __init__(self, known, told, seed):
        self.known, self.told = known, told
        self.cluster = Cluster(self._engine, seed=seed)
        self.nodes = self.cluster.add(len(told))
        for node in self.nodes:
            schema, values, labels = told[node.index]
            record = make_record(
                schema, values, labels, node_id=node.id, endpoint=node.endpoint, seq=1,
                identity=node.index.to_bytes(32),
            )  # fmt: skip
            self.cluster.begin(node, lambda e, now, r=record: e.hub.advertise(r, now))
            if node.index == 0:
                self.cluster.begin(node, lambda e, now: e.hub.found(now))
            else:
                known_ones = [self.nodes[0].endpoint]
                self.cluster.begin(node, lambda e, now, g=known_ones: e.hub.join(g, now))
            self.cluster.run_for(0.1)
        self.cluster.run_for(12.0)

    def _engine(self, node, now):
        schema, *_ = self.told[node.index]
        others = [s for s in map(self.known.at, range(4)) if s is not None and s is not schema]
        config = EngineConfig(
            group_size=8, other_schemas=tuple(others) if schema is self.known.own else ()
        )
        return Engine(node.id, rng=node.rng, now=now, schema=schema, config=config)


@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
@given(worlds(), st.sampled_from([0, 3]))
def test_a_mixed_fleet_answers_exactly_or_names_what_it_cannot_ask(world, limit):
    known, told, seed, predicates = world
    fleet = Mixed(known, told, seed)
    truth_of = [
        {
            node.id
            for node, machine in zip(fleet.nodes, told, strict=True)
            if expected(known, predicate, *machine)
        }
        for predicate in predicates
    ]
    for node in fleet.nodes[:4]:
        fleet.cluster.expect(node.engine.hub.settled, f"{node!r} is still joining")
        schema = told[node.index][0]
        if schema is not known.own:
            result = fleet.cluster.do(node, lambda e, now: e.hub.find(EVERYTHING, now))
            assert [p.length for p in result.coverage.failed_prefixes] <= [2]
            assert not result.coverage.complete
            continue
        for predicate, truth in zip(predicates, truth_of, strict=True):
            try:
                seen, complete = _pages(fleet.cluster, node, predicate, limit)
            except UsageError:
                assert not truth, "no version has all that is asked for"
                continue
            fleet.cluster.expect(
                len(seen) == len(set(seen)) and set(seen) == truth and complete,
                f"{predicate}: {len(truth - set(seen))} missing, {len(set(seen) - truth)} too many",
            )


def _pages(cluster, node, predicate, limit):
    seen, cursor = [], None
    for _ in range(40):
        result = cluster.do(
            node, lambda e, now, c=cursor: e.hub.find(predicate, now, limit=limit, cursor=c)
        )
        seen += [bytes(hit.id) for hit in result.hits]
        cursor = result.cursor
        if cursor is None:
            return seen, result.coverage.complete
    raise AssertionError(f"the pages do not end: {result.coverage}")


@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
@given(worlds(), st.booleans(), st.integers(0, 99), st.sampled_from([0, 4]))
def test_an_order_across_versions_is_exact(world, descending, which, limit):
    known, told, seed, predicates = world
    words = known.vocabulary
    numbers = [i for i, a in enumerate(words.attributes) if a.kind == "number"]
    askers = [n for n, (schema, *_) in enumerate(told) if schema is known.own]
    if not numbers or not askers:
        return
    index = numbers[which % len(numbers)]
    fleet = Mixed(known, told, seed)
    asker = fleet.nodes[askers[0]]
    predicate = predicates[0]
    places = []
    for node, (schema, values, labels) in zip(fleet.nodes, told, strict=True):
        if expected(known, predicate, schema, values, labels):
            there = known.place(index, schema)
            value = None if there is None else values.get(words.attributes[index].name)
            place = inf if value is None else -value if descending else value
            places.append((place, node.engine.hub.key, node.id))
    best = [node_id for _, _, node_id in sorted(places)]
    seen, cursor = [], None
    for _ in range(40):
        try:
            result = fleet.cluster.do(
                asker,
                lambda e, now, c=cursor: e.hub.find(
                    predicate, now, limit=limit, order=(index, descending), cursor=c
                ),
            )
        except UsageError:
            assert not best
            return
        seen += [bytes(hit.id) for hit in result.hits]
        cursor = result.cursor
        if cursor is None:
            break
    assert seen == best
