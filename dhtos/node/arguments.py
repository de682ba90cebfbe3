"""The arguments of an op on the control socket: taken one by one, each of its type, none left."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from dhtos.errors import UsageError

Args = dict[str, Any]
Lines = AsyncIterator[dict[str, Any]]
T = TypeVar("T")


def take(args: Args, name: str, kind: type[T], default: T | None = None) -> T:
    """Take one argument out of `args`; raises UsageError if it is missing or of another type."""
    if name not in args and default is not None:
        return default
    if name not in args:
        raise UsageError(f"the argument {name!r} is missing")
    value = args.pop(name)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
        came = type(value).__name__
        raise UsageError(f"the argument {name!r} must be of type {kind.__name__}, got {came}")
    return value


def no_more(args: Args) -> None:
    """Raise UsageError for what nobody took."""
    if args:
        raise UsageError(f"unknown arguments: {', '.join(map(repr, args))}")


def from_base64(name: str, text: str) -> bytes:
    """The bytes of an argument; raises UsageError."""
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        raise UsageError(f"the argument {name!r} is not base64") from error


def texts(args: Args, name: str) -> list[str]:
    """Take a list of texts, by default an empty one; raises UsageError for anything else."""
    found = take(args, name, list, [])
    if not all(isinstance(text, str) for text in found):
        raise UsageError(f"the argument {name!r} must be a list of texts")
    return found
