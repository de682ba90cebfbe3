"""The datagram codec: the stock bytes, the trailer, and everything that is refused."""

import pytest

from dhtos.core.limits import DATAGRAM_BYTES_MAX, NESTING_MAX, REQUEST_PAYLOAD_BYTES_MAX
from dhtos.errors import MalformedMessage, UsageError, ValueTooLarge
from dhtos.protocol.wire import (
    TRAILER_MAGIC,
    Request,
    Response,
    encode_request,
    encode_response,
    encode_trailer,
    encode_value,
    parse,
)

MSG_ID = bytes(range(20))
KEY = bytes(range(100, 120))


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


class TestRecordedBytes:
    """What rpcudp 5.0.1 puts on the wire, written down by hand."""

    def test_ping(self):
        expected = b"\x00" + MSG_ID + b"\x92\xa4ping\x91\xc4\x14" + KEY
        assert encode_request(MSG_ID, "ping", [KEY]) == expected
        assert len(expected) == 50
        assert parse(expected) == Request(MSG_ID, "ping", [KEY], None)

    def test_find_node(self):
        expected = b"\x00" + MSG_ID + b"\x92\xa9find_node\x92\xc4\x14" + KEY + b"\xc4\x14" + KEY
        assert encode_request(MSG_ID, "find_node", [KEY, KEY]) == expected
        assert len(expected) == 77

    def test_contacts(self):
        expected = b"\x01" + MSG_ID + b"\x91\x93\xc4\x14" + KEY + b"\xa9127.0.0.1\xcd\x21\x14"
        assert encode_response(MSG_ID, [[KEY, "127.0.0.1", 8468]]) == expected
        assert encode_response(MSG_ID, [(KEY, "127.0.0.1", 8468)]) == expected
        assert parse(expected) == Response(MSG_ID, [[KEY, "127.0.0.1", 8468]], None)

    def test_value(self):
        expected = b"\x01" + MSG_ID + b"\x81\xa5value\xcb\x3f\xf8" + bytes(6)
        assert encode_response(MSG_ID, {"value": 1.5}) == expected
        assert parse(expected) == Response(MSG_ID, {"value": 1.5}, None)

    def test_scalar_replies(self):
        for value in (None, True, False, 0, -1, 2**63, 0.25, "", "é", b"", b"\x00" * 300):
            assert parse(encode_response(MSG_ID, value)) == Response(MSG_ID, value, None)


class TestTrailer:
    def test_is_read_back(self):
        datagram = encode_request(MSG_ID, "ping", [KEY]) + encode_trailer([1, 2.5, "x"])
        assert parse(datagram) == Request(MSG_ID, "ping", [KEY], [1, 2.5, "x"])
        datagram = encode_response(MSG_ID, KEY) + encode_trailer([])
        assert parse(datagram) == Response(MSG_ID, KEY, [])

    def test_a_value_that_ends_like_a_trailer_is_a_value(self):
        for fake in (TRAILER_MAGIC, b"\x00" + TRAILER_MAGIC, encode_trailer([1]), b"\xff" * 9):
            for value in (fake, b"x" * 40 + fake, b"x" * 40 + fake + TRAILER_MAGIC):
                plain = encode_response(MSG_ID, value)
                assert parse(plain) == Response(MSG_ID, value, None)
                assert parse(plain + encode_trailer([7])) == Response(MSG_ID, value, [7])

    def test_other_trailing_bytes_are_refused(self):
        with pytest.raises(MalformedMessage):
            parse(encode_response(MSG_ID, KEY) + b"\xc0")

    @pytest.mark.parametrize(
        "body", [b"\xc1", b"\x01", b"\x80", b"\x91", b"", b"\x91\xd4\x01\x01", b"\x91" * 12]
    )
    def test_a_body_that_is_no_plain_array_is_refused(self, body):
        with pytest.raises(MalformedMessage):
            parse(encode_response(MSG_ID, KEY) + body + bytes((len(body),)) + TRAILER_MAGIC)

    def test_its_length_fits_in_one_byte(self):
        assert len(encode_trailer([b"x" * 252])) == 255 + 5
        with pytest.raises(ValueTooLarge):
            encode_trailer([b"x" * 253])

    def test_it_does_not_count_as_request_payload(self):
        head = len(encode_request(MSG_ID, "store", [KEY, KEY, b""])) - 21 + 1  # bin16 header
        value = b"v" * (REQUEST_PAYLOAD_BYTES_MAX - head)
        datagram = encode_request(MSG_ID, "store", [KEY, KEY, value])
        assert len(datagram) == 21 + REQUEST_PAYLOAD_BYTES_MAX
        request = parse(datagram + encode_trailer([1, 2, 3]))
        assert request == Request(MSG_ID, "store", [KEY, KEY, value], [1, 2, 3])


class TestRefused:
    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            b"\x00",
            b"\x00" + MSG_ID,
            b"\x02" + MSG_ID + b"\xc0",
            b"\xff" + MSG_ID + b"\xc0",
            b"\x01" + bytes(DATAGRAM_BYTES_MAX),
        ],
    )
    def test_frames(self, datagram):
        with pytest.raises(MalformedMessage):
            parse(datagram)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xc0",  # no array
            b"\x90",
            b"\x91\xa4ping",
            b"\x93\xa4ping\x90\x90",  # three elements
            b"\x92\x01\x90",  # the name is no text
            b"\x92\xa0\x90",  # an empty name
            b"\x92\xd9\x21" + b"n" * 33 + b"\x90",  # a name of 33 bytes
            b"\x92\xa2\xc3\xa9\x90",  # a name that is not ASCII
            b"\x92\xc4\x04ping\x90",
            b"\x92\xa4ping\x80",  # arguments are no array
            b"\x92\xa4ping\xc0",
            b"\x92\xa4pi",
        ],
    )
    def test_requests(self, payload):
        with pytest.raises(MalformedMessage):
            parse(b"\x00" + MSG_ID + payload)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xc1",  # never used
            b"\xc0\xc0",  # two objects
            b"\xa2\xff\xfe",  # not UTF-8
            b"\xd4\x01\x01",  # an extension
            b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
            b"\xc7\x0c\xff" + b"\xff" * 12,  # an impossible timestamp
            b"\x91\xd4\x01\x01",
            b"\x81\x01\x01",  # a key that is no text
            b"\x81\x90\x01",
            b"\x81\x80\x01",
            b"\x81\xc4\x01k\x01",
            b"\xdd\xff\xff\xff\xff",  # announces 2**32 items
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\x91" * 7 + b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 1000,
            b"\x91" * 60_000 + b"\xc0",
            b"\x81\xa1k" * 20_000 + b"\xc0",
        ],
    )
    def test_payloads(self, payload):
        with pytest.raises(MalformedMessage):
            parse(b"\x01" + MSG_ID + payload)

    def test_nesting_has_a_limit(self):
        deepest = nested(NESTING_MAX)
        assert parse(encode_response(MSG_ID, deepest)) == Response(MSG_ID, deepest, None)
        with pytest.raises(MalformedMessage, match="deep"):
            parse(encode_response(MSG_ID, nested(NESTING_MAX + 1)))

    def test_a_request_over_the_stock_limit(self):
        payload = b"\x92\xa1n\x91\xc5\x20\x00" + b"v" * 8192
        with pytest.raises(MalformedMessage, match="limit"):
            parse(b"\x00" + MSG_ID + payload)
        assert isinstance(parse(b"\x01" + MSG_ID + payload), Response)


class TestEncoding:
    def test_a_request_too_large_for_stock_peers(self):
        with pytest.raises(ValueTooLarge, match="8192"):
            encode_request(MSG_ID, "store", [KEY, KEY, b"v" * 8192])

    def test_a_response_too_large_for_a_datagram(self):
        with pytest.raises(ValueTooLarge, match="datagram"):
            encode_response(MSG_ID, b"v" * 65500)
        largest = encode_response(MSG_ID, b"v" * 65200) + encode_trailer([b"x" * 252])
        assert len(largest) <= DATAGRAM_BYTES_MAX

    @pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", object()])
    def test_values_that_cannot_be_carried(self, value):
        with pytest.raises(UsageError, match="MessagePack"):
            encode_value(value)

    def test_values_have_one_encoding(self):
        assert encode_value("text") == b"\xa4text"
        assert encode_value(True) == b"\xc3"
        assert encode_value(1) == b"\x01"
