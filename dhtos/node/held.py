"""Certificates that somebody holds, as far as an issuer knows: from its log, and from what it sees.

What is taken back is a serial number, which stays through all renewals, by whomever: so it does not
matter who has signed the last of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dhtos.errors import UsageError
from dhtos.trust.cert import Cert, node_id

GIVEN = ("admitted", "renewed", "promoted", "rotated")


@dataclass(frozen=True, slots=True)
class Held:
    """All certificates of one serial number."""

    serial: str
    name: str
    id: str
    subject: str
    lasts_s: int  # each of them
    issues: bool

    def is_called(self, who: str) -> bool:
        """Whether somebody means this one."""
        return who != "" and who in (self.name, self.id, self.serial)


def held_by(who: str, entries: Iterable[dict[str, Any]], seen: Iterable[Cert]) -> list[Held]:
    """What one member or user holds, by name, id or serial number, of a log and of what is seen.

    Nothing where nobody is called so, or all of it was taken back; raises UsageError for several.
    """
    log = list(entries)
    gone = {entry["serial"] for entry in log if entry["what"] == "revoked"}
    found = [_of_entry(entry) for entry in log if entry["what"] in GIVEN]
    found = [one for one in [*found, *map(held, seen)] if one.serial not in gone]
    subjects = {one.subject for one in found if one.is_called(who)}
    theirs = [one for one in found if one.subject in subjects]
    if len(subjects) > 1:
        told = ", ".join(sorted({one.id for one in theirs}))
        raise UsageError(f"several are called {who!r}: name one by its id: {told}")
    last = {one.serial: one for one in sorted(theirs, key=lambda one: (one.issues, one.lasts_s))}
    return list(last.values())


def held(cert: Cert) -> Held:
    """What is seen."""
    return Held(
        cert.serial.hex(),
        cert.name,
        node_id(cert.subject, cert.nonce).hex(),
        cert.subject.hex(),
        cert.expires - cert.not_before,
        cert.may("issue"),
    )


def _of_entry(entry: dict[str, Any]) -> Held:
    lasts_s = entry["expires"] - int(entry["at"])
    serial, name, node, subject = (entry[one] for one in ("serial", "name", "id", "subject"))
    return Held(serial, name, node, subject, lasts_s, "issue" in entry["caps"])
