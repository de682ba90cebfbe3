"""Which cluster a node is of: one file of its state directory, and a `Member` made of it.

`membership.json` holds the cluster's name and the own chain of certificates; the key is the one of
`identity.json`. It appears when somebody makes a cluster or is admitted to one; a directory without
it is of a node in open mode.
"""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from dhtos.errors import ConfigError, MalformedMessage
from dhtos.node.config import format_endpoint
from dhtos.node.state import Identity, read_identity, write_atomically
from dhtos.trust.cert import Chain, parse_chain
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.revocation import Revocation, read_revocation, write_revocation
from dhtos.trust.token import Token, root_hash
from dhtos.trust.welcome import Welcome, read_welcome, write_welcome

NAME = "membership.json"
REVOKED = "revoked.json"
WELCOMES = "welcomes.json"
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Membership:
    """An own chain of certificates, and where to ask first."""

    chain: Chain
    seeds: tuple[str, ...] = ()
    visited: bytes = b""  # the name of another cluster, to which it is shown

    @property
    def root(self) -> bytes:
        """The cluster's name: the hash of its root's public key."""
        return root_hash(self.chain.root)

    def visit(self, token: Token) -> "Membership":
        """The same chain, to be shown in the cluster of a token."""
        if token.root == self.root:
            raise ConfigError("visit names our own cluster: ask it without a token")
        return Membership(self.chain, tuple(map(format_endpoint, token.seeds)), token.root)

    def member(
        self,
        identity: Identity,
        *,
        wall_clock: Callable[[], float],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Member:
        """What the engine needs to speak as this member; raises ConfigError for what has ended."""
        member = Member(
            KeyPair(identity.secret),
            self.visited or self.root,
            entropy=entropy,
            wall_s=wall_clock,
            chain=self.chain,
        )
        try:
            member.check(self.chain)
        except MalformedMessage as error:
            raise ConfigError(
                f"this node's certificate is of no use: {error}; see `date`, or ask an issuer for "
                "a token and `dhtos-node join` again"
            ) from error
        return member


class _File(msgspec.Struct, forbid_unknown_fields=True):
    root: str
    chain: str
    seeds: list[str] = []


def read_membership(directory: Path, identity: Identity) -> Membership | None:
    """The membership kept in a state directory; None in open mode. Raises ConfigError."""
    path = directory / NAME
    try:
        check_private(directory)
        stored = msgspec.json.decode(path.read_bytes(), type=_File)
        chain = parse_chain(bytes.fromhex(stored.chain))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, MalformedMessage) as error:
        raise ConfigError(
            f"{path} is corrupt ({error}): `dhtos-node join` with a new token writes another"
        ) from error
    if chain.leaf.subject != identity.public_key:
        raise ConfigError(
            f"{path} is for another key than identity.json: the two belong together; restore the "
            "one that is missing, or `dhtos-node join` with a new token"
        )
    return Membership(chain, tuple(stored.seeds))


def check_private(path: Path) -> None:
    """Raise ConfigError for a file that others can read, or a directory that they can write to."""
    if os.name != "posix":
        return
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        if found.st_mode & 0o022:
            raise ConfigError(
                f"{path} holds keys and others can write to it: use chmod go-w {path}"
            )
    elif found.st_mode & 0o077:
        raise ConfigError(f"{path} is a secret that others can read: use chmod 600 {path}")


def default_home() -> Path:
    """Where a machine keeps its membership unless it is told otherwise (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "dhtos"


def member_home(directory: Path | None) -> Path | None:
    """The directory that was named, or the default one if it is a member's."""
    if directory is not None:
        return directory
    home = default_home()
    return home if is_member_home(home) else None


def is_member_home(directory: Path) -> bool:
    """Whether somebody who keeps its state there is a member of a cluster."""
    return (directory / NAME).exists()


def read_revoked(directory: Path) -> list[Revocation]:
    """The revocations that were known when they were written; raises ConfigError."""
    return _read_told(directory / REVOKED, read_revocation)


def read_welcomes(directory: Path) -> list[Welcome]:
    """What was known of other clusters when it was written; raises ConfigError."""
    return _read_told(directory / WELCOMES, read_welcome)


def _read_told(path: Path, read: Callable[[bytes], Told]) -> list[Told]:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=list[bytes])
        return [read(wire) for wire in stored]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, MalformedMessage) as error:
        raise ConfigError(
            f"{path} is corrupt ({error}): move it away, and members tell of them again"
        ) from error


def write_revoked(directory: Path, revoked: Iterable[Revocation]) -> None:
    """Keep what is revoked: a restart must not let anybody in again."""
    _write_told(directory / REVOKED, map(write_revocation, revoked))


def write_welcomes(directory: Path, welcomes: Iterable[Welcome]) -> None:
    """Keep who is welcome, and who is no more."""
    _write_told(directory / WELCOMES, map(write_welcome, welcomes))


def _write_told(path: Path, told: Iterable[bytes]) -> None:
    write_atomically(path, msgspec.json.encode(list(told)) + b"\n")


def admitted(
    identity: Identity, membership: Membership | None
) -> tuple[Identity, Membership | None]:
    """The identity as its cluster knows it: the issuer's nonce decides the id."""
    if membership is None:
        return identity, None
    nonce = membership.chain.leaf.nonce
    return Identity(identity.secret, identity.public_key, nonce), membership


def read_credentials(directory: Path) -> tuple[Identity, Membership]:
    """A key and its membership, of a directory that nobody locks; raises ConfigError."""
    identity = read_identity(directory)
    membership = None if identity is None else read_membership(directory, identity)
    if identity is None or membership is None:
        raise ConfigError(
            f"credentials {directory} holds no identity.json and membership.json: "
            "`dhtos-node join TOKEN --state-dir` writes both"
        )
    return Identity(identity.secret, identity.public_key, membership.chain.leaf.nonce), membership


def write_membership(directory: Path, membership: Membership) -> None:
    """Keep a membership."""
    file = _File(membership.root.hex(), membership.chain.wire.hex(), list(membership.seeds))
    write_atomically(directory / NAME, msgspec.json.encode(file) + b"\n")
