"""Random hubs and random questions: schemas, machines, predicates, and the truth about them.

A `Story` is all that a test needs to know before anything runs: it is drawn by hypothesis and
printed when a test fails. What a machine says is drawn from a few values of each attribute, so
that ties are the rule, ends are clamped and values are missing. A `World` is the story's cluster
of real engines, and brute force over what its nodes advertise.
"""

from dataclasses import dataclass, field, replace
from math import inf
from random import Random

from hypothesis import strategies as st
from test_schema import number_scales, words

from dhtos.core.predicate import (
    EVERYTHING,
    Box,
    Exists,
    Label,
    LabelExists,
    OneOf,
    Predicate,
    Range,
    StartsWith,
    is_empty,
)
from dhtos.core.record import make_record
from dhtos.core.scale import Codes, Flag, Hashed, Linear
from dhtos.core.schema import Attribute, Schema
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.sim import CLEAR, Cluster, hub_truth

LABELS = {"team": ("red", "blue", ""), "zone": ("a", "ab"), "é": ("1",)}
_SITES = ("a", "ab", "abc", "lab", "été")
SIZES = st.sampled_from((60, 55, 48, 40, 33, 25, 17, 9)) | st.integers(1, 60)
_SHARES = (0.0, 0.0, 0.1, 0.5, 0.95)  # of machines that do not say a thing

# --- what is asked of whom ------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A hub and what is asked of it; `seed` makes everything that is not listed here."""

    schema: Schema
    group_size: int
    seed: int
    rows: tuple = field(repr=False)  # per node: its values and its labels
    predicates: tuple = ()

    @property
    def numbers(self):
        """Indexes of the attributes that can be ordered by."""
        return [i for i, a in enumerate(self.schema.attributes) if a.kind == "number"]


@st.composite
def schemas(draw, attributes_max=8):
    """Any schema whose attributes can be asked about; the keyed bits are within the limits."""
    attributes, left = [], 96
    for n in range(draw(st.integers(1, attributes_max))):
        kind, scale = draw(
            st.one_of(
                number_scales().map(lambda scale: ("number", scale)),
                st.builds(
                    lambda some, is_open: ("text", Codes(tuple(some), is_open)),
                    st.lists(words, min_size=1, max_size=5, unique=True),
                    st.booleans(),
                ),
                st.sampled_from([("text", Hashed()), ("bool", Flag())]),
            )
        )
        static = draw(st.booleans())
        bits = min(left, draw(st.sampled_from([0, 1, 2, 5, 12, 16]))) if static else 0
        left -= bits
        role = "static" if static else "dynamic"
        attributes.append(Attribute(f"a{n}", kind, role, scale, "", bits))
    keyed = draw(st.permutations([a.name for a in attributes if a.keyed]))
    return Schema("any", draw(st.integers(0, 3)), tuple(attributes), tuple(keyed))


def _values_of(attribute, rng):
    """A few values of an attribute in stored form: inside the scale, at its ends and beyond."""
    match attribute.scale:
        case Flag():
            return [False, True]
        case Codes(some, is_open):
            return [*some, *_SITES] if is_open else list(some)
        case Hashed():
            return list(_SITES)
        case scale:
            width = scale.high - scale.low
            inside = [scale.low + width * rng.random() ** 3 for _ in range(rng.choice((1, 3, 40)))]
            ends = [scale.low, scale.high, scale.high * 3, scale.low / 2, scale.high // 2, 0]
            if isinstance(scale, Linear):
                ends.append(scale.low - width)
            return [attribute.check(value) for value in (*inside, *ends)]


def _rows(schema, seed, count):
    """What so many machines say."""
    rng = Random(f"{seed}/rows")
    said = []
    for attribute in schema.attributes:
        values = _values_of(attribute, rng)
        said.append((rng.sample(values, rng.randint(1, len(values))), rng.choice(_SHARES)))
    rows = []
    for _ in range(count):
        values = {
            attribute.name: rng.choice(some)
            for attribute, (some, missing) in zip(schema.attributes, said, strict=True)
            if rng.random() >= missing
        }
        labels = {key: rng.choice(some) for key, some in LABELS.items() if rng.random() < 0.4}
        rows.append((values, labels))
    return tuple(rows)


@st.composite
def stories(draw, *, nodes=SIZES, predicates=4):
    """A hub of any schema, and some predicates that its machines have a part in."""
    schema = draw(schemas())
    seed = draw(st.integers(0, 2**16))
    rows = _rows(schema, seed, draw(nodes))
    story = Story(schema, draw(st.sampled_from((8, 8, 9, 12, 16, 32))), seed, rows)
    asked = draw(st.lists(predicates_of(story), min_size=predicates, max_size=predicates))
    return replace(story, predicates=tuple(asked))


def predicates_of(story):
    """One to three boxes of up to three terms; now and then all that there is."""
    attributes = [_terms(story, index) for index in range(len(story.schema.attributes))]
    terms = st.one_of(*attributes, _label_terms())
    boxes = st.lists(terms, min_size=1, max_size=3).map(lambda some: Box(tuple(some)))
    counts = st.sampled_from((1, 1, 1, 2, 3))
    some = counts.flatmap(lambda count: st.lists(boxes, min_size=count, max_size=count))
    asked = some.map(lambda chosen: Predicate(tuple(chosen)))
    return st.one_of(*[asked] * 9, st.just(EVERYTHING))


def _terms(story, index):
    attribute = story.schema.attributes[index]
    seen = {row[attribute.name] for row, _ in story.rows if attribute.name in row}
    values = sorted({*seen, *_values_of(attribute, Random(f"{story.seed}/{index}"))})
    choice = st.sampled_from(values)
    chosen = st.lists(choice, min_size=1, max_size=3, unique=True).map(tuple)
    plain = st.one_of(
        st.builds(OneOf, st.just(index), chosen),
        st.builds(OneOf, st.just(index), chosen, st.just(True)),
        st.builds(OneOf, st.just(index), chosen),
        st.builds(Exists, st.just(index), st.booleans()),
    )
    if attribute.kind == "number":
        return st.one_of(*[_ranges(index, choice)] * 3, plain)
    if attribute.kind == "text":
        starts = st.builds(
            lambda text, length, negated: StartsWith(index, text[:length], negated),
            choice,
            st.integers(1, 3),
            st.booleans(),
        )
        return st.one_of(plain, starts)
    return plain


@st.composite
def _ranges(draw, index, choice):
    low, high = sorted((draw(choice), draw(choice)))
    low_open, high_open = draw(st.booleans()), draw(st.booleans())
    match draw(st.sampled_from(["from", "to", "between"])):
        case "from":
            return Range(index, low, inf, low_open)
        case "to":
            return Range(index, -inf, high, False, high_open)
    if is_empty(low, high, low_open=low_open, high_open=high_open):
        return Range(index, low, high)
    return Range(index, low, high, low_open, high_open)


def _label_terms():
    keys = st.sampled_from([*LABELS, "none"])
    values = st.sampled_from(["red", "blue", "", "a", "ab", "1", "?"])
    some = st.lists(values, min_size=1, max_size=2).map(tuple)
    return st.one_of(
        st.builds(Label, keys, some, st.booleans()), st.builds(LabelExists, keys, st.booleans())
    )


# --- the cluster ----------------------------------------------------------------------------------


class World:
    """The cluster of a story; the last `clients` nodes have no record and ask through others."""

    def __init__(self, story, *, cold=False, clients=0):
        self.schema = story.schema
        self.rows = story.rows
        self.seed = story.seed
        self.group_size = story.group_size
        self.cluster = Cluster(self._engine, seed=story.seed)
        self.rng = self.cluster.stream("test")
        self._identities = self.cluster.stream("identities")
        self.members = self.cluster.add(len(story.rows))
        self.records = {node.id: self._record(node) for node in self.members}
        if cold:
            self._join()
        else:
            self.cluster.warm_start(hub_truth(lambda node: self.records[node.id]))
        self.clients = self.cluster.add(clients)
        for node in self.cluster.nodes:
            others = [other for other in self.members if other is not node]
            known = self.rng.sample(others, min(3, len(others)))
            node.engine.hub.gateways = [other.endpoint for other in known]

    def _engine(self, node, now):
        client = node.index >= len(self.rows)
        config = EngineConfig(group_size=self.group_size, client=client)
        return Engine(node.id, rng=node.rng, now=now, schema=self.schema, config=config)

    def _record(self, node):
        values, labels = self.rows[node.index]
        return make_record(
            self.schema,
            values,
            labels,
            node_id=node.id,
            endpoint=node.endpoint,
            seq=1,
            identity=self._identities.randbytes(32),
        )

    def _join(self):
        """The first founds the hub, the others join one by one through any before them."""
        first, *others = self.members
        self.cluster.begin(first, lambda e, now: e.hub.advertise(self.records[first.id], now))
        self.cluster.begin(first, lambda e, now: e.hub.found(now))
        for node in others:
            known = [self.rng.choice(self.members[: node.index]).endpoint]
            record = self.records[node.id]
            self.cluster.begin(node, lambda e, now, record=record: e.hub.advertise(record, now))
            self.cluster.begin(node, lambda e, now, known=known: e.hub.join(known, now))
            self.cluster.run_for(0.1)
        self.cluster.run_for(15.0)
        for node in self.members:
            self.cluster.expect(node.engine.hub.settled, f"{node!r} is still joining")

    # --- asking -----------------------------------------------------------------------------------

    def anybody(self):
        """A member that runs."""
        return self.rng.choice([node for node in self.members if node.up])

    def ask(self, node, predicate, **options):
        """A query and its result."""
        return self.cluster.do(node, lambda e, now: e.hub.find(predicate, now, **options))

    def pages(self, node, predicate, limit, **options):
        """All results from the first to the one without a cursor."""
        results, cursor = [], None
        for _ in range(len(self.rows) + 2):  # each page brings something
            results.append(self.ask(node, predicate, limit=limit, cursor=cursor, **options))
            cursor = results[-1].cursor
            if cursor is None:
                return results
        raise self.cluster.failure(f"{predicate}: {len(results)} pages of {limit}, and no end")

    def kill(self, share):
        """Crash this share of the members at once, but never the last one."""
        count = min(round(share * len(self.members)), len(self.members) - 1)
        self.cluster.crash(self.rng.sample(self.members, count))

    def storm(self, weather=CLEAR):
        """Change the weather; without one it is clear again."""
        self.cluster.network.weather = weather

    # --- the truth --------------------------------------------------------------------------------

    def truth(self, predicate):
        """The records of running members that match, by brute force: their keys, by node id."""
        matches = predicate.bind(self.schema).matches
        running = [node.engine.hub.own for node in self.members if node.up]
        return {r.node_id: r.key(self.schema) for r in running if matches(r)}

    def expect(self, condition, predicate, what):
        """Fail with what the world looks like unless the condition holds."""
        self.cluster.expect(condition, f"{predicate}: {what}")

    def expect_exact(self, predicate, result):
        """The answer is the truth, each hit once, and it says so."""
        got, truth = ids(result), set(self.truth(predicate))
        self.expect(len(got) == len(result.hits), predicate, "a hit came twice")
        self.expect(
            got == truth and result.coverage.complete and result.coverage.fraction == 1.0,
            predicate,
            f"{len(truth - got)} of {len(truth)} missing, {len(got - truth)} too many, "
            f"{result.coverage}",
        )


def ids(result):
    """The node ids of an answer."""
    return {bytes(hit.id) for hit in result.hits}
