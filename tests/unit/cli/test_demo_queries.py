"""The demo's questions fit their data, and its notion of truth is right."""

from random import Random

import pytest

from dhtos.cli.demo_catalogue import shipped_catalogue
from dhtos.cli.demo_fleet import draw_fleet, draw_today
from dhtos.cli.demo_queries import (
    Clause,
    Figures,
    Query,
    faults,
    rounded,
    telling_queries,
    true_matches,
)
from dhtos.core.record import make_record
from dhtos.core.schema import Value, default_schema
from dhtos.errors import PredicateError
from dhtos.query import parse

SCHEMA = default_schema()
SEED = 20260101
GIB = 2**30


def fleet(count: int = 200, seed: int = SEED) -> dict[str, dict[str, Value]]:
    print(f"seed {seed}")
    drawn = draw_fleet(shipped_catalogue(SCHEMA), count, SCHEMA, Random(seed))
    return {id_: dict(attributes) for id_, attributes in drawn.items()}


# --- drawing ------------------------------------------------------------------------------------


def test_one_seed_is_one_fleet() -> None:
    assert fleet(50) == fleet(50)
    assert fleet(50) != fleet(50, SEED + 1)


def test_machines_differ_while_the_catalogue_lasts_and_repeat_beyond() -> None:
    types = [m["type"] for m in fleet(200).values()]
    assert len(set(types)) > 190  # a few types are sold by both providers
    assert len(fleet(2600)) == 2600


def test_every_machine_of_the_fleet_is_a_record() -> None:
    for id_, attributes in fleet(100).items():
        record = make_record(
            SCHEMA, attributes, {}, node_id=bytes.fromhex(id_), endpoint=("127.0.0.1", 1), seq=1
        )
        assert record.attributes(SCHEMA) == attributes


def test_what_is_drawn_keeps_within_the_machine() -> None:
    for attributes in fleet(200).values():
        assert 0 <= float(attributes["cpu_free"]) <= 100  # type: ignore[arg-type]
        assert 0 < attributes["mem_free"] < attributes["mem"]  # type: ignore[operator]
        assert 0 <= attributes["gpus_free"] <= attributes["gpus"]  # type: ignore[operator]
        assert attributes["price_spot"] < attributes["price"]  # type: ignore[operator]


def test_a_price_of_the_catalogue_is_kept() -> None:
    catalogue = shipped_catalogue(SCHEMA)
    machine = catalogue.machines[0]
    catalogue.machines[:] = [type(machine)(2, {"cores": 8, "price": 0.5})]
    drawn = draw_fleet(catalogue, 3, SCHEMA, Random(SEED))
    assert [m["price"] for m in drawn.values()] == [0.5] * 3


def test_only_what_a_machine_has_can_be_free() -> None:
    assert set(draw_today({}, Random(SEED))) == {"cpu_free", "load1", "price", "price_spot"}
    assert "disk_free" in draw_today({"disk": 100}, Random(SEED))


# --- questions ----------------------------------------------------------------------------------


def test_eight_questions_of_one_to_six_attributes() -> None:
    queries = telling_queries(list(fleet().values()), SCHEMA)
    assert len(queries) == 8
    sizes = {len({clause.name for clause in q.clauses}) for q in queries if not q.wrong}
    assert {1, 2, 3, 6} <= sizes
    assert sum(bool(q.limit) for q in queries) == 3
    assert sum(bool(q.order_by) for q in queries) == 1
    assert sum(bool(q.wrong) for q in queries) == 1
    assert len({q.title for q in queries}) == 8


@pytest.mark.parametrize("seed", range(5))
def test_questions_are_common_and_rare_and_never_empty(seed: int) -> None:
    machines = fleet(seed=seed)
    queries = [q for q in telling_queries(list(machines.values()), SCHEMA) if not q.wrong]
    counts = [len(true_matches(query, machines)) for query in queries]
    assert min(counts) > 0
    assert max(counts) >= 80
    assert min(counts) <= 20


def test_the_predicate_language_agrees_with_brute_force() -> None:
    machines = fleet()
    for query in telling_queries(list(machines.values()), SCHEMA):
        if query.wrong:
            with pytest.raises(PredicateError, match="cores"):
                parse(query.text(SCHEMA), SCHEMA)
            continue
        bound = parse(query.text(SCHEMA), SCHEMA).bind(SCHEMA)
        found = {
            id_
            for id_, attributes in machines.items()
            if bound.matches(
                make_record(
                    SCHEMA,
                    attributes,
                    {},
                    node_id=bytes.fromhex(id_),
                    endpoint=("127.0.0.1", 1),
                    seq=1,
                )
            )
        }
        assert found == true_matches(query, machines), query


def test_a_range_is_written_as_one() -> None:
    query = Query(
        "range",
        (Clause("site", "==", 'a"b'), Clause("cores", ">=", 8), Clause("cores", "<=", 64)),
    )
    assert query.text(SCHEMA) == 'site == "a\\"b" and 8 <= cores <= 64'
    assert Clause("mem", ">=", 32 * GIB).text(SCHEMA) == "mem >= 32GiB"
    assert Clause("price", "<", 0.5).text(SCHEMA) == "price < 0.5"
    assert Clause("idle", "==", True).text(SCHEMA) == "idle == true"


def test_other_data_gets_questions_of_its_own() -> None:
    machines = [{"site": f"s{n % 3}", "disk": n * GIB, "cpu_free": n} for n in range(1, 60)]
    queries = telling_queries(machines, SCHEMA)
    texts = [query.text(SCHEMA) for query in queries]
    assert len(texts) == 8
    assert all(texts)
    assert not any("cores" in text or "gpus" in text for text in texts[:-1])
    for query in queries[:-1]:
        parse(query.text(SCHEMA), SCHEMA)


def test_figures_need_enough_machines_that_have_them() -> None:
    few = Figures([{"cores": 8}, {}, {}, {}], SCHEMA)
    assert few.number("cores", ">=", 0.5) == []
    assert few.word("site") == []
    assert few.some("gpus") == []
    assert Figures([{"odd": 8}], SCHEMA).number("odd", ">=", 0.5) == []


def test_a_range_of_one_figure_has_one_end() -> None:
    assert len(Figures([{"cores": 8}] * 9, SCHEMA).between("cores", 0.1, 0.9)) == 1


@pytest.mark.parametrize(
    ("value", "unit", "figure"),
    [(0, "", 0), (1, "", 1), (100, "", 64), (0.26, "/h", 0.3), (37, "%", 40), (0.5, "", 0.5)],
)
def test_figures_are_round(value: float, unit: str, figure: float) -> None:
    assert rounded(value, unit) == figure


# --- truth --------------------------------------------------------------------------------------

MACHINES: dict[str, dict[str, Value]] = {
    "a": {"cores": 8, "price": 0.3},
    "b": {"cores": 16, "price": 0.1},
    "c": {"cores": 4, "price": 0.2},
    "d": {"cores": 32, "price": 0.4},
    "e": {"price": 0.0},
}
BIG = Query("big", (Clause("cores", ">=", 8),))
SOME = Query("some", BIG.clauses, limit=2)
CHEAP = Query("cheap", BIG.clauses, limit=2, order_by="price")


def test_a_missing_attribute_never_matches() -> None:
    assert true_matches(BIG, MACHINES) == {"a", "b", "d"}
    assert true_matches(Query("small", (Clause("cores", "<", 8),)), MACHINES) == {"c"}


@pytest.mark.parametrize(
    ("query", "got", "wrong"),
    [
        (BIG, "abd", None),
        (BIG, "dba", None),
        (BIG, "ab", "1 matches missing"),
        (BIG, "abdc", "1 that do not match"),
        (BIG, "abde", "1 that do not match"),
        (BIG, "abda", "1 machines twice"),
        (SOME, "ad", None),
        (SOME, "a", "1 hits, 2 were to be had"),
        (SOME, "abd", "3 hits, the limit is 2"),
        (SOME, "ac", "1 that do not match"),
        (CHEAP, "ba", None),
        (CHEAP, "ab", "not in the order of price"),
        (CHEAP, "bd", "a better price was left out"),
    ],
)
def test_answers_are_compared_with_the_truth(query: Query, got: str, wrong: str | None) -> None:
    assert faults(query, list(got), MACHINES) == ([wrong] if wrong else [])


@pytest.mark.parametrize(
    ("query", "got", "wrong"),
    [
        (BIG, "ad", None),  # b is dead and gone
        (BIG, "abd", None),  # b is dead and still shown
        (BIG, "ab", "1 matches missing"),
        (SOME, "ab", None),
        (SOME, "b", "1 hits, 2 were to be had"),
        (CHEAP, "ba", None),
        (CHEAP, "ad", None),
        (CHEAP, "bd", "a better price was left out"),
    ],
)
def test_the_dead_may_be_shown_but_no_living_one_may_be_missing(
    query: Query, got: str, wrong: str | None
) -> None:
    found = faults(query, list(got), MACHINES, frozenset("b"))
    assert found == ([wrong] if wrong else [])
