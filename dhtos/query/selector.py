"""Kubernetes label selectors as a third front end: `team=video,tier in (a, b),!legacy`.

The grammar and the meaning are those of the API (apimachinery `labels.Parse`): requirements are
joined by commas, all must hold, and `!=` and `notin` also select what lacks the label, unlike
`!=` of the predicate language. Keys are labels here, never attributes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dhtos.core.limits import PREDICATE_SET_MAX, PREDICATE_TEXT_MAX
from dhtos.query.expr import (
    Comparison,
    Constant,
    Existence,
    Expr,
    LabelName,
    Literal,
    Membership,
    Not,
    all_of,
    any_of,
)
from dhtos.query.scan import error

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9][-A-Za-z0-9_./]*)|(?P<sign>==|!=|[=!(),<>]))\s*")
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    column: int
    is_word: bool


def parse_labels(text: str) -> Expr:
    """The tree of a selector; the empty one selects everything. Raises PredicateError."""
    if len(text) > PREDICATE_TEXT_MAX:
        raise error(
            f"a selector has at most {PREDICATE_TEXT_MAX} characters, got {len(text)}", None
        )
    tokens = list(_tokens(text))
    if not tokens:
        return Constant(True)
    return _Reader(tokens, len(text) + 1).selector()


def _tokens(text: str) -> Iterator[_Token]:
    position = _BLANK.match(text, 0).end()  # type: ignore[union-attr]  # matches the empty text
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise error(f"unexpected character {text[position]!r}", position + 1)
        name = match.lastgroup or ""
        yield _Token(match.group(name), match.start(name) + 1, name == "word")
        position = match.end()


class _Reader:
    """A recursive descent over the tokens; `end` is the column behind the last one."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self._tokens = tokens
        self._end = _Token("", end, is_word=False)
        self._place = 0

    def selector(self) -> Expr:
        """`requirement, requirement, ...`"""
        found = [self._requirement()]
        while (token := self._take()) is not self._end:
            self._expect(token, ",")
            found.append(self._requirement())
        return found[0] if len(found) == 1 else all_of(*found)

    def _peek(self) -> _Token:
        return self._tokens[self._place] if self._place < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._peek()
        self._place += 1
        return token

    def _expect(self, token: _Token, sign: str) -> None:
        if token.text != sign or token.is_word:
            raise self._unexpected(token, repr(sign))

    def _unexpected(self, token: _Token, expected: str) -> Exception:
        what = f"unexpected {token.text!r}" if token.text else "unexpected end of the selector"
        return error(what, token.column, expected=expected)

    def _requirement(self) -> Expr:
        token = self._take()
        if token.text == "!":
            return Not(Existence(self._label(self._take())))
        label = self._label(token)
        sign = self._peek()
        if sign is self._end or sign.text == ",":
            return Existence(label)
        self._take()
        match sign.text:
            case "=" | "==":
                return Comparison(label, "==", self._value())
            case "!=":
                return any_of(Not(Existence(label)), Comparison(label, "!=", self._value()))
            case "in":
                return Membership(label, self._values())
            case "notin":
                return any_of(Not(Existence(label)), Not(Membership(label, self._values())))
        raise self._unexpected(sign, "=, !=, in, notin or a comma")

    def _label(self, token: _Token) -> LabelName:
        if not token.is_word:
            raise self._unexpected(token, "a label key")
        return LabelName(token.text, token.column)

    def _value(self) -> Literal:
        """A value; none at all is the empty text, as in Kubernetes."""
        token = self._peek()
        if token is self._end or token.text in (",", ")"):
            return Literal("", "", token.column)
        if not token.is_word:
            raise self._unexpected(token, "a value")
        self._take()
        return Literal(token.text, "", token.column)

    def _values(self) -> tuple[Literal, ...]:
        opening = self._take()
        self._expect(opening, "(")
        found = [self._value()]
        while (token := self._take()).text == ",":
            found.append(self._value())
        self._expect(token, ")")
        if len(found) > PREDICATE_SET_MAX:
            raise error(
                f"at most {PREDICATE_SET_MAX} values in a set, got {len(found)}", opening.column
            )
        return tuple(found)
