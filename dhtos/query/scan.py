"""The scanner: guards predicate text and takes the units out before Python's parser sees it.

Python cannot lex `32GiB`, `20ms` or `5%`. The scanner blanks the unit out (same length, so every
column stays true) and remembers which unit followed the number at which column. It also bounds
what the parser is given (length, nesting, alphabet), and names the slips of other languages
(`=`, `&&`, `||`, `!`) before they become a bare "invalid syntax". It knows no grammar.
"""

import re
from dataclasses import dataclass, field
from typing import NoReturn

from dhtos.core.limits import PREDICATE_DEPTH_MAX, PREDICATE_TERMS_MAX, PREDICATE_TEXT_MAX
from dhtos.errors import PredicateError
from dhtos.query.units import UNITS, nearest

BRACKETS_MAX = 4 * PREDICATE_DEPTH_MAX
"""Open brackets at once; redundant ones are allowed, a tower of them is not."""
NOTS_MAX = PREDICATE_TERMS_MAX * 2

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<number>0[xX][0-9a-fA-F]+ | (?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
    | (?P<operator>==|!=|<=|>=|<>|&&|\|\||<|>|[-+*().,=!&|%\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:[\\'\"nt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_SLIPS = {
    "=": "==",
    "<>": "!=",
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "+": None,
    "%": None,
}
_OPENING = {"(": ")", "[": "]"}
_WORD = re.compile(r"%|[A-Za-z_][A-Za-z0-9_]*")
_NUMBER_NEXT = re.compile(r"\.?[0-9]")


@dataclass(slots=True)
class Scan:
    """Text the Python parser may be given, of the length of the original."""

    source: str
    text: str = ""
    units: dict[int, str] = field(default_factory=dict)
    """The unit word of the number that starts at a column (1-based)."""

    def token_at(self, column: int) -> str:
        """The token of the original that starts at, or holds, a column; "" at the end."""
        for match in _TOKEN.finditer(self.source):
            if match.end() >= column and match.lastgroup != "space":
                return match.group() + self._unit_after(match)
        return ""

    def _unit_after(self, match: re.Match[str]) -> str:
        unit = self.units.get(match.start() + 1, "") if match.lastgroup == "number" else ""
        return unit if self.source.startswith(unit, match.end()) else f" {unit}"


def error(
    message: str, column: int | None, *, expected: str | None = None, hint: str | None = None
) -> PredicateError:
    """A PredicateError whose message says where (if read from text) and what was meant."""
    place = f" at column {column}" if column is not None else ""
    wanted = f", expected {expected}" if expected is not None else ""
    advice = f": did you mean {hint!r}?" if hint is not None else ""
    return PredicateError(f"{message}{place}{wanted}{advice}", column=column, hint=hint)


def scan(source: str) -> Scan:
    """Check and blank; raises PredicateError for what cannot be a predicate."""
    if len(source) > PREDICATE_TEXT_MAX:
        raise error(
            f"a predicate has at most {PREDICATE_TEXT_MAX} characters, got {len(source)}", None
        )
    if not source.strip():
        raise error("the predicate is empty: write 'true' to match everything", 1)
    result = Scan(source)
    _Scanner(result).run()
    return result


class _Scanner:
    """One pass over the source; `out` is the blanked text so far."""

    def __init__(self, result: Scan) -> None:
        self.result = result
        self.source = result.source
        self.out: list[str] = []
        self.brackets: list[tuple[str, int]] = []
        self.nots = 0
        self.products = 0

    def run(self) -> None:
        position = 0
        last = ""
        while position < len(self.source):
            match = _TOKEN.match(self.source, position)
            if match is None:
                self._refuse_character(position)
            kind = match.lastgroup or ""
            position = match.end()
            match kind:
                case "space":
                    self.out.append(" " * len(match.group()))
                case "number":
                    position = self._number(match)
                case "word":
                    self._word(match)
                case "text":
                    self._text(match, last)
                case _:
                    self._operator(match)
            last = last if kind == "space" else kind
        if self.brackets:
            bracket, column = self.brackets[-1]
            raise error(f"{bracket!r} is never closed", column)
        self.result.text = "".join(self.out)
        assert len(self.result.text) == len(self.source)

    def _number(self, match: re.Match[str]) -> int:
        """Take the unit that follows, glued or after one blank; returns where to go on."""
        self.out.append(match.group())
        end = match.end()
        glued = _WORD.match(self.source, end)
        loose = None if glued else _WORD.match(self.source, end + 1)
        if loose and (self.source[end] != " " or loose.group() not in UNITS):
            loose = None
        unit = glued or loose
        if unit is None:
            return end
        word = unit.group()
        if word not in UNITS:
            known = ", ".join(UNITS)
            hint = nearest(word, UNITS)
            what = f"unknown unit {word!r}" if hint else f"unknown unit {word!r} (known: {known})"
            raise error(what, unit.start() + 1, hint=hint)
        self.result.units[match.start() + 1] = word
        self.out.append(" " * (unit.end() - end))
        return unit.end()

    def _word(self, match: re.Match[str]) -> None:
        self.nots += match.group() == "not"
        if self.nots > NOTS_MAX:
            raise error(f"more than {NOTS_MAX} times 'not'", match.start() + 1)
        if self.source[match.end() : match.end() + 1] in ('"', "'"):
            raise error(f"{match.group()!r} is no prefix of a text", match.start() + 1)
        self.out.append(match.group())

    def _text(self, match: re.Match[str], last: str) -> None:
        text = match.group()
        if last == "text":
            raise error("two texts follow each other", match.start() + 1)
        for slash in re.finditer(r"\\.", text, re.DOTALL):
            escape = _ESCAPE.match(text, slash.start())
            if escape is None:
                raise error(f"unknown escape {slash.group()!r}", match.start() + slash.start() + 1)
        if not text.isprintable():
            raise error("a text holds printable characters only", match.start() + 1)
        self.out.append(text)

    def _operator(self, match: re.Match[str]) -> None:
        token, column = match.group(), match.start() + 1
        if token in _SLIPS:
            raise error(f"unexpected {token!r}", column, hint=_SLIPS[token])
        if token == "-" and not _NUMBER_NEXT.match(self.source, match.end()):
            raise error("unexpected '-': expected a number right after it", column)
        if token == "*":
            self.products += 1
            if self.products > PREDICATE_TERMS_MAX:
                raise error(f"more than {PREDICATE_TERMS_MAX} times '*'", column)
        if token in _OPENING:
            self.brackets.append((token, column))
            if len(self.brackets) > BRACKETS_MAX:
                raise error(f"more than {BRACKETS_MAX} brackets inside each other", column)
        elif token in _OPENING.values() and (
            not self.brackets or _OPENING[self.brackets.pop()[0]] != token
        ):
            raise error(f"unexpected {token!r}", column)
        self.out.append(token)

    def _refuse_character(self, position: int) -> NoReturn:
        character = self.source[position]
        if character in "\"'":
            raise error("the text is never closed", position + 1)
        raise error(f"unexpected character {character!r}", position + 1)
