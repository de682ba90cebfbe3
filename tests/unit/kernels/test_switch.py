"""The switch: which build runs, and that nobody gets the slow one by accident."""

import importlib
import importlib.util
import inspect
import sys

import pytest

from dhtos import kernels

MODULES = ("hilbert", "morton", "refit", "vivaldi", "xor")


@pytest.fixture
def reload_kernels(monkeypatch: pytest.MonkeyPatch):
    """Import a private copy of `dhtos.kernels`, leaving the real one as it is."""

    def reload(**environment: str):
        monkeypatch.delenv("DHTOS_KERNELS", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.find_spec("dhtos.kernels")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return reload


def public(module) -> list[str]:
    return [name for name in module.__all__ if name != "COMPILED"]


def test_compiled_runs_where_it_was_built(reload_kernels) -> None:
    pytest.importorskip("dhtos._ext._xor", reason="built with DHTOS_PURE=1")
    module = reload_kernels()
    assert module.COMPILED
    assert all(getattr(module, name).__module__.startswith("dhtos._ext") for name in public(module))


def test_environment_declines_the_compiled(reload_kernels) -> None:
    module = reload_kernels(DHTOS_KERNELS="reference")
    assert not module.COMPILED
    assert all(
        getattr(module, name).__module__.startswith("dhtos._reference") for name in public(module)
    )


def test_unknown_choice_is_an_error(reload_kernels) -> None:
    with pytest.raises(ImportError, match="DHTOS_KERNELS must be unset or 'reference', got 'c'"):
        reload_kernels(DHTOS_KERNELS="c")


def test_pure_build_falls_back(reload_kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name.startswith("dhtos._ext._") else find_spec(name),
    )
    assert not reload_kernels().COMPILED


def test_broken_build_raises(reload_kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    xor_spec = find_spec("dhtos._reference.xor")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: xor_spec if name.startswith("dhtos._ext._") else find_spec(name),
    )
    monkeypatch.setitem(sys.modules, "dhtos._ext._xor", None)
    with pytest.raises(ImportError):
        reload_kernels()


@pytest.mark.parametrize("name", MODULES)
def test_every_twin_has_its_signature(name: str) -> None:
    compiled = pytest.importorskip(f"dhtos._ext._{name}", reason="built with DHTOS_PURE=1")
    reference = importlib.import_module(f"dhtos._reference.{name}")
    functions = [
        function
        for function, value in vars(reference).items()
        if inspect.isfunction(value) and not function.startswith("_") and function != "nsmallest"
    ]
    assert set(functions) <= set(kernels.__all__)
    for function in functions:
        twin = getattr(compiled, function)
        wanted = list(inspect.signature(getattr(reference, function)).parameters)
        assert twin.__doc__ == getattr(reference, function).__doc__
        assert list(inspect.signature(twin).parameters) == wanted
