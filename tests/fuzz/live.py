"""Targets that are a whole node, or its sessions: nothing at all may leave them.

Each input meets a node that was made for it, from one seed, so that one input alone repeats what
it did.
"""

from functools import cache
from random import Random

from target import Target
from trust_world import BEGIN, Authority, End

from dhtos.core.ids import Endpoint
from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA
from dhtos.core.predicate import EVERYTHING
from dhtos.core.record import Record, make_record, row_id
from dhtos.protocol.bandwidth import Trains
from dhtos.protocol.engine import Engine
from dhtos.protocol.enrol import Enrolment, declined
from dhtos.protocol.grants import TOKEN_BYTES, Grants
from dhtos.protocol.handshakes import (
    HELLO,
    READY,
    READY_AT,
    hello_head,
    probe,
    read_ready,
    ready_head,
    write_ready,
)
from dhtos.protocol.ledger import Ledger
from dhtos.protocol.promotion import Promotion
from dhtos.protocol.renewal import Renewal
from dhtos.protocol.wire import Request, encode_request, encode_trailer, parse
from dhtos.trust.keys import KeyPair, exchange_public
from dhtos.trust.member import Member
from dhtos.trust.noise import Handshake
from dhtos.trust.revocation import revoke, write_revocation
from dhtos.trust.welcome import make_welcome, write_welcome

NODE, PEER, STRANGER = ("10.0.0.1", 7400), ("10.0.0.2", 7400), ("172.16.0.9", 9)
PAYLOAD_BYTES_MAX = 1200  # of what the other end of a handshake can say
NONCE, NOW = b"n" * 16, 1.0
MSG_ID = b"m" * 20

AUTHORITY = Authority(11)
KEYS = [KeyPair(bytes([n]) * 32) for n in range(1, 6)]
CHAINS = [AUTHORITY.admit(key, f"n{at}") for at, key in enumerate(KEYS)]


def member(at: int, *, admitted: bool = True) -> Member:
    """Somebody new, who draws the same each time."""
    return Member(
        KEYS[at],
        AUTHORITY.name,
        entropy=Random(at).randbytes,
        wall_s=lambda: BEGIN + 1.0,
        chain=CHAINS[at] if admitted else None,
    )


# --- sessions -------------------------------------------------------------------------------------


def from_a_stranger(data: bytes) -> bool:
    """An address that has shown nothing is sent no more than came from it, and nobody else is."""
    end = End(member(0), NODE)
    assert end.sessions.receive(data, STRANGER, NOW) is None
    end.timers.run(NOW + 10.0)
    assert all(to == STRANGER for _, to in end.outbox)
    sent = sum(len(datagram) for datagram, _ in end.outbox)
    assert sent <= len(data), f"{sent} bytes for {len(data)}"
    return sent > 0


def as_first_message(data: bytes) -> bool:
    """What somebody says inside of a handshake that it began: its chain, if it has one."""
    end = End(member(0), NODE)
    end.sessions.receive(probe(NONCE), STRANGER, NOW)
    who, _ = end.outbox.pop()
    head = hello_head.pack(HELLO, 7, NONCE, who[17:33])
    remote = exchange_public(KEYS[0].public)
    assert remote is not None
    ours = Handshake.initiator(KEYS[1].exchange_secret, remote, b"e" * 32, b"dhtos/1" + head)
    message = ours.write(data[:PAYLOAD_BYTES_MAX])
    end.sessions.receive(head + message, STRANGER, NOW)
    (ready, to) = end.outbox.pop()
    assert to == STRANGER
    return not read_ready(ours.read(ready[READY_AT:])).refusal


def begun(end: End) -> tuple[bytes, Handshake]:
    """What somebody whom a node sends to gets from it first, and has read of it."""
    end.sessions.seal([(encode_request(MSG_ID, "stun", []), PEER)])
    end.timers.run(NOW)
    question, _ = end.outbox.pop()
    other = End(member(1), PEER)
    other.sessions.receive(question, NODE, NOW)
    who, _ = other.outbox.pop()
    end.sessions.receive(who, PEER, NOW)
    hello, _ = end.outbox.pop()
    theirs = Handshake.responder(
        KEYS[1].exchange_secret, b"r" * 32, b"dhtos/1" + hello[: hello_head.size]
    )
    theirs.read(hello[hello_head.size :])
    return hello, theirs


def as_second_message(data: bytes) -> bool:
    """What somebody says inside of the answer to our handshake: its chain, or why not."""
    end = End(member(0), NODE)
    hello, theirs = begun(end)
    head = ready_head.pack(READY, int.from_bytes(hello[1:5], "little"), 9)
    end.sessions.receive(head + theirs.write(data[:PAYLOAD_BYTES_MAX]), PEER, NOW)
    end.timers.run(NOW + 100.0)
    return end.counters["sessions_out"] == 1


def in_answer(data: bytes) -> bool:
    """A datagram of whom we have asked who it is (even first byte), or said HELLO (odd)."""
    end = End(member(0), NODE)
    if data[:1] > b"\x7f":
        begun(end)
    else:
        end.sessions.seal([(encode_request(MSG_ID, "stun", []), PEER)])
        end.timers.run(NOW)
        end.outbox.clear()
    end.sessions.receive(data[1:], PEER, NOW)
    end.timers.run(NOW + 100.0)
    return not end.counters["malformed"] and not end.counters["handshakes_malformed"]


def met(node: End, peer: End) -> None:
    """Make a session of two ends."""
    peer.sessions.seal([(encode_request(MSG_ID, "stun", []), NODE)])
    peer.timers.run(NOW)
    for _ in range(3):
        for datagram, _ in peer.outbox:
            node.sessions.receive(datagram, PEER, NOW)
        peer.outbox.clear()
        for datagram, _ in node.outbox:
            peer.sessions.receive(datagram, NODE, NOW)
        node.outbox.clear()


def of_a_member(data: bytes) -> bool:
    """A datagram from where a member is that has a session."""
    node = End(member(0), NODE)
    met(node, End(member(1), PEER))
    return node.sessions.receive(data, PEER, NOW) is not None


@cache
def sealed() -> list[bytes]:
    """What that member would send next."""
    node, peer = End(member(0), NODE), End(member(1), PEER)
    met(node, peer)
    peer.sessions.seal([(encode_request(MSG_ID, "ping", [bytes(20)]), NODE)])
    return [peer.outbox[0][0]]


# --- engines --------------------------------------------------------------------------------------


def machine(number: int, endpoint: Endpoint) -> Record:
    """The record of a machine."""
    key, chain = KEYS[number], CHAINS[number]
    return make_record(
        SCHEMA,
        {"cores": 2 << number, "mem": 2**33, "price": 0.5, "load1": 0.25},
        {"team": "video"},
        node_id=chain.node_id(),
        endpoint=endpoint,
        seq=1,
        identity=key.public,
    )


MACHINES = [machine(number, (f"10.0.0.{number + 1}", 7400)) for number in range(5)]


def row() -> Record:
    """The record of a machine without a node, whose gateway is that peer."""
    identity = KEYS[1].public
    return make_record(
        SCHEMA,
        {"cores": 8},
        {},
        node_id=row_id(identity, "vm-1"),
        endpoint=PEER,
        seq=1,
        identity=identity,
        row="vm-1",
    )


def settled(at: int = 0, who: Member | None = None) -> Engine:
    """A node in a hub, with all that it can be asked; of its group it believes the others."""
    own = MACHINES[at]
    engine = Engine(own.node_id, rng=Random(at), now=0.0, schema=SCHEMA, member=who)
    hub = engine.hub
    Grants(hub, Ledger())
    Trains(engine.core)
    if who is not None:
        Enrolment(engine.core, lambda _request: declined("no", final=True))
        Renewal(engine.core, None)
        Promotion(engine.core, lambda _chain: declined("no", final=True))
    hub.advertise(own, 0.0)
    hub.found(0.0)
    for record in MACHINES:
        if record is not own:
            hub.group.put(record.key(SCHEMA), record, 0.0, 0.0)
    hub.settle(0.0)
    engine.outbox()
    return engine


def take(engine: Engine, datagram: bytes, source: Endpoint) -> bool:
    """Whether it was a message; the node lives on, and is sound."""
    before = engine.counters["malformed"]
    engine.receive(datagram, source, NOW)
    accepted = engine.counters["malformed"] == before
    engine.tick(NOW + 0.5)
    engine.outbox()
    engine.events()
    engine.check()
    return accepted


def request(data: bytes) -> bool:
    """A datagram to a node without certificates."""
    return take(settled(), data, PEER)


def begin_calls(engine: Engine, to: Endpoint) -> list[bytes]:
    """Let a node ask for all that nodes ask for; the ids of its calls in the order it made them."""
    hub, repair = engine.hub, engine.hub.gossip.repair
    other = next(one for one in hub.members() if one.record.endpoint == to)
    engine.base.bootstrap([to], NOW)
    engine.base.get(bytes(20), NOW)
    hub.find(EVERYTHING, NOW, verify=3)
    hub.find(EVERYTHING, NOW, limit=2, order=(SCHEMA.index("price"), True), verify=3)
    hub.gossip.exchange(other, NOW)
    hub.gossip.push_own([to], NOW)
    repair.wanted.add(other.key)
    repair.fetch(to, NOW)
    repair.compare(to, hub.group.prefix.to_wire(), bytes(2), NOW)
    hub.summaries._ask(to, [-1], NOW)
    engine.tick(NOW)
    return list(engine.core.calls._open)


def reply(data: bytes) -> bool:
    """A reply: the first byte says to which of the calls of a node, the rest is its payload."""
    engine = settled()
    calls = begin_calls(engine, PEER)
    call = engine.core.calls._open[calls[data[0] % len(calls)] if data else calls[0]]
    return take(engine, b"\x01" + call.msg_id + data[1:], call.endpoint)


def in_session(data: bytes) -> bool:
    """A datagram that a member has sealed."""
    engine = settled(0, member(0))
    peer = End(member(1), PEER)
    peer.sessions.seal([(encode_request(MSG_ID, "stun", []), NODE)])
    peer.timers.run(NOW)
    for _ in range(3):
        for datagram, _ in peer.outbox:
            engine.receive(datagram, PEER, NOW)
        peer.outbox.clear()
        for datagram, to in engine.outbox():
            if to == PEER:
                peer.sessions.receive(datagram, NODE, NOW)
    assert engine.core.sessions is not None
    peer.sessions.seal([(data[:PAYLOAD_BYTES_MAX], NODE)])
    ((datagram, _),) = peer.outbox
    return take(engine, datagram, PEER)


@cache
def requests() -> list[bytes]:
    """One of each name, as that peer sends it to that node."""
    peer, cookie = settled(1), settled().core.cookie(PEER)
    begin_calls(peer, NODE)
    said = {}
    for datagram, to in peer.outbox():
        message = parse(datagram)
        if to == NODE and isinstance(message, Request):
            said[message.name] = message.args
    for name in ("dh_range", "dh_summary"):
        said[name][1] = cookie
    token = bytes(TOKEN_BYTES)
    said |= {
        "dh_put": [0, cookie, [[0, 0.0, row()]]],
        "dh_probe": [0, MACHINES[2].key(SCHEMA), *MACHINES[2].endpoint],
        "dh_train": [0, bytes(64)],
        "store": [bytes(20), bytes(20), "value"],
        "dh_claim": [cookie, token, [["cores", 1]], 0, None, SCHEMA.tag, b"", False],
        "dh_confirm": [token, 1, 60],
        "dh_renew": [token, 1],
        "dh_release": [token],
    }
    made = [encode_request(MSG_ID, name, args) for name, args in said.items()]
    return [*made, made[0] + encode_trailer([1, 7, 60_000])]


@cache
def replies() -> list[bytes]:
    """What its peer answers to the calls of that node."""
    engine = settled()
    calls = begin_calls(engine, PEER)
    made = []
    for datagram, to in engine.outbox():
        if to == PEER and datagram[0] == 0:
            peer = settled(1)
            peer.receive(datagram, NODE, NOW)
            made += [
                bytes((calls.index(answer[1:21]),)) + answer[21:]
                for answer, _ in peer.outbox()
                if answer[0] == 1 and answer[1:21] in calls
            ]
    return made


WELCOME = make_welcome(
    AUTHORITY.key, AUTHORITY.name, bytes(20), caps=("query",), begins=BEGIN, expires=BEGIN + 99
)


def words_of_members() -> list[bytes]:
    """What only members say to each other, and what all do."""
    told = write_revocation(revoke(AUTHORITY.root, AUTHORITY.name, bytes(8), BEGIN + 99))
    return [
        encode_request(MSG_ID, "dh_enrol", []),
        encode_request(MSG_ID, "dh_enrol", [bytes(16), KEYS[1].public, "n1"]),
        encode_request(MSG_ID, "dh_recertify", []),
        encode_request(MSG_ID, "dh_revocations", [bytes(8)]),
        encode_request(MSG_ID, "dh_revoked", [[told]]),
        encode_request(MSG_ID, "dh_revoked", [[], [AUTHORITY.chain.wire]]),
        encode_request(MSG_ID, "dh_revoked", [[], [], [write_welcome(WELCOME)]]),
        encode_request(MSG_ID, "dh_promote", [AUTHORITY.chain.wire]),
        *requests(),
    ]


TARGETS: dict[str, Target] = {
    "stranger": Target(from_a_stranger, lambda: [probe(NONCE), b"\xd4" + bytes(80)]),
    "hello": Target(as_first_message, lambda: [CHAINS[1].wire, b""]),
    "hello_answer": Target(as_second_message, lambda: [write_ready(CHAINS[1].wire, "")]),
    "session_answer": Target(in_answer, lambda: [b"\0" + bytes([0xD1]) + bytes(64)]),
    "session": Target(of_a_member, sealed),
    "request": Target(request, requests),
    "reply": Target(reply, replies),
    "in_session": Target(in_session, words_of_members),
}
