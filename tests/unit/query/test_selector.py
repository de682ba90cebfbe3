"""Label selectors: the grammar and the meaning of Kubernetes."""

import pytest

from dhtos.core.limits import PREDICATE_SET_MAX, PREDICATE_TEXT_MAX
from dhtos.core.record import make_record
from dhtos.core.schema import default_schema
from dhtos.errors import PredicateError
from dhtos.query import explain, parse_selector

SCHEMA = default_schema()


def machine(**labels):
    return make_record(SCHEMA, {}, labels, node_id=bytes(20), endpoint=("10.0.0.1", 7400), seq=1)


READS = [
    ("", "true"),
    ("  ", "true"),
    ("team=video", 'label("team") == "video"'),
    ("team==video", 'label("team") == "video"'),
    (" team = video ", 'label("team") == "video"'),
    ("team", 'label("team").exists()'),
    ("!team", 'not label("team").exists()'),
    ("! team", 'not label("team").exists()'),
    ("team in (video, audio)", 'label("team") in ("audio", "video")'),
    ("team in (video)", 'label("team") == "video"'),
    ("app.kubernetes.io/name=x-1_a.b", 'label("app.kubernetes.io/name") == "x-1_a.b"'),
    ("tier=gold,team,!old", 'not label("old").exists() and label("team").exists()'),
    ("team!=video", 'not label("team").exists() or label("team") != "video"'),
    ("a notin (x,y)", 'not label("a").exists() or label("a") not in ("x", "y")'),
    ("in in (in)", 'label("in") == "in"'),
]


@pytest.mark.parametrize(("selector", "text"), READS, ids=[text for text, _ in READS])
def test_what_selectors_mean(selector, text):
    found = explain(parse_selector(selector, SCHEMA), SCHEMA)
    assert set(text.split(" and ")) <= set(found.split(" and "))


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("team=video", {"team": "video"}, True),
        ("team=video", {"team": "audio"}, False),
        ("team=video", {}, False),
        ("team!=video", {"team": "audio"}, True),
        ("team!=video", {"team": "video"}, False),
        ("team!=video", {}, True),
        ("team notin (a, b)", {"team": "c"}, True),
        ("team notin (a, b)", {"team": "b"}, False),
        ("team notin (a, b)", {}, True),
        ("team,!old", {"team": "x"}, True),
        ("team,!old", {"team": "x", "old": "y"}, False),
        ("team in (a, b),tier!=gold", {"team": "a"}, True),
        ("team=", {"team": "a"}, False),
        ("", {}, True),
    ],
)
def test_selectors_select(selector, labels, matches):
    assert parse_selector(selector, SCHEMA).bind(SCHEMA).matches(machine(**labels)) is matches


@pytest.mark.parametrize(
    ("selector", "column", "message"),
    [
        ("team=video extra", 12, "unexpected 'extra' at column 12, expected ','"),
        ("team in video", 9, "unexpected 'video' at column 9, expected '('"),
        ("team in (a", 11, "unexpected end of the selector"),
        ("team in (a b)", 12, "unexpected 'b'"),
        ("team in", 8, "unexpected end of the selector"),
        ("team,", 6, "expected a label key"),
        (",team", 1, "unexpected ',' at column 1, expected a label key"),
        ("!", 2, "expected a label key"),
        ("=video", 1, "expected a label key"),
        ("team==!x", 7, "unexpected '!' at column 7, expected a value"),
        ("team like x", 6, "expected =, !=, in, notin or a comma"),
        ("cores>8", 6, "expected =, !=, in, notin or a comma"),
        ("team='a'", 6, 'unexpected character "\'"'),
        ("é=1", 1, "unexpected character"),
        ("a=b,a=c", 5, "empty range"),
    ],
)
def test_refusals_have_a_column(selector, column, message):
    with pytest.raises(PredicateError) as caught:
        parse_selector(selector, SCHEMA)
    assert message in str(caught.value)
    assert caught.value.column == column


def test_sizes_are_bounded():
    values = ",".join(f"v{i}" for i in range(PREDICATE_SET_MAX + 1))
    with pytest.raises(PredicateError, match="at most 64 values"):
        parse_selector(f"a in ({values})", SCHEMA)
    with pytest.raises(PredicateError, match="at most 4096 characters"):
        parse_selector("a" * (PREDICATE_TEXT_MAX + 1), SCHEMA)
    with pytest.raises(PredicateError, match="at most 32 terms"):
        parse_selector(",".join(f"k{i}" for i in range(33)), SCHEMA)
    with pytest.raises(PredicateError, match="a label key is"):
        parse_selector("k" * 65, SCHEMA)
