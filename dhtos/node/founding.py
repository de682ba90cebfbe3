"""Making a cluster in a state directory, once."""

from contextlib import suppress
from pathlib import Path

from dhtos.errors import ConfigError
from dhtos.node.membership import read_membership
from dhtos.node.root import Locked, make_cluster, renew_issuer, want_issuers, where_is_root
from dhtos.node.state import StateDir


def found_cluster(directory: Path, name: str, wall_s: float, *, issuers: int | None = None) -> bool:
    """Make a cluster there unless there is one; whether it was made now. Blocks for the disk.

    Its root makes so many `issuers` by itself, of the first machines that come; without it one,
    or what it was told before. Raises ConfigError for a directory in use, or of a member of
    somebody else's cluster.
    """
    with StateDir(directory) as state:
        identity = state.identity()
        membership = read_membership(directory, identity)
        root = where_is_root(directory)
        if membership is None and root == "none":
            make_cluster(directory, identity, name, wall_s, issuers=issuers or 1)
            return True
        if membership is None:
            raise ConfigError(
                f"{directory} has the root of a cluster and no membership.json: restore it from a "
                "backup, or choose another directory with --state-dir"
            )
        if root == "none" and not membership.chain.leaf.may("issue"):
            raise ConfigError(
                f"{directory} has joined a cluster that was made elsewhere: start its node with "
                "dhtos-node run, or choose another directory with --state-dir"
            )
        if issuers is not None:
            want_issuers(directory, issuers)
        with suppress(Locked):  # the node says so when it runs
            renew_issuer(directory, membership, wall_s)
        return False
