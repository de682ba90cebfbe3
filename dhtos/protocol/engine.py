"""The engine: a whole node without a socket, a clock or a thread.

Five verbs. `receive(datagram, source, now)` and `tick(now)` change state; `outbox()` and
`events()` drain what came of it; `next_deadline()` says when to tick again. A shell that owns a
socket and a clock (`dhtos.transport`), or the simulator (`dhtos.sim`), drives it; both see the
same code, so one seed replays one run.

The engine composes two overlays on one `Core`: the base overlay (exact keys, stock wire) and,
when it is given a schema, the hub (records, groups, range queries). Given a `Member` it is of a
cluster: all that leaves and arrives passes through `Sessions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import ALPHA, GROUP_SIZE, GROUP_SIZE_MAX, GROUP_SIZE_MIN, K
from dhtos.core.schema import Schema
from dhtos.errors import ConfigError
from dhtos.protocol.base import BaseOverlay
from dhtos.protocol.hub import Hub
from dhtos.protocol.operation import Event
from dhtos.protocol.rpc import Core

if TYPE_CHECKING:
    from random import Random

    from dhtos.protocol.revocations import Revocations
    from dhtos.trust.member import Member


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What may differ between engines of one network."""

    k: int = K
    alpha: int = ALPHA
    group_size: int = GROUP_SIZE
    client: bool = False
    other_schemas: tuple[Schema, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 64:
            raise ConfigError(f"k must be 1..64, got {self.k}")
        if not 1 <= self.alpha <= self.k:
            raise ConfigError(f"alpha must be 1..k ({self.k}), got {self.alpha}")
        if not GROUP_SIZE_MIN <= self.group_size <= GROUP_SIZE_MAX:
            raise ConfigError(
                f"group_size must be {GROUP_SIZE_MIN}..{GROUP_SIZE_MAX}, got {self.group_size}"
            )


class Engine:
    """One node: the base overlay, and the hub once a schema is given."""

    def __init__(
        self,
        node_id: bytes,
        *,
        rng: "Random",
        now: float,
        schema: Schema | None = None,
        config: EngineConfig | None = None,
        member: "Member | None" = None,
    ) -> None:
        assert len(node_id) == ID_BYTES
        self.id = node_id
        self.config = config or EngineConfig()
        self.core = core = Core(rng)
        self.counters = core.counters
        self._sealed: list[tuple[bytes, Endpoint]] = []
        if member is not None:
            from dhtos.protocol.sessions import Sessions  # with what open mode has no use for

            core.sessions = Sessions(member, core.timers, self._sealed, core.counters)
            core.sessions.on_open = core.calls.departed
            core.sessions.awaits = core.calls.awaits
            core.calls.keyless = core.sessions.keyless
        self.base = BaseOverlay(
            self.core,
            node_id,
            now,
            k=self.config.k,
            alpha=self.config.alpha,
            client=self.config.client,
        )
        size, others = self.config.group_size, self.config.other_schemas
        self._hub = (
            None
            if schema is None
            else Hub(self.core, node_id, schema, group_size=size, others=others)
        )
        self._revocations: Revocations | None = None
        if core.sessions is not None:
            from dhtos.protocol import revocations

            self._revocations = revocations.Revocations(core.sessions, self.base, self._hub, now)

    @property
    def hub(self) -> Hub:
        """The hub overlay; only an engine with a schema has one."""
        assert self._hub is not None, "the engine was made without a schema"
        return self._hub

    @property
    def revocations(self) -> "Revocations":
        """What is revoked; only an engine of a member knows."""
        assert self._revocations is not None, "the engine was made without a member"
        return self._revocations

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Take one datagram from the network; never raises for what a peer sent."""
        sessions = self.core.sessions
        plain = datagram if sessions is None else sessions.receive(datagram, source, now)
        if plain is not None:
            self.core.receive(plain, source, now)
        if self._hub is not None:
            self._hub.proceed(now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self.core.timers.run(now)
        if self._hub is not None:
            self._hub.proceed(now)

    def next_deadline(self) -> float:
        """When `tick` must be called next; infinity when nothing is pending."""
        return self.core.timers.next_deadline()

    def outbox(self) -> list[tuple[bytes, Endpoint]]:
        """Take the datagrams to send."""
        sending, sessions = self.core.sending, self.core.sessions
        if sessions is not None:
            if sending:
                sessions.seal(sending)
                sending.clear()
            sending = self._sealed
        taken = sending[:]
        sending.clear()
        return taken

    def events(self) -> list[Event]:
        """Take what happened since the last call."""
        happened = self.core.happened
        taken = happened[:]
        happened.clear()
        return taken

    def stats(self) -> Mapping[str, float]:
        """Counters and sizes, for people and metrics; every value only describes this node."""
        figures: dict[str, float] = dict(self.counters)
        figures["contacts"] = len(self.base.routing)
        figures["values"] = len(self.base.store)
        figures["peers"] = len(self.core.peers)
        figures["calls_open"] = len(self.core.calls)
        if self.core.sessions is not None:
            figures["sessions"] = len(self.core.sessions)
            figures["principals"] = len(self.core.sessions.shares)
        if self._hub is not None:
            figures |= self._hub.stats()
        return figures

    def check(self) -> None:
        """Assert every invariant of the engine and its overlays."""
        self.core.check()
        self.base.check()
        if self._hub is not None:
            self._hub.check()
