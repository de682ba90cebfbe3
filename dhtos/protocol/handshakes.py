"""The five datagrams of secured peers, and what is checked before anything is computed.

    0xD0 PROBE  nonce(16), zeros to 66 bytes           who are you?
    0xD1 WHO    nonce, cookie(16), public key(32)      nothing is kept for it
    0xD2 HELLO  index(4), nonce, cookie, Noise message 1 { chain }
    0xD3 READY  index(4), index(4), Noise message 2 { chain, or why not }
    0xD4 DATA   index(4), counter(8), sealed datagram

The first bytes 0 and 1 are the stock wire, which a secured node does not answer. An index names a
session at its receiver, and tells nobody else anything. The challenge is that of discv5
(`discv5-wire`), the handshake WireGuard's (Donenfeld, "WireGuard", NDSS 2017): an address is sent
no byte more than came from it before it has shown, by a cookie, to receive there; before that no
asymmetric work is done, and each address may cause so much of it a second.
"""

from hashlib import blake2b
from struct import Struct

import msgspec

from dhtos.core.ids import Endpoint
from dhtos.core.limits import COOKIE_S, REASON_BYTES_MAX
from dhtos.core.value import is_printable
from dhtos.errors import MalformedMessage
from dhtos.protocol.rates import Rates
from dhtos.trust.cert import Chain, Verb
from dhtos.trust.noise import Handshake

PROBE, WHO, HELLO, READY, DATA = range(0xD0, 0xD5)
NONCE_BYTES = 16
COOKIE_BYTES = 16
KEY_BYTES = 32
PROBE_BYTES = 66
WHO_BYTES = 1 + NONCE_BYTES + COOKIE_BYTES + KEY_BYTES
DATA_AT = 1 + 4 + 8  # where the sealed bytes begin
DATA_BYTES_MIN = DATA_AT + 16
HELLO_AT = 1 + 4 + NONCE_BYTES + COOKIE_BYTES  # where its Noise message begins
READY_AT = 1 + 4 + 4

data_head = Struct("<BIQ")
hello_head = Struct("<BI16s16s")
ready_head = Struct("<BII")
assert data_head.size == DATA_AT
assert WHO_BYTES < PROBE_BYTES


class Ready(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the second message says: the chain of whoever answers, and why not, or nothing."""

    chain: bytes
    refusal: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_ready = msgspec.msgpack.Decoder(Ready).decode


def write_ready(chain: bytes, refusal: str) -> bytes:
    """The payload of the second message."""
    return _encode(Ready(chain, refusal[:REASON_BYTES_MAX]))


def read_ready(payload: bytes) -> Ready:
    """Parse the payload of the second message; raises MalformedMessage."""
    try:
        ready = _decode_ready(payload)
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedMessage("the end of a handshake is [chain, refusal]") from error
    if not is_printable(ready.refusal, REASON_BYTES_MAX):
        raise MalformedMessage("a refusal is a short line")
    return ready


def probe(nonce: bytes) -> bytes:
    """The first question, longer than its answer."""
    return (bytes((PROBE,)) + nonce).ljust(PROBE_BYTES, b"\0")


class Doorkeeper:
    """Cookies and rates: what an address must show, and how often it may have us work."""

    def __init__(self, secret: bytes, public: bytes) -> None:
        self._secret = secret
        self._public = public
        self._rates = Rates()

    def who(self, nonce: bytes, source: Endpoint, now: float) -> bytes:
        """The answer to whoever we share no keys with."""
        cookie = self._cookie(nonce, source, int(now // COOKIE_S))
        return bytes((WHO,)) + nonce + cookie + self._public

    def admits(self, nonce: bytes, cookie: bytes, source: Endpoint, now: float) -> bool:
        """Whether somebody receives at `source`, and has not asked for too much."""
        epoch = int(now // COOKIE_S)
        if all(cookie != self._cookie(nonce, source, e) for e in (epoch, epoch - 1)):
            return False
        return self._rates.admit(source[0], now)

    def _cookie(self, nonce: bytes, source: Endpoint, epoch: int) -> bytes:
        text = f"{epoch}|{source[0]}|{source[1]}|".encode() + nonce
        return blake2b(text, key=self._secret, digest_size=COOKIE_BYTES).digest()


_WINDOW = (1 << 1024) - 1


class Window:
    """Which counters of a session have come: each once, and none that is much older (RFC 6479)."""

    __slots__ = ("_seen", "_top")
    BITS = 1024

    def __init__(self) -> None:
        self._top = -1
        self._seen = 0  # bit n: the counter `_top - n`

    def fresh(self, counter: int) -> bool:
        """Whether this one has not come yet, as far as is known."""
        behind = self._top - counter
        return behind < 0 or (behind < self.BITS and not self._seen >> behind & 1)

    def add(self, counter: int) -> None:
        """It came, and was genuine."""
        ahead = counter - self._top
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & _WINDOW if ahead < self.BITS else 1
            self._top = counter
        else:
            self._seen |= 1 << -ahead


class Session:
    """The keys of one handshake; `chain` is what the other side showed, None of a guest."""

    __slots__ = (
        "born", "chain", "confirmed", "endpoint", "index", "last", "node_id", "peer_index",
        "principal", "receive_key", "remote", "send_key", "sent", "used", "verbs", "window",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, index: int, peer_index: int, now: float) -> None:
        self.endpoint = endpoint
        self.index = index
        self.peer_index = peer_index
        self.born = self.used = now
        self.chain: Chain | None = None
        self.node_id: bytes | None = None
        self.principal = (
            b""  # the key of whoever it speaks for, a visitor's cluster, none of a guest
        )
        self.confirmed = False
        self.remote = b""  # the X25519 key of the other side
        self.send_key = self.receive_key = b""
        self.sent = 0
        self.last = b""  # our last datagram
        self.verbs: dict[Verb, bool] = {}  # what the other side may do here, as far as it has tried
        self.window = Window()

    def agree(self, handshake: Handshake, chain: Chain | None) -> None:
        """Take what the handshake brought."""
        self.remote = handshake.remote
        self.send_key, self.receive_key = handshake.split()
        self.chain = chain
        if chain is not None:
            self.principal = chain.home or chain.principal.subject  # all visitors share
            if chain.leaf.is_node:
                self.node_id = chain.node_id()
