"""What the network carried, by RPC name: the bill of a protocol.

A name is read where the wire format puts it (`dhtos.protocol.wire`): kind, 20 bytes of id, a
two-element array, the name. A reply is booked on the name of its request, known by the message
id; a reply whose request was never seen is booked on `reply`, anything else on `other`.

Bookkeeping costs about half a microsecond a datagram, so a cluster keeps it only when asked.
"""

from dataclasses import dataclass

_NAME_AT = 23  # kind (1), id (20), array header (1), text header (1)
_OPEN_MAX = 65536  # requests whose reply may still be on its way


@dataclass(slots=True)
class Count:
    """Datagrams and bytes of one kind."""

    datagrams: int = 0
    bytes: int = 0


class Traffic:
    """Counts by name; `requests[name]` and `replies[name]`, O(1) a datagram."""

    __slots__ = ("_open", "replies", "requests")

    def __init__(self) -> None:
        self.requests: dict[str, Count] = {}
        self.replies: dict[str, Count] = {}
        self._open: dict[bytes, str] = {}

    def note(self, datagram: bytes) -> None:
        """Book one datagram that was sent."""
        kind = datagram[:1]
        if kind == b"\x00":
            name = _name(datagram)
            book = self.requests
            self._open[datagram[1:21]] = name
            if len(self._open) > _OPEN_MAX:
                del self._open[next(iter(self._open))]
        elif kind == b"\x01":
            name = self._open.get(datagram[1:21], "reply")
            book = self.replies
        else:
            name, book = "other", self.requests
        count = book.get(name)
        if count is None:
            count = book[name] = Count()
        count.datagrams += 1
        count.bytes += len(datagram)

    @property
    def total(self) -> Count:
        """Everything together."""
        counts = [*self.requests.values(), *self.replies.values()]
        return Count(sum(c.datagrams for c in counts), sum(c.bytes for c in counts))

    def table(self) -> str:
        """The bill as text, the most bytes first."""
        names = {*self.requests, *self.replies}
        rows = []
        for name in names:
            asked, told = self.requests.get(name, Count()), self.replies.get(name, Count())
            rows.append((asked.bytes + told.bytes, name, asked, told))
        lines = [f"{'name':<16}{'requests':>10}{'bytes':>12}{'replies':>10}{'bytes':>12}"]
        lines += [
            f"{name:<16}{asked.datagrams:>10}{asked.bytes:>12}{told.datagrams:>10}{told.bytes:>12}"
            for _, name, asked, told in sorted(rows, key=lambda row: (-row[0], row[1]))
        ]
        return "\n".join(lines)


def _name(datagram: bytes) -> str:
    """The RPC name of a request: a short msgpack text or binary in an array of two."""
    head = datagram[21:_NAME_AT]
    if len(head) != 2 or head[0] != 0x92:
        return "other"
    start, size = _NAME_AT, head[1] & 0x1F
    if head[1] & 0xE0 != 0xA0:
        if head[1] not in (0xD9, 0xC4) or len(datagram) <= _NAME_AT:
            return "other"
        start, size = _NAME_AT + 1, datagram[_NAME_AT]
    name = datagram[start : start + size]
    return name.decode("ascii") if size == len(name) and name.isascii() else "other"
