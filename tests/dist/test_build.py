"""sdist -> wheel from the sdist -> clean environment -> it runs, with its kernels and its data."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STEP_DEADLINE_S = 600.0

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Built:
    """What `python -m build` leaves: the wheel is made from the sdist, not from the checkout."""

    sdist: Path
    wheel: Path


def call(*command: str | Path, cwd: Path) -> str:
    """The output of a step that must succeed; nothing of the checkout leaks in."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DHTOS_PURE")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The two files of a release."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment that has the wheel and its `node` extra."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=True)
    interpreter = folder / "venv" / "bin" / "python"
    call(interpreter, "-m", "pip", "install", "-q", f"{built.wheel}[node]", cwd=folder)
    return interpreter


def test_the_sdist_has_the_sources_and_nothing_built(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for source in [*(ROOT / "ext").glob("*.pyx"), ROOT / "setup.py", ROOT / "LICENSE"]:
        assert source.relative_to(ROOT).as_posix() in names
    assert "dhtos/data/LICENSE-APACHE-2.0" in names
    assert not [name for name in names if name.endswith((".so", ".c", ".pyc"))]


def test_the_wheel_has_kernels_types_data_and_licences(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    for source in (ROOT / "ext").glob("*.pyx"):
        assert [
            n for n in names if n.startswith(f"dhtos/_ext/{source.stem}.") and n.endswith(".so")
        ]
    for name in ("py.typed", "data/NOTICE", "data/LICENSE-APACHE-2.0"):
        assert f"dhtos/{name}" in names
    assert "dhtos/data/cloud_instance_types.csv" in names
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert {Path(name).name for name in licences} == {"LICENSE", "NOTICE", "LICENSE-APACHE-2.0"}
    strays = [
        n for n in names if not n.startswith(("dhtos/", "dhtos-")) or n.endswith((".pyx", ".c"))
    ]
    assert not strays


def test_the_wheel_has_every_module(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        shipped = {name for name in archive.namelist() if name.endswith(".py")}
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dhtos").rglob("*.py")}
    assert shipped == here


def test_a_clean_environment_imports_it_with_compiled_kernels(python: Path, tmp_path: Path) -> None:
    program = "import dhtos; from dhtos import kernels; print(kernels.COMPILED, dhtos.__file__)"
    compiled, _, path = call(python, "-c", program, cwd=tmp_path).partition(" ")
    assert compiled == "True"
    assert ROOT not in Path(path).parents


def test_a_clean_environment_has_a_command(python: Path, built: Built, tmp_path: Path) -> None:
    version = built.wheel.name.split("-")[1]
    assert version in call(python.parent / "dhtos-node", "--version", cwd=tmp_path)
    assert "find" in call(python.parent / "dhtos-node", "--help", cwd=tmp_path)


def test_the_requirements_fit_together(python: Path, tmp_path: Path) -> None:
    assert "No broken requirements" in call(python, "-m", "pip", "check", cwd=tmp_path)


def test_nothing_of_the_project_is_left_beside_the_package(python: Path, tmp_path: Path) -> None:
    """`tests`, `bench`, `docs` and `ext` must not become top-level packages of a user."""
    program = (
        "from importlib.metadata import files;"
        "print(*sorted({str(f).split('/')[0] for f in files('dhtos') if '..' not in str(f)}))"
    )
    tops = call(python, "-c", program, cwd=tmp_path).split()
    assert [top for top in tops if not top.endswith(".dist-info")] == ["dhtos"]
