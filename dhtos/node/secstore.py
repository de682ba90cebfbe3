"""Keys kept in the network: which files they are, and the node that puts them there.

Whoever has the passphrase computes place and key; the node of the machine only carries what is
sealed, and never learns either. What was put through a node is kept alive by it
(`dhtos.node.kept`) and removed through it. Everything of files blocks for the disk.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dhtos.errors import ConfigError, UsageError
from dhtos.node.arguments import Args, Lines, from_base64, no_more, take
from dhtos.node.kept import Item, Kept
from dhtos.node.membership import NAME as MEMBERSHIP
from dhtos.node.membership import read_credentials
from dhtos.trust.secstore import FILES_BYTES_MAX

if TYPE_CHECKING:
    from dhtos.node.node import Node

IDENTITY = "identity.json"
CREDENTIALS = (IDENTITY, MEMBERSHIP)
_PREFIX = "secret:"


# --- files ----------------------------------------------------------------------------------------


def read_home(home: Path) -> dict[str, bytes]:
    """The key and the certificates of a user; raises ConfigError and UsageError."""
    _, membership = read_credentials(home)
    if membership.chain.leaf.is_node:
        raise UsageError(
            f"{home} is of a node, and two with one key would be one node in two places: give "
            "--home of a user, or a file"
        )
    if membership.chain.is_lent:
        raise UsageError(
            f"the key of {membership.chain.principal.name!r} is in ssh-agent and not in {home}: "
            "give the file of that key instead"
        )
    return {name: (home / name).read_bytes() for name in CREDENTIALS}


def read_one(path: Path) -> dict[str, bytes]:
    """One file; raises ConfigError, and UsageError for one that is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(FILES_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > FILES_BYTES_MAX:
        raise UsageError(
            f"{path} is too large for a key store, which takes {FILES_BYTES_MAX} bytes: "
            "give a smaller file"
        )
    return {path.name: content}


def is_home(files: Mapping[str, bytes]) -> bool:
    """Whether these are the files of a user."""
    return sorted(files) == sorted(CREDENTIALS)


def write_home(home: Path, files: Mapping[str, bytes]) -> None:
    """Be who these files say, in a directory that is nobody's yet; raises ConfigError."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{home} cannot be made: {error.strerror}") from error
    for name in files:
        if (home / name).exists():
            raise _taken(home / name)
    for name, content in files.items():
        write_new(home / name, content)


def write_new(path: Path, content: bytes) -> None:
    """A new file for its owner only; raises ConfigError where there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _taken(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there and is not overwritten: choose another place, or move it")


# --- the node -------------------------------------------------------------------------------------


def secret_ops(node: "Node") -> dict[str, Callable[[Args], Lines]]:
    """Each op of the control socket by its name."""

    async def secret_put(args: Args) -> Lines:
        key, value = _key(args), from_base64("base64", take(args, "base64", str))
        no_more(args)
        result = await _kept(node).put(Item("secret", key, value))
        yield {"end": {"stored_on": result.stored_on, "wanted": result.wanted}}

    async def secret_remove(args: Args) -> Lines:
        key = _key(args)
        no_more(args)
        kept = _kept(node)
        if not kept.drop(key):
            raise UsageError(
                "this node keeps nothing under that name and passphrase: give the command on the "
                "machine where it was put"
            )
        await kept.save()
        await node.remove(key)
        yield {"end": {"removed": True}}

    return {"secret_put": secret_put, "secret_remove": secret_remove}


def _key(args: Args) -> str:
    key = take(args, "key", str)
    if not key.startswith(_PREFIX):
        raise UsageError(f"the argument 'key' must start with {_PREFIX!r}, got {key[:20]!r}")
    return key


def _kept(node: "Node") -> Kept:
    if node.kept_values is None:
        raise UsageError(
            "this node is in open mode, where anybody may replace what is kept: "
            "start a cluster with dhtos-node up"
        )
    return node.kept_values
