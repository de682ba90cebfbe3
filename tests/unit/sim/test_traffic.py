"""The bill by RPC name."""

from dhtos.sim.traffic import _OPEN_MAX, Count, Traffic


def _request(name, number=0, rest=b"\x90"):
    return b"\x00" + number.to_bytes(20) + b"\x92" + bytes([0xA0 | len(name)]) + name + rest


def _reply(number=0, payload=b"\x01"):
    return b"\x01" + number.to_bytes(20) + payload


def test_requests_and_their_replies_are_booked_by_name():
    traffic = Traffic()
    traffic.note(_request(b"ping", 1))
    traffic.note(_request(b"ping", 2))
    traffic.note(_request(b"find_node", 3))
    traffic.note(_reply(3, b"x" * 100))
    traffic.note(_reply(3, b"x" * 100))  # a second part of the same reply
    assert traffic.requests["ping"] == Count(2, 2 * len(_request(b"ping")))
    assert traffic.replies == {"find_node": Count(2, 242)}
    assert traffic.total.datagrams == 5
    assert traffic.total.bytes == 2 * 28 + 33 + 242


def test_a_reply_to_nothing_is_booked_apart():
    traffic = Traffic()
    traffic.note(_reply(7))
    assert traffic.replies == {"reply": Count(1, 22)}


def test_longer_text_headers_are_read():
    traffic = Traffic()
    for head in (b"\xd9", b"\xc4"):
        traffic.note(b"\x00" + bytes(20) + b"\x92" + head + b"\x05walk2" + b"\x90")
    assert traffic.requests["walk2"].datagrams == 2


def test_strange_datagrams_are_other():
    traffic = Traffic()
    strange = [
        b"",
        b"\x07what",
        b"\x00" + bytes(20),
        b"\x00" + bytes(20) + b"\x93\xa4ping",
        b"\x00" + bytes(20) + b"\x92\xc0",
        b"\x00" + bytes(20) + b"\x92\xd9",
        b"\x00" + bytes(20) + b"\x92\xa9ping",
        b"\x00" + bytes(20) + b"\x92\xa2\xff\xff",
    ]
    for datagram in strange:
        traffic.note(datagram)
    assert traffic.requests == {"other": Count(len(strange), sum(map(len, strange)))}


def test_open_requests_are_bounded():
    traffic = Traffic()
    traffic._open = {number.to_bytes(20): "old" for number in range(1, _OPEN_MAX + 1)}
    traffic.note(_request(b"ping", 0))
    assert len(traffic._open) == _OPEN_MAX
    assert (1).to_bytes(20) not in traffic._open


def test_the_table_lists_the_costliest_first():
    traffic = Traffic()
    traffic.note(_request(b"ping", 1))
    traffic.note(_request(b"store", 2, b"x" * 500))
    lines = traffic.table().splitlines()
    assert lines[0].split() == ["name", "requests", "bytes", "replies", "bytes"]
    assert [line.split()[0] for line in lines[1:]] == ["store", "ping"]
