"""What a certificate says of its holder in words that queries know: its groups.

A group is a name, or a name, a dot and a value: `gpu` says that its holder is a gpu, `site.eu-1`
that its site is eu-1. A record says what its publisher likes; its groups are what an issuer of the
cluster says of the publisher. They are read from the certificate in the proof of a record, which
this does not check: whoever believes the record has done that (`dhtos.trust.proof`).
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from dhtos.core.record import SIGNATURE_BYTES, Record

GROUP_BYTES_MAX = 32
_REMEMBERED = 4096  # certificates of members: each is read once

_link = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_cert = msgspec.msgpack.Decoder(
    tuple[bytes, bytes, bytes, str, tuple[str, ...], tuple[str, ...], int, int, int]
).decode


def groups_of(record: Record) -> tuple[str, ...] | None:
    """The groups of whoever published a record about itself.

    None where nobody vouches for it: in open mode, and for machines that run no node, whose gateway
    alone was admitted.
    """
    if not record.proof or record.row:
        return None
    return _groups(record.proof[SIGNATURE_BYTES:])


@lru_cache(_REMEMBERED)
def _groups(link: bytes) -> tuple[str, ...] | None:
    try:
        body, _ = _link(link)
        return _cert(body)[4]
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def values_of(name: str, groups: Iterable[str]) -> list[str]:
    """What groups say of a name; the empty text where one is just that name.

    >>> values_of("site", ("gpu", "site.eu-1"))
    ['eu-1']
    """
    start = f"{name}."
    return [
        group.removeprefix(name).removeprefix(".")
        for group in groups
        if group == name or group.startswith(start)
    ]
