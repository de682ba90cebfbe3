"""What went wrong and what to do about it: the words of an error, wherever it is shown."""

import re

from dhtos.errors import (
    ClaimsRefused,
    ConfigError,
    Conflict,
    DhtosError,
    KeyNotFound,
    LeaseLost,
    NoCandidates,
    NoPeers,
    PredicateError,
    Refused,
    Unreachable,
)

_VERBS = (
    "ask|choose|copy|did you mean|give|known|leave|move|restore|see|shorten|start|tell|try|unlock|"
    "use"
)
_ADVICE = re.compile(rf"(?:; |: | \()(?=(?:{_VERBS}) )")


def advise(error: DhtosError) -> tuple[str, str]:
    """The fact and the advice; no advice where there is none that fits every such error.

    >>> advise(ConfigError("port 7400 is in use: choose another with --port"))
    ('port 7400 is in use', 'choose another with --port')
    """
    message, advice = split(str(error))
    if isinstance(error, PredicateError) and error.hint:
        advice = f"did you mean {error.hint}?"
    return message, advice or _usual(error)


def _usual(error: DhtosError) -> str:
    match error:
        case PredicateError():
            return 'write it like "cores >= 8 and mem >= 32GiB"'
        case KeyNotFound():
            return "put it first, or check the spelling"
        case NoCandidates():
            return "ask for less; dhtos-node explain says what is short"
        case ClaimsRefused():
            return "try again in a moment"
        case LeaseLost():
            return "stop what it covered"
        case Refused() | Conflict():
            return "ask another node"
        case NoPeers():
            return "check the address and that UDP reaches it"
        case Unreachable():
            return "try again in a moment"
        case ConfigError():
            return "dhtos-node config shows every setting"
    return ""


def split(text: str) -> tuple[str, str]:
    """The fact and the advice of a message that carries both."""
    found = _ADVICE.search(text)
    if found is None:
        return text, ""
    advice = text[found.end() :]
    return text[: found.start()], advice.removesuffix(")") if "(" in found.group() else advice


def one_line(text: str) -> str:
    """No message may break the line, nor hide what follows it."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
