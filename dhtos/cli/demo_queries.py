"""The demo's eight questions, and the truth about each by brute force.

The questions fit the data: thresholds are quantiles of the machines at hand, rounded to figures
a person would write. A question is a list of clauses, and the truth is found by comparing plain
Python values, one machine after another: it shares no code with the predicate language, the
keys or the summaries, so that it can catch all of them.
"""

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log2, log10
from typing import Any

from dhtos.core.schema import Schema, Value
from dhtos.query.expr import quote
from dhtos.query.units import spell

Attributes = Mapping[str, Value]

_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Clause:
    """`name operator value`."""

    name: str
    operator: str
    value: Value

    def holds(self, attributes: Attributes) -> bool:
        """Whether a machine satisfies it; one that does not say never does."""
        value = attributes.get(self.name)
        return value is not None and _TESTS[self.operator](value, self.value)

    def text(self, schema: Schema) -> str:
        """As the predicate language writes it."""
        value = self.value
        if isinstance(value, str):
            return f"{self.name} {self.operator} {quote(value)}"
        if isinstance(value, bool):
            return f"{self.name} {self.operator} {str(value).lower()}"
        unit = schema.attribute(self.name).unit
        return f"{self.name} {self.operator} {spell(value, unit if unit != '/h' else '')}"


@dataclass(frozen=True, slots=True)
class Query:
    """One question of the demo; `wrong` is a text that must be refused."""

    title: str
    clauses: tuple[Clause, ...] = ()
    limit: int = 0
    order_by: str = ""
    wrong: str = ""

    def text(self, schema: Schema) -> str:
        """The predicate."""
        if self.wrong:
            return self.wrong
        texts: list[str] = []
        for clause in self.clauses:
            before = texts[-1] if texts else ""
            if clause.operator == "<=" and before.startswith(f"{clause.name} >= "):
                low = before.removeprefix(f"{clause.name} >= ")
                texts[-1] = f"{low} <= {clause.text(schema)}"
            else:
                texts.append(clause.text(schema))
        return " and ".join(texts)

    def holds(self, attributes: Attributes) -> bool:
        """Whether a machine is a true match."""
        return all(clause.holds(attributes) for clause in self.clauses)


class Figures:
    """What the machines at hand have: quantiles and words to ask for."""

    def __init__(self, machines: Sequence[Attributes], schema: Schema) -> None:
        self._machines = machines
        self._schema = schema

    def number(self, name: str, sign: str, quantile: float) -> list[Clause]:
        """A clause on a number that about so many machines are below; none if few have it."""
        values = sorted(self._numbers(name))
        if name not in self._schema or len(values) * 2 < len(self._machines):
            return []
        value = values[min(int(quantile * len(values)), len(values) - 1)]
        return [Clause(name, sign, rounded(value, self._schema.attribute(name).unit))]

    def between(self, name: str, low: float, high: float) -> list[Clause]:
        """`a <= name <= b`; only the lower end where both would be the same figure."""
        lower, upper = self.number(name, ">=", low), self.number(name, "<=", high)
        return lower + [clause for clause in upper if clause.value != lower[0].value]

    def word(self, name: str, *, rare: bool = False) -> list[Clause]:
        """A clause on the most common text of an attribute, or on a rare one."""
        counts = Counter(m[name] for m in self._machines if isinstance(m.get(name), str))
        if len(counts) < 2:
            return []
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        return [Clause(name, "==", ranked[min(len(ranked) - 1, 2) if rare else 0][0])]

    def some(self, name: str) -> list[Clause]:
        """`name >= 1` where only few machines have any, as accelerators."""
        having = sum(value >= 1 for value in self._numbers(name))
        return [Clause(name, ">=", 1)] if 0 < having < len(self._machines) else []

    def _numbers(self, name: str) -> list[int | float]:
        found = (machine.get(name) for machine in self._machines)
        return [v for v in found if isinstance(v, int | float) and not isinstance(v, bool)]


def rounded(value: float, unit: str) -> int | float:
    """A figure nearby that a person would write: a power of two, or one digit.

    >>> rounded(50, ""), rounded(70 * 2**30, "B") // 2**30, rounded(0.137, "/h")
    (32, 64, 0.1)
    """
    if value <= 0:
        return 0
    if unit in ("", "B") and value >= 1:
        return int(2 ** floor(log2(value)))
    digits = -floor(log10(value))
    result = round(value, digits)
    return int(result) if float(result).is_integer() else result


def telling_queries(machines: Sequence[Attributes], schema: Schema) -> list[Query]:
    """Eight questions: one to six attributes, rare and common, limited, ordered, and wrong."""
    f = Figures(machines, schema)
    kind = f.word("provider") or f.word("site") or f.word("family")
    rare_kind = f.word("arch", rare=True) or f.word("site", rare=True)
    cores, mem = f.number("cores", ">=", 0.5), f.number("mem", ">=", 0.5)
    idle = [Clause("cpu_free", ">=", 50)]
    cheap = f.number("price", "<", 0.7)
    rare = f.some("gpus") or f.number("cores", ">=", 0.97) or f.number("cpu_free", ">=", 0.97)
    middle = f.between("cores", 0.3, 0.9)
    room = f.number("mem_free", ">=", 0.3)
    return [
        Query("common: about half of all", tuple(cores or mem or idle)),
        Query("rare: a few of all", tuple(rare or idle)),
        Query("two attributes", tuple((rare_kind or f.number("disk", ">=", 0.5) or idle) + mem)),
        Query("three, 20 will do", tuple(middle[:1] + room + cheap or idle), limit=20),
        Query("a range, 10 will do", tuple(kind + middle + idle), limit=10),
        Query("the 5 cheapest", tuple(cores + room or idle), limit=5, order_by="price"),
        Query("six attributes", tuple(f.word("arch") + kind + middle + mem + cheap + idle)),
        Query("a typing error", wrong="coers >= 8 and mem >= 32GiB"),
    ]


def true_matches(query: Query, machines: Mapping[str, Attributes]) -> set[str]:
    """The ids of all machines that match, by looking at every one of them."""
    return {id_ for id_, attributes in machines.items() if query.holds(attributes)}


def faults(
    query: Query,
    got: Sequence[str],
    machines: Mapping[str, Attributes],
    dead: frozenset[str] = frozenset(),
) -> list[str]:
    """What is wrong with an answer: nothing, if it is what brute force says.

    Machines that died a moment ago may still be in it, but they may displace no living one
    from an answer without a limit, and every hit must truly match.
    """
    truth = true_matches(query, machines)
    found = set(got)
    wrong = []
    if len(found) < len(got):
        wrong.append(f"{len(got) - len(found)} machines twice")
    if not found <= truth:
        wrong.append(f"{len(found - truth)} that do not match")
    alive = truth - dead
    if not query.limit:
        if not alive <= found:
            wrong.append(f"{len(alive - found)} matches missing")
        return wrong
    if len(got) > query.limit:
        wrong.append(f"{len(got)} hits, the limit is {query.limit}")
    if len(got) < min(query.limit, len(alive)):
        wrong.append(f"{len(got)} hits, {min(query.limit, len(alive))} were to be had")
    if query.order_by:
        wrong += _order_faults(query, got, alive, machines)
    return wrong


def _order_faults(
    query: Query, got: Sequence[str], alive: set[str], machines: Mapping[str, Attributes]
) -> list[str]:
    values = [_place(machines[id_], query.order_by) for id_ in got if id_ in machines]
    if values != sorted(values):
        return [f"not in the order of {query.order_by}"]
    left_out = [_place(machines[id_], query.order_by) for id_ in alive - set(got)]
    if values and left_out and min(left_out) < values[-1]:
        return [f"a better {query.order_by} was left out"]
    return []


def _place(attributes: Attributes, name: str) -> float:
    value = attributes.get(name)
    return float("inf") if value is None or isinstance(value, str) else float(value)
