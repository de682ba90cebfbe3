"""The root of a cluster, on the disk of the node that has it: one key that makes issuers.

    root.json      the seed, or what a passphrase opens to it; how many issuers it makes by itself;
                   and where it came after another root, the successions from the first one on

Whoever has the seed is the cluster. It is read where it is needed and kept in no memory, so that it
may be locked, or moved away, while the node runs. Everything here blocks for the disk, and where
the root is locked for half a second.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from dhtos.errors import ConfigError, MalformedMessage, UsageError
from dhtos.node.membership import Membership, check_private, write_membership
from dhtos.node.state import Identity, write_atomically
from dhtos.protocol.renewal import is_due
from dhtos.trust.cert import (
    NONCE_BYTES,
    SERIAL_BYTES,
    Cert,
    Chain,
    Verb,
    lineage,
    parse_lineage,
    sign_cert,
    succeed,
)
from dhtos.trust.keys import PUBLIC_BYTES, SEED_BYTES, KeyPair
from dhtos.trust.passphrase import open_with, seal_with

NAME = "root.json"
ISSUERS = 3  # that a new cluster makes by itself, the first node among them
ISSUERS_MADE_MAX = 64
ISSUER_S = 365 * 86_400
ROTATION_S_MIN = 600  # in which members have their certificates renewed by issuers of the new root
ISSUER_CAPS: tuple[Verb, ...] = ("query", "publish", "claim", "run", "issue", "admin")
PASSPHRASE = "DHTOS_PASSPHRASE"

Where = Literal["none", "open", "locked"]
Entropy = Callable[[int], bytes]


class Locked(UsageError):
    """A root is here, and needs a passphrase, or another one."""


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    seed: str = ""  # in the open, or
    sealed: str = ""  # under a passphrase
    public: str = ""
    issuers: int = 1
    line: str = ""  # from the root that names the cluster to this one, where that is another


def make_root(directory: Path, issuers: int, entropy: Entropy) -> KeyPair:
    """A new root that makes so many issuers by itself."""
    root = KeyPair(entropy(SEED_BYTES))
    _write(directory, _File(seed=root.seed.hex(), public=root.public.hex(), issuers=issuers))
    return root


def read_root(directory: Path, passphrase: str = "") -> KeyPair | None:
    """The root that is kept here, or None; raises ConfigError, and `Locked`."""
    file = _read(directory)
    if file is None:
        return None
    return _opened(directory, file, passphrase)


def where_is_root(directory: Path) -> Where:
    """Whether a root is here, and whether it is locked; raises ConfigError."""
    file = _read(directory)
    return "none" if file is None else "locked" if file.sealed else "open"


def issuers_wanted(directory: Path) -> int:
    """How many issuers the root that is here makes by itself; without it none."""
    file = _read(directory)
    return 0 if file is None else file.issuers


def want_issuers(directory: Path, count: int) -> None:
    """Let the root that is here make so many by itself from now on."""
    file = _read(directory)
    if file is not None and file.issuers != count:
        _write(directory, msgspec.structs.replace(file, issuers=count))


def lock_root(directory: Path, passphrase: str, *, entropy: Entropy = os.urandom) -> None:
    """Let only a passphrase open the root from now on; raises UsageError."""
    file = _needed(directory)
    if file.sealed:
        raise UsageError(f"{directory / NAME} is locked already: see dhtos-node root status")
    root = _opened(directory, file, "")
    sealed = seal_with(passphrase, root.seed, entropy).hex()
    change = {"seed": "", "sealed": sealed, "public": root.public.hex()}
    _write(directory, msgspec.structs.replace(file, **change))


def unlock_root(directory: Path, passphrase: str) -> None:
    """Keep the root in the open again; raises UsageError, `Locked` for another passphrase."""
    file = _needed(directory)
    if not file.sealed:
        raise UsageError(f"{directory / NAME} is not locked: see dhtos-node root status")
    root = _opened(directory, file, passphrase)
    _write(directory, msgspec.structs.replace(file, seed=root.seed.hex(), sealed=""))


def read_line(directory: Path) -> Chain | None:
    """From the root that names the cluster to the one that is here, also to a locked one."""
    file = _read(directory)
    if file is None:
        return None
    if not file.line:
        return lineage(_public(file))
    try:
        line = parse_lineage(bytes.fromhex(file.line))
    except (ValueError, MalformedMessage) as error:
        raise _corrupt(directory / NAME) from error
    if line.signer != _public(file):
        raise _corrupt(directory / NAME)
    return line


def rotate_root(
    directory: Path, passphrase: str, ends: int, *, entropy: Entropy = os.urandom
) -> Chain:
    """Put a new root in the place of the one that is here, whose word holds until `ends`.

    Returns the line to the new one, which is locked as the old one was. Raises UsageError.
    """
    file, line = _needed(directory), read_line(directory)
    assert line is not None
    old, new = _opened(directory, file, passphrase), KeyPair(entropy(SEED_BYTES))
    longer = succeed(old, line, new.public, ends)
    told = _File(public=new.public.hex(), issuers=file.issuers, line=longer.wire.hex())
    if file.sealed:
        told = msgspec.structs.replace(told, sealed=seal_with(passphrase, new.seed, entropy).hex())
    else:
        told = msgspec.structs.replace(told, seed=new.seed.hex())
    _write(directory, told)
    return longer


def issuer_chain(
    root: KeyPair,
    leaf: Cert,
    *,
    serial: bytes,
    wall_s: float,
    line: Chain | None = None,
    lifetime_s: int = ISSUER_S,
) -> Chain:
    """What makes somebody an issuer who has this certificate: the same key, id, name and groups."""
    begin = int(wall_s)
    cert = msgspec.structs.replace(
        leaf, serial=serial, caps=ISSUER_CAPS, not_before=begin, expires=begin + lifetime_s
    )
    return sign_cert(root, line, cert)


def make_cluster(
    directory: Path,
    identity: Identity,
    name: str,
    wall_s: float,
    *,
    issuers: int = 1,
    entropy: Entropy = os.urandom,
) -> Membership:
    """Make a root and be its first issuer; the directory then holds root and membership.

    The root makes so many `issuers` by itself, of the first machines that come.
    """
    root = make_root(directory, issuers, entropy)
    serial, nonce = entropy(SERIAL_BYTES), entropy(NONCE_BYTES)
    leaf = Cert(identity.public_key, nonce, serial, name, (), ISSUER_CAPS, 0, 1)
    chain = issuer_chain(root, leaf, serial=serial, wall_s=wall_s)
    membership = Membership(chain)
    write_membership(directory, membership)
    return membership


def renew_issuer(
    directory: Path, membership: Membership, wall_s: float, passphrase: str = ""
) -> Membership:
    """The membership of the node that holds the root, new where less than half of it is left.

    Raises `Locked` where it is due and the root needs a passphrase.
    """
    leaf, line = membership.chain.leaf, read_line(directory)
    if line is None or line.root != membership.chain.root:
        return membership
    rotations = len(line.heirs) - len(membership.chain.heirs)
    if rotations < 0 or (not is_due(leaf, wall_s) and not rotations):
        return membership
    root = read_root(directory, passphrase)
    assert root is not None
    chain = issuer_chain(root, leaf, serial=leaf.serial, wall_s=wall_s, line=line)
    renewed = Membership(chain, membership.seeds)
    write_membership(directory, renewed)
    return renewed


def no_root(directory: Path) -> UsageError:
    """What to say where the root is needed and is not here."""
    return UsageError(
        f"{directory} has no {NAME}, the key that makes issuers: give the command on the machine "
        "that made the cluster, or bring the file here for the time being"
    )


def _needed(directory: Path) -> _File:
    file = _read(directory)
    if file is None:
        raise no_root(directory)
    return file


def _read(directory: Path) -> _File | None:
    path = directory / NAME
    try:
        check_private(path)
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        sizes = (len(bytes.fromhex(file.seed)), len(bytes.fromhex(file.public)))
        bytes.fromhex(file.sealed)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise _corrupt(path) from error
    whole = sizes[0] == SEED_BYTES if not file.sealed else sizes == (0, PUBLIC_BYTES)
    if not whole:
        raise _corrupt(path)
    return file


def _corrupt(path: Path) -> ConfigError:
    return ConfigError(f"{path} is corrupt: restore it from a backup")


def _public(file: _File) -> bytes:
    return KeyPair(bytes.fromhex(file.seed)).public if file.seed else bytes.fromhex(file.public)


def _opened(directory: Path, file: _File, passphrase: str) -> KeyPair:
    if not file.sealed:
        return KeyPair(bytes.fromhex(file.seed))
    if not passphrase.strip():
        raise Locked(
            f"{directory / NAME} is locked: give its passphrase with --passphrase-file or in "
            f"{PASSPHRASE}, or use dhtos-node root unlock"
        )
    try:
        seed = open_with(passphrase, bytes.fromhex(file.sealed))
    except MalformedMessage as error:
        raise Locked(
            f"the passphrase does not open {directory / NAME}: try again, or restore it from a "
            "backup"
        ) from error
    root = KeyPair(seed) if len(seed) == SEED_BYTES else None
    if root is None or root.public.hex() != file.public:
        raise _corrupt(directory / NAME)
    return root


def _write(directory: Path, file: _File) -> None:
    try:
        write_atomically(directory / NAME, msgspec.json.encode(file) + b"\n")
    except OSError as error:
        raise ConfigError(f"{directory / NAME} cannot be written: {error.strerror}") from error
