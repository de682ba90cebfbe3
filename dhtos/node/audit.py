"""Who was let in, who was turned away and who was put out: a log in which nothing can be changed.

`audit.jsonl` in the state directory of an issuer, a line for each event:

    {"number": 3, "at": 1789000000.5, "what": "admitted", ..., "hash": "..."}

`hash` is over the hash of the line before and the line itself, so whoever knows the last one knows
whether any line was changed, taken out or put in since; a last line without its end is of a
crash, and does not count. A log with a bound moves the full file aside, over the one that was moved
before, and begins another, whose first line names the last hash of the full one. It does not keep
the owner of the file from writing all of it anew: compare the last hash with one that was noted
elsewhere.

Everything here blocks for the disk.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import Any, Literal

import msgspec

from dhtos.errors import ConfigError

NAME = "audit.jsonl"
What = Literal[
    "invited",
    "uninvited",
    "admitted",
    "refused",
    "renewed",
    "promoted",
    "rotated",
    "revoked",
    "welcomed",
    "unwelcomed",
]

_CONTINUED = "continued"
_HASH_BYTES = 16
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class AuditLog:
    """The log of one directory, open to append; raises ConfigError for one that does not verify.

    With `bytes_max` no file is longer than that, and the one before is all that is kept beside it.
    """

    def __init__(
        self,
        directory: Path,
        wall_s: Callable[[], float],
        *,
        name: str = NAME,
        bytes_max: float = inf,
    ) -> None:
        self._path = directory / name
        self._wall_s = wall_s
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._number, self._last = 0, ""
        for entry in read_audit(directory, name):
            self._number, self._last = entry["number"], entry["hash"]
        self._cut()
        self._bytes = self._path.stat().st_size if self._path.exists() else 0

    def append(self, what: What, **facts: str | float | list[str]) -> None:
        """Write one event down, to the disk; raises ConfigError where that fails."""
        self.extend([{"at": self._wall_s(), "what": what, **facts}])

    def extend(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Write events down, each with what it is and when; raises ConfigError as `append`."""
        with self._lock:
            try:
                number, last, lines = self._number, self._last, b""
                if self._bytes > self._bytes_max:
                    self._path.replace(_before(self._path))
                    self._bytes = 0
                    events = [{"at": self._wall_s(), "what": _CONTINUED, "last": last}, *events]
                for facts in events:
                    number += 1
                    event = {"number": number, **facts}
                    last = _hash(last, event)
                    lines += _encode({**event, "hash": last}) + b"\n"
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
                    file.write(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from error
            self._number, self._last = number, last
            self._bytes += len(lines)

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
            return list(read_audit(self._path.parent, self._path.name))


def read_audit(directory: Path, name: str = NAME) -> Iterator[dict[str, Any]]:
    """The events of a directory's log, each verified; none where there is no log.

    Raises ConfigError at the first line that is not what was written after the one before it.
    """
    path = directory / name
    number, last = 0, ""
    for one in (_before(path), path):
        for at, line in enumerate(_lines(one), 1):
            try:
                entry = _decode(line)
            except msgspec.DecodeError:
                entry = {}
            told = entry.pop("hash", None)
            if at == 1 and not number and entry.get("what") == _CONTINUED:
                number, last = entry.get("number", 0) - 1, entry.get("last", "")  # what was before
            if entry.get("number") != number + 1 or told != _hash(last, entry):
                raise ConfigError(
                    f"{one} was changed: line {at} does not follow the one before it; restore it "
                    "from a backup, or move it away and note that what it said is lost"
                )
            number, last = number + 1, told
            yield {**entry, "hash": told}


def _lines(path: Path) -> list[bytes]:
    """All that are whole; none where there is no file."""
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return whole.splitlines()


def _before(path: Path) -> Path:
    """Where the full file of a log with a bound is."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _hash(last: str, event: dict[str, Any]) -> str:
    return blake2b(last.encode() + _encode(event), digest_size=_HASH_BYTES).hexdigest()
