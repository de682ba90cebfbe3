"""The `config` command: what a node would be told, and which attributes there are."""

from typing import Any

import click

from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import effective_config, node_options
from dhtos.core.scale import Codes, Linear, Log2, Log2p1, Scale
from dhtos.core.schema import Attribute, Schema


@click.command()
@node_options
@click.option("--schema", "schema_only", is_flag=True, help="Only the schema, as a TOML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def config(*, schema_only: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click
    """Show the effective settings and the attributes of the schema.

    Takes the options of `run`, so that it shows what `run` would do.
    """
    effective = effective_config(options)
    schema = effective.schema_or_default
    screen = Screen(as_json=as_json)
    settings = effective.to_mapping()
    if as_json:
        document = {"schema": schema_as_json(schema)}
        others = {"other_schemas": [*map(schema_as_json, effective.other_schemas)]}
        screen.document(document if schema_only else {"config": settings, **document, **others})
        return
    if schema_only:
        screen.say(schema.to_toml().rstrip("\n"))
        return
    rows = [[name, _shown(value)] for name, value in settings.items()]
    screen.table((Column("setting"), Column("value")), rows)
    screen.say()
    screen.table(
        (Column("attribute"), Column("kind"), Column("unit"), Column("values"), Column("what")),
        [_row(attribute) for attribute in schema.attributes],
        schema_text(schema),
    )
    for other in effective.other_schemas:
        screen.say(f"also asked: machines of {schema_text(other)}")


def schema_text(schema: Schema) -> str:
    """Which schema it is, in a line."""
    return f"schema {schema.name!r}, version {schema.version}, tag {schema.tag:08x}"


def schema_as_json(schema: Schema) -> dict[str, Any]:
    """A schema for programs."""
    return {
        "name": schema.name,
        "version": schema.version,
        "tag": f"{schema.tag:08x}",
        "key_order": list(schema.key_order),
        "attributes": [
            {
                "name": a.name,
                "kind": a.kind,
                "role": a.role,
                "unit": a.unit,
                "keyed_bits": a.keyed_bits,
                "values": scale_text(a.scale),
                "doc": a.doc,
            }
            for a in schema.attributes
        ],
    }


def scale_text(scale: Scale) -> str:
    """Which values an attribute spreads over its axis.

    >>> scale_text(Log2(1, 1024))
    '1..1024, by ratio'
    """
    match scale:
        case Log2(low, high) | Log2p1(low, high):
            return f"{low:g}..{high:g}, by ratio"
        case Linear(low, high):
            return f"{low:g}..{high:g}"
        case Codes(words):
            return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")
    return "any"


def _row(attribute: Attribute) -> list[str]:
    kind = f"{attribute.role} {attribute.kind}"
    return [attribute.name, kind, attribute.unit, scale_text(attribute.scale), attribute.doc]


def _shown(value: object) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
