"""Text: what is read, and that a refusal names the token and its own column."""

import pytest

from dhtos.core.limits import PREDICATE_SET_MAX, PREDICATE_TEXT_MAX
from dhtos.errors import PredicateError
from dhtos.query import F
from dhtos.query.expr import AllOf, AttributeName, Comparison, Constant, Literal, plain
from dhtos.query.scan import BRACKETS_MAX, scan
from dhtos.query.text import base_number, parse_text

READS = [
    ("cores >= 8", F.cores >= 8),
    ("8 <= cores", F.cores >= 8),
    ("8 == cores", F.cores == 8),
    ("8 <= cores <= 64", (F.cores >= 8) & (F.cores <= 64)),
    ("64 > cores > 8", (F.cores < 64) & (F.cores > 8)),
    ("1 < cores < 9 and mem > 2", (F.cores > 1) & (F.cores < 9) & (F.mem > 2)),
    ('site in ("a", "b")', F.site.one_of("a", "b")),
    ('site in ["a", "b"]', F.site.one_of("a", "b")),
    ('site in ("a")', F.site.one_of("a")),
    ('site in "a"', F.site.one_of("a")),
    ('site not in ("a", "b",)', ~F.site.one_of("a", "b")),
    ('site.one_of("a", "b")', F.site.one_of("a", "b")),
    ('site != "lab"', F.site != "lab"),
    ("site != 'lab'", F.site != "lab"),
    ('site == "a\\"b\\\\\\n\\x41\\u00e9"', F.site == 'a"b\\\nAé'),
    ("spot", F.spot),
    ("not spot", ~F.spot),
    ("spot == true", F.spot == True),  # noqa: E712 - builds
    ("spot != False", F.spot != False),  # noqa: E712 - builds
    ("spot or cores == 1 and spot", F.spot | (F.cores == 1) & F.spot),
    ("(spot or cores == 1) and spot", (F.spot | (F.cores == 1)) & F.spot),
    ("exists(site)", F.site.exists()),
    ("site.exists()", F.site.exists()),
    ("not site.exists()", ~F.site.exists()),
    ('site.startswith("lab-")', F.site.startswith("lab-")),
    ('label("team") == "video"', F.label("team") == "video"),
    ('label("team").exists()', F.label("team").exists()),
    ('exists(label("team"))', F.label("team").exists()),
    ('label("team") in ("a", "b")', F.label("team").one_of("a", "b")),
    ("rtt(self) < 0.02", F.rtt("self") < 0.02),
    ('rtt("00ff") < 0.02', F.rtt("00ff") < 0.02),
    ("rtt((0.1, 2ms, -3)) < 1", F.rtt((0.1, 0.002, -3.0)) < 1),
    ("true", Constant(True)),
    ("False", Constant(False)),
    ("price > -1.5", F.price > -1.5),
    ("price > -.5", F.price > -0.5),
    ("mem > 1_000", F.mem > 1000),
    ("mem > 0x10", F.mem > 16),
    ("mem > 1e3", F.mem > 1000.0),
    ("  cores\n>=\t8\r\n", F.cores >= 8),
]


@pytest.mark.parametrize(("text", "tree"), READS, ids=[text for text, _ in READS])
def test_what_text_means(text, tree):
    assert parse_text(text) == plain(tree)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("32GiB", 32, "GiB"),
        ("32 GiB", 32, "GiB"),
        ("1.5TB", 1.5, "TB"),
        ("20ms", 20, "ms"),
        ("5%", 5, "%"),
        ("5 %", 5, "%"),
        ("1e3us", 1e3, "us"),
        ("-5%", -5, "%"),
        ("32 * GiB", 32, "GiB"),
        ("GiB * 32", 32, "GiB"),
        ("2 * 16GiB", 32, "GiB"),
        ("2 * 4 * 4", 32, ""),
        ("0x10GiB", 16, "GiB"),
        ("7B", 7, "B"),
    ],
)
def test_numbers_and_their_units(text, value, unit):
    tree = parse_text(f"mem >= {text} and spot")
    assert isinstance(tree, AllOf)
    assert tree.parts[0] == Comparison(AttributeName("mem"), ">=", Literal(value, unit))


def test_a_literal_in_its_base_unit():
    assert base_number(Literal(20, "ms")) == 0.02
    assert base_number(Literal(20)) == 20


def test_columns_are_those_of_the_text():
    tree = parse_text('  site == "é\u4e2d" and\n mem >= 32GiB and spot')
    first, second, third = tree.parts
    assert (first.subject.column, first.value.column) == (3, 11)
    assert (second.subject.column, second.value.column) == (21, 28)
    assert third.subject.column == 38


REFUSED = [
    ("", 1, "the predicate is empty", None),
    ("  ", 1, "the predicate is empty", None),
    ("cores = 8", 7, "unexpected '='", "=="),
    ("cores <> 8", 7, "unexpected '<>'", "!="),
    ("spot && spot", 6, "unexpected '&&'", "and"),
    ("spot & spot", 6, "unexpected '&'", "and"),
    ("spot || spot", 6, "unexpected '||'", "or"),
    ("spot | spot", 6, "unexpected '|'", "or"),
    ("!spot", 1, "unexpected '!'", "not"),
    ("cores + 1 > 2", 7, "unexpected '+'", None),
    ("cores % 2 == 0", 7, "unexpected '%'", None),
    ("cores > 8 AND spot", 11, "unexpected 'AND'", "and"),
    ("cores >", 8, "unexpected end of the predicate", None),
    ("cores > 8 and ", 14, "unexpected end of the predicate", None),
    ("(cores > 8", 1, "'(' is never closed", None),
    ("cores > 8)", 10, "unexpected ')'", None),
    ("cores in (1]", 12, "unexpected ']'", None),
    ("site == 'a", 9, "the text is never closed", None),
    ("cores > 8zB", 10, "unknown unit 'zB'", "B"),
    ("cores > 8Gib", 10, "unknown unit 'Gib'", "GiB"),
    ("cores > 8parsec", 10, "unknown unit 'parsec' (known: ", None),
    ("cores > 8and spot", 10, "unknown unit 'and'", None),
    ("cores > 8 mem", 11, "unexpected 'mem'", None),
    ("cores is 8", 10, "'is' compares identities", "=="),
    ("cores > mem", 9, "two attributes cannot be compared: unexpected 'mem'", None),
    ("site == lab", 9, "two attributes cannot be compared", None),
    ("8 < 9", 1, "unexpected '8'", None),
    ("cores > 8 > 7", 9, "unexpected '8'", None),
    ("rtt(self) < 20ms < 5", 13, "unexpected '20ms'", None),
    ("cores in mem", 10, "unexpected 'mem'", None),
    ("cores in ()", 10, "unexpected '('", None),
    ("8 in cores", 1, "unexpected '8'", None),
    ("cores in (1, mem)", 14, "unexpected 'mem'", None),
    ("cores in (1, (2, 3))", 14, "unexpected '('", None),
    ("8", 1, "unexpected '8'", None),
    ('"a"', 1, "unexpected '\"a\"'", None),
    ("cores[0] > 1", 1, "unexpected 'cores'", None),
    ("cores.size > 1", 1, "unexpected 'cores'", None),
    ("a.b.exists()", 1, "unexpected 'a'", None),
    ("cores.size()", 1, "unknown or wrong call .size()", None),
    ("cores.exists(1)", 1, "unknown or wrong call .exists()", None),
    ("site.startswith(8)", 17, "unexpected '8'", None),
    ("site.one_of()", 1, "unknown or wrong call .one_of()", None),
    ("lable('a') == 'b'", 1, "unknown function 'lable'", "label"),
    ("foo()", 1, "unknown function 'foo'", None),
    ("exists()", 1, "unexpected 'exists'", None),
    ("label(team) == 'b'", 7, "unexpected 'team'", None),
    ("label('a')", 1, 'label("a") is not compared', None),
    ("rtt(self)", 1, "rtt(self) is not compared", None),
    ("rtt(cores) < 1", 5, "unexpected 'cores'", None),
    ("rtt((1,)) < 1", 5, "unexpected '('", None),
    ("rtt((1GiB, 2)) < 1", 6, "coordinates are seconds", None),
    ("label('a', key='b') == 'c'", 15, "unexpected '='", "=="),
    ("mem > 1GiB * 2GiB", 14, "a product of two units", None),
    ("mem > 1e308 * 1e308", 7, "a number must be finite", None),
    ("mem > 1" + "0" * 400 + " * 1.5", 7, "a number must be finite", None),
    ("mem > 1" + "0" * 300 + " * 1e9", 7, "a number must be finite", None),
    ("mem > 1" + "0" * 300 + " * 1" + "0" * 300, 7, "a number must be finite", None),
    ("mem > 1e999", 7, "a number must be finite", None),
    ("mem > - 5", 7, "unexpected '-'", None),
    ("mem > --5", 7, "unexpected '-'", None),
    ("mem > 007", 7, "unexpected '007'", None),
    ("site == f'a'", 9, "'f' is no prefix of a text", None),
    ("site == '''a'''", 11, "two texts follow each other", None),
    ("site == 'a' 'b'", 13, "two texts follow each other", None),
    ("site == 'a\\q'", 11, "unknown escape", None),
    ("site == '\\x4'", 10, "unknown escape", None),
    ("site == 'a\tb'", 9, "a text holds printable characters only", None),
    ("spot # comment", 6, "unexpected character '#'", None),
    ("spot; spot", 5, "unexpected character ';'", None),
    ("größe > 1", 3, "unexpected character 'ö'", None),
    ("lambda: spot", 7, "unexpected character ':'", None),
    ("spot if spot else spot", 1, "unexpected 'spot'", None),
    ("*spot", 1, "unexpected '*'", None),
    ("spot, spot", 1, "unexpected 'spot'", None),
    ("()", 1, "unexpected '('", None),
    ("None", 1, "unexpected 'None'", None),
    ("cores == None", 10, "unexpected 'None'", None),
    ("await spot", 1, "unexpected 'await'", None),
]


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"), REFUSED, ids=[text[:40] for text, *_ in REFUSED]
)
def test_what_is_refused_and_where(text, column, message, hint):
    with pytest.raises(PredicateError) as caught:
        parse_text(text)
    error = caught.value
    assert message in str(error)
    assert (error.column, error.hint) == (column, hint)
    assert f" at column {column}" in str(error)
    if hint is not None:
        assert str(error).endswith(f": did you mean {hint!r}?")


def test_sizes_are_bounded():
    assert parse_text("spot" + " " * (PREDICATE_TEXT_MAX - 4)) == plain(F.spot)
    with pytest.raises(PredicateError, match=f"at most {PREDICATE_TEXT_MAX} characters"):
        parse_text("spot" + " " * (PREDICATE_TEXT_MAX - 3))
    values = ", ".join(map(str, range(PREDICATE_SET_MAX + 1)))
    with pytest.raises(PredicateError, match=f"at most {PREDICATE_SET_MAX} values"):
        parse_text(f"cores in ({values})")
    assert parse_text("(" * BRACKETS_MAX + "spot" + ")" * BRACKETS_MAX) == plain(F.spot)
    with pytest.raises(PredicateError, match="brackets inside each other"):
        parse_text("(" * (BRACKETS_MAX + 1) + "spot" + ")" * (BRACKETS_MAX + 1))
    with pytest.raises(PredicateError, match="times 'not'"):
        parse_text("not " * 500 + "spot")
    with pytest.raises(PredicateError, match="times '\\*'"):
        parse_text("cores > " + "1 * " * 500 + "1")


def test_the_scanner_keeps_every_column():
    source = "mem >= 32GiB and rtt(self) < 20 ms and cpu_free > 5%"
    result = scan(source)
    assert len(result.text) == len(source)
    assert result.text == "mem >= 32    and rtt(self) < 20    and cpu_free > 5 "
    assert result.units == {8: "GiB", 30: "ms", 51: "%"}
    assert result.token_at(8) == "32GiB"
    assert result.token_at(30) == "20 ms"
    assert result.token_at(99) == ""


def test_a_unit_inside_a_text_is_text():
    assert scan("site == '32GiB'").units == {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RecursionError(), "nested too deeply"),
        (MemoryError(), "nested too deeply"),
        (ValueError("digits"), r"cannot be read \(digits\)"),
    ],
)
def test_what_the_parser_itself_may_raise(monkeypatch, fault, message):
    def parse(*_args, **_kwargs):
        raise fault

    monkeypatch.setattr("dhtos.query.text.ast.parse", parse)
    with pytest.raises(PredicateError, match=message):
        parse_text("spot")
