"""The routing table under any sequence of calls, against a plain model."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BITS, Endpoint, common_prefix_bits, distance
from dhtos.core.routing import Added, Pending, Reason, Rejected, RoutingTable
from dhtos.core.shelf import subnet_of

OWN = bytes.fromhex("5a" * 20)


@st.composite
def ids(draw: st.DrawFn) -> bytes:
    """Ids that often share many bits with OWN, so that tables grow deep."""
    share = draw(st.one_of(st.integers(0, 6), st.integers(0, ID_BITS)))
    tail = draw(st.integers(0, 30))
    if share == ID_BITS:
        return OWN
    free = ID_BITS - 1 - share
    value = (int.from_bytes(OWN) >> free ^ 1) << free | tail % (1 << free)
    return value.to_bytes(20)


hosts = st.sampled_from(["127.0.0.1", "10.0.0.7", "8.8.8.8", "8.8.8.9", "9.9.9.9", "2a00::1"])
endpoints = st.tuples(hosts, st.integers(1, 5))


@settings(max_examples=60, deadline=None)
@given(st.lists(ids(), max_size=120), ids(), st.integers(1, 8), st.integers(0, 40))
def test_closest_is_exact(added: list[bytes], target: bytes, bucket_size: int, k: int) -> None:
    table = RoutingTable(OWN, bucket_size)
    for contact_id in added:
        table.add(Contact(contact_id, ("127.0.0.1", 1)), 0.0, verified=True)
    table.check()
    truth = sorted(table, key=lambda contact: distance(contact.id, target))
    assert table.closest(target, k) == truth[:k]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ids(), endpoints), max_size=60), ids(), endpoints, st.integers(0, 30))
def test_excluded_endpoints_are_only_left_out(
    added: list[tuple[bytes, Endpoint]], target: bytes, exclude: Endpoint, k: int
) -> None:
    table = RoutingTable(OWN, 4)
    for contact_id, endpoint in added:
        table.add(Contact(contact_id, endpoint), 0.0, verified=True)
    truth = sorted(
        (contact for contact in table if contact.endpoint != exclude),
        key=lambda contact: distance(contact.id, target),
    )
    assert table.closest(target, k, exclude=exclude) == truth[:k]


class TableMachine(RuleBasedStateMachine):
    """Random calls; the model only remembers which contacts must be in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(OWN, 3)
        self.model: dict[bytes, Contact] = {}
        self.proven: set[bytes] = set()  # ids that answered: never displaced but for a subnet
        self.now = 0.0

    @rule(step=st.floats(0.0, 10.0))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(contact_id=ids(), endpoint=endpoints, verified=st.booleans())
    def add(self, contact_id: bytes, endpoint: Endpoint, verified: bool) -> None:
        contact = Contact(contact_id, endpoint)
        match self.table.add(contact, self.now, verified=verified):
            case Added(is_new, evicted):
                assert is_new == (contact_id not in self.model)
                if evicted is not None:
                    assert verified
                    assert subnet_of(evicted.endpoint[0]) or evicted.id not in self.proven
                    assert self.model.pop(evicted.id) == evicted
                self.model[contact_id] = contact
                if verified:
                    self.proven.add(contact_id)
                assert self.table.is_verified(contact_id) or not verified
            case Pending(candidate):
                assert contact_id not in self.model
                assert self.model[candidate.id] == candidate
            case Rejected(reason):
                assert (reason is Reason.OWN_ID) == (contact_id == OWN)
                if reason is Reason.UNVERIFIED_MOVE:
                    assert not verified
                    assert self.model[contact_id].endpoint != endpoint

    @precondition(lambda self: self.model)
    @rule(data=st.data(), right=st.booleans())
    def seen(self, data: st.DataObject, right: bool) -> None:
        contact = self.model[data.draw(st.sampled_from(sorted(self.model)))]
        endpoint = contact.endpoint if right else ("127.9.9.9", 9)
        assert self.table.seen(contact.id, endpoint, self.now) == right
        assert self.table.is_verified(contact.id) or not right

    @precondition(lambda self: self.model)
    @rule(data=st.data(), gone=st.booleans())
    def lose(self, data: st.DataObject, gone: bool) -> None:
        contact_id = data.draw(st.sampled_from(sorted(self.model)))
        if gone:
            lost = self.table.remove(contact_id)
            assert lost is not None
        else:
            lost = self.table.failed(contact_id, self.now)
        if lost is not None:
            assert self.model.pop(contact_id) == lost
            promoted = [contact for contact in self.table if contact.id not in self.model]
            assert len(promoted) <= 1
            self.model.update((contact.id, contact) for contact in promoted)

    @rule(contact_id=ids())
    def unknown(self, contact_id: bytes) -> None:
        if contact_id not in self.model:
            assert self.table.failed(contact_id, self.now) is None
            assert self.table.remove(contact_id) is None
            assert not self.table.seen(contact_id, ("127.0.0.1", 1), self.now)

    @rule(contact_id=ids(), endpoint=endpoints)
    def room(self, contact_id: bytes, endpoint: Endpoint) -> None:
        """`has_room` foretells what `add` of a verified contact does."""
        if contact_id in self.model or contact_id == OWN:
            return
        contact = Contact(contact_id, endpoint)
        foretold = self.table.has_room(contact)
        self.add(contact_id, endpoint, verified=True)
        assert (contact_id in self.table) == foretold

    @invariant()
    def table_is_as_the_model_says(self) -> None:
        self.table.check()
        assert self.table.shares() == {common_prefix_bits(one, OWN) for one in self.model}
        self.proven = {one for one in self.model if self.table.is_verified(one)}
        assert {contact.id: contact for contact in self.table} == self.model
        assert len(self.table) == len(self.model)
        assert all(self.table.get(contact_id) == one for contact_id, one in self.model.items())


TableMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestTable = TableMachine.TestCase
