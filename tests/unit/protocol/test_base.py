"""The base overlay among its peers, on a virtual network: handlers, join, put, get, upkeep."""

import heapq
import random

import pytest

from dhtos.core.contact import Contact
from dhtos.core.ids import digest
from dhtos.core.limits import (
    CALL_DEADLINE_S,
    EMPTY_RANGE_RETRY_S,
    GREETING_INTERVAL_S,
    GREETINGS_MAX,
    GREETINGS_PER_S_MAX,
    HANDOFF_PER_S_MAX,
    HANDOFF_QUEUE_MAX,
    OPERATION_DEADLINE_S,
    REFRESH_INTERVAL_S,
    REPUBLISH_INTERVAL_S,
    SEED_ROUNDS,
    UPKEEP_INTERVAL_S,
    VALUE_BYTES_MAX,
    VALUE_TTL_S,
)
from dhtos.errors import (
    Closed,
    Conflict,
    KeyNotFound,
    LookupExpired,
    NoPeers,
    Refused,
    UsageError,
    ValueTooLarge,
)
from dhtos.protocol import store as store_module
from dhtos.protocol.base import BaseOverlay
from dhtos.protocol.put import PutResult
from dhtos.protocol.replies import SEQ_MAX
from dhtos.protocol.rpc import Core
from dhtos.protocol.store import Held, StoredValue
from dhtos.protocol.upkeep import Allowance
from dhtos.protocol.wire import (
    Request,
    Response,
    encode_request,
    encode_response,
    encode_trailer,
    parse,
)

STRANGER = ("10.9.9.9", 7400)
MSG_ID = b"m" * 20


def stale(net: "Net", node: BaseOverlay) -> list[bytes]:
    """What the node would look up to refresh its ranges."""
    shares = node.routing.shares()
    return node.ranges.stale(shares, net.now, interval_s=REFRESH_INTERVAL_S, rng=net.rng)


class Net:
    """Overlays on one virtual clock; a datagram takes 0.5 to 1.5 ms."""

    def __init__(self, count: int = 0, *, k: int = 8, seed: int = 1, join: bool = True) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.nodes: dict[tuple[str, int], BaseOverlay] = {}
        self.dead: set[tuple[str, int]] = set()
        self.flying: list[tuple[float, int, bytes, tuple[str, int], tuple[str, int]]] = []
        self.sent: list[tuple[bytes, tuple[str, int], tuple[str, int]]] = []
        for _ in range(count):
            node = self.add(k=k)
            if join and len(self.nodes) > 1:
                self.run(node.bootstrap([self.endpoints[0]], self.now))
        if join:
            self.pass_time(1.0)

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        return list(self.nodes)

    def add(self, *, k: int = 8, node_id: bytes | None = None, client: bool = False) -> BaseOverlay:
        number = len(self.nodes) + 1
        endpoint = (f"10.0.{number >> 8}.{number & 255}", 7400)
        node_id = node_id or self.rng.randbytes(20)
        node = BaseOverlay(Core(self.rng), node_id, self.now, k=k, client=client)
        self.nodes[endpoint] = node
        return node

    def where(self, node: BaseOverlay) -> tuple[str, int]:
        return next(endpoint for endpoint, other in self.nodes.items() if other is node)

    def flush(self) -> None:
        for endpoint, node in self.nodes.items():
            for datagram, to in node.core.sending:
                self.sent.append((datagram, endpoint, to))
                when = self.now + 0.0005 + self.rng.random() * 0.001
                heapq.heappush(self.flying, (when, len(self.sent), datagram, endpoint, to))
            node.core.sending.clear()

    def _due(self) -> float:
        alive = [node for endpoint, node in self.nodes.items() if endpoint not in self.dead]
        due = min((node.core.timers.next_deadline() for node in alive), default=float("inf"))
        return min(due, self.flying[0][0]) if self.flying else due

    def step(self) -> None:
        self.now = max(self.now, self._due())
        while self.flying and self.flying[0][0] <= self.now:
            _, _, datagram, source, to = heapq.heappop(self.flying)
            if to in self.nodes and to not in self.dead:
                self.nodes[to].core.receive(datagram, source, self.now)
        for endpoint, node in self.nodes.items():
            if endpoint not in self.dead and node.core.timers.next_deadline() <= self.now:
                node.core.timers.run(self.now)
        self.flush()

    def pass_time(self, seconds: float) -> None:
        self.flush()
        end = self.now + seconds
        while self._due() <= end:
            self.step()
        self.now = end
        self.check()

    def run(self, operation):
        """The result of the operation, and nothing later than that."""
        self.flush()
        begun = self.now
        while not operation.done:
            self.step()
        assert self.now - begun <= OPERATION_DEADLINE_S + 2 * CALL_DEADLINE_S
        self.check()
        return operation.result()

    def check(self) -> None:
        for node in self.nodes.values():
            node.check()
            node.core.check()

    def put(self, node: BaseOverlay, key: bytes, value, **options) -> PutResult:
        return self.run(node.put(key, value, self.now, **options))

    def get(self, node: BaseOverlay, key: bytes) -> StoredValue:
        return self.run(node.get(key, self.now))

    def holders(self, key: bytes) -> list[BaseOverlay]:
        return [node for node in self.nodes.values() if node.store.get(key, self.now)]

    def closest(self, key: bytes, k: int) -> list[BaseOverlay]:
        def far(node: BaseOverlay) -> int:
            return int.from_bytes(node.id) ^ int.from_bytes(key)

        alive = [node for endpoint, node in self.nodes.items() if endpoint not in self.dead]
        return sorted(alive, key=far)[:k]


@pytest.fixture(scope="module")
def swarm() -> Net:
    """Thirty joined nodes, k=8; tests use their own keys and change nothing else."""
    return Net(30)


def ask(node: BaseOverlay, name: str, args: list, *, source=STRANGER, trailer=None, now=0.0):
    """What one datagram of a stranger makes `node` send: the reply's value, and the rest."""
    datagram = encode_request(MSG_ID, name, args)
    if trailer is not None:
        datagram += encode_trailer(trailer)
    node.core.receive(datagram, source, now)
    sent = [parse(d) for d, _ in node.core.sending]
    node.core.sending.clear()
    replies = [m.value for m in sent if isinstance(m, Response)]
    return (replies[0] if replies else "silence"), [m for m in sent if isinstance(m, Request)]


class TestHandlers:
    def node(self) -> BaseOverlay:
        return Net().add()

    def test_ping_names_us_and_greets_back(self):
        node = self.node()
        reply, asked = ask(node, "ping", [b"s" * 20])
        assert reply == node.id
        assert [(request.name, request.args) for request in asked] == [("ping", [node.id])]

    def test_stun_says_who_asked(self):
        assert ask(self.node(), "stun", []) == ([*STRANGER], [])

    def test_store_and_find_value(self):
        node = self.node()
        key = digest("k")
        assert ask(node, "store", [b"s" * 20, key, "v"])[0] is True
        assert ask(node, "find_value", [b"s" * 20, key])[0] == {"value": "v"}
        assert ask(node, "find_value", [b"s" * 20, digest("other")])[0] == []

    def test_a_dhtos_peer_is_told_number_and_life(self):
        node = self.node()
        key = digest("k")
        ask(node, "store", [b"s" * 20, key, "v"], trailer=[1, 7, 60_000])
        reply, _ = ask(node, "find_value", [b"s" * 20, key], trailer=[1], now=10.0)
        assert reply == {"value": "v", "s": 7, "t": 50.0}
        assert ask(node, "find_value", [b"s" * 20, key], now=60.0)[0] == []

    def test_verdicts_of_store(self, monkeypatch):
        node = self.node()
        key = digest("k")
        assert ask(node, "store", [b"s" * 20, key, "v"], trailer=[1, 7, 60_000])[0] is True
        assert ask(node, "store", [b"s" * 20, key, "old"], trailer=[1, 6, 60_000])[0] is False
        assert ask(node, "store", [b"s" * 20, key, "stock"])[0] is False
        assert node.core.counters["stores_superseded"] == 2
        monkeypatch.setattr(store_module, "VALUES_MAX", 1)
        assert ask(node, "store", [b"s" * 20, digest("k2"), "v"])[0] is None
        assert node.core.counters["stores_no_room"] == 1

    def test_find_node_is_exact_and_leaves_the_asker_out(self):
        net = Net()
        node = net.add(k=4)
        contacts = [Contact(net.rng.randbytes(20), (f"10.1.0.{n}", 7400)) for n in range(1, 13)]
        for contact in contacts:
            node.answered(contact, 0.0)
        held = {contact.id for contact in node.contacts()}
        target = contacts[3].id
        far = sorted(held, key=lambda i: int.from_bytes(i) ^ int.from_bytes(target))
        reply, _ = ask(node, "find_node", [b"s" * 20, target])
        assert [item[0] for item in reply] == far[:4]
        reply, _ = ask(node, "find_node", [target, target], source=contacts[3].endpoint)
        assert [item[0] for item in reply] == far[1:5]

    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("ping", []),
            ("ping", [1]),
            ("ping", [b"short"]),
            ("ping", [b"s" * 20, 1]),
            ("stun", [1]),
            ("find_node", [b"s" * 20]),
            ("find_node", [b"s" * 20, "key"]),
            ("find_node", ["s" * 20, b"k" * 20]),
            ("find_value", [b"s" * 20, b"k" * 19]),
            ("find_value", [b"s" * 20, b"k" * 20, 1]),
            ("store", [b"s" * 20, b"k" * 20]),
            ("store", [b"s" * 20, b"k" * 21, 1]),
            ("store", [b"s" * 20, b"k" * 20, None]),
            ("store", [b"s" * 20, b"k" * 20, [1]]),
            ("store", [b"s" * 20, b"k" * 20, {"a": 1}]),
            ("store", [1, b"k" * 20, 1]),
        ],
    )
    def test_malformed_arguments_are_counted_and_unanswered(self, name, args):
        node = self.node()
        assert ask(node, name, args) == ("silence", [])
        assert node.core.counters["malformed"] == 1
        assert len(node.store) == 0

    @pytest.mark.parametrize(
        "trailer",
        [[1, -1, 1], [1, SEQ_MAX + 1, 1], [1, "1", 1], [1, 1, 0], [1, 1, 1.5], [1, 1, 10**12]],
    )
    def test_malformed_numbers_are_refused(self, trailer):
        node = self.node()
        assert ask(node, "store", [b"s" * 20, b"k" * 20, 1], trailer=trailer)[0] == "silence"
        assert len(node.store) == 0

    def test_a_client_answers_nothing(self):
        node = Net().add(client=True)
        assert ask(node, "ping", [b"s" * 20]) == ("silence", [])


class TestAdmission:
    def test_a_requester_enters_only_after_it_answered(self):
        net = Net()
        one, two = net.add(), net.add()
        datagram = encode_request(MSG_ID, "ping", [two.id])
        one.core.receive(datagram, net.where(two), 0.0)
        assert two.id not in one.routing
        net.pass_time(1.0)
        assert one.routing.is_verified(two.id)
        assert two.routing.is_verified(one.id)

    def test_a_forged_id_is_replaced_by_the_true_one(self):
        net = Net()
        one, two = net.add(), net.add()
        one.core.receive(encode_request(MSG_ID, "ping", [b"f" * 20]), net.where(two), 0.0)
        net.pass_time(1.0)
        assert b"f" * 20 not in one.routing
        assert two.id in one.routing

    def test_a_forged_source_costs_one_ping(self):
        net = Net()
        node = net.add()
        for number in range(5):
            ask(node, "find_node", [bytes([number]) * 20, b"k" * 20], now=net.now)
        net.pass_time(GREETING_INTERVAL_S / 2)
        pings = [parse(d) for d, _, to in net.sent if to == STRANGER]
        assert len(pings) == 1  # its retransmission; the ping itself was taken by `ask`
        assert len(node.routing) == 0
        assert len(node.core.calls) == 0

    def test_a_known_id_elsewhere_is_checked_there(self):
        net = Net(3)
        one, two, *_ = net.nodes.values()
        _, asked = ask(one, "ping", [two.id], now=net.now)
        assert [request.name for request in asked] == ["ping"]
        assert one.routing.get(two.id).endpoint == net.where(two)
        net.pass_time(CALL_DEADLINE_S)
        assert one.routing.get(two.id).endpoint == net.where(two)

    def test_greetings_are_metered(self):
        node = Net().add()
        for number in range(2 * GREETINGS_PER_S_MAX):
            ask(node, "ping", [number.to_bytes(20)], source=("10.8.0.1", number + 1))
        assert node.core.counters["requests_out"] == GREETINGS_PER_S_MAX
        assert node.core.counters["greetings_skipped"] == GREETINGS_PER_S_MAX

    def test_who_was_greeted_is_remembered_within_bounds(self):
        node = Net().add()
        for number in range(GREETINGS_MAX + 10):
            contact = Contact(number.to_bytes(20), ("10.8.0.1", number + 1))
            node._greeter.consider(contact, float(number))
        node._greeter.check()
        assert len(node._greeter._recent) == GREETINGS_MAX

    def test_no_ping_is_spent_on_a_full_bucket(self):
        node = Net().add(k=2, node_id=bytes(20))
        for first in (0x80, 0x81, 0x40, 0x20):
            node.answered(Contact(bytes([first]) * 20, (f"10.1.0.{first}", 7400)), 0.0)
        node.core.sending.clear()
        assert ask(node, "ping", [b"\x90" * 20])[1] == []
        assert ask(node, "ping", [b"\x41" * 20])[1] != []

    def test_a_long_silent_contact_is_challenged_by_a_newcomer(self):
        node = Net().add(k=2, node_id=bytes(20))
        for first in (0x80, 0x81, 0x40):
            node.answered(Contact(bytes([first]) * 20, (f"10.1.0.{first}", 7400)), 0.0)
        node.core.sending.clear()
        node.answered(Contact(b"\x90" * 20, ("10.1.0.90", 7400)), 5000.0)
        ((datagram, to),) = node.core.sending
        assert parse(datagram).name == "ping"
        assert to in (("10.1.0.128", 7400), ("10.1.0.129", 7400))

    def test_a_malformed_pong_is_counted(self):
        net = Net()
        node = net.add()
        node._greeter.consider(Contact(b"s" * 20, STRANGER), 0.0)
        ((datagram, _),) = node.core.sending
        request = parse(datagram)
        node.core.receive(encode_response(request.msg_id, [1]), STRANGER, 0.0)
        assert node.core.counters["replies_malformed"] == 1
        assert len(node.routing) == 0

    def test_allowance(self):
        allowance = Allowance(2)
        assert [allowance.take(0.0) for _ in range(3)] == [True, True, False]
        assert [allowance.take(0.5), allowance.take(0.5)] == [True, False]
        assert [allowance.take(9.0) for _ in range(3)] == [True, True, False]


class TestBootstrap:
    def test_everybody_meets_the_neighbours(self, swarm):
        for node in swarm.nodes.values():
            near = [other.id for other in swarm.closest(node.id, 4) if other is not node]
            known = {contact.id for contact in node.contacts()}
            assert set(near) <= known

    def test_no_seed_answers(self):
        net = Net()
        node = net.add()
        with pytest.raises(NoPeers, match=r"10\.9\.9\.9:7400"):
            net.run(node.bootstrap([STRANGER], 0.0))
        with pytest.raises(NoPeers, match="none given"):
            net.run(node.bootstrap([], 0.0))

    def test_seeds_that_are_silent_are_pinged_again(self):
        net = Net(1)
        (seed,) = net.endpoints
        net.dead = {seed}
        node = net.add()
        operation = node.bootstrap([seed], net.now)
        net.pass_time(1.5)  # the first ping, and the same once more, are lost
        assert not operation.done
        net.dead = set()  # it was starting, or busy
        assert net.run(operation) == 1

    def test_seeds_that_stay_silent_are_given_up(self):
        net = Net()
        node = net.add()
        operation = node.bootstrap([STRANGER], net.now)
        net.pass_time(SEED_ROUNDS - 0.1)
        assert not operation.done
        net.pass_time(0.2)
        assert isinstance(operation.error, NoPeers)
        assert node.core.counters["requests_out"] == SEED_ROUNDS
        assert len(node.core.calls) == 0

    def test_one_living_seed_is_enough(self):
        net = Net(3)
        node = net.add()
        seeds = [STRANGER, net.endpoints[0], ("10.9.9.8", 1), net.endpoints[0]]
        assert net.run(node.bootstrap(seeds, net.now)) == 3

    def test_ourselves_is_no_seed(self):
        net = Net()
        node = net.add()
        with pytest.raises(NoPeers):
            net.run(node.bootstrap([net.endpoints[0]], 0.0))

    def test_a_seed_that_talks_nonsense(self):
        net = Net()
        node, liar = net.add(), net.add()
        liar.core._handlers["ping"] = lambda *_: "hello"
        with pytest.raises(NoPeers):
            net.run(node.bootstrap([net.where(liar)], 0.0))
        assert node.core.counters["replies_malformed"] == 1

    @pytest.mark.parametrize("after", [0.0, 0.003])
    def test_cancel_leaves_nothing(self, after):
        net = Net(10)
        node = net.add()
        operation = node.bootstrap([net.endpoints[0], STRANGER][: 1 if after else 2], net.now)
        net.pass_time(after)
        assert not operation.done
        operation.cancel(net.now)
        assert len(node._lookups) == 0
        mine = [call for call in node.core.calls._open.values() if call.name != "ping"]
        assert mine == []
        with pytest.raises(Closed):
            operation.result()

    def test_the_rest_of_the_space_is_looked_into(self):
        net = Net(40, k=4)
        node = net.add(k=4)
        net.run(node.bootstrap([net.endpoints[0]], net.now))
        net.pass_time(2.0)
        assert stale(net, node) == []

    def test_a_small_table_is_no_excuse_not_to_look_everywhere(self):
        """One bucket that never split: the far half is looked into like every other range."""
        net = Net()
        low = [net.add(node_id=bytes([number]) + bytes(19)) for number in (1, 2, 3, 5)]
        for node in low[1:]:
            net.run(node.bootstrap([net.endpoints[0]], net.now))
        newcomer = net.add(node_id=b"\x08" + bytes(19))
        net.run(newcomer.bootstrap([net.endpoints[0]], net.now))
        assert newcomer.routing.bucket_count == 1
        net.pass_time(0.5)
        asked = {
            int.from_bytes(message.args[1]) >> 159
            for datagram, source, _ in net.sent
            if source == net.where(newcomer)
            and isinstance(message := parse(datagram), Request)
            and message.name == "find_node"
        }
        assert asked == {0, 1}
        assert stale(net, newcomer) == []

    def test_who_comes_later_to_an_empty_half_is_found(self):
        net = Net()
        old = [net.add(node_id=bytes([number]) + bytes(19)) for number in (1, 2, 3, 5)]
        for node in old[1:]:
            net.run(node.bootstrap([net.endpoints[0]], net.now))
        net.pass_time(1.0)
        pioneer = net.add(node_id=b"\xf0" + bytes(19))
        old[0].answered(Contact(pioneer.id, net.where(pioneer)), net.now)
        net.pass_time(3 * EMPTY_RANGE_RETRY_S)
        assert all(pioneer.id in node.routing for node in old)

    def test_an_empty_range_is_looked_into_ever_less_often(self):
        net = Net()
        pair = [net.add(node_id=bytes([number]) + bytes(19)) for number in (1, 2)]
        net.run(pair[1].bootstrap([net.endpoints[0]], net.now))
        net.pass_time(UPKEEP_INTERVAL_S * 2)
        counts = []
        for _ in range(3):
            net.sent.clear()
            net.pass_time(600.0)
            counts.append(len(net.sent))
            pair[1].check()
        assert counts[0] > 0
        assert counts[2] <= counts[0]
        net.sent.clear()
        net.pass_time(REFRESH_INTERVAL_S)
        assert 0 < len(net.sent) < 120

    def test_who_knows_every_range_stops_looking(self):
        net = Net()
        nodes = [net.add(node_id=bytes([number]) + bytes(19)) for number in (0, 0x80, 0x40)]
        for node in nodes[1:]:
            net.run(node.bootstrap([net.endpoints[0]], net.now))
        net.pass_time(2 * EMPTY_RANGE_RETRY_S)
        net.sent.clear()
        net.pass_time(5 * EMPTY_RANGE_RETRY_S)
        assert nodes[0].routing.shares() == {0, 1}
        assert not [source for _, source, _ in net.sent if source == net.endpoints[0]]

    def test_losing_the_last_of_a_range_starts_the_search_anew(self):
        net = Net()
        ids = [bytes([number]) + bytes(19) for number in (1, 2, 0x80)]
        nodes = [net.add(node_id=node_id) for node_id in ids]
        for node in nodes[1:]:
            net.run(node.bootstrap([net.endpoints[0]], net.now))
        net.pass_time(REFRESH_INTERVAL_S)
        far = Contact(nodes[2].id, net.where(nodes[2]))
        net.dead.add(far.endpoint)
        nodes[0].answered(Contact(nodes[1].id, net.where(nodes[1])), net.now)
        for _ in range(2):
            net.now += 0.001
            nodes[0].failed(far, net.now)
        assert far.id not in nodes[0].routing
        net.sent.clear()
        net.pass_time(2 * EMPTY_RANGE_RETRY_S)
        assert net.sent


class TestPutAndGet:
    @pytest.mark.parametrize("value", ["text", b"\x00bytes", -3, 2**63, 0.5, True, False, "", b""])
    def test_types_are_kept(self, swarm, value):
        key = digest(f"type {value!r}")
        result = swarm.put(swarm.nodes[swarm.endpoints[3]], key, value)
        assert (result.stored_on, result.wanted, result.seq) == (8, 8, 0)
        found = swarm.get(swarm.nodes[swarm.endpoints[17]], key)
        assert found.value == value
        assert type(found.value) is type(value)

    def test_the_k_closest_hold_it(self, swarm):
        for number in range(20):
            key = digest(f"placed {number}")
            node = swarm.nodes[swarm.endpoints[number]]
            result = swarm.put(node, key, number, seq=number)
            true = swarm.closest(key, 8)
            assert {n.id for n in swarm.holders(key)} == {n.id for n in true}
            assert result == PutResult(8, 8, number, here=node in true)

    def test_number_and_life_travel(self, swarm):
        key = digest("life")
        swarm.put(swarm.nodes[swarm.endpoints[0]], key, "v", seq=9, ttl_s=100.0)
        found = swarm.get(swarm.nodes[swarm.endpoints[1]], key)
        assert found.seq == 9
        assert 99.0 < found.expires_s <= 100.0

    def test_a_missing_key(self, swarm):
        with pytest.raises(KeyNotFound, match="no reachable node"):
            swarm.get(swarm.nodes[swarm.endpoints[0]], digest("missing"))

    def test_an_older_value_is_a_conflict(self, swarm):
        key = digest("conflict")
        node = swarm.nodes[swarm.endpoints[5]]
        swarm.put(node, key, "new", seq=2)
        with pytest.raises(Conflict):
            swarm.put(node, key, "old", seq=1)
        with pytest.raises(Conflict):
            swarm.put(node, key, "unnumbered")
        assert swarm.get(node, key).value == "new"

    def test_concurrent_puts_of_one_number_agree(self, swarm):
        key = digest("tie")
        nodes = [swarm.nodes[swarm.endpoints[n]] for n in (2, 22)]
        operations = [node.put(key, f"value {n}", swarm.now, seq=4) for n, node in enumerate(nodes)]
        for operation in operations:
            try:
                swarm.run(operation)
            except Conflict:
                continue
        assert len({node.store.get(key, swarm.now).value for node in swarm.holders(key)}) == 1

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"value": b"v" * VALUE_BYTES_MAX}, ValueTooLarge),
            ({"value": None}, UsageError),
            ({"value": [1]}, UsageError),
            ({"value": 2**64}, UsageError),
            ({"value": "\ud800"}, UsageError),
            ({"value": 1, "ttl_s": 0}, UsageError),
            ({"value": 1, "ttl_s": VALUE_TTL_S * 2}, UsageError),
            ({"value": 1, "seq": -1}, UsageError),
            ({"value": 1, "seq": SEQ_MAX + 1}, UsageError),
            ({"value": 1, "key": b"short"}, UsageError),
            ({"value": 1, "key": "text"}, UsageError),
        ],
    )
    def test_what_may_not_be_put_goes_nowhere(self, swarm, options, error):
        node = swarm.nodes[swarm.endpoints[0]]
        options = {"key": digest("refused"), **options}
        before = len(swarm.sent)
        with pytest.raises(error):
            node.put(options.pop("key"), options.pop("value"), swarm.now, **options)
        swarm.flush()
        assert len(swarm.sent) == before
        assert swarm.holders(digest("refused")) == []

    def test_the_largest_value(self, swarm):
        key = digest("large")
        value = b"v" * (VALUE_BYTES_MAX - 3)
        assert swarm.put(swarm.nodes[swarm.endpoints[0]], key, value).stored_on == 8
        assert swarm.get(swarm.nodes[swarm.endpoints[9]], key).value == value

    def test_cancel_leaves_nothing(self, swarm):
        for steps in (0, 3, 9):
            for start in ("put", "get", "find_contacts"):
                node = swarm.nodes[swarm.endpoints[steps]]
                args = ("v",) if start == "put" else ()
                operation = getattr(node, start)(digest(f"c{steps}"), *args, swarm.now)
                swarm.flush()
                for _ in range(steps):
                    swarm.step()
                operation.cancel(swarm.now)
                assert len(node._lookups) == 0
                assert len(node.core.calls) == 0
        swarm.pass_time(1.0)

    def test_cancel_while_storing(self, swarm):
        node = swarm.nodes[swarm.endpoints[8]]
        operation = node.put(digest("cancelled"), "v", swarm.now)
        begun = len(swarm.sent)
        swarm.flush()
        while not any(b"store" in datagram for datagram, _, _ in swarm.sent[begun:]):
            swarm.step()
        assert len(node.core.calls) > 0
        operation.cancel(swarm.now)
        assert len(node.core.calls) == 0
        swarm.pass_time(1.0)

    def test_a_life_shorter_than_the_lookup(self):
        net = Net(4)
        node = net.nodes[net.endpoints[0]]
        with pytest.raises(LookupExpired):
            net.put(node, digest("k"), "v", ttl_s=1e-6)
        assert net.holders(digest("k")) == []

    def test_find_contacts(self, swarm):
        node = swarm.nodes[swarm.endpoints[4]]
        target = digest("target")
        found = swarm.run(node.find_contacts(target, swarm.now))
        true = [other.id for other in swarm.closest(target, 9) if other is not node]
        assert [contact.id for contact in found] == true[:8]

    def test_alone_a_value_is_kept_here_and_says_so(self):
        net = Net()
        node = net.add()
        assert net.put(node, digest("k"), "v") == PutResult(1, 8, 0, here=True)
        assert net.get(node, digest("k")).value == "v"
        with pytest.raises(KeyNotFound):
            net.get(node, digest("other"))

    def test_a_client_keeps_nothing_itself(self):
        net = Net(3)
        client = net.add(client=True)
        net.run(client.bootstrap([net.endpoints[0]], net.now))
        assert net.put(client, digest("k"), "v") == PutResult(3, 8, 0)
        assert net.get(client, digest("k")).value == "v"
        assert len(client.store) == 0
        assert all(client.id not in node.routing for node in net.nodes.values())
        lonely = Net().add(client=True)
        with pytest.raises(NoPeers):
            Net.put(net, lonely, digest("k"), "v")

    def test_when_everybody_died(self):
        net = Net(5)
        net.pass_time(10.0)
        node = net.nodes[net.endpoints[0]]
        net.dead = set(net.endpoints[1:])
        assert net.put(node, digest("k"), 1) == PutResult(1, 8, 0, here=True)
        with pytest.raises(LookupExpired, match="known contacts"):
            net.get(node, digest("other"))

    def test_an_outage_of_ours_costs_no_contacts(self):
        net = Net(6)
        node = net.nodes[net.endpoints[0]]
        net.pass_time(10.0)
        others, net.dead = net.endpoints[1:], set(net.endpoints[1:])
        for _ in range(4):
            with pytest.raises(LookupExpired):
                net.get(node, digest("other"))
        assert len(node.routing) == len(others)
        assert node.core.counters["failures_of_ours"] > 0
        net.dead.clear()
        assert net.put(node, digest("k"), 1).stored_on == 6

    def test_no_room_anywhere(self, monkeypatch):
        net = Net(2)
        monkeypatch.setattr(store_module, "VALUES_MAX", 0)
        with pytest.raises(Refused):
            net.put(net.nodes[net.endpoints[0]], digest("k"), 1)

    def test_holders_that_die_before_the_store(self):
        net = Net(6)
        node = net.nodes[net.endpoints[0]]
        operation = node.put(digest("k"), 1, net.now)
        net.flush()
        while not any(b"store" in datagram for datagram, _, _ in net.sent):
            net.step()
        net.dead = set(net.endpoints[1:4])
        result = net.run(operation)
        assert 3 <= result.stored_on < 6
        net.pass_time(3.0)
        assert all(len(n.core.calls) == 0 for e, n in net.nodes.items() if e not in net.dead)


class TestSpread:
    def test_our_own_copy_and_older_holders_follow_the_best(self):
        net = Net(3)
        key = digest("k")
        asker, behind, ahead = net.nodes.values()
        asker.keep(key, Held("oldest", 1, net.now + 100.0), net.now)
        behind.keep(key, Held("older", 2, net.now + 100.0), net.now)
        ahead.keep(key, Held("new", 3, net.now + 100.0), net.now)
        assert net.get(asker, key).value == "new"
        net.pass_time(0.1)
        for node in net.nodes.values():
            held = node.store.get(key, net.now)
            assert (held.value, held.seq) == ("new", 3)
            assert held.expires <= net.now + 100.0

    def test_what_is_about_to_expire_is_not_spread(self):
        net = Net(3)
        key = digest("k")
        asker, _, ahead = net.nodes.values()
        ahead.keep(key, Held("v", 3, net.now + CALL_DEADLINE_S / 2), net.now)
        assert net.get(asker, key).value == "v"
        net.pass_time(0.1)
        assert net.holders(key) == [ahead]

    def test_a_closer_node_without_the_value_is_sent_a_copy(self):
        net = Net(8, k=4)
        key = digest("k")
        near = net.closest(key, 4)
        far = [node for node in net.nodes.values() if node not in near]
        for node in near[3:]:
            node.keep(key, Held("v", 3, net.now + 500.0), net.now)
        net.get(far[0], key)
        net.pass_time(0.5)
        held = near[0].store.get(key, net.now)
        assert (held.value, held.seq) == ("v", 3)
        assert held.expires <= net.now + 500.0 - CALL_DEADLINE_S


class TestHandoff:
    def test_a_newcomer_is_given_what_it_should_hold(self):
        net = Net(12, k=4)
        keys = [digest(f"key {n}") for n in range(60)]
        for n, key in enumerate(keys):
            net.put(net.nodes[net.endpoints[n % 12]], key, n, seq=1, ttl_s=1000.0)
        newcomer = net.add(k=4)
        net.run(newcomer.bootstrap([net.endpoints[0]], net.now))
        net.pass_time(10.0)
        due = {key for key in keys if newcomer in net.closest(key, 4)}
        given = set(newcomer.store.keys())
        assert due
        assert due <= given
        assert all(newcomer.store.get(key, net.now).expires <= 1000.0 + 2 for key in given)
        assert all(newcomer.store.get(key, net.now).seq == 1 for key in given)

    def test_the_pace_is_metered_and_a_forged_ping_gets_nothing(self):
        net = Net()
        node, newcomer = net.add(k=4), net.add(k=4)
        for n in range(300):
            node.store.put(digest(f"{n}"), n, 0.0)
        ask(node, "ping", [b"s" * 20])
        net.pass_time(3.0)
        assert node.core.counters["handoffs"] == 0
        node.core.receive(
            encode_request(MSG_ID, "ping", [newcomer.id]), net.where(newcomer), net.now
        )
        net.pass_time(1.0)
        assert 0 < len(newcomer.store) <= 1.2 * HANDOFF_PER_S_MAX
        net.pass_time(9.0)
        assert len(newcomer.store) == 300
        assert node.core.counters["handoffs"] == 300

    def test_a_large_store_is_looked_through_in_steps(self):
        net = Net(3, k=2)
        node, newcomer = net.nodes[net.endpoints[0]], net.add(k=2)
        near = [contact.id for contact in node.contacts()]
        for n in range(900):
            node.store.put(near[n % 2][:10] + n.to_bytes(10), n, net.now)
        node.answered(Contact(newcomer.id, net.where(newcomer)), net.now)
        net.pass_time(0.05)
        assert node._handoff._timer is not None
        net.pass_time(2.0)
        assert node._handoff._timer is None

    def test_the_queue_is_bounded(self):
        node = Net().add()
        node.store.put(digest("k"), 1, 0.0)
        for n in range(HANDOFF_QUEUE_MAX + 5):
            node._handoff.welcome(Contact(n.to_bytes(20), STRANGER), 0.0)
        node._handoff.check()
        assert node.core.counters["handoffs_skipped"] == 5

    def test_a_newcomer_that_dies_is_no_harm(self):
        net = Net()
        node, newcomer = net.add(), net.add()
        for n in range(20):
            node.store.put(digest(f"{n}"), n, 0.0)
        node.answered(Contact(newcomer.id, net.where(newcomer)), 0.0)
        net.dead = {net.where(newcomer)}
        net.pass_time(1.0)
        assert newcomer.id not in node.routing
        net.pass_time(5.0)
        assert len(node.core.calls) == 0


class TestUpkeep:
    def test_values_survive_their_holders(self):
        net = Net(24, k=4)
        key = digest("k")
        net.put(net.nodes[net.endpoints[0]], key, "v", seq=5)
        first = net.closest(key, 4)
        net.dead = {net.where(node) for node in first[:3]}
        net.pass_time(REPUBLISH_INTERVAL_S + 200.0)
        now_closest = net.closest(key, 4)
        assert all(node.store.get(key, net.now) is not None for node in now_closest)
        assert all(node.store.get(key, net.now).seq == 5 for node in now_closest)

    def test_republication_never_lengthens_a_life(self):
        net = Net(6, k=4)
        key = digest("k")
        ttl_s = 2.5 * REPUBLISH_INTERVAL_S
        net.put(net.nodes[net.endpoints[0]], key, "v", seq=1, ttl_s=ttl_s)
        end = net.now + ttl_s
        net.pass_time(ttl_s - 100.0)
        assert len(net.holders(key)) >= 4
        assert sum(node.core.counters["republished"] for node in net.nodes.values()) >= 2
        assert all(node.store.get(key, net.now).expires <= end for node in net.holders(key))
        net.pass_time(100.0)
        assert net.holders(key) == []
        net.pass_time(REPUBLISH_INTERVAL_S)
        assert net.holders(key) == []

    def test_one_republication_an_hour_serves_all_holders(self):
        net = Net(6, k=4)
        net.put(net.nodes[net.endpoints[0]], digest("k"), "v", seq=1)
        net.pass_time(3 * REPUBLISH_INTERVAL_S)
        count = sum(node.core.counters["republished"] for node in net.nodes.values())
        assert 2 <= count <= 8

    def test_an_old_value_does_not_come_back(self):
        net = Net(10, k=4)
        key = digest("k")
        stale = net.nodes[net.endpoints[9]]
        net.put(net.nodes[net.endpoints[0]], key, "new", seq=2)
        if stale not in net.holders(key):
            stale.keep(key, Held("old", 1, net.now + 50_000.0), net.now)
        net.pass_time(REPUBLISH_INTERVAL_S * 2)
        assert all(node.store.get(key, net.now).value == "new" for node in net.closest(key, 4))

    def test_stale_ranges_are_refreshed(self):
        net = Net(12, k=4)
        node = net.nodes[net.endpoints[3]]
        net.pass_time(REFRESH_INTERVAL_S + 200.0)
        assert stale(net, node) == []

    def test_a_lonely_node_does_nothing(self):
        net = Net()
        net.add()
        net.pass_time(2 * REFRESH_INTERVAL_S)
        assert net.sent == []


@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_percent_die_at_once(seed):
    """Every value with a living holder is found, fast; every put finds living holders."""
    net = Net(30, seed=seed)
    keys = [digest(f"key {n}") for n in range(20)]
    for n, key in enumerate(keys):
        net.put(net.nodes[net.endpoints[n]], key, n, seq=1)
    net.dead = set(net.rng.sample(net.endpoints, 9))
    alive = [endpoint for endpoint in net.endpoints if endpoint not in net.dead]
    get_s, put_s = [], []
    for n, key in enumerate(keys):
        node = net.nodes[net.rng.choice(alive)]
        begun = net.now
        assert net.get(node, key).value == n, seed
        get_s.append(net.now - begun)
        begun = net.now
        result = net.put(node, digest(f"after {n}"), n)
        put_s.append(net.now - begun)
        assert result.stored_on >= 6, seed
    assert sum(get_s) / len(get_s) < 0.05, seed
    assert sum(put_s) / len(put_s) < 0.3, seed
