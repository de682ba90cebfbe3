"""The text front end: a small part of Python's expression grammar, parsed and never evaluated.

`8 <= cores <= 64 and gpu_model in ("A100", "H100") and rtt(self) < 20ms` becomes the tree of
`expr`. The scanner guards the input and takes the units out; `ast` gives the shape; the reader
below accepts a whitelist of nodes and refuses everything else with the token and its column.
"""

import ast
import math
from typing import get_args

from dhtos.core.limits import PREDICATE_SET_MAX
from dhtos.errors import PredicateError
from dhtos.query.expr import (
    AttestedName,
    AttributeName,
    Comparison,
    Constant,
    Existence,
    Expr,
    LabelName,
    Literal,
    Membership,
    Not,
    Operator,
    RttTo,
    Starts,
    Subject,
    Truth,
    all_of,
    any_of,
)
from dhtos.query.scan import Scan, error, scan
from dhtos.query.units import UNITS, in_base, nearest

COORDINATES_MAX = 16

_OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_MIRRORED: dict[Operator, Operator] = {
    "==": "==",
    "!=": "!=",
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
}
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False}
_FUNCTIONS = ("label", "rtt", "exists", "attested")
_METHODS = ("exists", "startswith", "one_of")
_HINTS = {"AND": "and", "OR": "or", "NOT": "not", "IN": "in", "is": "==", "&": "and", "|": "or"}

assert set(_OPERATORS.values()) == set(get_args(Operator))


def parse_text(source: str) -> Expr:
    """The tree of a predicate text; raises PredicateError naming the token and its column."""
    scanned = scan(source)
    blank = len(scanned.text) - len(scanned.text.lstrip())
    reader = _Reader(scanned, blank)
    try:
        body = ast.parse(scanned.text[blank:], mode="eval").body
        return reader.expression(body)
    except SyntaxError as fault:
        # Offset 0 is Python's way to say that the text ended too early.
        column = fault.offset + blank if fault.offset else len(source) + 1
        raise _syntax_error(scanned, column) from None
    except (RecursionError, MemoryError) as fault:
        raise error("the predicate is nested too deeply", None) from fault
    except ValueError as fault:
        raise error(f"the predicate cannot be read ({fault})", None) from fault


def parse_subject(source: str) -> Subject:
    """What a comparison could be about: `price`, `label("team")`, `rtt(self)`.

    Raises PredicateError for anything else.
    """
    compared = parse_text(f"{source} == 0")
    if not isinstance(compared, Comparison):
        raise error(f"unexpected {source!r}", 1, expected="an attribute, or rtt(self)")
    return compared.subject


def _syntax_error(scanned: Scan, column: int) -> PredicateError:
    token = scanned.token_at(column)
    if not token:
        return error("unexpected end of the predicate", len(scanned.source.rstrip()) + 1)
    column = scanned.source.find(token, max(0, column - len(token))) + 1 or column
    return error(f"unexpected {token!r}", column, hint=_HINTS.get(token))


class _Reader:
    """Turns whitelisted `ast` nodes into expressions; `blank` characters were cut in front."""

    def __init__(self, scanned: Scan, blank: int) -> None:
        self._scanned = scanned
        self._blank = blank
        self._bytes = scanned.text[blank:].encode()

    def column(self, node: ast.expr) -> int:
        """The column (1-based) of a node in the user's own text; `ast` counts UTF-8 bytes."""
        return len(self._bytes[: node.col_offset].decode()) + self._blank + 1

    def unexpected(self, node: ast.expr, what: str) -> PredicateError:
        """The error for a node that cannot stand where it stands; of a sum it is the operator."""
        if isinstance(node, ast.BinOp):
            return self._operator(node, what)
        column = self.column(node)
        return error(f"unexpected {self._scanned.token_at(column)!r}", column, expected=what)

    def _operator(self, node: ast.BinOp, what: str) -> PredicateError:
        end = node.left.end_col_offset
        before, rest = self._bytes[:end].decode(), self._bytes[end:].decode()
        operator = rest.lstrip(" )")
        token = operator[: 2 if operator[0] == operator[1] else 1]  # as >> and &
        column = len(before) + len(rest) - len(operator) + self._blank + 1
        hint = _HINTS.get(token)
        expected = None if hint else what
        return error(f"unexpected {token!r}", column, hint=hint, expected=expected)

    def expression(self, node: ast.expr) -> Expr:
        """A condition: anything that is true, false or undefined of a record."""
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return all_of(*map(self.expression, values))
            case ast.BoolOp(values=values):
                return any_of(*map(self.expression, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.expression(operand))
            case ast.Compare(left=left, ops=ops, comparators=right):
                sides = [left, *right]
                pairs = [self.pair(sides[i], op, sides[i + 1]) for i, op in enumerate(ops)]
                return pairs[0] if len(pairs) == 1 else all_of(*pairs)
            case ast.Constant(value=bool(value)):
                return Constant(value)
            case ast.Name(id=name) if name in _CONSTANTS:
                return Constant(_CONSTANTS[name])
            case ast.Name(id=name):
                return Truth(AttributeName(name, self.column(node)))
            case ast.Call():
                return self.call(node)
        raise self.unexpected(node, "a condition such as cores >= 8")

    # --- comparisons ----------------------------------------------------------------------------

    def pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Expr:
        """One link of a comparison chain."""
        if isinstance(op, ast.In | ast.NotIn):
            found = Membership(self.subject(left), self.values(right))
            return Not(found) if isinstance(op, ast.NotIn) else found
        if type(op) not in _OPERATORS:
            raise error("'is' compares identities", self.column(right), hint="==")
        operator = _OPERATORS[type(op)]
        if self.is_subject(left):
            if self.is_subject(right):
                column = self.column(right)
                token = self._scanned.token_at(column)
                raise error(
                    f"two attributes cannot be compared: unexpected {token!r}",
                    column,
                    expected="a value (a text needs quotes)",
                )
            return Comparison(self.subject(left), operator, self.literal(right))
        if not self.is_subject(right):
            raise self.unexpected(left, "an attribute on one side of the comparison")
        return Comparison(self.subject(right), _MIRRORED[operator], self.literal(left))

    def values(self, node: ast.expr) -> tuple[Literal, ...]:
        """The right side of `in`."""
        nodes = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
        if not nodes or self.is_subject(node):
            raise self.unexpected(node, 'values in parentheses, as in ("a", "b")')
        if len(nodes) > PREDICATE_SET_MAX:
            raise error(
                f"at most {PREDICATE_SET_MAX} values after 'in', got {len(nodes)}",
                self.column(node),
            )
        return tuple(map(self.literal, nodes))

    # --- subjects -------------------------------------------------------------------------------

    @staticmethod
    def is_subject(node: ast.expr) -> bool:
        """Whether a node names something to compare, rather than a value."""
        match node:
            case ast.Name(id=name):
                return name not in _CONSTANTS
            case ast.Call() | ast.Attribute():
                return True
        return False

    def subject(self, node: ast.expr) -> Subject:
        """An attribute, `label(...)`, `rtt(...)` or `attested(...)`."""
        match node:
            case ast.Name(id=name) if name not in _CONSTANTS:
                return AttributeName(name, self.column(node))
            case ast.Call(func=ast.Name(id="label"), args=[key], keywords=[]):
                return LabelName(self.string(key), self.column(node))
            case ast.Call(func=ast.Name(id="rtt"), args=[target], keywords=[]):
                return RttTo(self.target(target), self.column(node))
            case ast.Call(func=ast.Name(id="attested"), args=[ast.Name(id=name)], keywords=[]):
                return AttestedName(name, self.column(node))
            case ast.Call(func=ast.Name(id="attested"), args=[text], keywords=[]):
                return AttestedName(self.string(text), self.column(node))
        if isinstance(node, ast.Call):
            self.call(node)  # names an unknown function better
        raise self.unexpected(node, 'an attribute, label("key") or rtt(self)')

    def target(self, node: ast.expr) -> str | tuple[float, ...]:
        """What `rtt` measures to."""
        match node:
            case ast.Name(id="self"):
                return "self"
            case ast.Constant(value=str(text)):
                return text
            case ast.Tuple(elts=elements) if 2 <= len(elements) <= COORDINATES_MAX:
                return tuple(map(self.seconds, elements))
        raise self.unexpected(node, 'self, "node id" or coordinates (x, y, ..., height)')

    def seconds(self, node: ast.expr) -> float:
        """One coordinate."""
        number = self.number(node)
        if number.unit and UNITS[number.unit].base != "s":
            raise error(f"coordinates are seconds, got {number}", number.column)
        return float(base_number(number))

    def call(self, node: ast.Call) -> Expr:
        """`exists(name)`, `name.exists()`, `name.startswith("x")`, `name.one_of("a", "b")`."""
        match node:
            case ast.Call(func=ast.Name(id="exists"), args=[of], keywords=[]):
                return Existence(self.subject(of))
            case ast.Call(func=ast.Name(id="attested"), args=args, keywords=keywords):
                if len(args) != 1 or keywords:
                    raise self.unexpected(node, "attested(gpu), or attested(site) == 'eu-1'")
                return Truth(self.subject(node))
            case ast.Call(func=ast.Name(id="label" | "rtt")):
                subject = self.subject(node)
                raise error(f"{subject} is not compared with anything", self.column(node))
            case ast.Call(func=ast.Attribute(value=of, attr="exists"), args=[], keywords=[]):
                return Existence(self.subject(of))
            case ast.Call(
                func=ast.Attribute(value=of, attr="startswith"), args=[text], keywords=[]
            ):
                self.string(text)
                return Starts(self.subject(of), self.literal(text))
            case ast.Call(func=ast.Attribute(value=of, attr="one_of"), args=args, keywords=[]) if (
                args
            ):
                return Membership(self.subject(of), tuple(map(self.literal, args)))
            case ast.Call(func=ast.Name(id=name)) if name not in _FUNCTIONS:
                hint = nearest(name, _FUNCTIONS)
                raise error(f"unknown function {name!r}", self.column(node), hint=hint)
            case ast.Call(func=ast.Attribute(value=of, attr=name)):
                self.subject(of)
                known = ", ".join(f".{method}()" for method in _METHODS)
                what = f"unknown or wrong call .{name}()"
                raise error(what, self.column(node), expected=known)
        raise self.unexpected(node, "a condition such as cores >= 8")

    # --- values ---------------------------------------------------------------------------------

    def literal(self, node: ast.expr) -> Literal:
        """A value: a text, true, false, or a number with or without a unit."""
        match node:
            case ast.Constant(value=bool() | str() as value):
                return Literal(value, "", self.column(node))
            case ast.Name(id=name) if name in _CONSTANTS:
                return Literal(_CONSTANTS[name], "", self.column(node))
            case ast.Name() | ast.Attribute() | ast.Call():
                raise self.unexpected(node, "a value (a text needs quotes)")
        return self.number(node)

    def string(self, node: ast.expr) -> str:
        """A quoted text."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise self.unexpected(node, "a text in quotes")

    def number(self, node: ast.expr) -> Literal:
        """`8`, `-1.5`, `32GiB` or `32 * GiB`."""
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if not _is_finite(value):
                    raise error("a number must be finite", self.column(node))
                column = self.column(node)
                return Literal(value, self._scanned.units.get(column, ""), column)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
                inner = self.number(operand)
                return Literal(-_amount(inner), inner.unit, self.column(node))
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                return self.product(left, right)
        raise self.unexpected(node, "a value")

    def product(self, left: ast.expr, right: ast.expr) -> Literal:
        """A number times a number or a unit word; at most one of them has a unit."""
        first, second = self.factor(left), self.factor(right)
        if first.unit and second.unit:
            raise error("a product of two units", self.column(right))
        value = _amount(first) * _amount(second)  # each fits a float, so this cannot overflow
        if not _is_finite(value):
            raise error("a number must be finite", first.column)
        return Literal(value, first.unit or second.unit, first.column)

    def factor(self, node: ast.expr) -> Literal:
        if isinstance(node, ast.Name) and node.id in UNITS:
            return Literal(1, node.id, self.column(node))
        return self.number(node)


def base_number(literal: Literal) -> float:
    """A numeric literal in the base unit of what it is written for."""
    value = _amount(literal)
    return in_base(value, UNITS[literal.unit]) if literal.unit else value


def _amount(literal: Literal) -> float:
    assert isinstance(literal.value, int | float)
    return literal.value


def _is_finite(value: float) -> bool:
    """Whether a float can hold the number, however long the integer was written."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
