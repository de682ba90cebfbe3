"""What is under test is what users get: compiled kernels, built from the sources that are here."""

import sysconfig
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path

import pytest

import dhtos
from dhtos import kernels

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = Path(dhtos.__file__).parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SOURCES = sorted((ROOT / "ext").glob("*.pyx"))


def test_the_compiled_kernels_run() -> None:
    assert kernels.COMPILED, "run: python setup.py build_ext --inplace"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_kernel_is_built_from_its_source(source: Path) -> None:
    """An editable install keeps an old extension after its source was edited."""
    built = PACKAGE / "_ext" / (source.stem + SUFFIX)
    assert built.is_file()
    if ROOT in built.parents:
        stale = built.stat().st_mtime < source.stat().st_mtime
        assert not stale, f"{source.name} is newer: python setup.py build_ext --inplace"


def test_no_kernel_without_a_source() -> None:
    built = {path.name.partition(".")[0] for path in (PACKAGE / "_ext").glob("*" + SUFFIX)}
    assert built == {path.stem for path in SOURCES}


def test_the_public_names_exist() -> None:
    for name in dhtos.__all__:
        assert hasattr(dhtos, name), name


def test_the_command_is_declared() -> None:
    scripts = entry_points(group="console_scripts", name="dhtos-node")
    assert [script.value for script in scripts] == ["dhtos.cli.main:main"]


def test_the_extra_brings_what_the_command_needs() -> None:
    extras = metadata("dhtos").get_all("Provides-Extra") or []
    assert "node" in extras
    needed = [r for r in requires("dhtos") or [] if 'extra == "node"' in r.replace("'", '"')]
    assert {r.split(">")[0].split(";")[0].strip() for r in needed} >= {"click", "rich", "uvloop"}
