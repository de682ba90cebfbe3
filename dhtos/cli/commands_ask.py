"""The commands that ask: `find`, `count`, `members`, `put`, `get`, `status`."""

import re
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dhtos.cli.about import own_version
from dhtos.cli.asking import Asker, How, Plain, Question, Stored, Whose, asker
from dhtos.cli.failure import Incomplete, NothingFound
from dhtos.cli.loop import run_loop
from dhtos.cli.screen import Column, Screen
from dhtos.cli.settings import ask_config, ask_options
from dhtos.cli.wording import age_text, coverage_text, milliseconds, plural, value_text
from dhtos.core.limits import PATHS_MAX, SAMPLE_MAX, VERIFY_MAX
from dhtos.core.schema import Schema
from dhtos.errors import KeyNotFound, UsageError

T = TypeVar("T")

SHOWN = ("cores", "mem", "arch", "cpu_free", "mem_free")
"""The columns of a table when the question names no attribute."""
ID_SHOWN = 12  # digits of an id on a terminal; a pipe and JSON get all 40
_WORD = re.compile(r"[a-z][a-z0-9_]*")

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, nothing else.")
strict_option = click.option(
    "--strict", is_flag=True, help="Distrust young summaries: slower, surer."
)
verify_option = click.option(
    "--verify",
    default=1,
    show_default=True,
    type=click.IntRange(1, VERIFY_MAX),
    help="Ask so many members about every subtree, and merge what they say.",
)
require_option = click.option(
    "--require-complete", is_flag=True, help="Exit with 6 when not everybody was heard."
)

paths_option = click.option(
    "--paths",
    default=1,
    show_default=True,
    type=click.IntRange(1, PATHS_MAX),
    help="Look for the holders over so many disjoint paths; 4 where liars may be among them.",
)


def with_asker(options: Plain, work: Callable[[Asker], Awaitable[T]]) -> T:
    """Do one thing with whoever answers."""

    async def ask() -> T:
        config, seeded = ask_config(options)
        async with asker(config, seeded=seeded) as who:
            return await work(who)

    return run_loop(ask())


@click.command()
@click.argument("predicate", default="true")
@click.option("--limit", default=0, type=click.IntRange(0), help="Stop at so many; 0 is no limit.")
@click.option(
    "--order-by",
    metavar="NAME",
    help="Smallest first; -NAME for largest first; rtt(self) for the nearest first.",
)
@click.option("--columns", help="Attributes to show, as cores,mem,price.")
@click.option("--cursor", help="Continue where an earlier answer ended.")
@click.option("--coverage", "with_end", is_flag=True, help="With --json: a last line of coverage.")
@click.option("--explain", is_flag=True, help="Show the walk: who was asked, why, and what for.")
@click.option(
    "--sample",
    metavar="K",
    type=click.IntRange(1, SAMPLE_MAX),
    help="Draw so many machines at random from all that match.",
)
@strict_option
@verify_option
@require_option
@ask_options
@json_option
def find(
    *,
    predicate: str,
    limit: int,
    order_by: str | None,
    columns: str | None,
    cursor: str | None,
    with_end: bool,
    explain: bool,
    sample: int | None,
    strict: bool,
    verify: int,
    require_complete: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Find machines: dhtos-node find "cores >= 8 and mem_free >= 32GiB" --order-by price

    PREDICATE compares attributes (dhtos-node config lists them) with numbers, units and texts;
    and, or, not, in (...) combine. With --json there is one line for each machine.
    """
    schema = ask_config(options)[0].schema_or_default
    name, descending = _order(order_by)
    shown = _columns(schema, columns, predicate, name)
    screen = Screen(as_json=as_json)
    question = Question(
        predicate, limit, name, descending, strict, cursor, verify, explain, sample or 0
    )
    if sample and question != Question(predicate, strict=strict, sample=sample):
        raise UsageError("--sample goes with --strict alone; leave out what orders or pages")
    hits: list[Plain] = []

    def take(hit: Plain) -> None:
        hits.append(hit)
        if as_json:
            screen.line(hit)

    end = with_asker(options, lambda who: who.find(question, take))
    if hits and not as_json:
        show_machines(screen, schema, hits, shown)
    if explain:
        _show_walk(screen, schema, end.pop("steps", []))
    if as_json and with_end:
        screen.line(end)
    elif hits or not end["coverage"]["complete"]:
        _tell_end(screen, len(hits), end, drawn=bool(sample))
    tell_unverified(screen, end["coverage"], verify)
    judge(end["coverage"], require_complete=require_complete)
    if not hits:
        raise NothingFound(f"no machine matches {predicate!r}; try a wider question")


@click.command()
@click.argument("predicate", default="true")
@strict_option
@verify_option
@require_option
@ask_options
@json_option
def count(
    *,
    predicate: str,
    strict: bool,
    verify: int,
    require_complete: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Count the machines that match, without moving their records."""
    screen = Screen(as_json=as_json)
    end = with_asker(options, lambda who: who.count(predicate, strict=strict, verify=verify))
    if as_json:
        screen.document(end)
    else:
        screen.say(str(end["count"]))
        if not end["coverage"]["complete"]:
            screen.warn(f"warning: at least so many: {coverage_text(end['coverage'])}")
        tell_unverified(screen, end["coverage"], verify)
    judge(end["coverage"], require_complete=require_complete)


@click.command()
@ask_options
@json_option
def members(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """List the machines of the node's group: what it knows without asking anybody."""
    schema = ask_config(options)[0].schema_or_default
    screen = Screen(as_json=as_json)
    found = with_asker(options, lambda who: who.members())
    if as_json:
        screen.document(found)
        return
    show_machines(screen, schema, found, [name for name in SHOWN if name in schema])


@click.command()
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["str", "bytes", "int", "float", "bool"]),
    default="str",
    show_default=True,
    help="How the value is stored; bytes are given in UTF-8.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Store the bytes of a file.",
)
@click.option("--ttl", "ttl_s", type=click.FloatRange(0, min_open=True), help="Seconds to live.")
@click.option("--owned", is_flag=True, help="Under a name of our own; only in a cluster.")
@click.option("--remove", is_flag=True, help="Take our value back; only in a cluster.")
@paths_option
@ask_options
@json_option
def put(
    *,
    key: str,
    value: str | None,
    kind: str,
    file: Path | None,
    ttl_s: float | None,
    owned: bool,
    remove: bool,
    paths: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Store a value under a name, on the nodes closest to it."""
    if (value is not None) + (file is not None) + remove != 1:
        raise UsageError("put takes a value, or --file, or --remove; give one of them")
    if remove and ttl_s is not None:
        raise UsageError("--remove takes no --ttl; leave it out")
    how: How = {"owned": True} if owned else {}
    if paths > 1:
        how["paths"] = paths
    if remove:
        end = with_asker(options, lambda who: who.remove(key, **how))
    else:
        stored = file.read_bytes() if file is not None else read_stored(value or "", kind)
        end = with_asker(options, lambda who: who.put(key, stored, ttl_s, **how))
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document({"key": key, **end})
        return
    what = "removed" if remove else "stored"
    screen.say(f"{what} on {plural(end['stored_on'], 'node')}, version {end['seq']}")
    if owned and not remove:
        screen.say(f"others read it with --owner {end['owner']['key']}")


@click.command()
@click.argument("key")
@click.option(
    "--owner",
    metavar="KEY",
    help="Of a name that is owned: whose, by the public key that --json shows, or `self`.",
)
@paths_option
@ask_options
@json_option
def get(
    *,
    key: str,
    owner: str | None,
    paths: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click passes them
) -> None:
    """Print the newest value under a name; bytes are written as they are."""
    how: Whose = {} if owner is None else {"owner": owner}
    if paths > 1:
        how["paths"] = paths
    try:
        found = with_asker(options, lambda who: who.get(key, **how))
    except KeyNotFound as error:
        raise KeyNotFound(f"no reachable node holds a value under {key!r}") from error
    value = found.pop("value")
    if as_json:
        shown = (
            {"base64": b64encode(value).decode()} if isinstance(value, bytes) else {"value": value}
        )
        Screen(as_json=True).document({"key": key, **shown, **found})
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
        sys.stdout.flush()
    else:
        Screen().say(str(value).lower() if isinstance(value, bool) else str(value))


@click.command()
@ask_options
@json_option
def status(*, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes them
    """Show what the node is and how it fares: kernels, group, counters."""
    schema = ask_config(options)[0].schema_or_default
    found = with_asker(options, lambda who: who.status())
    found["version"] = own_version()
    screen = Screen(as_json=as_json)
    if as_json:
        screen.document(found)
        return
    stats: Plain = found.pop("stats", {})
    attributes: Plain = found.pop("attributes", {})
    group: Plain = found.pop("group", {})
    found["coordinate ms"] = _place(found.pop("coordinate"))
    found["group members"] = group.get("members")
    found["group depth"] = len(group.get("prefix", ""))
    rows = [[name, _shown(value)] for name, value in found.items() if value not in (None, [], {})]
    screen.table((Column("node"), Column("")), rows)
    if attributes:
        told = [[name, _value(schema, name, value)] for name, value in attributes.items()]
        screen.say()
        screen.table((Column("attribute"), Column("value", right=True)), told)
    screen.say()
    counted = [[name, f"{value:g}"] for name, value in sorted(stats.items())]
    screen.table((Column("counter"), Column("value", right=True)), counted)


def read_stored(text: str, kind: str) -> Stored:
    """The value of `put` in its type; raises UsageError.

    >>> read_stored("8", "int")
    8
    """
    try:
        match kind:
            case "bytes":
                return text.encode()
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError) as error:
        raise UsageError(f"{text[:40]!r} is no {kind}; choose another --type") from error
    return text


def show_machines(screen: Screen, schema: Schema, machines: list[Plain], names: list[str]) -> None:
    """A table of machines with some of their attributes."""
    columns = [Column("id"), Column("endpoint")]
    columns += [Column(name, right=name in schema and _is_number(schema, name)) for name in names]
    columns += [Column("age", right=True), Column("rtt ms", right=True)]
    rows = [
        [
            machine["id"][:ID_SHOWN] if screen.fancy else machine["id"],
            f"via {machine['endpoint']}" if machine["gateway"] else machine["endpoint"],
            *(_value(schema, name, machine["attributes"].get(name)) for name in names),
            age_text(machine["age_s"]),
            milliseconds(machine["rtt_s"]),
        ]
        for machine in machines
    ]
    screen.table(columns, rows)


def _is_number(schema: Schema, name: str) -> bool:
    return schema.attribute(name).kind == "number"


def _value(schema: Schema, name: str, value: Any) -> str:  # noqa: ANN401 - a value out of JSON
    if value is None:
        return "-"
    return value_text(schema.attribute(name), value) if name in schema else str(value)


def _place(coordinate: list[float]) -> str:
    """Where a node is, in milliseconds, and how sure it is of that."""
    *position, height, error = coordinate
    at = ", ".join(f"{1000 * part:.1f}" for part in position)
    return f"({at}), height {1000 * height:.1f}, relative error {error:.2f}"


def _shown(value: Any) -> str:  # noqa: ANN401 - a value out of JSON
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return str(value)


def _order(text: str | None) -> tuple[str | None, bool]:
    """The attribute of `--order-by`, and whether the largest come first."""
    if text is None:
        return None, False
    return text.removeprefix("-"), text.startswith("-")


def _columns(schema: Schema, asked: str | None, predicate: str, order_by: str | None) -> list[str]:
    """What to show: what was asked for, else what the question is about, else the usual."""
    if asked:
        names = [name.strip() for name in asked.split(",") if name.strip()]
        for name in names:
            schema.index(name)
        return names
    words = [*_WORD.findall(re.sub(r"\"[^\"]*\"|'[^']*'", "", predicate)), order_by or ""]
    named = list(dict.fromkeys(word for word in words if word in schema))
    return named or [name for name in SHOWN if name in schema]


def _tell_end(screen: Screen, found: int, end: Plain, *, drawn: bool) -> None:
    """What the answer covers: under a table for people, beside the output for everybody else."""
    coverage = end["coverage"]
    if screen.as_json:
        if not coverage["complete"] and not coverage["limited"]:
            screen.warn(f"warning: the answer is not complete: {coverage_text(coverage)}")
        return
    covered = "drawn from more" if drawn and coverage["limited"] else coverage_text(coverage)
    parts = [plural(found, "machine"), covered]
    if coverage["asked"]:
        parts.append(
            f"{plural(coverage['asked'], 'call')} in {plural(coverage['rtt'], 'round trip')}"
        )
    else:
        parts.append("known without asking")
    if found:
        parts.append(f"oldest record {age_text(coverage['max_age_s'])}")
    text = "; ".join(parts)
    if end["cursor"]:
        text += f"\nmore: --cursor {end['cursor']}"
    (screen.say if screen.fancy else screen.warn)(text)


def tell_unverified(screen: Screen, coverage: Plain, verify: int) -> None:
    """Some subtree has fewer members than were to be asked, or the limit was met before."""
    if coverage["verified"] < verify and not coverage["limited"]:
        heard = plural(coverage["verified"], "member")
        screen.warn(f"warning: {heard} answered for some subtree, not {verify}")


def _show_walk(screen: Screen, schema: Schema, steps: list[Plain]) -> None:
    if screen.as_json:
        screen.line(steps)
        return
    from dhtos.cli.walk_text import walk_lines

    screen.say()
    for line in walk_lines(steps, schema):
        screen.say(line)


def judge(coverage: Plain, *, require_complete: bool) -> None:
    """Raise Incomplete where the caller insisted and somebody was not heard."""
    if require_complete and not coverage["complete"] and not coverage["limited"]:
        silent = plural(len(coverage["failed_prefixes"]), "subtree")
        raise Incomplete(f"{silent} did not answer: {coverage_text(coverage)}")
