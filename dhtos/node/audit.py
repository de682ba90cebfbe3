"""Who was let in, who was turned away and who was put out: a log in which nothing can be changed.

`audit.jsonl` in the state directory of an issuer, a line for each event:

    {"number": 3, "at": 1789000000.5, "what": "admitted", ..., "hash": "..."}

`hash` is over the hash of the line before and the line itself, so whoever knows the last one knows
whether any line was changed, taken out or put in since; a last line without its end is of a
crash, and does not count. It does not keep the owner of the file
from writing all of it anew: compare the last hash with one that was noted elsewhere.

Everything here blocks for the disk.
"""

import os
import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec

from dhtos.errors import ConfigError

NAME = "audit.jsonl"
What = Literal["invited", "uninvited", "admitted", "refused", "renewed", "promoted", "revoked"]

_HASH_BYTES = 16
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class AuditLog:
    """The log of one directory, open to append; raises ConfigError for one that does not verify."""

    def __init__(self, directory: Path, wall_s: Callable[[], float]) -> None:
        self._path = directory / NAME
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._number, self._last = 0, ""
        for entry in read_audit(directory):
            self._number, self._last = entry["number"], entry["hash"]
        self._cut()

    def append(self, what: What, **facts: str | float | list[str]) -> None:
        """Write one event down, to the disk; raises ConfigError where that fails."""
        with self._lock:
            event = {"number": self._number + 1, "at": self._wall_s(), "what": what, **facts}
            found = _hash(self._last, event)
            line = _encode({**event, "hash": found}) + b"\n"
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error
            self._number, self._last = self._number + 1, found

    def _cut(self) -> None:
        """Drop half a line, which a crash has left: what it said had not happened yet."""
        try:
            with self._path.open("rb+") as file:
                whole, newline, rest = file.read().rpartition(b"\n")
                if rest:
                    file.truncate(len(whole) + len(newline))
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error

    def entries(self) -> list[dict[str, Any]]:
        """All events so far."""
        with self._lock:
            return list(read_audit(self._path.parent))


def read_audit(directory: Path) -> Iterator[dict[str, Any]]:
    """The events of a directory's log, each verified; none where there is no log.

    Raises ConfigError at the first line that is not what was written after the one before it.
    """
    path = directory / NAME
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    last = ""
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = _decode(line)
        except msgspec.DecodeError:
            entry = {}
        told = entry.pop("hash", None)
        if entry.get("number") != number or told != _hash(last, entry):
            raise ConfigError(
                f"{path} was changed: line {number} does not follow the one before it; restore it "
                "from a backup, or move it away and note that what it said is lost"
            )
        last = told
        yield {**entry, "hash": told}


def _hash(last: str, event: dict[str, Any]) -> str:
    return blake2b(last.encode() + _encode(event), digest_size=_HASH_BYTES).hexdigest()
