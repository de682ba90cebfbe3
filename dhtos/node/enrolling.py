"""Being admitted, and admitting, on a running loop: `dhtos.protocol.enrol` with what it needs."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from dhtos.errors import ConfigError, Refused, Unreachable, UsageError
from dhtos.node.address import resolve
from dhtos.node.authority import Issuer, Unknown
from dhtos.node.background import Background
from dhtos.node.config import format_endpoint, parse_endpoint
from dhtos.node.keeper import Keeper
from dhtos.node.login import lend_again, lend_to
from dhtos.node.membership import Membership, read_membership, write_membership
from dhtos.node.root import Locked, where_is_root
from dhtos.node.ssh_agent import AgentKey
from dhtos.node.state import Identity, StateDir
from dhtos.protocol.engine import Engine, EngineConfig
from dhtos.protocol.enrol import Enrolment, Request, admitted, declined, enrol, request_of
from dhtos.protocol.renewal import Renewal, ask_renewal, is_due
from dhtos.protocol.rpc import Core, Deferred
from dhtos.transport.driver import Driver, clock_of
from dhtos.transport.udp import UdpSocket
from dhtos.trust.cert import Chain
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.token import Token

if TYPE_CHECKING:
    from dhtos.node.node import Node

WallClock = Callable[[], float]
RENEWAL_INTERVAL_S = 60.0


class Admission:
    """Answers those who ask to be admitted: an issuer's files are written on a thread."""

    def __init__(self, core: Core, issuer: Issuer | None, flush: Callable[[], None]) -> None:
        self.issuer: Issuer | None = None
        self.on_admitted: Callable[[Chain], None] = lambda _: None  # also of those renewed
        self._core = core
        self.background = Background()
        self._flush = flush
        self._enrolment = Enrolment(core, None)
        self._renewal = Renewal(core, None)
        if issuer is not None:
            self.begin(issuer)

    def begin(self, issuer: Issuer) -> None:
        """Admit from now on: by this issuer, which may be one since a moment ago."""
        self.issuer = issuer
        self._enrolment.admit = self._admit
        self._renewal.renew = self._renew

    async def aclose(self) -> None:
        """Admit nobody more."""
        await self.background.aclose()

    def _admit(self, request: Request) -> Deferred:
        assert self.issuer is not None
        admit = self.issuer.admit
        secret, public, name = request.secret, request.public, request.name
        return self._later(lambda: admit(secret, public, name, in_agent=bool(request.session)))

    def _renew(self, chain: Chain) -> Deferred:
        assert self.issuer is not None
        renew = self.issuer.renew
        return self._later(lambda: renew(chain))

    def _later(self, issue: Callable[[], Chain]) -> Deferred:
        deferred = Deferred()
        self.background.spawn(self._answer(issue, deferred))
        return deferred

    async def _answer(self, issue: Callable[[], Chain], deferred: Deferred) -> None:
        counters = self._core.counters
        try:
            chain = await asyncio.to_thread(issue)
        except Refused as refused:
            counters["enrolments_refused"] += 1
            reply = declined(str(refused), final=not isinstance(refused, Unknown))
        except ConfigError:  # the log takes nothing: its owner's matter, with paths of that machine
            counters["enrolments_failed"] += 1
            reply = declined("this issuer cannot write down who comes: tell its owner", final=False)
        else:
            counters["enrolments_granted"] += 1
            reply = admitted(chain)
            self.on_admitted(chain)
        self._core.answer(deferred, reply)
        self._flush()


async def open_admission(
    keeper: Keeper, directory: Path | None, driver: Driver, wall_clock: WallClock
) -> Admission:
    """Answer those who come to this member: as an issuer, or with why it admits nobody."""
    engine, issuer = driver.engine, None
    assert isinstance(engine, Engine)
    assert keeper.membership is not None
    chain = keeper.membership.chain
    if directory is not None and chain.leaf.may("issue"):
        key = KeyPair(keeper.identity.secret)
        issuer = await asyncio.to_thread(Issuer, directory, key, chain, wall_s=wall_clock)
    return Admission(engine.core, issuer, driver.flush)


async def keep_certificate(node: "Node", wall_clock: WallClock) -> None:
    """Renew the certificate of a running member or user when half of its term is over; for ever.

    A failure is tried again, and told once. A visitor's is renewed at home.
    """
    if node.membership is not None and node.membership.visited:
        return
    told = ""
    while True:
        membership = node.membership
        assert membership is not None
        chain, wall_s = membership.chain, wall_clock()
        due = is_due(chain.principal, wall_s) or is_due(chain.leaf, wall_s)
        if due or _is_outdated(node, chain):
            failure = await _renew(node, membership, wall_clock)
            if due and failure not in ("", told):
                end = datetime.fromtimestamp(chain.expires, UTC)
                node.on_warning(
                    f"the certificate ends {end:%Y-%m-%d %H:%M} UTC, not renewed yet: {failure}"
                )
            told = failure
        await asyncio.sleep(RENEWAL_INTERVAL_S)


def _is_outdated(node: "Node", chain: Chain) -> bool:
    """Whether there is another root by now, of which a certificate is to be had."""
    sessions = node.engine.core.sessions
    assert sessions is not None
    return sessions.member.is_outdated(chain)


async def _renew(node: "Node", membership: Membership, wall_clock: WallClock) -> str:
    """By the root where it is here, else by the issuers that are known; why not, or nothing."""
    issuer = None if node.admission is None else node.admission.issuer
    if issuer is not None:
        try:
            own = await asyncio.to_thread(issuer.renew_itself, membership, wall_clock())
        except Locked as error:
            return str(error)
        if own is not None:
            await node.renewed(own)
            return ""
    core = node.engine.core
    assert core.sessions is not None
    issuers = [*core.sessions.issuers(), *map(parse_endpoint, membership.seeds)]
    chain = membership.chain.lender if membership.chain.is_lent else membership.chain
    try:
        if is_due(chain.leaf, wall_clock()) or _is_outdated(node, chain):
            chain = await node.driver.wait(ask_renewal(core, issuers, node.driver.clock()))
        if membership.chain.is_lent:
            public = membership.chain.leaf.subject
            chain = await asyncio.to_thread(lend_again, chain, public, wall_clock())
    except (Refused, Unreachable, UsageError) as error:
        if issuer is None:
            return str(error)
        return f"the root is not here: restore root.json from a backup, or start its node ({error})"
    await node.renewed(chain)
    if issuer is not None:
        issuer.go_on(chain)
    return ""


async def join_cluster(
    directory: Path,
    token: Token,
    *,
    host: str,
    name: str,
    wall_clock: WallClock,
    agent_key: AgentKey | None = None,
) -> Membership:
    """Be admitted with a token and keep the membership; raises what `enrol` and ConfigError say.

    With a key of an agent its owner is admitted, who lends to the key in the directory.
    """
    if token.is_visit:
        raise UsageError(
            "this token is for visitors, who stay in their own cluster: ask with --visit TOKEN"
        )
    state = await asyncio.to_thread(StateDir, directory)
    try:
        identity, known = await asyncio.to_thread(_who, state, token)
        session, cluster, secret = KeyPair(identity.secret), token.root, token.secret
        request = await asyncio.to_thread(
            request_of, session, cluster, secret, name, holder=agent_key
        )
        chain = await ask_to_join(identity, token, request, host=host, wall_clock=wall_clock)
        if known is not None and known.chain.leaf.is_node != chain.leaf.is_node:
            kind = "a node" if known.chain.leaf.is_node else "a user"
            raise ConfigError(
                f"state_dir {directory} is of {kind}, {known.chain.leaf.name!r}, and the token is "
                "not for one: choose another with --state-dir"
            )
        if agent_key is not None:
            public, wall_s = identity.public_key, wall_clock()
            chain = await asyncio.to_thread(lend_to, agent_key, chain, public, wall_s)
        membership = Membership(chain, tuple(map(format_endpoint, token.seeds)))
        await asyncio.to_thread(write_membership, directory, membership)
        return membership
    finally:
        state.close()


def _who(state: StateDir, token: Token) -> tuple[Identity, Membership | None]:
    """The identity of a directory, and its membership if it may be replaced."""
    identity = state.identity()
    known = read_membership(state.path, identity)
    if known is None:
        return identity, None
    if known.root != token.root:
        raise ConfigError(
            f"state_dir {state.path} is already a member of another cluster, "
            f"{known.root.hex()[:12]}: choose another with --state-dir"
        )
    if where_is_root(state.path) != "none":
        raise ConfigError(
            f"state_dir {state.path} made this cluster and needs no token: start it with "
            "dhtos-node up"
        )
    return identity, known


async def ask_to_join(
    identity: Identity,
    token: Token,
    request: Request,
    *,
    host: str,
    wall_clock: WallClock,
    rng: Random | None = None,
) -> Chain:
    """Ask whom a token names for a chain, from a port of its own that is then closed."""
    member = Member(KeyPair(identity.secret), token.root, entropy=os.urandom, wall_s=wall_clock)
    loop = asyncio.get_running_loop()
    clock = clock_of(loop)
    sock = UdpSocket(host, 0)
    try:
        seeds = await resolve([format_endpoint(seed) for seed in token.seeds], sock)
        engine = Engine(
            identity.node_id,
            rng=rng or Random(SystemRandom().getrandbits(64)),
            now=clock(),
            config=EngineConfig(client=True),
            member=member,
        )
        driver = Driver(engine, sock, loop, clock)
    except BaseException:
        sock.close()
        raise
    try:
        return await driver.wait(enrol(engine.core, seeds, request, driver.clock()))
    finally:
        await driver.aclose()


async def make_token(node: "Node", **promise: Any) -> Token:  # noqa: ANN401 - of Issuer.invite
    """A token that leads to this node; `promise` is that of `Issuer.invite`. Raises UsageError."""
    issuer = issuer_of(node)
    assert node.membership is not None, "an issuer is a member"
    secret = await asyncio.to_thread(issuer.invite, **promise)
    return Token(node.membership.root, secret, (node.advert.endpoint,))


def issuer_of(node: "Node") -> Issuer:
    """Who admits for a started node; raises UsageError where nobody does."""
    if node.membership is None:
        raise UsageError(
            "this node is in open mode, which anybody may join: start a cluster with dhtos-node up"
        )
    if node.admission is None or node.admission.issuer is None:
        raise UsageError(
            "this node admits nobody: give the command on an issuer, as the machine that made the "
            "cluster, or make this one such with dhtos-node promote there"
        )
    return node.admission.issuer
