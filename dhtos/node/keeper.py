"""Who a node is and whom it knew, with a state directory or without one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dhtos.core.ids import Endpoint
from dhtos.errors import ConfigError
from dhtos.node.config import Config, parse_endpoint
from dhtos.node.kept import Item
from dhtos.node.membership import (
    Membership,
    admitted,
    read_membership,
    read_revoked,
    read_welcomes,
    write_membership,
    write_revoked,
    write_welcomes,
)
from dhtos.node.state import SEQ_RESERVE, Identity, StateDir, open_state
from dhtos.protocol.engine import Engine
from dhtos.trust.revocation import Revocation
from dhtos.trust.token import Token
from dhtos.trust.welcome import Welcome

if TYPE_CHECKING:
    from dhtos.trust.cert import Chain
    from dhtos.trust.member import Member


class Keeper:
    """The identity of a node, and what it saves between two runs."""

    def __init__(
        self,
        identity: Identity,
        state: StateDir | None = None,
        contacts: Sequence[Endpoint] = (),
        first_seq: int = 1,
        *,
        membership: Membership | None = None,
        revoked: Sequence[Revocation] = (),
        welcomes: Sequence[Welcome] = (),
        home: Path | None = None,
    ) -> None:
        self.identity = identity
        self.membership = membership
        self._home = home  # where the membership is kept
        self._revoked = {one.serial: one for one in revoked}
        self._welcomes = {one.cluster: one for one in welcomes}
        self.contacts = list(contacts)
        self.first_seq = first_seq
        self._state = state
        self._seq_bound = first_seq + SEQ_RESERVE

    @classmethod
    async def open(
        cls, path: Path | None, wall_clock: Callable[[], float], credentials: Path | None = None
    ) -> "Keeper":
        """Open a state directory, or be somebody new; raises ConfigError.

        With `credentials` the key and the membership are those of that directory.
        """
        return await asyncio.to_thread(cls._open, path, wall_clock, credentials)

    def visit(self, config: Config) -> None:
        """Show the membership of a client to the cluster it visits; raises ConfigError."""
        if not config.client or not config.visit:
            return
        if self._state is not None:
            raise ConfigError("visit: a visitor keeps nothing: use credentials, and no state_dir")
        if self.membership is None:
            raise ConfigError(
                "visit needs a membership to show: join a cluster first, or name the directory of "
                "one with credentials"
            )
        self.membership = self.membership.visit(Token.parse(config.visit))

    @classmethod
    def _open(
        cls, path: Path | None, wall_clock: Callable[[], float], credentials: Path | None
    ) -> "Keeper":
        shown = None
        if credentials is not None:
            from dhtos.node.login import read_login  # with what most nodes have no use for

            shown = read_login(credentials, wall_clock)
        if path is None:
            identity, membership = shown or (Identity.generate(), None)
            return cls(identity, membership=membership, home=credentials)
        state, identity, contacts, first_seq = open_state(path, wall_clock)
        try:
            membership = read_membership(path, identity)
            revoked = () if membership is None else read_revoked(path)
            welcomes = () if membership is None else read_welcomes(path)
        except BaseException:
            state.close()
            raise
        identity, membership = shown or admitted(identity, membership)
        return cls(
            identity, state, contacts, first_seq, membership=membership, revoked=revoked,
            welcomes=welcomes, home=credentials or path,
        )  # fmt: skip

    def member(self, wall_clock: Callable[[], float]) -> "Member | None":
        """Who we are in our cluster; None in open mode. Raises ConfigError where that has ended."""
        if self.membership is None:
            return None
        member = self.membership.member(self.identity, wall_clock=wall_clock)
        member.restore(self._revoked.values(), self._welcomes.values())
        return member

    async def renewed(self, chain: "Chain") -> None:
        """Keep a new chain of certificates for the same key."""
        assert self.membership is not None
        self.membership = replace(self.membership, chain=chain)
        if self._home is not None:
            await asyncio.to_thread(write_membership, self._home, self.membership)

    @property
    def seeds(self) -> list[Endpoint]:
        """Where the token said to ask; none in open mode."""
        return [] if self.membership is None else [*map(parse_endpoint, self.membership.seeds)]

    @property
    def warnings(self) -> Sequence[str]:
        """What is wrong with the directory, but did not stop us."""
        return () if self._state is None else tuple(self._state.warnings)

    async def save(self, engine: Engine) -> None:
        """Write down whom we know, and that versions up to a bound may have been told."""
        state = self._state
        if state is None:
            return
        contacts = engine.base.contacts()
        if contacts:
            await asyncio.to_thread(state.save_contacts, contacts)
        sessions = engine.core.sessions
        if sessions is not None and sessions.member.revoked.keys() != self._revoked.keys():
            self._revoked = dict(sessions.member.revoked)
            await asyncio.to_thread(write_revoked, state.path, self._revoked.values())
        if sessions is not None and sessions.member.welcomes != self._welcomes:
            self._welcomes = dict(sessions.member.welcomes)
            await asyncio.to_thread(write_welcomes, state.path, self._welcomes.values())
        hub = engine.hub
        told = max(hub.own.seq if hub.own is not None else 0, hub.rows.seq_told)
        if told > self._seq_bound - SEQ_RESERVE // 2:
            self._seq_bound = SEQ_RESERVE + await asyncio.to_thread(state.reserve_seq, told + 1)

    async def kept(self) -> list[Item]:
        """What the last run kept alive in the network."""
        return [] if self._state is None else await asyncio.to_thread(self._state.kept)

    def save_kept(self, items: list[Item]) -> None:
        """Remember what is kept alive. Blocks for the disk."""
        if self._state is not None:
            self._state.save_kept(items)

    def close(self) -> None:
        """Let others open the directory."""
        if self._state is not None:
            self._state.close()
