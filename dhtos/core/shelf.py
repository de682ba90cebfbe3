"""What a routing table remembers about its contacts: parallel arrays of one bucket.

The ids lie in one buffer, as the kernel wants them, and there is no object or dictionary entry
for each contact: a third of the memory. A bucket is small, so a search is one scan of the buffer.

This module must not know which contacts deserve a place; that is `dhtos.core.routing`.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES

VERIFIED = 0x80
"""The top bit of a mark; the others count failures in a row."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A contact on its way into or out of a bucket."""

    contact: Contact
    seen: float
    verified: bool
    subnet: bytes | None


class Shelf:
    """Contacts and, in the same order, what is remembered about each."""

    __slots__ = ("contacts", "ids", "marks", "seen", "subnets")

    def __init__(self) -> None:
        self.contacts: list[Contact] = []
        self.ids = bytearray()
        self.seen = array("d")
        self.marks = bytearray()  # VERIFIED or 0, plus the failures in a row
        self.subnets: list[bytes | None] = []

    def find(self, contact_id: bytes) -> int:
        """Where `contact_id` is, or -1. O(k)."""
        at = self.ids.find(contact_id)
        while at % ID_BYTES and at > 0:  # the bytes of two neighbours may spell the id
            at = self.ids.find(contact_id, at + 1)
        return at // ID_BYTES

    def append(self, sighting: Sighting) -> None:
        """Put a contact last; it has not failed yet."""
        self.contacts.append(sighting.contact)
        self.ids += sighting.contact.id
        self.seen.append(sighting.seen)
        self.marks.append(VERIFIED if sighting.verified else 0)
        self.subnets.append(sighting.subnet)

    def sighting(self, at: int) -> Sighting:
        """What `append` needs to put this contact elsewhere."""
        return Sighting(self.contacts[at], self.seen[at], self.is_verified(at), self.subnets[at])

    def pop(self, at: int) -> Contact:
        """Forget the contact at `at`."""
        del self.ids[at * ID_BYTES : (at + 1) * ID_BYTES]
        del self.seen[at], self.marks[at], self.subnets[at]
        return self.contacts.pop(at)

    def refresh(self, at: int, now: float) -> None:
        """The contact answered."""
        self.seen[at] = max(self.seen[at], now)
        self.marks[at] = VERIFIED

    def is_verified(self, at: int) -> bool:
        """Whether the contact at `at` has answered from its endpoint."""
        return self.marks[at] >= VERIFIED

    def oldest(self, places: Iterable[int] | None = None) -> int:
        """The least recently seen of these places (default: of all), or -1."""
        if places is None:
            places = range(len(self.contacts))
        return min(places, key=self.seen.__getitem__, default=-1)

    def check(self) -> None:
        """Assert that the arrays agree."""
        assert bytes(self.ids) == b"".join(contact.id for contact in self.contacts)
        assert len(self.contacts) == len(self.seen) == len(self.marks) == len(self.subnets)
        for contact, subnet in zip(self.contacts, self.subnets, strict=True):
            assert subnet == subnet_of(contact.endpoint[0])


def subnet_of(host: str) -> bytes | None:
    """The /24 (IPv4) or /56 (IPv6) of a public address, or None for one without a cap.

    A host that is not an address stands for itself.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.encode()
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return None
    return address.packed[: 3 if address.version == 4 else 7]
