"""The fuzz targets are alive, also where there is no fuzzer: samples, mutations, kept inputs.

`run.py` beside this file fuzzes them with coverage for as long as one likes. What it found stays
here as one line.
"""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from target import Target
from targets import TARGETS

from dhtos.errors import MalformedMessage
from dhtos.node import command_wire

INPUTS = int(os.environ.get("FUZZ_INPUTS", "3000"))
INPUTS_OF_A_NODE = INPUTS // 10  # a node is made for each
SLOW = {"hello", "hello_answer", "session", "request", "reply", "in_session"}
RUN = Path(__file__).parent / "run.py"

KEPT = {
    "command_node": ["9202a1ff", "940701a1ff7d"],  # a text that is no UTF-8
}


def mutant(rng: Random, samples: list[bytes]) -> bytes:
    """A sample with a few things wrong, as a fuzzer begins."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del data[at : at + rng.randint(1, 4)]
            case 2:
                other = rng.choice(samples)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            case 3 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 4 if at < len(data):
                data[at] = rng.choice(b"\x00\x01\x7f\x80\x90\xc0\xc4\xca\xcb\xcf\xd4\xff")
            case _:
                data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_accepts_its_samples(name: str) -> None:
    samples = TARGETS[name].samples()
    assert samples
    refused = [sample.hex() for sample in samples if not TARGETS[name].run(sample)]
    assert not refused


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_documented_error_leaves_a_target(name: str) -> None:
    """The seed is the name, so that one run is like the other."""
    target, rng = TARGETS[name], Random(name)
    samples = list(target.samples())
    accepted = 0
    inputs = INPUTS_OF_A_NODE if name in SLOW else INPUTS
    for _ in range(inputs):
        data = mutant(rng, samples)
        try:
            accepted += target.run(data)
        except Exception:
            print(f"python tests/fuzz/run.py --target {name} --replay '{data.hex()}'")
            raise
    print(f"{name}: {accepted} of {inputs} accepted")
    assert accepted < inputs, "what accepts everything checks nothing"


@pytest.mark.parametrize(("name", "data"), [(n, d) for n, kept in KEPT.items() for d in kept])
def test_what_was_found_once_is_not_found_again(name: str, data: str) -> None:
    TARGETS[name].run(bytes.fromhex(data))


def test_a_text_of_a_node_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="not what is said about a command"):
        command_wire._decoded(command_wire._OF_NODE, bytes.fromhex("9202a1ff"))


def test_what_a_target_does_not_expect_leaves_it() -> None:
    """A target that swallowed everything would find nothing."""

    def fails(_data: bytes) -> object:
        raise IndexError

    from parsers import target

    found: Target = target(fails, b"")
    with pytest.raises(IndexError):
        found.run(b"")


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command says that a finding names."""
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, check=False
    )


def test_a_finding_is_replayed_by_one_command() -> None:
    told = replay("--target", "coordinate", "--replay", TARGETS["coordinate"].samples()[0].hex())
    assert (told.returncode, told.stdout) == (0, "coordinate: accepted\n")
    told = replay("--target", "coordinate", "--replay", "00")
    assert (told.returncode, told.stdout) == (0, "coordinate: refused\n")


def test_a_target_that_is_not_there_is_named_with_those_that_are() -> None:
    told = replay("--target", "nothing", "--replay", "00")
    assert told.returncode == 2
    assert told.stderr.startswith("unknown: nothing; there are datagram, ")
