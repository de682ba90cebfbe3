"""A contact on the way of a lookup, and where it stands."""

from enum import Enum
from typing import TYPE_CHECKING

from dhtos.core.contact import Contact

if TYPE_CHECKING:
    from dhtos.protocol.calls import Call
    from dhtos.protocol.store import Held
    from dhtos.protocol.timers import Timer


class State(Enum):
    """Where a candidate stands; see the theory of operation of `lookup`."""

    QUEUED = "queued"
    ASKED = "asked"
    LATE = "late"
    LEFT = "left"
    ANSWERED = "answered"
    FAILED = "failed"


class Candidate:
    """A contact on the way, and the value it held if it held one.

    `teller` told of it, None where we knew it; the counts are of those that it has told of itself.
    """

    __slots__ = (
        "asking", "call", "contact", "distance", "doubts", "held", "proofs", "state", "teller",
        "timer", "unsure",
    )  # fmt: skip

    def __init__(self, contact: Contact, distance: int, teller: "Candidate | None" = None) -> None:
        self.teller = teller
        self.asking = self.doubts = self.proofs = 0
        self.unsure = False  # nobody has proved that it is there
        self.contact = contact
        self.distance = distance
        self.state = State.QUEUED
        self.call: Call | None = None
        self.timer: Timer | None = None
        self.held: Held | None = None
