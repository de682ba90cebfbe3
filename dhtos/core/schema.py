"""The schema: which attributes machines have, how they are measured, and which make the key.

Every node of a fleet runs the same schema; its `tag` travels with records, so that two fleets
that disagree notice. The one idea is `Attribute.position`: a value becomes a place 1..65535 on
its axis, and the key cell, the histogram bin and the bounds of summaries are all cut from that
one number. This module must not know how schemas are written down (`schema_text`) nor how keys
are put together (`curve`).
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from keyword import iskeyword
from typing import Literal, assert_never

from dhtos.core.limits import ATTRIBUTES_MAX, KEYED_ATTRIBUTES_MAX, TEXT_BYTES_MAX
from dhtos.core.pool import Pool
from dhtos.core.scale import (
    MISSING,
    POSITION_BITS,
    POSITION_MAX,
    Codes,
    Flag,
    Hashed,
    Linear,
    Log2,
    Log2p1,
    Scale,
)
from dhtos.core.value import NUMBER_MAX, Value, is_number, is_printable, is_whole, value_test
from dhtos.errors import ConfigError, UsageError

Kind = Literal["number", "text", "bool"]
Role = Literal["static", "dynamic"]

KEY_ATTRIBUTE_BITS_MAX = 96
"""The bits of a key that attributes share (`Z` in `dhtos.core.curve`)."""
SCHEMA_VERSION_MAX = 3
UNITS = ("", "B", "s", "%", "Hz", "/h")
PRICES = ("price_spot", "price")  # what a machine costs now is the first of these that it says
FREE = "_free"  # ends the name of what says how much of a resource nobody holds

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_RESERVED = ("label", "rtt", "self")
_SCALES_OF: dict[str, tuple[type, ...]] = {
    "number": (Log2, Log2p1, Linear),
    "text": (Codes, Hashed),
    "bool": (Flag,),
}


def scale_ends(scale: Scale) -> tuple[float, ...]:
    """The ends of a number scale; nothing for the others."""
    return (scale.low, scale.high) if isinstance(scale, Log2 | Log2p1 | Linear) else ()


@dataclass(frozen=True)
class Attribute:
    """One declared property of a machine.

    `keyed_bits` is how many bits of the key it gets; 0 keeps it out of the key. Dynamic
    attributes are never keyed: they would move a node's id dozens of times an hour.
    """

    name: str
    kind: Kind
    role: Role
    scale: Scale
    unit: str = ""
    keyed_bits: int = 0
    doc: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or iskeyword(self.name) or self.name in _RESERVED:
            self._refuse("name", "a lower-case word of at most 32 letters, digits and _", self.name)
        if self.kind not in _SCALES_OF:
            self._refuse("kind", "number, text or bool", self.kind)
        if self.role not in ("static", "dynamic"):
            self._refuse("role", "static or dynamic", self.role)
        if self.unit not in UNITS or (self.unit and self.kind != "number"):
            self._refuse("unit", f"one of {UNITS} (numbers only)", self.unit)
        if type(self.keyed_bits) is not int or not 0 <= self.keyed_bits <= POSITION_BITS:
            self._refuse("keyed_bits", f"0..{POSITION_BITS}", self.keyed_bits)
        if self.keyed_bits and self.role == "dynamic":
            self._refuse("keyed_bits", "0 for a dynamic attribute", self.keyed_bits)
        if not is_printable(self.doc, 4 * TEXT_BYTES_MAX):
            self._refuse("doc", "one printable line", self.doc)
        self._check_scale()

    def _check_scale(self) -> None:
        scale = self.scale
        if not isinstance(scale, _SCALES_OF[self.kind]):
            names = ", ".join(kind.__name__.lower() for kind in _SCALES_OF[self.kind])
            self._refuse("scale", f"a scale for {self.kind} ({names})", scale)
        if isinstance(scale, Codes):
            if not scale.words or len(set(scale.words)) != len(scale.words):
                self._refuse("scale.words", "a list of different words", scale.words)
            for word in scale.words:
                if not word or not is_printable(word, TEXT_BYTES_MAX):
                    self._refuse("scale.words", f"1..{TEXT_BYTES_MAX} printable bytes each", word)
        elif isinstance(scale, Log2 | Log2p1 | Linear):
            if not is_number(scale.low) or not is_number(scale.high) or scale.low >= scale.high:
                self._refuse("scale", "two finite numbers, low < high", scale)
            if isinstance(scale, Log2) and scale.low <= 0:
                self._refuse("scale.low", "a number > 0 (use log2p1 for zero)", scale.low)
            if isinstance(scale, Log2p1) and scale.low != 0:
                self._refuse("scale.low", "0 for log2p1", scale.low)

    def _refuse(self, key: str, expected: str, got: object) -> None:
        raise ConfigError(f"attribute {self.name!r}: {key} must be {expected}, got {got!r}")

    @property
    def keyed(self) -> bool:
        """Whether the attribute is part of the key."""
        return self.keyed_bits > 0

    @property
    def floor(self) -> int:
        """The smallest position of a present value: below it lies only "missing"."""
        return 1 << (POSITION_BITS - self.keyed_bits) if self.keyed_bits else 1

    @cached_property
    def position(self) -> Callable[[Value], int]:
        """The place of a checked value on the axis: monotone for numbers, `floor`..65535."""
        return self.scale.placer(self.floor)  # type: ignore[return-value]  # checked values

    def cell(self, position: int) -> int:
        """The key cell of a position; cell 0 means that the attribute is missing."""
        assert self.keyed_bits > 0
        return position >> (POSITION_BITS - self.keyed_bits)

    def position_bounds(self, low: float | None, high: float | None) -> tuple[int, int]:
        """The inclusive positions that numbers in `low`..`high` can have; None is no bound."""
        first = self.floor if low is None or low == -math.inf else self.position(low)
        last = POSITION_MAX if high is None or high == math.inf else self.position(high)
        return first, last

    def position_set(self, values: Iterable[Value]) -> frozenset[int]:
        """Exactly the positions that these values have."""
        return frozenset(map(self.position, values))

    def value_bounds(self, first: int, last: int) -> tuple[float, float]:
        """Between which numbers every value lies whose position is `first`..`last`.

        Clamped ends say nothing, so they are infinite.
        """
        assert isinstance(self.scale, Log2 | Log2p1 | Linear)
        return self.scale.least(first, self.floor), self.scale.greatest(last, self.floor)

    def check(self, value: object) -> Value:
        """The value as records hold it (an integral float becomes an int).

        Raises UsageError naming the attribute, what it takes and what came.
        """
        match self.kind:
            case "number":
                return self._check_number(value)
            case "text":
                return self._check_text(value)
            case "bool":
                if type(value) is not bool:
                    raise UsageError(f"{self.name} is true or false, got {value!r}")
                return value
            case _:
                assert_never(self.kind)

    def _check_number(self, value: object) -> Value:
        if not is_number(value):
            unit = f" in {self.unit}" if self.unit else ""
            raise UsageError(f"{self.name} is a finite number{unit}, got {value!r}")
        if value < 0 and not isinstance(self.scale, Linear):
            raise UsageError(f"{self.name} is a number >= 0, got {value!r}")
        if type(value) is float and is_whole(value):
            return int(value)
        return value

    def _check_text(self, value: object) -> Value:
        if type(value) is not str:
            raise UsageError(f"{self.name} is a text, got {value!r}")
        if not value or not is_printable(value, TEXT_BYTES_MAX):
            raise UsageError(
                f"{self.name} is a text of 1..{TEXT_BYTES_MAX} printable bytes, got {value[:40]!r}"
            )
        if isinstance(self.scale, Codes) and not self.scale.open and value not in self.scale.words:
            near = get_close_matches(value, self.scale.words, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            words = ", ".join(self.scale.words)
            raise UsageError(f"{self.name} is one of {words}; got {value!r}{hint}")
        return value


@dataclass(frozen=True)
class Schema:
    """All attributes of a fleet; `key_order` names the keyed ones, most queried first."""

    name: str
    version: int
    attributes: tuple[Attribute, ...]
    key_order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"schema name must be a lower-case word, got {self.name!r}")
        if type(self.version) is not int or not 0 <= self.version <= SCHEMA_VERSION_MAX:
            raise ConfigError(
                f"schema version must be 0..{SCHEMA_VERSION_MAX}, got {self.version!r}"
            )
        if not 1 <= len(self.attributes) <= ATTRIBUTES_MAX:
            raise ConfigError(
                f"a schema has 1..{ATTRIBUTES_MAX} attributes, got {len(self.attributes)}"
            )
        seen: set[str] = set()
        for attribute in self.attributes:
            if attribute.name in seen:
                raise ConfigError(f"attribute {attribute.name!r}: name is declared twice")
            seen.add(attribute.name)
        self._check_key_order(seen)

    def __reduce__(self) -> tuple[type["Schema"], tuple[object, ...]]:
        """Pickle the definition alone: what is derived from it holds closures."""
        return (Schema, (self.name, self.version, self.attributes, self.key_order))

    def _check_key_order(self, names: set[str]) -> None:
        for name in self.key_order:
            if name not in names:
                near = get_close_matches(name, sorted(names), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"key_order names {name!r}, which is no attribute{hint}")
        if len(set(self.key_order)) != len(self.key_order):
            raise ConfigError(f"key_order must name each attribute once, got {self.key_order!r}")
        for attribute in self.attributes:
            if attribute.keyed and attribute.name not in self.key_order:
                raise ConfigError(
                    f"attribute {attribute.name!r}: keyed_bits is set but key_order leaves it out"
                )
            if not attribute.keyed and attribute.name in self.key_order:
                raise ConfigError(
                    f"attribute {attribute.name!r}: key_order names it but keyed_bits is 0"
                )
        if len(self.key_order) > KEYED_ATTRIBUTES_MAX:
            raise ConfigError(
                f"key_order names at most {KEYED_ATTRIBUTES_MAX} attributes, "
                f"got {len(self.key_order)}"
            )
        if sum(self.key_bits) > KEY_ATTRIBUTE_BITS_MAX:
            raise ConfigError(
                f"keyed_bits of all attributes must add up to at most {KEY_ATTRIBUTE_BITS_MAX}, "
                f"got {sum(self.key_bits)}"
            )

    # --- the parts ------------------------------------------------------------------------------

    @cached_property
    def static(self) -> tuple[Attribute, ...]:
        """The static attributes, in the order of `Record.static`."""
        return tuple(a for a in self.attributes if a.role == "static")

    @cached_property
    def dynamic(self) -> tuple[Attribute, ...]:
        """The dynamic attributes, in the order of `Record.dynamic`."""
        return tuple(a for a in self.attributes if a.role == "dynamic")

    @cached_property
    def keyed(self) -> tuple[Attribute, ...]:
        """The keyed attributes, in key order."""
        return tuple(self.attribute(name) for name in self.key_order)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Per attribute index: its place in `Record.static` or `Record.dynamic`."""
        places = {
            a.name: slot for part in (self.static, self.dynamic) for slot, a in enumerate(part)
        }
        return tuple(places[a.name] for a in self.attributes)

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """The attributes that can be shared out in amounts.

        A number NAME, how much the machine has, and beside it a dynamic number NAME_free of the
        same unit, how much of it nobody holds. What describes a single piece of another attribute
        is none, although it may have such a partner: its name begins with the singular of the
        other, as `gpu_mem` beside `gpus`, and `gpu_mem_free` is the most any one of them has free.
        """
        named = {attribute.name: attribute for attribute in self.attributes}
        pieces = tuple(f"{name[:-1]}_" for name in named if name.endswith("s"))
        return tuple(
            name
            for name, whole in named.items()
            if (free := named.get(name + FREE)) is not None
            and whole.kind == free.kind == "number"
            and free.role == "dynamic"
            and whole.unit == free.unit
            and not name.startswith(pieces)
        )

    @cached_property
    def key_slots(self) -> tuple[int, ...]:
        """The place of each keyed attribute in `Record.static`, in key order."""
        return tuple(self.slots[self.index(name)] for name in self.key_order)

    @cached_property
    def static_tests(self) -> tuple[Callable[[object], bool], ...]:
        """Per place in `Record.static`: whether a value from the wire fits."""
        return tuple(value_test(a.scale) for a in self.static)

    @cached_property
    def dynamic_tests(self) -> tuple[Callable[[object], bool], ...]:
        """Per place in `Record.dynamic`: whether a value from the wire fits."""
        return tuple(value_test(a.scale) for a in self.dynamic)

    @cached_property
    def pool(self) -> Pool:
        """What records of this schema say alike, kept once however many nodes hold it."""
        return Pool()

    @cached_property
    def key_bits(self) -> tuple[int, ...]:
        """The bits of each keyed attribute, in key order."""
        return tuple(a.keyed_bits for a in self.keyed)

    @cached_property
    def key_schedule(self) -> bytes:
        """Which keyed attribute gives each bit of `Z`: round robin until its bits are used up."""
        rounds = range(max(self.key_bits, default=0))
        return bytes(i for turn in rounds for i, bits in enumerate(self.key_bits) if turn < bits)

    @cached_property
    def tag(self) -> int:
        """A 32-bit digest of all that two nodes must agree on; documentation is left out."""
        parts: list[object] = [self.name, self.version, self.key_order]
        for a in self.attributes:
            parts += [a.name, a.kind, a.role, a.unit, a.keyed_bits, type(a.scale).__name__]
            parts += [float(end) for end in scale_ends(a.scale)]
            parts += [a.scale.words, a.scale.open] if isinstance(a.scale, Codes) else []
        return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest())

    @cached_property
    def mark(self) -> bytes:
        """Version and tag in 5 bytes: in which words a question is asked."""
        return bytes((self.version,)) + self.tag.to_bytes(4)

    @cached_property
    def _indexes(self) -> dict[str, int]:
        return {a.name: index for index, a in enumerate(self.attributes)}

    # --- by name --------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._indexes

    def index(self, name: str) -> int:
        """The index of an attribute in `attributes`; raises UsageError with the nearest name."""
        index = self._indexes.get(name)
        if index is None:
            near = get_close_matches(name, self._indexes, 1)
            hint = (
                f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(self._indexes)}"
            )
            raise UsageError(f"unknown attribute {name!r}{hint}")
        return index

    def attribute(self, name: str) -> Attribute:
        """The attribute of that name; raises UsageError with the nearest name."""
        return self.attributes[self.index(name)]

    def check(self, name: str, value: object) -> Value:
        """The value as records hold it; raises UsageError if name or value cannot be."""
        return self.attribute(name).check(value)

    # --- as text --------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, text: str) -> "Schema":
        """Read the TOML form; raises ConfigError naming the attribute and the key."""
        from dhtos.core.schema_text import schema_from_toml

        return schema_from_toml(text)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> "Schema":
        """Read the TOML form already parsed; raises ConfigError as `from_toml` does."""
        from dhtos.core.schema_text import schema_from_mapping

        return schema_from_mapping(mapping)

    def to_toml(self) -> str:
        """The TOML form, which `from_toml` reads back as an equal schema."""
        from dhtos.core.schema_text import schema_to_toml

        return schema_to_toml(self)


def default_schema() -> Schema:
    """The schema of machines that every node uses unless told otherwise."""
    from dhtos.core.machine_schema import MACHINE_SCHEMA

    return MACHINE_SCHEMA


__all__ = [
    "Attribute",
    "Kind",
    "Role",
    "Schema",
    "Value",
    "default_schema",
    "is_number",
    "is_printable",
    "KEY_ATTRIBUTE_BITS_MAX",
    "MISSING",
    "NUMBER_MAX",
    "POSITION_BITS",
    "POSITION_MAX",
    "SCHEMA_VERSION_MAX",
    "UNITS",
]
