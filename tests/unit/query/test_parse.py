"""The door: text and F to the normal form, against a schema; what is refused, and why."""

import pytest

from dhtos.core.coordinate import Coordinate
from dhtos.core.limits import PREDICATE_BOXES_MAX, PREDICATE_DEPTH_MAX, PREDICATE_TERMS_MAX
from dhtos.core.predicate import (
    EVERYTHING,
    Box,
    Exists,
    LabelExists,
    Near,
    OneOf,
    Predicate,
    Range,
)
from dhtos.core.scale import Codes, Flag, Hashed, Log2
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import PredicateError, UsageError
from dhtos.query import F, GiB, explain, parse, parse_order

MACHINES = default_schema()
SCHEMA = Schema(
    "toy",
    0,
    (
        Attribute("cores", "number", "static", Log2(1, 1024)),
        Attribute("mem", "number", "dynamic", Log2(1, 2**40), "B"),
        Attribute("spot", "bool", "static", Flag()),
        Attribute("site", "text", "static", Hashed()),
        Attribute("arch", "text", "static", Codes(("arm64", "x86_64"))),
        Attribute("tier", "text", "static", Codes(("gold", "iron"), open=True)),
    ),
)
INFINITE = float("inf")
NODE = "ab" * 20


def where(target):
    places = {"self": Coordinate((0.01, 0.02), 0.001, 0.5), NODE: Coordinate((0.5, 0.5), 0.002, 1)}
    return places.get(target)


def read(query, schema=SCHEMA):
    return parse(query, schema, coordinate_of=where)


def text_of(query):
    return explain(read(query), SCHEMA)


def refusal(query, schema=SCHEMA):
    with pytest.raises(PredicateError) as caught:
        read(query, schema)
    return caught.value


# --- what comes out -----------------------------------------------------------------------------


def test_the_example_of_the_design():
    predicate = read(
        '8 <= cores <= 64 and mem_free >= 32GiB and gpu_model in ("A100", "H100")'
        ' and site != "lab" and rtt(self) < 20ms',
        MACHINES,
    )
    names = MACHINES.index
    assert predicate == Predicate(
        (
            Box(
                (
                    Range(names("cores"), 8, 64),
                    OneOf(names("gpu_model"), ("A100", "H100")),
                    OneOf(names("site"), ("lab",), negated=True),
                    Range(names("mem_free"), 32 * GiB, INFINITE),
                    Near((0.01, 0.02, 0.001), -INFINITE, 0.02, high_open=True),
                )
            ),
        )
    )


def test_a_predicate_passes_through_and_strangers_do_not():
    assert read(EVERYTHING) is EVERYTHING
    with pytest.raises(PredicateError, match="a query is a text or an F expression"):
        read(8)  # type: ignore[arg-type]


CANONICAL = [
    ("true", "true"),
    ("not false", "true"),
    ("spot or true", "true"),
    ("cores >= 8", "cores >= 8"),
    ("not cores >= 8", "cores < 8"),
    ("not not cores >= 8", "cores >= 8"),
    ("cores == 8.0", "cores == 8"),
    ("not cores == 8", "cores != 8"),
    ("cores in (8, 8)", "cores == 8"),
    ("cores in (4, 8, 2)", "cores in (2, 4, 8)"),
    ("cores not in (4, 8)", "cores not in (4, 8)"),
    ("cores >= 8 and cores <= 8", "cores == 8"),
    ("8 < cores < 64", "8 < cores < 64"),
    ("cores >= 8 and cores >= 16 and cores < 64", "16 <= cores < 64"),
    ("cores.exists() and cores >= 8", "cores >= 8"),
    ("cores.exists()", "cores.exists()"),
    ("not cores.exists()", "not cores.exists()"),
    ("mem >= 1.5GiB", "mem >= 1.5GiB"),
    ("mem >= 4096", "mem >= 4KiB"),
    ("spot", "spot"),
    ("not spot", "not spot"),
    ("spot == true", "spot"),
    ("spot != true", "not spot"),
    ("spot in (true, false)", "spot in (false, true)"),
    ('site == "lab"', 'site == "lab"'),
    ('site == "q\\"\\\\"', 'site == "q\\"\\\\"'),
    ('not site in ("b", "a")', 'site not in ("a", "b")'),
    ('site.startswith("a") and site.startswith("ab")', 'site.startswith("ab")'),
    ('not site.startswith("a")', 'not site.startswith("a")'),
    ('arch.startswith("x")', 'arch.startswith("x")'),
    ('tier == "tin"', 'tier == "tin"'),
    ('label("a") == "b" and label("a").exists()', 'label("a") == "b"'),
    ('not label("a").exists()', 'not label("a").exists()'),
    ('label("a") not in ("x", "y")', 'label("a") not in ("x", "y")'),
    ('attested(site) == "eu-1"', 'attested("site") == "eu-1"'),
    ('attested("gpu-a")', 'attested("gpu-a")'),
    ("exists(attested(gpu)) or attested(gpu)", 'attested("gpu")'),
    ("not attested(gpu)", 'not attested("gpu")'),
    ('not attested(site) in ("b", "a")', 'attested("site") not in ("a", "b")'),
    ('"a" != attested(site)', 'attested("site") != "a"'),
    ('attested(t) == "a" and attested(t) == "b"', 'attested("t") == "a" and attested("t") == "b"'),
    (
        'label("a").exists() and attested(b) and cores > 2 and attested(a) == "x"',
        'cores > 2 and label("a").exists() and attested("a") == "x" and attested("b")',
    ),
    ("rtt(self) <= 20ms", "rtt((0.01, 0.02, 0.001)) <= 20ms"),
    ("not rtt(self) <= 20ms", "rtt((0.01, 0.02, 0.001)) > 20ms"),
    (f'rtt("{NODE.upper()}") < 1', "rtt((0.5, 0.5, 0.002)) < 1s"),
    ("5ms <= rtt((0.1, 0.2)) <= 5ms", "5ms <= rtt((0.1, 0.2)) <= 5ms"),
    ("5ms < rtt((0.1, 0.2)) < 1s", "5ms < rtt((0.1, 0.2)) < 1s"),
    # disjunctions
    ("cores < 2 or cores < 4", "cores < 4"),
    ("cores < 2 or cores < 2", "cores < 2"),
    ("spot or (spot and cores > 2)", "spot"),
    ("(cores > 8 and cores < 4) or spot", "spot"),
    ("cores < 2 or cores > 8", "cores < 2 or cores > 8"),
    ("not (cores >= 2 and spot)", "cores < 2 or not spot"),
    ("not (cores >= 2 or spot)", "cores < 2 and not spot"),
    ("mem > 1B and (cores < 2 or cores > 8)", "mem > 1B and (cores < 2 or cores > 8)"),
    (
        "(spot and cores < 2) or (mem > 1B and cores > 8)",
        "(cores < 2 and spot) or (cores > 8 and mem > 1B)",
    ),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL, ids=[text for text, _ in CANONICAL])
def test_the_canonical_text(text, canonical):
    assert text_of(text) == canonical
    assert read(canonical) == read(text)


def test_both_front_ends_agree():
    built = (F.cores >= 8) & (F.mem >= 32 * GiB) & ~F.site.one_of("lab") & (F.rtt("self") < 0.02)
    assert read(built) == read('cores >= 8 and mem >= 32GiB and site != "lab" and rtt(self) < 20ms')
    assert read(F.spot) == read("spot")
    assert read(~F.label("a").exists()) == Predicate((Box((LabelExists("a", negated=True),)),))


def test_exotic_predicates_have_a_text_too():
    assert explain(Predicate(()), SCHEMA) == "false"
    two = Predicate((Box((Exists(0),)), Box()))
    assert explain(two, SCHEMA) == "true"


# --- what is refused ----------------------------------------------------------------------------

REFUSED = [
    ("coers >= 8", 1, "unknown attribute 'coers'", "cores"),
    ("spot and memm > 1", 10, "unknown attribute 'memm'", "mem"),
    ("xyzzy > 1", 1, "unknown attribute 'xyzzy' (known: cores, mem, ", None),
    ("spot and not Cores", 14, "unknown attribute 'Cores'", "cores"),
    # types
    ('cores >= "8"', 10, 'cores is a number, got "8"', None),
    ("cores == true", 10, "cores is a number, got True", None),
    ("cores >= -1", 10, "cores is a number >= 0, got -1", None),
    ("cores", 1, "cores is a number at column 1, expected a comparison", None),
    ('cores.startswith("a")', 1, "cores is a number", None),
    ("site == 8", 9, "site is a text, got 8", '"8"'),
    ('site > "a"', 1, "site is a text at column 1, expected one of ==, !=", None),
    ("site", 1, "site is a text", None),
    ('site == ""', 9, "site is a text of 1..128 printable bytes", None),
    ('site.startswith("")', 17, "site.startswith takes a text", None),
    ("spot == 1", 9, "spot is true or false, got 1", None),
    ("spot > true", 1, "spot is true or false at column 1", None),
    ('spot.startswith("a")', 1, "spot is true or false", None),
    ('arch == "x86"', 9, "unknown arch 'x86'", "x86_64"),
    ('arch in ("arm64", "vax")', 19, "arch is one of arm64, x86_64", None),
    ('arch.startswith("vax")', 17, "arch is one of arm64, x86_64", None),
    ('label("a") > "b"', 1, 'label("a") is a label', None),
    ('label("a") == 3', 15, "a label is a text, got 3", '"3"'),
    ('label("") == "x"', 1, "a label key is 1..64 printable bytes", None),
    (f'label("a") == "{"x" * 65}"', 15, "a label has at most 64 printable bytes", None),
    ('label("a").startswith("x")', 1, 'label("a") is a label', None),
    ('attested(gpu) > "a"', 1, "is what a certificate says at column 1, expected one of", None),
    ('attested(gpu).startswith("a")', 1, "is what a certificate says at column 1", None),
    ("attested(site) == 3", 19, "what a certificate says is a text, got 3", '"3"'),
    (f'attested(a) == "{"x" * 33}"', 16, "says has at most 32 printable bytes", None),
    ('attested("")', 1, 'attested("") is no name of a group: 1..32 letters', None),
    ("cores >> 1", 7, "unexpected '>>' at column 7, expected a condition", None),
    ("mem >= 32GiB >> 1", 14, "unexpected '>>' at column 14, expected a value", None),
    ("(cores >= 2) & (mem > 1)", 14, "unexpected '&' at column 14", "and"),
    ("cores >= 8 | mem >= 1", 12, "unexpected '|' at column 12", "or"),
    ("attested()", 1, "unexpected 'attested' at column 1, expected attested(gpu)", None),
    ("attested(a, b)", 1, "unexpected 'attested' at column 1, expected attested(gpu)", None),
    ("attested(3) == 'a'", 10, "unexpected '3' at column 10, expected a text in quotes", None),
    ("atested(gpu)", 1, "unknown function 'atested'", "attested"),
    ("attested(a) and not attested(a)", 21, "empty range: attested", None),
    # units
    ("cores >= 8GiB", 10, "wrong unit 'GiB': cores has no unit", None),
    ("mem >= 8ms", 8, "wrong unit 'ms': mem is in TiB, GiB", None),
    ("mem >= 5%", 8, "wrong unit '%'", None),
    ("rtt(self) < 8GiB", 13, "wrong unit 'GiB': rtt(self) is in s, ms, us", None),
    # round trips
    ("rtt(self) == 20ms", 1, "rtt(self) is a duration at column 1, expected", None),
    ("rtt(self) in (1, 2)", 1, "rtt(self) is a duration", None),
    ("rtt(self) < -1", 13, "a round trip is a number >= 0", None),
    ('rtt(self) < "a"', 13, "a round trip is a number >= 0", None),
    ("rtt(self).exists()", 1, "cannot be tested for existence", None),
    ('rtt("abc") < 1', 1, 'rtt("abc") names no place at column 1', None),
    (f'rtt("{"0" * 40}") < 1', 1, "the coordinate of that node is not known here", None),
    ("rtt((0.1, -1)) < 1", 1, "a height >= 0", None),
    ("rtt((99, 1)) < 1", 1, "within", None),
    # nothing left
    ("false", 1, "the predicate matches nothing", None),
    ("cores > 8 and cores < 4", 15, "empty range: cores > 8 and cores < 4", None),
    ("cores > 8 and spot and cores <= 8", 24, "empty range: cores > 8 and cores <= 8", None),
    ("4 > cores > 8", 5, "empty range: cores < 4 and cores > 8", None),
    ('site == "a" and site == "b"', 17, 'empty range: site == "a" and site == "b"', None),
    ("spot and not spot", 14, "empty range: spot and not spot", None),
    ("spot not in (true, false)", 1, "empty range: spot has no value left", None),
    ("cores > 1 and not cores.exists()", 19, "empty range: cores > 1 and not cores", None),
    ('label("a") == "b" and label("a") != "b"', 23, "empty range: label", None),
]


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"), REFUSED, ids=[text for text, *_ in REFUSED]
)
def test_refusals_name_token_column_and_expectation(text, column, message, hint):
    error = refusal(text)
    assert message in str(error)
    assert (error.column, error.hint) == (column, hint)
    assert f"at column {column}" in str(error)
    assert "\n" not in str(error)


def test_the_form_of_a_message():
    assert (
        str(refusal("coers >= 8")) == "unknown attribute 'coers' at column 1: did you mean 'cores'?"
    )


def test_expressions_have_no_column():
    error = refusal(F.coers >= 8)
    assert str(error) == "unknown attribute 'coers': did you mean 'cores'?"
    assert error.column is None


def test_without_a_coordinate_there_is_no_self():
    with pytest.raises(PredicateError, match="the coordinate of this node is not known here"):
        parse("rtt(self) < 20ms", SCHEMA)


# --- limits -------------------------------------------------------------------------------------


def test_terms_are_counted():
    term = "cores > 1"
    assert read(" and ".join([term] * PREDICATE_TERMS_MAX)) == read(term)
    error = refusal(" and ".join([term] * (PREDICATE_TERMS_MAX + 1)))
    assert "at most 32 terms" in str(error)
    assert error.column == 1 + PREDICATE_TERMS_MAX * len("cores > 1 and ")


def test_depth_is_bounded_in_both_front_ends():
    deep = F.spot
    for _ in range(PREDICATE_DEPTH_MAX):
        deep = ~deep
    assert read(deep) == read("spot")
    assert "nested deeper" in str(refusal(~deep))
    assert "nested deeper" in str(refusal("not " * (PREDICATE_DEPTH_MAX + 1) + "spot"))
    for _ in range(5000):
        deep = ~deep
    assert "nested deeper" in str(refusal(deep))


def pairs(count):
    return " and ".join(f'(site != "a{i}" or cores != {i})' for i in range(count))


def test_boxes_are_bounded():
    assert len(read(pairs(7)).boxes) == 2**7 <= PREDICATE_BOXES_MAX
    error = refusal(pairs(9))
    assert "too many alternatives" in str(error)
    assert error.hint == "in"
    wide = " and ".join(
        "(" + " or ".join(f'label("{a}{i}").exists()' for i in range(15)) + ")" for a in "ab"
    )
    assert len(read(wide).boxes) == 225


def test_contradictions_do_not_count_as_boxes():
    either = " or ".join(f"cores == {i}" for i in range(1, 9))
    same = " or ".join(f'label("k{i}").exists()' for i in range(8))
    assert len(read(f"({same}) and ({same})").boxes) == 8
    assert len(read(f"({either}) and ({either})").boxes) == 8


def test_what_no_request_can_carry_is_refused():
    names = [f'"{"x" * 120}{i}"' for i in range(30)]
    assert read(f"site in ({', '.join(names)})")
    wide = " and ".join(f"site.startswith({names[0]}) or cores == {i}" for i in range(8))
    assert read(wide)
    either = " or ".join(f"(site in ({names[0]}, {names[1]}) and cores == {i})" for i in range(12))
    assert read(either)
    both = f"({either}) and (spot or mem > 1)"
    assert "too large to send" in str(refusal(both))


def test_a_selection_of_values_is_bounded():
    assert read(F.cores.one_of(*range(64)))
    assert "is compared with 65 values" in str(refusal(F.cores.one_of(list(range(65)))))
    assert "is compared with 0 values" in str(refusal(F.cores.one_of([])))


def test_a_product_is_refused_before_it_is_multiplied_out():
    half = " or ".join(f'label("a{i}").exists()' for i in range(16))
    third = " or ".join(f'label("b{i}").exists()' for i in range(16))
    assert "at most 32 terms" in str(refusal(f"({half}) and ({third}) and spot"))
    assert len(read(f"({half}) and ({third})").boxes) == PREDICATE_BOXES_MAX
    tower = " and ".join(
        "(" + " or ".join(f'label("{a}{i}").exists()' for i in range(8)) + ")" for a in "abc"
    )
    assert "512 boxes" in str(refusal(tower))
    threes = " and ".join(
        "(" + " or ".join(f'label("{a}{i}").exists()' for i in range(3)) + ")" for a in "abcde"
    )
    many = " or ".join(f'label("k{i}").exists()' for i in range(17))
    assert f"{3**5 * 17} boxes" in str(refusal(f"{threes} and ({many})"))


# --- orders ---------------------------------------------------------------------------------------


def test_an_order_is_an_attribute_or_a_place():
    assert parse_order("mem", SCHEMA) == SCHEMA.index("mem")
    assert parse_order("rtt(self)", SCHEMA, coordinate_of=where) == (0.01, 0.02, 0.001)
    assert parse_order(f'rtt("{NODE}")', SCHEMA, coordinate_of=where) == (0.5, 0.5, 0.002)
    assert parse_order("rtt((10ms, 0, 1ms))", SCHEMA) == (0.01, 0.0, 0.001)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("coers", "did you mean 'cores'"),
        ("rtt(self)", "the coordinate of this node is not known here"),
        ("rtt(self) < 1s and cores", "unexpected"),
        ("rtt(self", "never closed"),
        ("rtt", "unknown attribute"),
    ],
)
def test_what_is_no_order_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_order(text, SCHEMA)
