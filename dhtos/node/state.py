"""The state directory: what a node remembers between two runs.

Five files: `lock` (one daemon a directory), `identity.json` (the Ed25519 secret, mode 0600),
`contacts.json` (who was known, so that a restart needs no seed), `seq.json` (a bound that no
version number of the own record has reached) and, in a cluster, `kept.json` (what is kept alive in
the network). Each is written to a temporary file, synced and renamed, so a crash leaves the old one
or the new one.

A file that cannot be read is set aside as `<name>.corrupt-<n>`, never overwritten, and noted in
`warnings`; the node starts without it. The identity is the exception: a new one would be another
node, so a corrupt identity is a ConfigError that says what to do.

Everything here blocks for the disk; callers on an event loop go through a thread. A cancelled
caller leaves its thread running, so writers take turns, and one that is late writes nothing.
"""

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import STORED_CONTACTS_MAX
from dhtos.errors import Closed, ConfigError
from dhtos.node.kept import Item
from dhtos.trust.cert import node_id

SECRET_BYTES = 32
_IDENTITY = "identity.json"
SEQ_RESERVE = 1024  # versions a node may publish between two writes of `seq.json`
_CORRUPT_MAX = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: the id follows from the key, so nobody can choose an id."""

    secret: bytes
    public_key: bytes
    nonce: bytes = b""

    @property
    def node_id(self) -> bytes:
        """BLAKE2b-160 of the public key and the issuer's nonce."""
        return node_id(self.public_key, self.nonce)

    @classmethod
    def generate(cls, secret: bytes | None = None, nonce: bytes = b"") -> "Identity":
        """A new identity, or the one of a known secret."""
        from nacl.bindings import crypto_sign_seed_keypair

        secret = os.urandom(SECRET_BYTES) if secret is None else secret
        public_key, _ = crypto_sign_seed_keypair(secret)
        return cls(secret, public_key, nonce)

    def __repr__(self) -> str:
        return f"<Identity {self.node_id.hex()}>"


class _IdentityFile(msgspec.Struct, forbid_unknown_fields=True):
    secret: str
    nonce: str = ""


class _ContactsFile(msgspec.Struct):
    contacts: list[tuple[str, str, int]]


class _SeqFile(msgspec.Struct):
    seq: int


class _KeptFile(msgspec.Struct):
    kept: list[Item]


class StateDir:
    """An open state directory; raises ConfigError when it cannot be used or another node has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._writing = threading.RLock()
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: IO[bytes] | None = (path / "lock").open("ab")
        except OSError as error:
            raise ConfigError(f"state_dir {path} cannot be used: {error.strerror}") from error
        _take(self._lock, path)
        for leftover in path.glob(".*.json.*"):
            leftover.unlink()

    def identity(self) -> Identity:
        """The identity of this directory, made on the first run."""
        identity = read_identity(self.path)
        if identity is None:
            identity = Identity.generate()
            self._write(_IDENTITY, _IdentityFile(identity.secret.hex()))
        return identity

    def contacts(self) -> list[Contact]:
        """The contacts of the last run; none after a first start or a corrupt file."""
        stored = self._read("contacts.json", _ContactsFile)
        if stored is None:
            return []
        try:
            return [
                Contact(_id(text), (host, port))
                for text, host, port in stored.contacts[:STORED_CONTACTS_MAX]
                if 0 < port < 65536
            ]
        except ValueError as error:
            self._set_aside("contacts.json", error)
            return []

    def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Remember these contacts, up to the limit."""
        rows = [(c.id.hex(), *c.endpoint) for c in list(contacts)[:STORED_CONTACTS_MAX]]
        self._write("contacts.json", _ContactsFile(rows))

    def reserve_seq(self, least: int) -> int:
        """A version number no run has used, at least `least`; SEQ_RESERVE from it on are ours."""
        with self._writing:
            stored = self._read("seq.json", _SeqFile)
            seq = max(least, stored.seq if stored is not None and stored.seq > 0 else 1)
            self._write("seq.json", _SeqFile(seq + SEQ_RESERVE))
        return seq

    def kept(self) -> list[Item]:
        """What the last run kept alive; nothing after a first start or a corrupt file."""
        stored = self._read("kept.json", _KeptFile)
        return [] if stored is None else stored.kept

    def save_kept(self, items: list[Item]) -> None:
        """Remember what to keep alive."""
        self._write("kept.json", _KeptFile(items))

    def close(self) -> None:
        """Let another node have the directory; may be called again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError) as error:
            self._set_aside(name, error)
            return None

    def _set_aside(self, name: str, error: Exception) -> None:
        """Keep what cannot be read for whoever wants to look into it."""
        for n in range(1, _CORRUPT_MAX):
            aside = self.path / f"{name}.corrupt-{n}"
            if not aside.exists():
                (self.path / name).rename(aside)
                self.warnings.append(f"{self.path / name} was unreadable ({error}): see {aside}")
                return
        raise ConfigError(f"{self.path} holds {_CORRUPT_MAX} corrupt files: clean it up")

    def _write(self, name: str, content: msgspec.Struct) -> None:
        with self._writing:
            if self._lock is None:
                raise Closed(f"state_dir {self.path} is closed")
            write_atomically(self.path / name, msgspec.json.encode(content) + b"\n")


def read_identity(directory: Path) -> Identity | None:
    """The identity that is kept in a directory, None if it has none.

    Raises ConfigError for one that is corrupt, or that others than its owner can read.
    """
    path = directory / _IDENTITY
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} is a secret that others can read: use chmod 600 {path}")
        stored = msgspec.json.decode(path.read_bytes(), type=_IdentityFile)
        secret, nonce = bytes.fromhex(stored.secret), bytes.fromhex(stored.nonce)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        raise _corrupt_identity(path) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(secret) != SECRET_BYTES:
        raise _corrupt_identity(path)
    return Identity.generate(secret, nonce)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by its new content as a whole, readable only by its owner."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def _take(lock: IO[bytes], path: Path) -> None:
    """Lock the directory for this process; the kernel lets go when it dies."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"state_dir {path} is used by another node: choose another with --state-dir"
        ) from error


def _id(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes, got {len(raw)}")
    return raw


def open_state(
    path: Path, wall_clock: Callable[[], float]
) -> tuple[StateDir, Identity, list[Endpoint], int]:
    """The directory, who we are, whom we knew, and the first version we may tell."""
    state = StateDir(path)
    try:
        identity = state.identity()
        contacts = [contact.endpoint for contact in state.contacts()]
        # A lost count is replaced by one that an earlier run cannot have reached.
        seq = state.reserve_seq(int(wall_clock()) if state.warnings else 1)
    except BaseException:
        state.close()
        raise
    return state, identity, contacts, seq


def _corrupt_identity(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is corrupt: restore it from a backup, or move it away to start as a new node"
    )
