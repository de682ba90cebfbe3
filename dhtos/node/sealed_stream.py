"""A TCP connection between members of a cluster: one handshake, and then all of it is sealed.

    client  HELLO  d2 | Noise message 1: its chain
    server  READY  d3 | Noise message 2: [its chain, why not]
    both    record sealed bytes, as often as there is something to say

Each of these has its length in front, 4 bytes, big-endian. The client knows the key of the machine
from the record that it has seen of it; so nobody else can answer, and a HELLO that is sent again by
somebody who has watched is answered and opens nothing. The n-th record of a direction is sealed
with the number n: none can be changed, left out, repeated or come before another. Records end
where the writer likes and are one stream of bytes to the reader. A stream that is cut off between
two of them ends like one that was closed: who speaks over it says when he has said all.

`Channels` begins for the client. It may be another process that has the key, as `ssh-agent` has:
only the keys of the one connection leave it. In open mode nothing here loads libsodium.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dhtos.core.limits import COMMAND_CHUNK_BYTES
from dhtos.errors import MalformedMessage, Refused, UsageError
from dhtos.trust.cert import CHAIN_BYTES_MAX, Chain
from dhtos.trust.keys import exchange_public

if TYPE_CHECKING:
    from dhtos.trust.member import Member
    from dhtos.trust.noise import Handshake

HELLO, READY = b"\xd2", b"\xd3"
HELLO_BYTES_MAX = 1 + 96 + CHAIN_BYTES_MAX  # 96 are of the Noise message
READY_BYTES_MAX = 2048
RECORD_BYTES_MAX = COMMAND_CHUNK_BYTES + 128  # of what is sealed: a frame with a whole chunk
RECORDS_MAX = 2**48  # of one direction; a connection ends there
HELLOS_MAX = 64  # that were begun and not ended; the oldest gives way
NAME_BYTES = 16
_LENGTH_BYTES = 4
_TAG_BYTES = 16  # what sealing adds
_PROLOGUE = b"dhtos/1 command"
_ANOTHER_KEY = "a certificate is of another key"


class Reader(Protocol):
    """What is read of a `StreamReader`."""

    async def readexactly(self, n: int) -> bytes:
        """So many bytes; raises IncompleteReadError at an earlier end."""
        ...


class Writer(Protocol):
    """What is used of a `StreamWriter`."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What carries it."""
        ...

    def write(self, data: bytes) -> None:
        """Send it some time."""

    async def drain(self) -> None:
        """Wait while the other side does not read."""

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        ...

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401 - as asyncio has it
        """What is known of the transport."""
        ...


@dataclass(frozen=True, slots=True)
class Keys:
    """What a handshake has brought: one key for each direction."""

    send: bytes
    receive: bytes


class Channels(Protocol):
    """Whoever has the key of a member and begins connections in its name."""

    async def hello(self, identity: bytes) -> tuple[bytes, bytes]:
        """A name for the handshake, and its first message to the holder of this key.

        Raises UsageError for what is no key.
        """
        ...

    async def keys(self, name: bytes, ready: bytes) -> Keys:
        """What the answer brings; raises Refused, and MalformedMessage for what is no answer."""
        ...


class MemberChannels:
    """Handshakes of a member whose key is here."""

    def __init__(self, member: "Member") -> None:
        self._member = member
        self._begun: dict[bytes, tuple[Handshake, bytes]] = {}

    async def hello(self, identity: bytes) -> tuple[bytes, bytes]:
        """Begin; costs 0.15 ms."""
        from dhtos.trust.noise import Handshake

        member = self._member
        remote = exchange_public(identity)
        if remote is None:
            raise UsageError(f"the key of a machine has 32 bytes, got {identity.hex()!r}")
        assert member.chain is not None, "a running member has one"
        handshake = Handshake.initiator(
            member.key.exchange_secret, remote, member.entropy(32), _PROLOGUE
        )
        name = member.entropy(NAME_BYTES)
        while len(self._begun) >= HELLOS_MAX:
            del self._begun[next(iter(self._begun))]
        self._begun[name] = handshake, identity
        return name, HELLO + handshake.write(member.chain.wire)

    async def keys(self, name: bytes, ready: bytes) -> Keys:
        """End it, once; costs 0.1 ms."""
        from dhtos.protocol.handshakes import read_ready

        begun = self._begun.pop(name, None)
        if begun is None:
            raise UsageError("no such handshake was begun, or too many since: begin another")
        handshake, identity = begun
        answer = read_ready(handshake.read(ready.removeprefix(READY)))
        if answer.refusal:
            raise Refused(f"it refuses us: {answer.refusal}")
        if self._member.read(answer.chain).leaf.subject != identity:
            raise MalformedMessage(_ANOTHER_KEY)
        return Keys(*handshake.split())


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a HELLO; without a chain there are no keys, and `ready` says why."""

    ready: bytes
    chain: Chain | None
    keys: Keys


def welcome(member: "Member", hello: bytes) -> Welcome:
    """Answer whoever connects; raises MalformedMessage for what is no HELLO to us.

    Costs 0.35 ms, and a signature for each certificate that was not seen before.
    """
    from dhtos.protocol.handshakes import write_ready
    from dhtos.trust.noise import Handshake

    if not 1 < len(hello) <= HELLO_BYTES_MAX or not hello.startswith(HELLO):
        raise MalformedMessage("a sealed connection begins with a handshake")
    handshake = Handshake.responder(member.key.exchange_secret, member.entropy(32), _PROLOGUE)
    wire = handshake.read(hello[1:])
    chain: Chain | None = None
    refusal = ""
    try:
        chain = member.admit(wire)
    except MalformedMessage as error:
        refusal = str(error)
    if chain is not None and exchange_public(chain.leaf.subject) != handshake.remote:
        chain, refusal = None, _ANOTHER_KEY  # a chain is no secret: everybody can show it
    own = b"" if member.chain is None else member.chain.wire
    ready = READY + handshake.write(write_ready(own, refusal))
    return Welcome(ready, chain, Keys(*handshake.split()))


def framed(body: bytes) -> bytes:
    """Bytes with their length in front."""
    return len(body).to_bytes(_LENGTH_BYTES) + body


async def unframed(reader: Reader, bytes_max: int) -> bytes:
    """What stands behind the next length; raises MalformedMessage where it is more than may be."""
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    if length > bytes_max:
        raise MalformedMessage(f"a frame has at most {bytes_max} bytes, got {length}")
    return await reader.readexactly(length)


class SealedReader:
    """The receiving side: bytes as they were written, or MalformedMessage."""

    def __init__(self, reader: Reader, key: bytes) -> None:
        from dhtos.trust.noise import unseal

        self._unseal = unseal
        self._reader = reader
        self._key = key
        self._count = 0
        self._plain = bytearray()

    async def readexactly(self, n: int) -> bytes:
        """So many bytes; raises IncompleteReadError at an earlier end."""
        plain = self._plain
        while len(plain) < n:
            sealed = await unframed(self._reader, RECORD_BYTES_MAX + _TAG_BYTES)
            if self._count >= RECORDS_MAX:
                raise MalformedMessage("a connection has as many records as its keys are good for")
            plain += self._unseal(self._key, self._count, sealed)
            self._count += 1
        found = bytes(plain[:n])
        del plain[:n]
        return found


class SealedWriter:
    """The sending side."""

    def __init__(self, writer: Writer, key: bytes) -> None:
        from dhtos.trust.noise import seal

        self._seal = seal
        self._writer = writer
        self._key = key
        self._count = 0

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What carries it."""
        return self._writer.transport

    def write(self, data: bytes) -> None:
        """Send it some time; what comes after the last record ends the connection."""
        for at in range(0, len(data), RECORD_BYTES_MAX):
            if self._count >= RECORDS_MAX:
                self._writer.transport.abort()
                return
            sealed = self._seal(self._key, self._count, data[at : at + RECORD_BYTES_MAX])
            self._count += 1
            self._writer.write(framed(sealed))

    async def drain(self) -> None:
        """Wait while the other side does not read."""
        await self._writer.drain()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._writer.is_closing()

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401 - as asyncio has it
        """What is known of the transport."""
        return self._writer.get_extra_info(name)


def sealed(reader: Reader, writer: Writer, keys: Keys) -> tuple[SealedReader, SealedWriter]:
    """The same connection, sealed in both directions."""
    return SealedReader(reader, keys.receive), SealedWriter(writer, keys.send)
