"""Targets that are one function: bytes of a stranger in, a value or the one documented error out.

What is accepted is held to more than that: it is read again from what it writes, and comes out
the same.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from target import Target
from trust_world import Authority

from dhtos.core.contact import Contact
from dhtos.core.coordinate import Coordinate
from dhtos.core.ids import Prefix
from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA
from dhtos.core.nearest import Nearest
from dhtos.core.predicate import Predicate
from dhtos.core.record import Record, make_record
from dhtos.core.summary import Summary
from dhtos.core.vouched import groups_of
from dhtos.errors import MalformedMessage, PredicateError, UsageError
from dhtos.node import command_wire, sealed_stream
from dhtos.node.users import read_user
from dhtos.protocol import aggregate, bundle, claims, enrol, frontier, grants, hubwire, union
from dhtos.protocol.answer import Item, as_after, as_order
from dhtos.protocol.handshakes import read_ready, write_ready
from dhtos.protocol.select import read_select, select_to_wire
from dhtos.protocol.summaries import as_inhabited
from dhtos.protocol.versions import read_conflict
from dhtos.protocol.wire import (
    Request,
    decode_plain,
    encode_request,
    encode_response,
    encode_trailer,
    parse,
)
from dhtos.query import door
from dhtos.trust.cert import (
    Chain,
    lineage,
    parse_chain,
    parse_lineage,
    parse_link,
    sign_cert,
    succeed,
)
from dhtos.trust.keys import KeyPair, exchange_public
from dhtos.trust.noise import Handshake, seal, unseal
from dhtos.trust.passphrase import lock
from dhtos.trust.receipt import Receipt, read_receipt, write_receipt
from dhtos.trust.revocation import read_revocation, revoke, write_revocation
from dhtos.trust.secstore import Place, lock_files, unlock_files
from dhtos.trust.succession import Succession, read_succession, write_succession
from dhtos.trust.token import Token
from dhtos.trust.welcome import is_signed as is_signed_welcome
from dhtos.trust.welcome import make_welcome, read_welcome, visitor, write_welcome

KEY = bytes(range(20))
PLACE = Coordinate((0.01, 0.02), 0.001, 0.1)
MEASURE = aggregate.Measure(SCHEMA.index("cores"), (2, 8))
ORDERS = (None, (SCHEMA.index("price"), True), Nearest(PLACE))
AUTHORITY = Authority(7)
SECRETS = [bytes([n]) * 32 for n in range(1, 5)]

pack = msgspec.msgpack.encode


def target(
    read: Callable[[bytes], object],
    *samples: bytes,
    refuses: type[Exception] = MalformedMessage,
) -> Target:
    """A parser; whatever it raises besides `refuses` is a fault."""

    def run(data: bytes) -> bool:
        try:
            read(data)
        except refuses:
            return False
        return True

    return Target(run, lambda: samples)


def plain(read: Callable[[Any], object], *samples: object, **how: Any) -> Target:
    """A parser of a part of a message, which has been through `decode_plain` when it comes."""
    return target(lambda data: read(decode_plain(data)), *map(pack, samples), **how)


# --- messages -------------------------------------------------------------------------------------


def datagram(data: bytes) -> None:
    """A message means the same when it is written and read again."""
    message = parse(data)
    value = message.args if isinstance(message, Request) else message.value
    if isinstance(message, Request):
        again = b"\x00" + message.msg_id + pack([message.name, value])
    else:
        again = b"\x01" + message.msg_id + pack(value)
    if len(again) <= 1400:  # floats of four bytes grow
        told = parse(again)
        assert pack(told.args if isinstance(told, Request) else told.value) == pack(value)


def record() -> Record:
    """A machine that says a little of everything."""
    values = {"cores": 8, "mem": 2**34, "load1": 0.5, "price": 0.1}
    made = make_record(
        SCHEMA,
        values,
        {"team": "video"},
        node_id=KEY,
        endpoint=("10.0.0.1", 7400),
        seq=3,
        identity=bytes(32),
    )
    return made.updated(4, made.dynamic, PLACE.to_wire())


RECORD = record()
CONTACT = [KEY, "10.0.0.1", 7400]
ITEM = Item(Prefix.of(KEY, 9), 12, 3.5, None, [Contact(KEY, ("10.0.0.1", 7400))])


def news(value: Any) -> None:
    """A rumour is bounded; its record is read again from what it writes."""
    told = hubwire.as_news(value, SCHEMA)
    assert len(told.key) == 20
    assert told.age >= 0
    if told.record is not None:
        again = decode_plain(pack(hubwire.record_rumour(told.record, told.age)))
        assert hubwire.as_news(again, SCHEMA).record == told.record


def cursors(data: bytes) -> None:
    """A cursor of one kind of query at least."""
    wrong: UsageError | None = None
    read = 0
    for order in ORDERS:
        for voices in (1, 3):
            try:
                frontier.read_cursor(data, order, voices)
                read += 1
            except UsageError as error:
                wrong = error
    try:
        read += union._read_cursor(data) is not None
    except UsageError as error:
        wrong = error
    if not read:
        assert wrong is not None
        raise wrong


def cursor_samples() -> list[bytes]:
    """One of each kind."""
    entry = [Prefix.of(KEY, 9).to_wire(), None, [CONTACT]]
    return [
        pack([1, [entry]]),
        pack([2, [0.5, KEY]]),
        pack([3, 3, [[*entry, 2, [KEY], [KEY]]], [KEY]]),
        pack([4, [[1, Prefix.of(KEY, 9).to_wire(), b"x"]], [[0, b""]], [1]]),
    ]


def parts(value: Any) -> None:
    """Several parts of one answer, or of many."""
    assembly = bundle.Assembly()
    for part in hubwire.as_list(value, 64):
        assembly.add(part)


def answer(value: Any) -> None:
    """The whole of an answer to a range query."""
    told = frontier.read_answer(value)
    read_conflict(value)
    if told is None:
        return
    header, items, hits = told
    frontier.read_others(header)
    for item in items or []:
        read = frontier.read_item(item)
        assert frontier.read_item(decode_plain(pack(read.to_wire()))) == read
    for hit in hits:
        frontier.read_hit(hit, SCHEMA, 100.0)


def order(value: Any) -> None:
    """What a query is sorted by, and behind what it continues."""
    fields = hubwire.as_list(value, 2)
    as_after(
        fields[1] if len(fields) > 1 else None, as_order(fields[0] if fields else None, SCHEMA)
    )


def amounts(value: Any) -> None:
    """The fields of what somebody claims."""
    hubwire.unpack(
        hubwire.as_list(value, 8),
        grants.as_token,
        grants.as_amounts,
        grants.as_price,
        grants.as_flag,
        grants.as_grace,
        grants.as_term,
        grants.as_hold,
        claims.as_reason,
    )


# --- what is in messages --------------------------------------------------------------------------


def summary(data: bytes) -> None:
    """A summary says the same when it is written and read again."""
    read = Summary.from_bytes(data, SCHEMA)
    assert Summary.from_bytes(read.to_bytes(SCHEMA), SCHEMA) == read
    assert Summary.count_from_bytes(data).count == read.count


def coordinate(data: bytes) -> None:
    """A coordinate has one packed form."""
    read = Coordinate.from_bytes(data)
    assert Coordinate.from_bytes(read.to_bytes()) == read


def coordinate_list(value: Any) -> None:
    """A coordinate of numbers can be packed."""
    Coordinate.from_bytes(Coordinate.from_wire(value).to_bytes())


def predicate(value: Any) -> None:
    """A predicate says the same when it is written and read again, and can be asked."""
    read = Predicate.from_wire(value, SCHEMA)
    assert Predicate.from_wire(decode_plain(pack(read.to_wire())), SCHEMA) == read
    read.bind(SCHEMA).matches(RECORD)


def select(data: bytes) -> None:
    """What is selected says the same when it is written and read again."""
    read = read_select(data, SCHEMA)
    assert read_select(select_to_wire(read), SCHEMA) == read


# --- trust ----------------------------------------------------------------------------------------


def heirs_line() -> Chain:
    """A root and its heir."""
    line, heir = lineage(AUTHORITY.root.public), KeyPair(SECRETS[1])
    return succeed(AUTHORITY.root, line, heir.public, 2_000_000_000)


def by_heir() -> bytes:
    """A chain that the heir of a root signed."""
    return sign_cert(KeyPair(SECRETS[1]), heirs_line(), AUTHORITY.chain.leaf).wire


def succession(data: bytes) -> None:
    """A succession has one form."""
    read = read_succession(data)
    assert read_succession(write_succession(read)) == read


def link() -> bytes:
    """A certificate alone, as records carry it."""
    chain = AUTHORITY.admit(KeyPair(SECRETS[0]), "node")
    return pack(msgspec.msgpack.decode(chain.wire)[1][-1])


def first_message(payload: bytes = b"chain") -> bytes:
    """What an initiator says first."""
    remote = exchange_public(KeyPair(SECRETS[1]).public)
    key = KeyPair(SECRETS[0])
    return Handshake.initiator(key.exchange_secret, remote, SECRETS[2], b"p").write(payload)


def read_first(data: bytes) -> None:
    """A responder reads it, and could answer."""
    handshake = Handshake.responder(KeyPair(SECRETS[1]).exchange_secret, SECRETS[3], b"p")
    handshake.read(data)
    handshake.write(b"")


def read_second(data: bytes) -> None:
    """An initiator reads what came of its message."""
    remote = exchange_public(KeyPair(SECRETS[1]).public)
    key = KeyPair(SECRETS[0])
    handshake = Handshake.initiator(key.exchange_secret, remote, SECRETS[2], b"p")
    handshake.write(b"chain")
    handshake.read(data)
    handshake.split()


def second_message() -> bytes:
    """What a responder answers."""
    handshake = Handshake.responder(KeyPair(SECRETS[1]).exchange_secret, SECRETS[3], b"p")
    handshake.read(first_message())
    return handshake.write(b"ready")


MACHINE = AUTHORITY.member("machine")
CLIENT = AUTHORITY.holder(KeyPair(SECRETS[0]), AUTHORITY.admit(KeyPair(SECRETS[0]), "client"))


def comes_sealed(data: bytes) -> bool:
    """What somebody says inside of the handshake of a command: its chain."""
    remote = exchange_public(MACHINE.key.public)
    assert remote is not None
    handshake = Handshake.initiator(
        CLIENT.key.exchange_secret, remote, SECRETS[2], sealed_stream._PROLOGUE
    )
    hello = sealed_stream.HELLO + handshake.write(data)
    try:
        return sealed_stream.welcome(MACHINE, hello).chain is not None
    except MalformedMessage:
        return False  # it is too long


def of_records(data: bytes) -> bool:
    """A connection that has been sealed, up to its end."""
    reader = asyncio.StreamReader(loop=asyncio.new_event_loop())
    reader._loop.close()  # nothing is waited for: all has come
    reader.feed_data(data)
    reader.feed_eof()
    reading = sealed_stream.SealedReader(reader, SECRETS[0]).readexactly(5)
    try:
        reading.send(None)
    except StopIteration:
        return True
    except (asyncio.IncompleteReadError, MalformedMessage):
        return False
    raise AssertionError("there is nothing to wait for")


def of_groups(data: bytes) -> bool:
    """What a certificate says of a machine: whatever it is, nothing is raised."""
    proof = bytes(64) + data
    return groups_of(msgspec.structs.replace(RECORD, proof=proof)) is not None


WELCOME = make_welcome(
    AUTHORITY.key, AUTHORITY.name, bytes(20), caps=("query", "run:lab"), group="partner",
    begins=1_800_000_000, expires=1_800_086_400,
)  # fmt: skip
USER_CHAIN = AUTHORITY.admit(KeyPair(SECRETS[3]), "alice", caps=("query", "claim")).wire
PLACE_OF_SECRET = Place(bytes(20), SECRETS[0])
SECRET = lock_files(PLACE_OF_SECRET, {"id_ed25519": b"secret"}, bytes)


def files(data: bytes) -> None:
    """What was sealed by somebody who has the passphrase, and another version."""
    found = unlock_files(PLACE_OF_SECRET, bytes(24) + lock(data, PLACE_OF_SECRET.key))
    assert all(type(content) is bytes for content in found.values())


def user(data: bytes) -> bool:
    """Whatever is found under the name of a user is that user, or nobody."""
    found = read_user(MACHINE, "alice", data)
    assert found is None or (found.leaf.name == "alice" and found.wire == data)
    return found is not None


def revocation(data: bytes) -> None:
    """A revocation has one form."""
    read = read_revocation(data)
    assert read_revocation(write_revocation(read)) == read


def welcome(data: bytes) -> None:
    """A welcome has one form, and lets nobody do more than ask, claim and run."""
    read = read_welcome(data)
    assert read_welcome(write_welcome(read)) == read
    assert not is_signed_welcome(read, AUTHORITY.name) or read == WELCOME
    assert {cap.partition(":")[0] for cap in read.caps} <= {"query", "claim", "run"}
    shown = visitor(AUTHORITY.chain, read)
    assert not shown.leaf.is_node
    assert not shown.leaf.may("issue")


def receipt(data: bytes) -> None:
    """A receipt has one form, and sums that can be added up."""
    read = read_receipt(data)
    assert write_receipt(read) == data
    assert read.seconds >= 0
    assert read.cost >= 0


def token(data: bytes) -> None:
    """A token that is read is written as one that reads the same."""
    read = Token.parse(data.decode("utf-8", "replace"))
    assert Token.parse(str(read)) == read


def asked_to_admit(value: Any) -> None:
    """What a guest says who asks to be admitted."""
    enrol._request(hubwire.as_list(value, 8))


def told_of_admission(value: Any) -> None:
    """What an issuer answers, or whoever knows issuers."""
    enrol.read_answer(value)
    enrol._issuers(value)


# --- texts ----------------------------------------------------------------------------------------


def text(parse_text: Callable[[str], object]) -> Callable[[bytes], None]:
    """A text whose predicate other nodes read as it was meant."""

    def read(data: bytes) -> None:
        found = parse_text(data.decode("utf-8", "replace"))
        if isinstance(found, Predicate):
            assert Predicate.from_wire(decode_plain(pack(found.to_wire())), SCHEMA) == found

    return read


def where(_name: str) -> Coordinate:
    """Everybody is in one place."""
    return PLACE


CHAIN = AUTHORITY.admit(KeyPair(SECRETS[0]), "node").wire
LIMITS = ("cores >= 8 and cores <= 64", "not (exists(gpu_mem) or price < 0.5)", "rtt(self) < 20ms")
TEXTS = (
    *LIMITS,
    'attested(gpu) and not attested(site) in ("a", "b")',
    'label("team") in ["video", "audio"] and mem > 4GiB',
)

TARGETS: dict[str, Target] = {
    "datagram": target(
        datagram,
        encode_request(KEY, "find_node", [KEY, KEY]),
        encode_request(KEY, "store", [KEY, KEY, "value"]) + encode_trailer([1, 7, 60_000]),
        encode_response(KEY, [CONTACT, {"value": 1.5, "s": 3}, None]),
        encode_response(KEY, b"v") + encode_trailer([1]),
    ),
    "plain": target(decode_plain, pack([1, "a", b"b", {"k": [None, True, 0.5]}])),
    "news": plain(
        news,
        hubwire.record_rumour(RECORD, 1.5),
        hubwire.delta_rumour(RECORD.key(SCHEMA), RECORD, 2),
        hubwire.state_rumour(KEY, 3, hubwire.State(2), 0.5),
        hubwire.state_rumour(KEY, 3, hubwire.State.LEFT, 0.5, bytes(64)),
    ),
    "answer": plain(
        answer,
        [None, None, []],
        [[KEY, 1, b"c" * 8, [[0, b""]], 1, None, 0], [ITEM.to_wire()], [[0.5, RECORD]]],
    ),
    "cursor": target(cursors, *cursor_samples(), refuses=UsageError),
    "bundle": plain(
        parts,
        bundle.cut(*bundle.pack(b"answer" * 9)),
        bundle.cut(*bundle.pack(b"0123456789" * 900)),
    ),
    "order": plain(order, [[SCHEMA.index("price"), True], [0.5, KEY]], [[PLACE.to_bytes()], None]),
    "partial": plain(
        lambda value: aggregate.read_partial(value, 9, MEASURE), [24, 2, 16, [0, 2, 1]]
    ),
    "amounts": plain(amounts, [bytes(grants.TOKEN_BYTES), [["cores", 2]], 0.5, True, 5, 60, 1, 1]),
    "summary": target(
        summary,
        Summary.of(SCHEMA, [RECORD]).to_bytes(SCHEMA),
        Summary.of(SCHEMA, []).to_bytes(SCHEMA),
    ),
    "inhabited": plain(as_inhabited, bytes(24)),
    "coordinate": target(coordinate, PLACE.to_bytes(), Coordinate((0.1,) * 4, 0.1, 1.0).to_bytes()),
    "coordinate_list": plain(coordinate_list, PLACE.to_wire()),
    "predicate": plain(
        predicate,
        *(door.parse(one, SCHEMA, coordinate_of=where).to_wire() for one in TEXTS),
    ),
    "select": target(select, select_to_wire(MEASURE), pack([2, bytes(8)])),
    "chain": target(parse_chain.__wrapped__, CHAIN, by_heir()),
    "lineage": target(parse_lineage, heirs_line().wire),
    "succession": target(succession, write_succession(Succession(bytes(32), 2_000_000_000))),
    "link": target(
        lambda data: parse_link(data, AUTHORITY.root.public, AUTHORITY.chain.certs), link()
    ),
    "user": Target(user, lambda: [USER_CHAIN]),
    "secret": target(lambda data: unlock_files(PLACE_OF_SECRET, data), SECRET),
    "secret_files": target(files, pack({"id_ed25519": b"secret", "": b""})),
    "revocation": target(
        revocation,
        write_revocation(revoke(AUTHORITY.root, AUTHORITY.name, bytes(8), 2_000_000_000)),
    ),
    "welcome": target(welcome, write_welcome(WELCOME)),
    "receipt": target(
        receipt,
        write_receipt(
            Receipt(bytes(16), KEY, "a", bytes(32), (("cores", 4.0), ("mem", 2.0**30)), 1.5, 9.5)
        ),
        write_receipt(Receipt(bytes(16), KEY, "b", bytes(32), (), 1.0, 1.0, 0.25, 2.0, 3.0)),
    ),
    "token": target(
        token,
        str(Token(bytes(20), bytes(16), (("10.0.0.1", 7400), ("2001:db8::1", 1)))).encode(),
        refuses=UsageError,
    ),
    "ready": target(read_ready, write_ready(CHAIN, ""), write_ready(b"", "no")),
    "handshake_first": target(read_first, first_message(), first_message(b"")),
    "handshake_second": target(read_second, second_message()),
    "sealed": target(lambda data: unseal(SECRETS[0], 1, data), seal(SECRETS[0], 1, b"plain")),
    "enrol_request": plain(asked_to_admit, [bytes(16), bytes(32), "node-7"]),
    "enrol_answer": plain(
        told_of_admission, [CHAIN], [b"", "why", False], [b"", "", False, [["10.0.0.1", 7400]]]
    ),
    "query": target(
        text(lambda query: door.parse(query, SCHEMA, coordinate_of=where)),
        *(one.encode() for one in TEXTS),
        refuses=PredicateError,
    ),
    "query_order": target(
        text(lambda query: door.parse_order(query, SCHEMA, coordinate_of=where)),
        b"price",
        b"rtt(self)",
        refuses=UsageError,
    ),
    "selector": target(
        text(lambda query: door.parse_selector(query, SCHEMA)),
        b"team in (video, audio),!legacy",
        b"team=video,tier!=gold",
        refuses=PredicateError,
    ),
    "command_client": target(
        lambda data: command_wire._decoded(command_wire._OF_CLIENT, data),
        command_wire.frame(
            command_wire.Start(1, bytes(grants.TOKEN_BYTES), 1, [b"ls"], {b"A": b"b"}, stdin=True)
        )[4:],
        command_wire.frame(command_wire.Data(0, b"x"))[4:],
        command_wire.frame(command_wire.Signal(15))[4:],
    ),
    "command_hello": Target(comes_sealed, lambda: [CLIENT.chain.wire]),
    "command_records": Target(
        of_records,
        lambda: [sealed_stream.framed(seal(SECRETS[0], 0, b"hello"))],
    ),
    "groups": Target(of_groups, lambda: [link()]),
    "command_node": target(
        lambda data: command_wire._decoded(command_wire._OF_NODE, data),
        command_wire.frame(command_wire.Started("lease"))[4:],
        command_wire.frame(command_wire.Taken(1, 5))[4:],
        command_wire.frame(command_wire.Ended(0, 0.1, 0.1, 1, 0.5))[4:],
        command_wire.frame(command_wire.Refusal(1, "why", 125))[4:],
    ),
}
