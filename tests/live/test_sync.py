"""The node without asyncio: the same answers, from any thread, and nothing left behind."""

import inspect
import threading

import pytest

import dhtos
import dhtos.sync
import dhtos.sync.loop
from dhtos import Need
from dhtos.errors import (
    ClaimsRefused,
    Closed,
    ConfigError,
    KeyNotFound,
    LeaseLost,
    NoCandidates,
    PredicateError,
    UsageError,
)


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


@pytest.fixture
def pair():
    with (
        dhtos.sync.Node(config(advertise={"cores": 2})) as first,
        dhtos.sync.Node(config(first, advertise={"cores": 4})) as second,
    ):
        second.joined()
        while first.count() != 2:
            continue
        yield first, second


def dhtos_threads():
    return [thread for thread in threading.enumerate() if thread.name == "dhtos"]


def test_the_methods_are_those_of_the_node():
    """By design `aclose` is `close`, and the parts of the running node stay inside."""
    inside = {"aclose", "engine", "driver", "advert", "predicate", "order", "grants"}
    inside |= {"renewed", "revoke_members"}  # what issuers and certificates ask of it
    inside |= {"channels", "command_gone"}  # and those who run commands
    inside |= {"save"}  # and who writes down at once what it heard
    names = {name for name in dir(dhtos.Node) if not name.startswith("_")} - inside
    assert {name for name in dir(dhtos.sync.Node) if not name.startswith("_")} == names | {"close"}
    for name in names:
        own, other = getattr(dhtos.sync.Node, name), getattr(dhtos.Node, name)
        if inspect.isfunction(own):
            assert inspect.signature(own).parameters == inspect.signature(other).parameters, name
    given = inspect.signature(dhtos.sync.Node).parameters
    assert given == inspect.signature(dhtos.Node).parameters


def test_the_answers_are_the_same(pair):
    first, second = pair
    result = first.find_all("cores >= 1", order_by="cores")
    assert [hit["cores"] for hit in result.hits] == [2, 4]
    assert result.coverage.complete
    assert first.count("cores > 2") == 1
    assert first.sum("cores").sum == 6
    assert first.histogram("cores", "cores >= 1", edges=[3]).counts == (1, 1)
    assert {hit.id for hit in second.sample(5, "cores >= 1").hits} == {first.id, second.id}
    assert [hit.id for hit in first.find("cores == 4")] == [second.id]
    assert len(first.members()) == 2
    assert first.bandwidth(second.endpoint).bytes_per_s > 0
    assert len(first.coordinate.position) == 5
    assert [hit.id for hit in first.closest()] == [second.id]
    assert [hit.id for hit in first.within(1.0)] == [second.id]
    assert first.rtt(second.id).measured
    assert [central.hit.id for central in first.central(["self"])] == [second.id]
    assert first.locate() == first.coordinate
    assert first.stats()["group_members"] == 2
    need = Need(cores=2, where="cores == 4")
    assert [choice.hit.id for choice in first.plan(need).choices] == [second.id]
    assert first.explain(need).able == 1
    with first.place(need) as lease:
        assert (lease.node, lease.endpoint) == (second.id, second.endpoint)
        assert (lease.resources, lease.lost, lease.hit.id) == ({"cores": 2}, False, second.id)
        assert lease.expires_s > 0
        (grant,) = second.leases()
        assert (grant.token.hex(), grant.fence) == (lease.token, lease.fence)
    with first.place_gang(Need(cores=1), 3) as gang:
        assert len(gang.leases) == 3
        assert not gang.lost
    second.drain()
    second.undrain()
    assert first.put("key", b"value").stored_on == 2
    assert second.get("key").value == b"value"
    second.advertise(price=0.5)
    second.label({"team": "video"})
    assert second.attributes == {"cores": 4, "cores_free": 4, "price": 0.5}
    assert second.labels == {"team": "video"}
    assert second.warnings == ()
    assert second.endpoint == f"127.0.0.1:{second.port}"


def test_find_is_an_iterator_and_a_context_manager(pair):
    first, _ = pair
    with first.find("cores >= 1") as finding:
        next(finding)
    assert list(finding) == []
    whole = first.find("cores >= 1")
    with pytest.raises(UsageError, match="has not ended"):
        _ = whole.result
    assert len(list(whole)) == 2
    assert whole.result.coverage.complete


def test_errors_are_raised_in_the_caller(pair):
    first, _ = pair
    with pytest.raises(PredicateError) as caught:
        first.find("coers >= 1")
    assert caught.value.hint == "cores"
    with pytest.raises(KeyNotFound):
        first.get("nothing")
    with pytest.raises(UsageError):
        first.advertise(prise=1)


def test_many_threads_may_ask(pair):
    first, _ = pair
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(first.count())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [2] * 8


def test_closing_frees_whoever_waits():
    node = dhtos.sync.Node(config())
    node.start()
    node._node.engine.hub.settled = False
    outcome = []

    def ask():
        try:
            node.find_all()
        except Closed as error:
            outcome.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not node._node.driver._conditions:
        continue
    node.close()
    asking.join(5)
    assert len(outcome) == 1
    node.close()
    with pytest.raises(Closed):
        node.count()
    assert dhtos_threads() == []


def test_a_failed_start_leaves_no_thread():
    with (
        dhtos.sync.Node(config()) as node,
        pytest.raises(ConfigError, match="is in use"),
        dhtos.sync.Node(config(port=node.port)),
    ):
        pytest.fail("the port is taken")
    assert dhtos_threads() == []


def test_a_node_runs_between_start_and_close():
    node = dhtos.sync.Node(config())
    with pytest.raises(Closed):
        node.count()
    node.close()
    with node:
        with pytest.raises(Closed, match="starts once"):
            node.start()
        assert node.count() == 1


def test_an_interrupted_caller_cancels_its_work(monkeypatch):
    with dhtos.sync.Node(config()) as node:
        node._node.engine.hub.settled = False
        real = dhtos.sync.loop.Future.result

        def interrupted(self, *args):
            while not node._node.driver._conditions:
                continue
            raise KeyboardInterrupt

        monkeypatch.setattr(dhtos.sync.loop.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            node.count()
        monkeypatch.setattr(dhtos.sync.loop.Future, "result", real)
        while node._node.driver._conditions:
            continue


def test_a_lost_lease_comes_out_at_the_end_of_its_block(pair):
    first, second = pair
    need = Need(cores=1, where="cores == 4")
    lease = first.place(need)
    second.revoke(lease.token)
    with pytest.raises(LeaseLost, match="revoked"):
        lease.ended()
    assert lease.lost
    with pytest.raises(LeaseLost, match="revoked"), lease:
        pass
    gang = first.place_gang(need, 2)
    second.revoke(gang.leases[1].token)
    with pytest.raises(LeaseLost, match="revoked"):
        gang.ended()
    with pytest.raises(LeaseLost, match="revoked"), gang:
        pass
    assert gang.lost


def test_replicas_are_kept_without_asyncio(pair):
    first, second = pair
    with first.replicas(Need(cores=1), 3, ttl_s=2.0) as replicas:
        changes = replicas.changes()
        granted = [next(changes) for _ in range(3)]
        assert [(one.what, one.alive, one.count) for one in granted] == [
            ("granted", 1, 3), ("granted", 2, 3), ("granted", 3, 3),
        ]  # fmt: skip
        replicas.settled()
        assert {lease.node for lease in replicas.leases} == {first.id, second.id}
        lost = next(one.lease for one in granted if one.lease.node == second.id)
        second.revoke(lost.token)
        change = next(changes)
        assert (change.what, change.lease.token) == ("lost", lost.token)
        assert "revoked" in change.reason
        assert next(changes).what == "granted"
        replicas.resize(1)
        assert [next(changes).what for _ in range(2)] == ["released"] * 2
        assert (len(replicas.leases), replicas.count, replicas.waiting) == (1, 1, None)
        replicas.resize(7)
        while next(changes).alive < 6:
            continue  # a lease that was just released is taken for a while, so some may wait
        with pytest.raises((NoCandidates, ClaimsRefused), match="6 of 7 replicas are alive"):
            replicas.settled(deadline_s=1.0)
        assert isinstance(replicas.waiting, NoCandidates | ClaimsRefused)
    assert replicas.closed
    assert list(changes) == []
    for node in pair:
        while node.leases():
            continue
    with pytest.raises(UsageError, match="spread is an attribute or label"):
        first.replicas(Need(cores=1), 3, spread={"site": 0})
