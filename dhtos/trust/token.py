"""The join token: all a new machine needs, on one line.

    dhtos1-<base32, lower case: root hash 20 | secret 16 | seeds | checksum 4>
    a seed: family 1 (4 or 6) | address 4 or 16 | port 2

The root hash pins whom to believe, so nobody on the way can pose as the fleet; the secret is told
only to whom that was shown of, and shows that we were asked to come; the seeds are where to ask.
The checksum tells a typo from a token that is wrong: it guards against slips, not against people.
One IPv4 seed makes 83 characters. A token for visitors (`dhtos.trust.welcome`) has a secret of
zeros.
"""

import re
from base64 import b32decode, b32encode
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

from dhtos.core.ids import Endpoint
from dhtos.core.limits import TOKEN_SEEDS_MAX
from dhtos.errors import UsageError

ROOT_BYTES = 20
SECRET_BYTES = 16

_PREFIX = "dhtos1-"
_NO_SECRET = bytes(SECRET_BYTES)  # which nobody draws
_ANY_VERSION = re.compile(r"dhtos([0-9]{1,9})-")
_CHECKSUM_BYTES = 4
_ADDRESS_BYTES = {4: 4, 6: 16}  # by family
_PORT_BYTES = 2
_TEXT_MAX = 512  # more than the longest has: what is longer is not looked at


def root_hash(public: bytes) -> bytes:
    """What pins a fleet: BLAKE2b-160 of the Ed25519 public key of its root."""
    return blake2b(public, digest_size=ROOT_BYTES, person=b"dhtos-root").digest()


def domain(kind: bytes, root: bytes) -> bytes:
    """What signatures of a kind are made for in the cluster of this root hash, and nowhere else."""
    return kind + b" " + root.hex().encode()


@dataclass(frozen=True, slots=True)
class Token:
    """An invitation; `str` of it is the line to hand on, `repr` is safe to log.

    Raises UsageError for seeds that nobody else could send to.
    """

    root: bytes
    secret: bytes
    seeds: tuple[Endpoint, ...]

    def __post_init__(self) -> None:
        assert len(self.root) == ROOT_BYTES, f"a root hash has {ROOT_BYTES} bytes"
        assert len(self.secret) == SECRET_BYTES, f"a secret has {SECRET_BYTES} bytes"
        if not 1 <= len(self.seeds) <= TOKEN_SEEDS_MAX:
            raise UsageError(f"a token names 1..{TOKEN_SEEDS_MAX} seeds, got {len(self.seeds)}")
        seeds = tuple((str(_address(host)), _port(port)) for host, port in self.seeds)
        object.__setattr__(self, "seeds", seeds)

    @classmethod
    def to_visit(cls, root: bytes, seeds: tuple[Endpoint, ...]) -> Self:
        """What members of a welcome cluster need to ask this one: no secret, and nobody joins."""
        return cls(root, _NO_SECRET, seeds)

    @property
    def is_visit(self) -> bool:
        """Whether it is for visitors only."""
        return self.secret == _NO_SECRET

    def __str__(self) -> str:
        body = self.root + self.secret + b"".join(map(_pack, self.seeds))
        return _PREFIX + _encode(body + _checksum(body))

    def __repr__(self) -> str:
        return f"<Token of {self.root[:4].hex()}, seeds {self.seeds}>"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The token of a line; blanks, line breaks and capitals that came by copying do not matter.

        UsageError says what is wrong, without any part of the token, which is a secret.
        """
        body = _body(text)
        if body is None:
            raise UsageError(
                "the join token is mistyped or cut off: copy the whole of it once more, from"
                f" {_PREFIX} to its end"
            )
        end = ROOT_BYTES + SECRET_BYTES
        try:
            return cls(body[:ROOT_BYTES], body[ROOT_BYTES:end], _unpack(body[end:]))
        except UsageError as error:
            raise UsageError(
                f"the join token cannot be used: {error}; ask for a new one"
            ) from error


def _body(text: str) -> bytes | None:
    """What the checksum is of; None where it is of something else."""
    text = "".join(text[:_TEXT_MAX].split()).lower()
    version = _ANY_VERSION.match(text)
    if version is None:
        raise UsageError(f"this is not a join token, which begins with {_PREFIX}")
    if version[0] != _PREFIX:
        raise UsageError(
            f"the join token begins with {version[0]}, and this dhtos reads {_PREFIX}: run the"
            " version here that printed it"
        )
    code = text.removeprefix(_PREFIX)
    try:
        data = b32decode(code.upper() + "=" * (-len(code) % 8))
    except ValueError:
        return None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(body) < ROOT_BYTES + SECRET_BYTES or checksum != _checksum(body):
        return None
    return body if _encode(data) == code else None  # unused bits of the last letter may be set


def _encode(data: bytes) -> str:
    return b32encode(data).decode("ascii").rstrip("=").lower()


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECKSUM_BYTES, person=b"dhtos-token").digest()


def _address(host: str) -> IPv4Address | IPv6Address:
    """The address in its one spelling: an IPv4 address inside an IPv6 one comes out."""
    try:
        address = ip_address(host)
    except ValueError:
        raise UsageError(f"a seed has a numeric address, got {host!r}") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise UsageError(f"a seed has an address that others know, got {host!r}")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise UsageError(f"a seed has an address to send to, got {host!r}")
    return address


def _port(port: int) -> int:
    if not 0 < port < 65536:
        raise UsageError(f"port must be 1..65535, got {port}")
    return port


def _pack(seed: Endpoint) -> bytes:
    address = ip_address(seed[0])
    return bytes([address.version]) + address.packed + seed[1].to_bytes(_PORT_BYTES)


def _unpack(data: bytes) -> tuple[Endpoint, ...]:
    seeds: list[Endpoint] = []
    while data:
        length = _ADDRESS_BYTES.get(data[0], 0)
        address, port = data[1 : 1 + length], data[1 + length : 1 + length + _PORT_BYTES]
        if not length or len(port) != _PORT_BYTES:
            raise UsageError("a seed is neither IPv4 nor IPv6")
        seeds.append((str(ip_address(address)), int.from_bytes(port)))
        data = data[1 + length + _PORT_BYTES :]
    return tuple(seeds)
