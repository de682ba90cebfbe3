"""A user whose key stays in ssh-agent: it lends what it may to the key of a directory, for hours.

    root -> issuer -> alice, whose key is in the agent -> the key in identity.json, for LENT_S

Sessions need a key at hand, and an agent only signs. So the directory has a key of its own, which
whoever steals it can use until the evening; the agent is asked again when half of that is over,
without a word where it is there. A certificate of the user's own is renewed over the network as
that of a machine is (`dhtos.protocol.renewal`).

Everything here blocks for the disk and for the agent.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dhtos.errors import Unreachable
from dhtos.node.membership import Membership, read_credentials, write_membership
from dhtos.node.ssh_agent import AgentKey, agent_keys, held_key
from dhtos.node.state import Identity
from dhtos.protocol.renewal import is_due
from dhtos.trust.cert import SERIAL_BYTES, Chain, lend

LENT_S = 12 * 3600


def read_login(directory: Path, wall_clock: Callable[[], float]) -> tuple[Identity, Membership]:
    """The key and membership of a directory, lent anew where less than half of the time is left.

    Raises ConfigError as `read_credentials`, Unreachable where the time is over and no agent lends.
    """
    identity, membership = read_credentials(directory)
    chain, wall_s = membership.chain, wall_clock()
    if not chain.is_lent or not is_due(chain.leaf, wall_s):
        return identity, membership
    try:
        again = replace(membership, chain=lend_again(chain.lender, identity.public_key, wall_s))
    except Unreachable:
        if wall_s < chain.leaf.expires:
            return identity, membership  # whoever logs out may still finish his work
        raise
    write_membership(directory, again)
    return identity, again


def lend_again(above: Chain, public: bytes, wall_s: float) -> Chain:
    """The chain of a directory's key, by the agent that holds the user's; raises Unreachable."""
    return lend_to(held_key(agent_keys(), above.leaf.subject), above, public, wall_s)


def lend_to(key: AgentKey, above: Chain, public: bytes, wall_s: float) -> Chain:
    """The chain of a directory's key, by this key of an agent."""
    serial, begin = os.urandom(SERIAL_BYTES), int(wall_s)
    return lend(key, above, public, serial=serial, begin=begin, lifetime_s=LENT_S)
