"""Benchmarks run when this folder is asked for: `pytest bench/`; elsewhere they are skipped."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the modules beside the tests


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Undo the `--benchmark-skip` of the project's default options."""
    config.option.benchmark_skip = False
