"""Every code block of README and the documentation runs.

```python    all blocks of a page are one program, in order, in an empty folder
```console   all blocks of a page are one session: `$ ` starts a command, what follows is its
             output (`...` stands for anything; no output shown means any is right)
```bash      commands with effects outside a test: the shell must be able to read them, and
             `dhtos-node` must know the commands and options they use
```toml      is read
```text      anything else, never run
"""

import dataclasses
import doctest
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dhtos

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
)
LANGUAGES = {"python", "console", "bash", "toml", "text"}
RUN_DEADLINE_S = 120.0

# Their programs need an engine that runs: tests of tests/interop follow these pages.
OF_ENGINES = {"dask.md", "ray.md", "slurm.md"}

_FENCE = re.compile(r"^(```+)([^\n]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_CHECKER = doctest.OutputChecker()
_LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and where it stands."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """One command of a session and the output shown for it, if any."""

    command: str
    output: str


def blocks(path: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page; directives (`{name}`) are not code."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        name = match[2].strip()
        if not name.startswith("{"):
            found.append(Block(name, match[3], text.count("\n", 0, match.start()) + 1))
    return [block for block in found if language in (None, block.language)]


def steps(session: list[Block]) -> list[Step]:
    """Commands and their outputs, over all console blocks of a page."""
    found: list[Step] = []
    for block in session:
        for line in block.text.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:], ""))
            elif found:
                last = found.pop()
                found.append(Step(last.command, last.output + line + "\n"))
    return found


def pages_with(language: str) -> list[Any]:
    """The pages that have a block of that language, as parameters with readable names."""
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for path in PAGES
        if blocks(path, language)
    ]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which this very package is `dhtos`, and `dhtos-node` its command."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "dhtos-node"
    command.write_text(f"#!{sys.executable}\nfrom dhtos.cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    package = Path(dhtos.__file__).parent.parent
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "xdg"),
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(package),
        "PYTHONUNBUFFERED": "1",
    }


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    "path", [page for page in pages_with("python") if page.values[0].name not in OF_ENGINES]
)
def test_python_blocks_run(path: Path, shell: dict[str, str], tmp_path: Path) -> None:
    """Line numbers of a failure are those of the page."""
    lines: list[str] = []
    for block in blocks(path, "python"):
        lines += [""] * (block.line - len(lines))
        lines += block.text.splitlines()
    program = tmp_path / "page.py"
    program.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run([sys.executable, "-X", "dev", str(program)], tmp_path, shell)


@pytest.mark.slow
@pytest.mark.parametrize("path", pages_with("console"))
def test_console_sessions_run(path: Path, shell: dict[str, str], tmp_path: Path) -> None:
    session = steps(blocks(path, "console"))
    lines = ["trap 'kill $(jobs -p); wait' EXIT"]
    for n, step in enumerate(session):
        lines += [f"exec >out{n} 2>&1", step.command, f"echo $? >code{n}"]
        if step.command.endswith("&") and step.output:
            lines.append(f"while kill -0 $! && ! [ -s out{n} ]; do sleep 0.05; done 2>/dev/null")
    script = tmp_path / "session.sh"
    script.write_text("\n".join(lines) + "\n")
    shell_process = subprocess.Popen(
        ["bash", str(script)],
        cwd=tmp_path,
        env=shell,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        shell_process.wait(RUN_DEADLINE_S)
    finally:
        with suppress(ProcessLookupError):  # what the session left running goes with it
            os.killpg(shell_process.pid, signal.SIGKILL)
        shell_process.wait()
    for n, step in enumerate(session):
        shown = (tmp_path / f"out{n}").read_text()
        code = (tmp_path / f"code{n}").read_text().strip()
        assert code == "0", f"$ {step.command}\nexit {code}\n{shown}"
        if step.output:
            assert _CHECKER.check_output(step.output, shown, _LOOSE), (
                f"$ {step.command}\nexpected:\n{step.output}\ngot:\n{shown}"
            )


def test_pages_of_engines_are_followed_elsewhere() -> None:
    for name in OF_ENGINES:
        test = ROOT / "tests" / "interop" / f"test_{name.removesuffix('.md')}.py"
        assert f'"{name}"' in test.read_text(encoding="utf-8"), test


@pytest.mark.parametrize("path", pages_with("bash"))
def test_bash_blocks_are_bash(path: Path, shell: dict[str, str], tmp_path: Path) -> None:
    for block in blocks(path, "bash"):
        script = tmp_path / "block.sh"
        script.write_text(block.text)
        run(["bash", "-n", str(script)], tmp_path, shell)


def commands_shown() -> list[object]:
    """Every `dhtos-node COMMAND ...` of the bash and console blocks."""
    shown = re.compile(r"(?<![\w'\"])dhtos-node ([a-z]+)\b([^\n|&]*)")
    found = []
    for path in PAGES:
        for block in blocks(path, "bash") + blocks(path, "console"):
            for match in shown.finditer(block.text):
                options = tuple(sorted(set(re.findall(r"(?<!\S)--[a-z-]+", match[2]))))
                found.append((match[1], options))
    return sorted(set(found))


@pytest.mark.parametrize(("name", "options"), commands_shown())
def test_the_commands_shown_exist(name: str, options: tuple[str, ...]) -> None:
    import click

    from dhtos.cli import main

    groups = [value for value in vars(main).values() if isinstance(value, click.Group)]
    context = click.Context(groups[0])
    command = groups[0].get_command(context, name)
    assert command is not None, f"dhtos-node has no {name}"
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    known = {opt for one in commands for parameter in one.params for opt in parameter.opts}
    assert set(options) <= known, f"{name} has no {set(options) - known}"


@pytest.mark.parametrize("path", pages_with("toml"))
def test_toml_blocks_are_toml(path: Path) -> None:
    for block in blocks(path, "toml"):
        assert tomllib.loads(block.text), f"line {block.line}"


def test_schemas_shown_are_schemas() -> None:
    from dhtos.core.schema_text import schema_from_toml

    page = ROOT / "docs" / "reference" / "config.md"
    schemas = [b.text for b in blocks(page, "toml") if "[[attribute]]" in b.text]
    assert schemas, "config.md shows a schema"
    for text in schemas:
        assert schema_from_toml(text).keyed


def test_every_setting_is_explained_with_its_default() -> None:
    from dhtos.node.config import Config

    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE)
    config = Config()
    fields = [field.name for field in dataclasses.fields(Config)]
    expected = [(name, repr(getattr(config, name)).replace("'", '"')) for name in fields]
    assert rows[: len(expected)] == expected


def test_the_configuration_shown_is_one(tmp_path: Path) -> None:
    from dhtos.node.config import Config

    page = ROOT / "docs" / "reference" / "config.md"
    (shown,) = [b.text for b in blocks(page, "toml") if "[[attribute]]" not in b.text]
    file = tmp_path / "dhtos.toml"
    file.write_text(shown)
    config = Config.from_toml(file)
    assert config.state_dir == tmp_path / "state"
    assert config.advertise["site"] == "edge-7"


def test_every_block_says_its_language() -> None:
    strange = [
        f"{path.relative_to(ROOT)}:{block.line}: {block.language!r}"
        for path in PAGES
        for block in blocks(path)
        if block.language not in LANGUAGES
    ]
    assert not strange, "\n".join(strange)


def test_readme_marks_its_two_commands() -> None:
    """`.ci/run` runs exactly these lines."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    marked = re.findall(r"<!-- command: (\w+) -->\n```bash\n([^\n]+)\n```\n", text)
    assert [name for name, _ in marked] == ["demo", "test"]
    assert marked[0][1].endswith("dhtos-node demo")
    assert marked[1][1].endswith("-m pytest -n auto --dist worksteal")  # no room is left out


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for path in PAGES:
        prose = _FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        if "_build" in path.parts or "changelog.d" in path.parts or path.name == "index.md":
            continue
        assert path.relative_to(ROOT / "docs").as_posix() in index, path
