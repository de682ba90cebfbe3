"""Making a cluster in a state directory, once."""

from pathlib import Path

from dhtos.errors import ConfigError
from dhtos.node.authority import make_cluster, read_root, renew_issuer
from dhtos.node.membership import read_membership
from dhtos.node.state import StateDir


def found_cluster(directory: Path, name: str, wall_s: float) -> bool:
    """Make a cluster there unless there is one; whether it was made now. Blocks for the disk.

    Raises ConfigError for a directory in use, or of a member of somebody else's cluster.
    """
    with StateDir(directory) as state:
        identity = state.identity()
        membership = read_membership(directory, identity)
        root = read_root(directory)
        if membership is None and root is None:
            make_cluster(directory, identity, name, wall_s)
            return True
        if membership is None:
            raise ConfigError(
                f"{directory} has the root of a cluster and no membership.json: restore it from a "
                "backup, or choose another directory with --state-dir"
            )
        if root is None:
            raise ConfigError(
                f"{directory} has joined a cluster that was made elsewhere: start its node with "
                "dhtos-node run, or choose another directory with --state-dir"
            )
        renew_issuer(directory, membership, wall_s)
        return False
