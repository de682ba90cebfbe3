"""Directives that write reference pages out of the code they describe.

    limits-table    every constant of dhtos.core.limits, by section, with its reason
    schema-table    the attributes of the default schema
    command-line    every command and option of dhtos-node

Each emits Markdown that MyST then reads, so that the pages look like the written ones.
"""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import click
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dhtos.core import limits
from dhtos.core.machine_schema import MACHINE_SCHEMA

Row = tuple[str, str, str]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table, with the bars inside cells escaped."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return [*lines, ""]


def limit_rows(source: str) -> Iterator[tuple[str, list[Row]]]:
    """`(section, [(name, expression, reason)])` of the limits module, from its own comments."""
    comments: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").rstrip()
    starts = sorted(line for line, text in comments.items() if text.startswith("---"))
    sections = {line: comments[line].strip("- ") for line in starts}
    rows: dict[int, list[Row]] = {line: [] for line in starts}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign):
            continue
        section = max(line for line in starts if line < node.lineno)
        name = ast.unparse(node.targets[0])
        reason = comments.get(node.end_lineno or node.lineno, "")
        rows[section].append((name, ast.unparse(node.value), reason))
    for line in starts:
        yield sections[line], rows[line]


def quantity(name: str, expression: str) -> str:
    """A constant as a reader wants it: grouped digits, and its unit where the name has one."""
    value = getattr(limits, name)
    values = value if isinstance(value, tuple) else (value,)
    text = ", ".join(f"{one:,}" if isinstance(one, int) else f"{one:,g}" for one in values)
    if "_PER_S_" in name:
        text += " /s"
    elif name.endswith("_S") or "_S_" in name:
        text += " s"
    elif "BYTES" in name or name.endswith("_TEXT_MAX"):
        text += " B"
    return text if "**" not in expression else f"{text} ({expression})"


class MarkdownDirective(SphinxDirective):
    """A directive whose body is Markdown made by `lines`."""

    has_content: ClassVar[bool] = False

    def lines(self) -> list[str]:
        """The Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Let MyST read the lines where the directive stands."""
        holder = nodes.Element()
        self.state.nested_parse(
            StringList(self.lines(), source="generated"), 0, holder, match_titles=True
        )
        return holder.children


class LimitsTable(MarkdownDirective):
    """Every maximum, with its reason."""

    def lines(self) -> list[str]:
        """One heading and one table for each section of the module."""
        path = Path(limits.__file__)
        self.env.note_dependency(str(path))
        made: list[str] = []
        for section, rows in limit_rows(path.read_text(encoding="utf-8")):
            shown = [(f"`{name}`", quantity(name, text), reason) for name, text, reason in rows]
            made += [f"## {section.capitalize()}", "", *table(("name", "value", "why"), shown)]
        return made


class SchemaTable(MarkdownDirective):
    """The default schema."""

    def lines(self) -> list[str]:
        """One row for each attribute."""
        rows = []
        for attribute in MACHINE_SCHEMA.attributes:
            keyed = f"{attribute.keyed_bits} bits" if attribute.keyed else ""
            scale = type(attribute.scale).__name__.lower()
            unit = attribute.unit
            rows.append(
                (
                    f"`{attribute.name}`",
                    attribute.kind,
                    attribute.role,
                    unit,
                    scale,
                    keyed,
                    attribute.doc,
                )
            )
        return table(("attribute", "kind", "role", "unit", "scale", "in the key", "what"), rows)


def command_lines(command: click.Command, path: str) -> Iterator[str]:
    """One section for a command, and those of its subcommands after it."""
    context = click.Context(command, info_name=path)
    yield from (f"## `{path}`", "", (command.help or "").replace("\b", "").strip(), "")
    yield from ("```text", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", "")
    rows = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
    if rows:
        yield from table(("option", "meaning"), ((f"`{name}`", text) for name, text in rows))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from command_lines(child, f"{path} {name}")


def root_command() -> click.Command | None:
    """The click command behind `dhtos-node`, wherever in its module it stands."""
    if find_spec("dhtos.cli.main") is None:
        return None
    from dhtos.cli import main

    groups = [value for value in vars(main).values() if isinstance(value, click.Group)]
    return groups[0] if groups else None


class CommandLine(MarkdownDirective):
    """Every command of `dhtos-node`."""

    def lines(self) -> list[str]:
        """A section for each command."""
        command = root_command()
        return list(command_lines(command, "dhtos-node")) if command is not None else []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("limits-table", LimitsTable)
    app.add_directive("schema-table", SchemaTable)
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
