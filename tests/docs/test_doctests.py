"""Every example in a docstring runs."""

import doctest
import importlib
from pathlib import Path

import pytest

import dhtos

PACKAGE = Path(dhtos.__file__).parent


def modules_with_examples() -> list[str]:
    """The modules that have a `>>>` somewhere."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0
