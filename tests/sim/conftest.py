"""Seeds of simulated tests: which ones run, how a failure is printed, how it is replayed.

A test that takes the fixture `sim_seed` runs once for each of the usual seeds and for each seed
kept for it in seeds.toml. `--sim-seed=N` replays one; `--sim-runs=N` tries N fresh ones, for
searching. Whatever fails is reported with its seed, the commit and the command that replays it.
"""

import random
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

USUAL_SEEDS = (1, 2)
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # pytest imports each test by its path: this makes `fleets` known


def pytest_addoption(parser):
    group = parser.getgroup("dhtos simulation")
    group.addoption("--sim-seed", type=int, help="replay simulated tests with this seed only")
    group.addoption("--sim-runs", type=int, help="try this many fresh seeds instead of the usual")


def kept_seeds(test):
    """The seeds kept for one test, named as in seeds.toml."""
    with (HERE / "seeds.toml").open("rb") as file:
        kept = tomllib.load(file)["kept"]
    return [entry["seed"] for entry in kept if entry["test"] == test]


def chosen_seeds(config, test):
    """The seeds one test runs with."""
    # The options are unknown when pytest was started above this folder: then nobody set them.
    if (one := config.getoption("sim_seed", default=None)) is not None:
        return [one]
    if runs := config.getoption("sim_runs", default=None):
        fresh = random.SystemRandom()
        return [fresh.randrange(2**32) for _ in range(runs)]
    return list(dict.fromkeys([*USUAL_SEEDS, *kept_seeds(test)]))


def pytest_generate_tests(metafunc):
    if "sim_seed" in metafunc.fixturenames:
        test = f"{metafunc.module.__file__.rsplit('/', 1)[-1]}::{metafunc.definition.originalname}"
        metafunc.parametrize("sim_seed", chosen_seeds(metafunc.config, test))


def replay_command(item, seed):
    """The command line that runs this test with this seed again."""
    test = item.nodeid.rsplit("::", 1)[0]
    return f"pytest '{test}::{item.originalname}' --sim-seed={seed}"


@pytest.fixture
def sim_replay(request, sim_seed):
    """What to pass as `Cluster(replay=...)`."""
    return replay_command(request.node, sim_seed)


def _commit():
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    seed = getattr(item, "callspec", None) and item.callspec.params.get("sim_seed")
    if report.failed and seed is not None:
        lines = (f"seed: {seed}", f"commit: {_commit()}", f"replay: {replay_command(item, seed)}")
        report.sections.append(("simulation", "\n".join(lines)))
    return report
