"""The seed machinery itself: kept seeds name real tests, failures say how to replay."""

import ast
import shutil
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent

FAILING = """
def test_unlucky(sim_seed, sim_replay):
    assert sim_seed == 1, sim_replay

def test_without_a_seed():
    assert False
"""


def test_every_kept_seed_names_a_test_and_a_fault():
    kept = tomllib.loads((HERE / "seeds.toml").read_text(encoding="utf-8"))["kept"]
    for entry in kept:
        assert set(entry) == {"test", "seed", "fault"}, entry
        file, _, name = entry["test"].partition("::")
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in names, entry
        assert entry["fault"]


@pytest.fixture
def suite(pytester):
    """A folder with our conftest, a seed kept for one test, and a test that fails for it."""
    shutil.copy(HERE / "conftest.py", pytester.path / "conftest.py")
    kept = '{ test = "test_x.py::test_unlucky", seed = 77, fault = "x" }'
    (pytester.path / "seeds.toml").write_text(f"kept = [{kept}]", encoding="utf-8")
    (pytester.path / "test_x.py").write_text(FAILING, encoding="utf-8")
    return pytester


def _run(suite, *options):
    plugins = ("asyncio", "cacheprovider", "hypothesispytest", "pytest_cov", "benchmark")
    without = [word for name in plugins for word in ("-p", f"no:{name}")]
    return suite.runpytest_inprocess(*without, *options)


def test_usual_and_kept_seeds_run_and_a_failure_shows_its_replay(suite):
    result = _run(suite, "-k", "unlucky")
    result.assert_outcomes(passed=1, failed=2)
    replay = "replay: pytest 'test_x.py::test_unlucky' --sim-seed=77"
    result.stdout.fnmatch_lines(["*simulation*", "seed: 77", "commit: *", replay])


def test_the_replay_option_runs_one_seed(suite):
    _run(suite, "--sim-seed=1", "-k", "unlucky").assert_outcomes(passed=1)
    _run(suite, "--sim-seed=0", "-k", "unlucky").assert_outcomes(failed=1)


def test_fresh_seeds_may_be_tried(suite):
    _run(suite, "--sim-runs=3", "-k", "unlucky").assert_outcomes(failed=3)


def test_a_test_without_a_seed_is_left_alone(suite):
    result = _run(suite, "-k", "without")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("seed: *")
