"""What a lookup in a cluster thinks of contacts that it was only told of.

Who answers is known by its certificate, so nobody can answer under an id of a liar's choice. What
is left to a liar is to tell of nodes that are not, close to the target, so that the lookup spends
its time on them; every one takes a time-out of a handshake. So of each answer

- only k contacts count, and none at an endpoint whose certificate says another id,
- at most TOLD_AT_ONCE_MAX contacts whom nobody has proved to be there are asked at once, until more
  have answered than not,
- after one that was silent or false the others take nobody's place while they are waited for,
- after TOLD_DOUBTS_MAX, if that is more than have answered, the rest is left.

In open mode ids are anybody's, and nothing of this is used.
"""

from typing import TYPE_CHECKING

from dhtos.core.contact import Contact
from dhtos.core.limits import TOLD_AT_ONCE_MAX, TOLD_DOUBTS_MAX

if TYPE_CHECKING:
    from dhtos.protocol.candidate import Candidate
    from dhtos.protocol.sessions import Sessions


class Hearsay:
    """Whose word is how good, counted on the candidates that gave it."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: "Sessions") -> None:
        self._sessions = sessions

    def identity(self, contact: Contact) -> bytes | None:
        """The id that the certificate shown at an endpoint says; None while we share no keys."""
        return self._sessions.node_id(contact.endpoint)

    def credible(self, found: list[Contact], most: int) -> list[Contact]:
        """What may be so of the contacts that one answer tells."""
        return [one for one in found[:most] if self.identity(one) in (None, one.id)]

    def may_ask(self, candidate: "Candidate") -> bool:
        """Whether it is somebody's turn."""
        teller = candidate.teller
        if teller is None or teller.asking < TOLD_AT_ONCE_MAX or teller.proofs > teller.doubts:
            return True
        return not self._is_unproven(candidate)

    def asks(self, candidate: "Candidate") -> bool:
        """It is asked now; whether it is doubtful, and takes nobody's place."""
        teller = candidate.teller
        if teller is None or not self._is_unproven(candidate):
            return False
        candidate.unsure = True
        teller.asking += 1
        return teller.doubts > 0

    def found(self, candidate: "Candidate", *, true: bool) -> bool:
        """What came of it first; whether the rest of what its teller told is to be left."""
        teller = candidate.teller
        if teller is None or not candidate.unsure:
            return False
        candidate.unsure = False
        teller.asking -= 1
        if true:
            teller.proofs += 1
            return False
        teller.doubts += 1
        return teller.doubts >= TOLD_DOUBTS_MAX and teller.doubts > teller.proofs

    def _is_unproven(self, candidate: "Candidate") -> bool:
        return self._sessions.keyless(candidate.contact.endpoint)
