"""A stock routing table and ours with the same contacts."""

import random

from kademlia.node import Node
from kademlia.routing import RoutingTable as StockTable

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, ID_BYTES, distance
from dhtos.core.routing import RoutingTable

SEED = 20
CONTACTS = 1000
K = 20
TARGETS = 64


class Tables:
    """A stock table and ours, offered the same 1000 contacts, and targets to look up.

    "held": the ids fill 50 of our buckets, 20 for each number of leading bits shared with our
    own id, so both tables hold all 1000. "random": uniform ids, of which both drop most; stock
    holds more, since it also splits other buckets.
    """

    def __init__(self, kind: str) -> None:
        rng = random.Random(SEED)
        own_id = rng.randbytes(ID_BYTES)
        own = int.from_bytes(own_id)
        self.ours = RoutingTable(own_id, K)
        self.stock = StockTable(None, K, Node(own_id))
        offered = []
        for number in range(CONTACTS):
            free = ID_BITS - 1 - number // K
            value = (own >> free ^ 1) << free | rng.getrandbits(free)
            contact_id = value.to_bytes(ID_BYTES) if kind == "held" else rng.randbytes(ID_BYTES)
            offered.append(Contact(contact_id, (f"10.0.{number // 250}.{number % 250}", 7400)))
        for contact in offered:
            self.ours.add(contact, 0.0, verified=True)
            self._add_to_stock(Node(contact.id, *contact.endpoint))
        self.targets = [rng.randbytes(ID_BYTES) for _ in range(TARGETS // 2)]
        self.targets += [contact.id for contact in rng.sample(list(self.ours), TARGETS // 2)]
        self.stock_targets = [Node(target) for target in self.targets]

    def _add_to_stock(self, node: Node) -> None:
        """The stock `add_contact` without its ping of a full bucket's head, which needs a loop."""
        while True:
            index = self.stock.get_bucket_for(node)
            bucket = self.stock.buckets[index]
            if bucket.add_node(node):
                return
            if not bucket.has_in_range(self.stock.node) and bucket.depth() % 5 == 0:
                return
            self.stock.split_bucket(index)

    def truth(self, target: bytes) -> list[bytes]:
        """What our table should answer."""
        held = (contact.id for contact in self.ours)
        return sorted(held, key=lambda one: distance(one, target))[:K]

    def stock_truth(self, target: bytes) -> list[bytes]:
        """What the stock table should answer; it leaves out the target itself."""
        held = (one for bucket in self.stock.buckets for one in bucket.nodes if one != target)
        return sorted(held, key=lambda one: distance(one, target))[:K]

    def ask_ours(self) -> list[list[Contact]]:
        return [self.ours.closest(target, K) for target in self.targets]

    def ask_stock(self) -> list[list[Node]]:
        return [self.stock.find_neighbors(target, K) for target in self.stock_targets]

    def check(self) -> None:
        """Assert that each of our answers is exact."""
        for target, found in zip(self.targets, self.ask_ours(), strict=True):
            assert [contact.id for contact in found] == self.truth(target)
