"""Coverage-guided fuzzing of everything that reads bytes of strangers.

    python tests/fuzz/run.py [--seconds 20] [--target NAME]... [--corpus FOLDER]
    python tests/fuzz/run.py --target NAME --replay HEX

The seconds are spread over the targets, each in a process of its own, since libFuzzer ends the
process that it runs in. With a folder, inputs that reached something new are kept there, to begin
with the next time. Needs `atheris` (the `fuzz` dependency group); without it nothing is run, and
that is said. Of what fails the input is shown, with the command that repeats it, and the end is 1.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from target import Target

HERE = Path(__file__).resolve().parent
INPUT_BYTES_MAX = 1400
INPUT_S_MAX = 10  # what takes longer is a fault
LOG_SHOWN = 4000
SAMPLED = 4  # one change in so many is of a sample


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Fuzz what reads bytes of strangers.")
    parser.add_argument("--seconds", type=float, default=20.0, help="for all targets together")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="where inputs are kept")
    parser.add_argument("--replay", metavar="HEX", help="run one input on one target")
    return parser.parse_args()


def fuzz(name: str, target: "Target", seconds: float, folder: Path) -> None:
    """Fuzz one target until its time is over or it fails; ends this process."""
    import atheris

    told = os.dup(1)
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    samples = target.samples()
    inputs, began = 0, time.monotonic()

    def one(data: bytes) -> None:
        nonlocal inputs
        try:
            target.run(data)
        except BaseException:  # kept as libFuzzer keeps what takes too long or kills the process
            (folder / f"{name}-crash-{inputs}").write_bytes(data)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        inputs += 1
        took_s = time.monotonic() - began
        if took_s >= seconds:  # libFuzzer counts in whole seconds
            line = f"{name:18} {inputs:>9,} inputs  {inputs / took_s:>8,.0f} a second\n"
            os.write(told, line.encode())
            os._exit(0)

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        """libFuzzer's own change, of a sample now and then.

        It drops samples that reach nothing new, and does not see what a compiled decoder does.
        """
        if seed % SAMPLED == 0:
            data = samples[seed // SAMPLED % len(samples)][:bytes_max]
        return atheris.Mutate(data, bytes_max)

    limits = [f"-max_len={INPUT_BYTES_MAX}", "-len_control=0", f"-timeout={INPUT_S_MAX}"]
    found = f"-artifact_prefix={folder}/{name}-"
    words = [sys.argv[0], *limits, found, str(folder / name)]
    atheris.Setup(words, one, custom_mutator=mutate)
    atheris.Fuzz()


def apart(name: str, target: "Target", seconds: float, folder: Path) -> str | None:
    """Fuzz one target in a process of its own; what is wrong, if anything is."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(target.samples()):
        (corpus / f"sample-{number}").write_bytes(sample)
    before = set(folder.glob(f"{name}-*-*"))
    sys.stdout.flush()
    pid = os.fork()  # what was imported and instrumented is there
    if not pid:
        try:
            fuzz(name, target, seconds, folder)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        return None
    said = (folder / f"{name}.log").read_text(errors="replace")[-LOG_SHOWN:]
    found = sorted(set(folder.glob(f"{name}-*-*")) - before)
    if not found:
        return f"{said}\n{name} ended with {code}"
    shown = found[0].read_bytes().hex()
    replay = f"python tests/fuzz/run.py --target {name} --replay '{shown}'"
    return f"{said}\n{name} fails on {shown!r}\n{replay}"


def targets(*, instrumented: bool) -> "dict[str, Target]":
    """All targets; to be fuzzed, the package has to be instrumented while it is imported."""
    sys.path[:0] = [str(HERE.parent), str(HERE)]
    sys.path.append(str(HERE.parents[1]))  # where the package is not installed
    if not instrumented:
        from targets import TARGETS

        return TARGETS
    import atheris

    quiet = contextlib.redirect_stderr(io.StringIO())  # each module that is instrumented
    with quiet, atheris.instrument_imports(include=["dhtos", "live", "parsers"]):
        from targets import TARGETS
    return TARGETS


def main() -> int:
    """0 where nothing was found."""
    asked = options()
    replays = asked.replay is not None
    if not replays and importlib.util.find_spec("atheris") is None:
        print(f"not fuzzed: there is no atheris for Python {platform.python_version()} here")
        return 0
    known = targets(instrumented=not replays)
    names = asked.target or list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if replays:
        for name in names:
            accepted = known[name].run(bytes.fromhex(asked.replay))
            print(f"{name}: {'accepted' if accepted else 'refused'}")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dhtos-fuzz-") as scratch:
        folder = asked.corpus or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        share = asked.seconds / len(names)
        found = [apart(name, known[name], share, folder) for name in names]
    wrong = [one for one in found if one is not None]
    print(*wrong, sep="\n\n")
    print(f"{len(names)} targets in {time.monotonic() - began:.0f} s, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
