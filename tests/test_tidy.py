"""The house rules a machine can check: sizes, floors, dead modules, words, tests.

Each test lists every offender at once, as `path:line: what`, so that one run shows all the work.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dhtos"

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
INIT_LINES_MAX = 100
POSITIONAL_MAX = 5

SANS_IO = ("core", "protocol", "query", "sched", "trust")
BANNED_IN_SANS_IO = {
    "asyncio",
    "datetime",
    "kademlia",
    "logging",
    "os",
    "pathlib",
    "psutil",
    "random",
    "rpcudp",
    "secrets",
    "selectors",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}

# The kernels take flat numbers by contract (batch in, batch out), so they may take many.
MANY_POSITIONAL = ("_reference", "_ext")

# Modules that nothing in the package imports because the world starts there.
ENTRIES = {"dhtos.cli.main", "dhtos.sync"}
ENTRY_PACKAGES = ("dhtos.adapters.", "dhtos._ext.")

MARKERS = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b"
)
MACHINE_PATHS = re.compile(r"(?<![\w.<-])/" + r"(?:home|root|Users|work)/\w")


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the folders, in order, without caches and builds."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def sources() -> list[Path]:
    """The Python files of the package."""
    return python_files("dhtos")


def cython_files() -> list[Path]:
    """The sources of the compiled kernels."""
    return sorted((ROOT / "ext").glob("*.pyx"))


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def where(path: Path, node: ast.AST | None = None) -> str:
    """`path:line`, as editors open it."""
    line = getattr(node, "lineno", 1)
    return f"{path.relative_to(ROOT)}:{line}"


def line_count(paths: list[Path]) -> int:
    """Lines in all the files together."""
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a file, with their lines."""
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def is_type_checking(node: ast.AST) -> bool:
    """Whether a node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, so without the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        yield child
        yield from runtime_nodes(child)


def imported(nodes: Iterator[ast.AST]) -> Iterator[tuple[ast.AST, str]]:
    """The full name of everything imported: `a.b` and, for `from a import b`, `a` and `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield node, str(node.module)
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def module_name(path: Path) -> str:
    """`dhtos.core.ids` for its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def offenders(rows: Iterator[str] | list[str]) -> None:
    """Fails with every row; passes when there is none."""
    found = sorted(set(rows))
    assert not found, "\n" + "\n".join(found)


# --- shape ----------------------------------------------------------------------------------------


def test_a_module_answers_one_question() -> None:
    rows = []
    for path in sources() + cython_files():
        lines = line_count([path])
        if lines > MODULE_LINES_MAX:
            rows.append(f"{where(path)}: {lines} lines, at most {MODULE_LINES_MAX}")
    offenders(rows)


def test_a_function_fits_a_screen() -> None:
    rows = []
    for path in [*sources(), *python_files("bench")]:
        for node in functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                rows.append(f"{where(path, node)}: {node.name} has {lines} lines")
    offenders(rows)


def test_a_kernel_fits_a_screen() -> None:
    start = re.compile(r"^(?:cp?def|def|    def)\b.*?(\w+)[(:]")
    rows = []
    for path in cython_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        heads = [(n, found[1]) for n, line in enumerate(lines) if (found := start.match(line))]
        for (first, name), (last, _) in zip(heads, [*heads[1:], (len(lines), "")], strict=True):
            if last - first > FUNCTION_LINES_MAX + 2:  # two blank lines before the next one
                rows.append(
                    f"{path.relative_to(ROOT)}:{first + 1}: {name} has {last - first} lines"
                )
    offenders(rows)


def test_few_positional_parameters() -> None:
    rows = []
    for path in sources():
        if path.relative_to(PACKAGE).parts[0] in MANY_POSITIONAL:
            continue
        for node in functions(path):
            names = [a.arg for a in node.args.posonlyargs + node.args.args]
            count = len([name for name in names if name not in ("self", "cls")])
            commanded = any("command" in ast.unparse(d) for d in node.decorator_list)
            if count > POSITIONAL_MAX and not commanded:  # click passes options by name
                rows.append(f"{where(path, node)}: {node.name} takes {count} positional")
    offenders(rows)


def is_re_export(node: ast.stmt) -> bool:
    """Whether a statement of an `__init__` only names things that live elsewhere."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
        case ast.AnnAssign(target=ast.Name(id="__all__" | "__version__")):
            return True
        case ast.If() if is_type_checking(node):
            return all(is_re_export(inner) for inner in node.body)
    return False


def test_an_init_re_exports_and_holds_nothing_else() -> None:
    rows = []
    for path in sources():
        if path.name != "__init__.py":
            continue
        if line_count([path]) > INIT_LINES_MAX:
            rows.append(f"{where(path)}: more than one screen")
        rows += [
            f"{where(path, node)}: {ast.unparse(node).splitlines()[0]}"
            for node in tree(path).body
            if not is_re_export(node)
        ]
    offenders(rows)


def test_modules_have_no_mutable_state() -> None:
    """A module-level list, dict or set is a table when its name shouts, and state otherwise."""
    rows = []
    for path in sources():
        for node in tree(path).body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            mutable = isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp)
            names = [ast.unparse(target) for target in targets]
            shouted = all(n.startswith("__") or n == n.upper() for n in names)
            if mutable and not shouted:
                rows.append(f"{where(path, node)}: {names[0]}")
    offenders(rows)


def test_every_module_says_what_it_answers() -> None:
    offenders(
        f"{where(path)}: no docstring" for path in sources() if not ast.get_docstring(tree(path))
    )


# --- floors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", SANS_IO)
def test_the_engine_touches_no_clock_socket_or_chance(floor: str) -> None:
    rows = [
        f"{where(path, node)}: imports {name}"
        for path in python_files(f"dhtos/{floor}")
        for node, name in imported(runtime_nodes(tree(path)))
        if name.split(".")[0] in BANNED_IN_SANS_IO
    ]
    offenders(rows)


def test_no_module_is_dead() -> None:
    paths = {module_name(path): path for path in sources()}
    used: set[str] = set()
    for name, path in paths.items():
        used |= {target for _, target in imported(ast.walk(tree(path))) if target != name}
    rows = [
        f"{where(path)}: nothing in the package imports {name}"
        for name, path in paths.items()
        if path.name not in ("__init__.py", "__main__.py")
        and name not in used | ENTRIES
        and not name.startswith(ENTRY_PACKAGES)
    ]
    offenders(rows)


def test_every_kernel_has_its_twin() -> None:
    compiled = {path.stem.lstrip("_") for path in cython_files()}
    plain = {path.stem for path in (PACKAGE / "_reference").glob("*.py")} - {"__init__"}
    assert compiled == plain


# --- words ----------------------------------------------------------------------------------------


def test_no_promises_in_comments() -> None:
    rows = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()}"
        for path in python_files("dhtos", "tests", "bench", "docs")
        for line, text in comments(path)
        if MARKERS.search(text)
    ]
    for path in cython_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MARKERS.search(line.partition("#")[2]):
                rows.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    offenders(rows)


def test_no_paths_of_one_machine() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *(ROOT / "docs").rglob("*.md")]
    texts = [path for path in texts if "_build" not in path.parts]
    rows = []
    for path in [*python_files("dhtos", "tests", "bench", "docs"), *cython_files(), *texts]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATHS.search(line):
                rows.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    offenders(rows)


# --- tests ----------------------------------------------------------------------------------------


def test_every_room_is_collected(pytestconfig: pytest.Config) -> None:
    """pytest passes over folders called `dist` and `build` unless told otherwise."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent for path in python_files("tests")} - {ROOT / "tests"}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    offenders(f"{n}: passed over by {p}" for n in names for p in patterns if fnmatch(n, p))


def test_tests_outweigh_sources() -> None:
    source_lines = line_count(sources() + cython_files())
    test_lines = line_count(python_files("tests"))
    assert test_lines >= source_lines, f"{test_lines} lines of tests for {source_lines} of source"


def test_no_test_sleeps() -> None:
    rows = []
    for path in python_files("tests", "bench"):
        names = {name for _, name in imported(ast.walk(tree(path)))}
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node.func)
            if call == "time.sleep" or (call == "sleep" and "time.sleep" in names):
                rows.append(f"{where(path, node)}: sleeps")
    offenders(rows)


def test_pure_rooms_never_wait() -> None:
    """Unit and property tests have virtual time only; `sleep(0)` is a turn of the loop."""
    rows = []
    for path in python_files("tests/unit", "tests/property"):
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "asyncio.sleep":
                continue
            if not node.args or ast.unparse(node.args[0]) != "0":
                rows.append(f"{where(path, node)}: {ast.unparse(node)}")
    offenders(rows)


def marks(path: Path) -> Iterator[tuple[ast.AST, str, dict[str, str]]]:
    """Every `pytest.mark.X` of a file, with its keywords (none where it is not called)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and "mark." in ast.unparse(node.func):
            name = ast.unparse(node.func).rpartition(".")[2]
            yield node, name, {str(k.arg): ast.unparse(k.value) for k in node.keywords}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("mark"):
            yield node, node.attr, {}


def test_nothing_is_retried_or_excused() -> None:
    rows = []
    for path in python_files("tests", "bench"):
        for node, name, keywords in marks(path):
            if name in ("flaky", "rerun", "repeat"):
                rows.append(f"{where(path, node)}: {name}")
            if name == "xfail" and keywords.get("strict") == "False":
                rows.append(f"{where(path, node)}: xfail(strict=False)")
            if name == "skipif" and isinstance(node, ast.Call) and "reason" not in keywords:
                rows.append(f"{where(path, node)}: a skip without a reason")
    offenders(rows)
