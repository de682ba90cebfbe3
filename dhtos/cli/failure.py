"""What a failed command says: one line, one hint, one exit code.

Every error that dhtos or click raises becomes a `Failure` here; nothing else in the program
knows exit codes. A traceback is for programmers: only an error that nobody foresaw may show one,
and only when `DHTOS_TRACEBACK=1` asks for it.
"""

from dataclasses import dataclass
from enum import IntEnum

import click

from dhtos.errors import (
    CannotStart,
    ClaimsRefused,
    Conflict,
    DhtosError,
    KeyNotFound,
    LeaseLost,
    NoCandidates,
    Refused,
)
from dhtos.node.advice import advise, one_line, split


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAULT = 1
    USAGE = 2
    NOTHING = 3
    REFUSED = 4
    LEASE_LOST = 5
    INCOMPLETE = 6
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """What is written to stderr, and the exit code."""

    message: str
    hint: str
    code: int

    def lines(self) -> str:
        """The two lines a user sees.

        >>> print(Failure("no such thing", "try another", 2).lines())
        error: no such thing
        hint: try another
        """
        return f"error: {one_line(self.message)}\nhint: {one_line(self.hint)}"


class NothingFound(DhtosError):
    """The question was understood and nothing matches."""


class Incomplete(DhtosError):
    """The answer is not complete and the caller insisted that it be."""


class WrongAnswer(DhtosError):
    """An answer of the demo is not what brute force says."""


_HELP = "dhtos-node --help lists the commands, dhtos-node COMMAND --help their options"


def explain(error: BaseException) -> Failure:
    """The failure that stands for an error.

    >>> explain(Refused("the machine is draining: try another"))
    Failure(message='the machine is draining', hint='try another', code=<Exit.REFUSED: 4>)
    """
    match error:
        case click.ClickException():
            return _explain_click(error)
        case KeyboardInterrupt() | click.Abort():
            return Failure("interrupted", "nothing was left behind", Exit.INTERRUPTED)
        case DhtosError():
            return _explain_own(error)
        case BrokenPipeError():
            return Failure("the reader of the output went away", "", Exit.FAULT)
        case OSError(filename=str() as name):
            return Failure(f"{name}: {error.strerror}", "check the path and its rights", Exit.USAGE)
        case OSError() | TimeoutError():
            return Failure(str(error) or type(error).__name__, "check the network", Exit.USAGE)
        case _:
            return Failure(
                f"a fault of dhtos itself: {type(error).__name__}: {error}",
                "run it again with DHTOS_TRACEBACK=1 in the environment and report what it shows",
                Exit.FAULT,
            )


def _explain_own(error: DhtosError) -> Failure:
    message, advice = advise(error)
    match error:
        case NothingFound():
            return Failure(message, advice or "ask for less", Exit.NOTHING)
        case Incomplete():
            return Failure(message, advice or "ask again, or add --strict", Exit.INCOMPLETE)
        case WrongAnswer():
            return Failure(message, advice or "report it with its seed", Exit.FAULT)
        case KeyNotFound() | NoCandidates():
            return Failure(message, advice, Exit.NOTHING)
        case ClaimsRefused() | Refused() | Conflict():
            return Failure(message, advice, Exit.REFUSED)
        case CannotStart():
            hint = advice or "check its name, and what is installed on that machine"
            return Failure(message, hint, error.code)
        case LeaseLost():
            return Failure(message, advice, Exit.LEASE_LOST)
    return Failure(message, advice or _HELP, Exit.USAGE)


def _explain_click(error: click.ClickException) -> Failure:
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    hint = f"{command} --help shows how" if command else _HELP
    if isinstance(error, click.NoSuchOption):
        message = f"no such option {error.option_name}"
        if error.possibilities:
            hint = f"did you mean {' or '.join(error.possibilities)}?"
    else:
        message, advice = split(message)
        hint = advice or hint
    return Failure(message[:1].lower() + message[1:], hint, Exit.USAGE)
