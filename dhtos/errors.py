"""Every error dhtos raises, as one tree.

The split says whose fault it is: the caller's (`UsageError`, `ConfigError`), a peer's
(`PeerError`), or nobody's (`Unreachable`). A strange datagram never raises out of the engine;
`MalformedMessage` is raised by the codec and caught, counted and dropped by the engine.
"""

from collections.abc import Mapping


class DhtosError(Exception):
    """The base of every error raised by dhtos."""


class UsageError(DhtosError):
    """The caller asked for something that cannot be: the message says what to ask instead."""


class ConfigError(UsageError):
    """A configuration, schema or state file says something that cannot be."""


class SchemaConflict(ConfigError):
    """Peers run another schema under the version number of ours: one of the two must change it."""


class PredicateError(UsageError):
    """A predicate cannot be read: names the token, its column and the nearest valid word."""

    def __init__(self, message: str, *, column: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.hint = hint


class ValueTooLarge(UsageError):
    """A value or record is over the limit of one datagram; nothing was stored anywhere."""


class KeyNotFound(DhtosError, KeyError):
    """No reachable node holds a value under this key."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class PeerError(DhtosError):
    """A peer broke the protocol."""


class MalformedMessage(PeerError):
    """A datagram or one of its fields is not what the wire format allows."""


class OtherSchema(MalformedMessage):
    """A record, or a change of one, was made under another schema: it is not ours to read."""


class Refused(PeerError):
    """A peer understood the request and declined it."""


class Unreachable(DhtosError):
    """Nobody's fault: the network did not answer."""


class NoPeers(Unreachable):
    """No other node is known, or none of the seeds answered."""


class LookupExpired(Unreachable):
    """The deadline of an operation passed before it had an answer."""


class NoCandidates(DhtosError):
    """No machine that was found can take a need; `reasons` counts the machines that each rules out.

    Where `complete` is false not everybody was heard, and others may be able to.
    """

    def __init__(
        self, message: str, reasons: Mapping[str, int] | None = None, *, complete: bool = True
    ) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})
        self.complete = complete


class ClaimsRefused(DhtosError):
    """Machines were able to take a need, and none of those that were asked granted it."""

    def __init__(self, message: str, reasons: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.reasons = dict(reasons or {})


class LeaseLost(DhtosError):
    """The node took a lease back, or was not heard for a whole term: stop what it covered."""


class Preempted(LeaseLost):
    """Something of a higher priority needs what was leased; `grace_s` seconds are left to stop."""

    def __init__(self, message: str, grace_s: float) -> None:
        super().__init__(message)
        self.grace_s = grace_s

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what made it."""
        return Preempted, (str(self), self.grace_s)


class EngineError(DhtosError):
    """What runs the work (Ray, Dask, Slurm) is missing, silent or unwilling: says what to do."""


class CannotStart(DhtosError):
    """A machine cannot start a command; `code` is what a shell would exit with, 127 or 126."""

    def __init__(self, message: str, *, code: int = 126) -> None:
        super().__init__(message)
        self.code = code


class Conflict(DhtosError):
    """A newer version exists, or in a cluster another owner has a value under the name."""


class Closed(DhtosError):
    """The node or the operation was closed while something still waited for it."""
