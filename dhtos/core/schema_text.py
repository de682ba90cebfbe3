"""Schemas as TOML: every mistake is a ConfigError that names the attribute and the key.

name = "machine"
version = 0
key_order = ["cores"]

[[attribute]]
name = "cores"
kind = "number"
role = "static"
scale = {type = "log2", low = 1, high = 1024}
keyed_bits = 12
"""

import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, assert_never, cast

from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2, Log2p1, Scale
from dhtos.core.schema import Attribute, Kind, Role, Schema
from dhtos.errors import ConfigError

_SCHEMA_KEYS: dict[str, type] = {
    "name": str, "version": int, "key_order": list, "attribute": list,
}  # fmt: skip
_ATTRIBUTE_KEYS: dict[str, type] = {
    "name": str, "kind": str, "role": str, "unit": str, "scale": dict,
    "keyed_bits": int, "doc": str,
}  # fmt: skip
_SCALE_KEYS: dict[str, tuple[str, ...]] = {
    "log2": ("low", "high"), "log2p1": ("high",), "linear": ("low", "high"),
    "codes": ("words", "open"), "hashed": (), "flag": (),
}  # fmt: skip
_WORDS = {str: "a text", int: "an integer", list: "a list", dict: "a table"}


def schema_from_toml(text: str) -> Schema:
    """Read the TOML form; raises ConfigError."""
    try:
        mapping = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"schema is not TOML: {error}") from error
    return schema_from_mapping(mapping)


def schema_from_mapping(mapping: Mapping[str, object]) -> Schema:
    """Read the parsed TOML form; raises ConfigError."""
    fields = _fields("schema", mapping, _SCHEMA_KEYS, required=("name", "version", "attribute"))
    order = fields.get("key_order", [])
    if not all(isinstance(name, str) for name in order):
        raise ConfigError(f"schema: key_order must be a list of attribute names, got {order!r}")
    attributes = tuple(_attribute(i, item) for i, item in enumerate(fields["attribute"]))
    return Schema(fields["name"], fields["version"], attributes, tuple(order))


def _attribute(index: int, item: object) -> Attribute:
    label = f"attribute number {index + 1}"
    if not isinstance(item, Mapping):
        raise ConfigError(f"{label}: must be a table, got {item!r}")
    if isinstance(item.get("name"), str):
        label = f"attribute {item['name']!r}"
    fields = _fields(label, item, _ATTRIBUTE_KEYS, required=("name", "kind", "role", "scale"))
    return Attribute(
        name=fields["name"],
        kind=cast("Kind", fields["kind"]),
        role=cast("Role", fields["role"]),
        scale=_scale(label, fields["scale"]),
        unit=fields.get("unit", ""),
        keyed_bits=fields.get("keyed_bits", 0),
        doc=fields.get("doc", ""),
    )


def _scale(label: str, table: Mapping[str, object]) -> Scale:
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _SCALE_KEYS:
        raise ConfigError(
            f"{label}: scale.type must be one of {', '.join(_SCALE_KEYS)}, got {kind!r}"
        )
    known = _SCALE_KEYS[kind]
    for key in table:
        if key != "type" and key not in known:
            raise ConfigError(
                f"{label}: scale.{key} is no key of {kind}; it has {', '.join(known) or 'none'}"
            )
    match kind:
        case "log2":
            return Log2(_number(label, table, "low"), _number(label, table, "high"))
        case "log2p1":
            return Log2p1(0, _number(label, table, "high"))
        case "linear":
            return Linear(_number(label, table, "low"), _number(label, table, "high"))
        case "codes":
            return _codes(label, table)
        case "hashed":
            return Hashed()
        case _:
            return Flag()


def _number(label: str, table: Mapping[str, object], key: str) -> int | float:
    value = table.get(key)
    if type(value) is int or type(value) is float:
        return value
    raise ConfigError(f"{label}: scale.{key} must be a number, got {value!r}")


def _codes(label: str, table: Mapping[str, object]) -> Codes:
    words, is_open = table.get("words"), table.get("open", False)
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{label}: scale.words must be a list of texts, got {words!r}")
    if type(is_open) is not bool:
        raise ConfigError(f"{label}: scale.open must be true or false, got {is_open!r}")
    return Codes(tuple(words), is_open)


def _fields(
    label: str, mapping: Mapping[str, object], known: Mapping[str, type], required: tuple[str, ...]
) -> dict[str, Any]:
    """The entries of a table, each of its type; unknown and absent keys are errors."""
    for key, value in mapping.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ConfigError(f"{label}: unknown key {key!r}{hint}")
        kind = known[key]
        fits = isinstance(value, (list, tuple) if kind is list else kind)
        if not fits or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{label}: {key} must be {_WORDS[kind]}, got {value!r}")
    for key in required:
        if key not in mapping:
            raise ConfigError(f"{label}: key {key!r} is missing")
    return dict(mapping)


def schema_to_toml(schema: Schema) -> str:
    """Write the TOML form."""
    order = ", ".join(map(_text, schema.key_order))
    lines = [
        f"name = {_text(schema.name)}",
        f"version = {schema.version}",
        f"key_order = [{order}]",
    ]
    for a in schema.attributes:
        lines += ["", "[[attribute]]", f"name = {_text(a.name)}"]
        lines += [f"kind = {_text(a.kind)}", f"role = {_text(a.role)}"]
        lines += [f"scale = {_scale_text(a.scale)}"]
        lines += [f"unit = {_text(a.unit)}"] if a.unit else []
        lines += [f"keyed_bits = {a.keyed_bits}"] if a.keyed else []
        lines += [f"doc = {_text(a.doc)}"] if a.doc else []
    return "\n".join(lines) + "\n"


def _scale_text(scale: Scale) -> str:
    match scale:
        case Log2(low, high):
            return f'{{type = "log2", low = {low!r}, high = {high!r}}}'
        case Log2p1(_, high):
            return f'{{type = "log2p1", high = {high!r}}}'
        case Linear(low, high):
            return f'{{type = "linear", low = {low!r}, high = {high!r}}}'
        case Codes(words, is_open):
            listed = ", ".join(map(_text, words))
            return f'{{type = "codes", words = [{listed}]{", open = true" if is_open else ""}}}'
        case Hashed():
            return '{type = "hashed"}'
        case Flag():
            return '{type = "flag"}'
        case _:
            assert_never(scale)


def _text(text: str) -> str:
    # Schemas hold printable text only, for which a JSON string is a TOML string.
    return json.dumps(text, ensure_ascii=False)
