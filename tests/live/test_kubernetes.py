"""The extender as kube-scheduler meets it: its recorded requests, against nodes and daemons."""

import asyncio
import contextlib
import copy
import json
import signal
import time
from pathlib import Path
from random import Random

import pytest
from api_server import ApiServer
from http_world import Client, config, served
from terminals import READY_S, Daemon, Shell

import dhtos
from dhtos import Need
from dhtos.adapters import kubernetes, kubernetes_bind, kubernetes_view
from dhtos.adapters.kubernetes import node_affinity
from dhtos.adapters.kubernetes_pods import Metadata, Pod
from dhtos.core.limits import EXTENDER_PODS_MAX
from dhtos.errors import UsageError

RECORDED = Path(__file__).parent / "kubernetes"
ENDED_S = 30.0


def recorded(name, where="", **annotations):
    """A request as kube-scheduler sent it; its pod says `where` in place of what it said."""
    request = json.loads((RECORDED / f"{name}.json").read_text())["req"]
    if "Pod" in request:
        said = {f"dhtos.io/{word}": text for word, text in annotations.items()}
        request["Pod"]["metadata"]["annotations"] = {
            **said,
            **({"dhtos.io/where": where} if where else {}),
        }
    return request


def asking(*cores, names=(), **pod):
    """A request with names, for a pod of so much."""
    request = recorded("names_filter", **pod)
    request["Pod"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cores[0]}}
    request["NodeNames"] = list(names)
    return request


@contextlib.asynccontextmanager
async def fleet(*machines, **settings):
    """A node that serves, called n103, and others beside it: (name, what they advertise)."""
    async with contextlib.AsyncExitStack() as stack:
        told = {"advertise": {"cores": 4, "mem": 2**33}, "name": "n103", **settings}
        node, server, client = await stack.enter_async_context(served(**told))
        others = {}
        for name, advertised in machines:
            other = dhtos.Node(config(node, advertise=advertised, name=name))
            others[name] = await stack.enter_async_context(other)
            await other.joined()
        while await node.count() < 1 + len(machines):  # noqa: ASYNC110 - it waits for datagrams
            await asyncio.sleep(0.01)
        yield node, server._service.extender, client, others


N309 = ("n309", {"cores": 8, "mem": 2**34, "price": 0.5})
N680 = ("n680", {"cores": 0.5, "mem": 2**34})
N602 = ("n602", {"mem": 2**34})


# --- filter and prioritize ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["names_filter", "bind_filter", "full_filter"])
def test_recorded_requests_are_filtered(run, name):
    request = recorded(name)
    if request["NodeNames"] is None:
        asked = [node["metadata"]["name"] for node in request["Nodes"]["items"]]
    else:
        asked = request["NodeNames"]
    ours = asked[0]

    async def main():
        async with fleet((asked[1], {"cores": 8, "mem": 2**29}), name=ours) as (_, _, client, _):
            answer = await client.post("/k8s/filter", request)
            assert answer.status == 200
            told = answer.json
            assert told.keys() == {
                "Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error",
            }  # fmt: skip
            assert told["Error"] == ""
            if request["Nodes"] is None:
                assert (told["NodeNames"], told["Nodes"]) == ([ours], None)
            else:
                assert told["NodeNames"] is None
                assert told["Nodes"]["items"] == request["Nodes"]["items"][:1]  # as it came
            unknown = "dhtos: no machine of the fleet has this name"
            failed = {asked[1]: "dhtos: not enough mem in all", **dict.fromkeys(asked[2:], unknown)}
            assert told["FailedNodes"] == told["FailedAndUnresolvableNodes"] == failed

    run(main)


@pytest.mark.parametrize("name", ["names_prioritize", "bind_prioritize", "full_prioritize"])
def test_recorded_requests_are_scored(run, name):
    request = recorded(name)
    asked = request["NodeNames"] or [n["metadata"]["name"] for n in request["Nodes"]["items"]]

    async def main():
        larger = (asked[1], {"cores": 64, "mem": 2**40})
        async with fleet(larger, name=asked[0]) as (_, _, client, _):
            told = (await client.post("/k8s/prioritize", request)).json
            first = [{"Host": asked[0], "Score": 10}, {"Host": asked[1], "Score": 1}]
            assert told == first  # pack: what fits tightly; the others have 0
            request["Pod"]["metadata"]["annotations"] = {"dhtos.io/prefer": "spread"}
            told = (await client.post("/k8s/prioritize", request)).json
            assert told == [{"Host": asked[1], "Score": 10}, {"Host": asked[0], "Score": 1}]

    run(main)


def test_each_reason_has_its_words(run):
    async def main():
        machines = (N309, N680, N602, ("n1", {"cores": 8, "price": 0.1}), ("twice", {"cores": 8}))
        async with fleet(*machines, ("twice", {"cores": 9})) as (node, _extender, client, others):
            names = ["n103", "n309", "n680", "n602", "n1", "twice", "n9"]
            await others["n309"].advertise(cores=1)
            while await node.count("cores == 1") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            lease = await node.place(Need(cores=3, where='label("name") == "n103"'))
            while await node.count("cores_free == 1") != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            request = asking("2", names=names, where="exists(cores)", **{"max-price": "0.2"})
            told = (await client.post("/k8s/filter", request)).json
            assert told["NodeNames"] == ["n1"]
            words = {
                name: reason.removeprefix("dhtos: ") for name, reason in told["FailedNodes"].items()
            }
            assert words == {
                "n103": "not enough cores free",
                "n309": "not enough cores in all",
                "n680": "not enough cores in all",
                "n602": "is not what dhtos.io/where asks for",
                "twice": "is the name of several machines",
                "n9": "no machine of the fleet has this name",
            }
            # What is only taken may be free again, for a pod that may preempt others:
            assert words.keys() - told["FailedAndUnresolvableNodes"].keys() == {"n103"}
            told = (await client.post("/k8s/filter", asking("2", names=["n602"]))).json
            assert told["FailedNodes"] == {"n602": "dhtos: does not say its cores"}
            told = (
                await client.post("/k8s/filter", asking("2", names=["twice"], where="cores==8"))
            ).json
            assert told["FailedNodes"] == {"twice": "dhtos: is the name of several machines"}
            state = (await client.get("/k8s/view")).json
            assert (state["machines"], state["names_twice"]) == (6, ["twice"])
            assert state["complete"]
            assert 0 <= state["age_s"] <= 60
            await lease.release()

    run(main)


def test_machines_of_a_gateway_grant_nothing(run, tmp_path):
    file = tmp_path / "machines.csv"
    file.write_text("name,vcpu\nups,8\n")

    async def main():
        async with fleet(gateway=file) as (node, _, client, _):
            while await node.count("cores == 8") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            told = (await client.post("/k8s/filter", asking("1", names=["ups", "n103"]))).json
            assert told["NodeNames"] == ["n103"]
            assert told["FailedNodes"] == {"ups": "dhtos: runs no node that grants"}

    run(main)


@pytest.mark.parametrize(
    ("annotations", "error"),
    [
        ({"wher": "cores > 1"},
         "dhtos: unknown annotation dhtos.io/wher; did you mean dhtos.io/where?"),
        ({"where": "coers > 1"},
         "dhtos: dhtos.io/where: unknown attribute 'coers' at column 1; did you mean cores?"),
        ({"prefer": "chaep"},
         "dhtos: pod pnames0: prefer is one of pack, spread, near, cheap or Weights, got "
         "'chaep'; did you mean 'cheap'?"),
        ({"max-price": "low"},
         "dhtos: pod pnames0: dhtos.io/max-price must be a number, got 'low'"),
        ({"max-price": "nan"},
         "dhtos: pod pnames0: max_price must be a number >= 0 or None, got nan"),
    ],
)  # fmt: skip
def test_what_a_pod_says_wrong_is_an_error_of_the_answer(run, annotations, error):
    async def main():
        async with fleet() as (_, _, client, _):
            answer = await client.post("/k8s/filter", recorded("names_filter", **annotations))
            assert (answer.status, answer.json["Error"]) == (200, error)
            answer = await client.post("/k8s/prioritize", recorded("names_filter", **annotations))
            assert answer.status == 400  # its answer has no place for an error
            assert answer.json["detail"].split(";")[0] in error

    run(main)


def test_requests_that_are_none(run):
    async def main():
        async with fleet() as (_, _, client, _):
            request = recorded("names_filter")
            request["NodeNames"] = None
            answer = await client.post("/k8s/filter", request)
            assert answer.json["Error"].startswith("dhtos: neither NodeNames nor Nodes came")
            request["Nodes"] = {"items": [{"metadata": {}}]}
            answer = await client.post("/k8s/filter", request)
            assert answer.json["Error"].startswith("dhtos: a node must have metadata.name")
            request = asking("one", names=["n103"])
            answer = await client.post("/k8s/filter", request)
            assert "a quantity is a number as 2, 100m" in answer.json["Error"]
            assert (await client.post("/k8s/filter", {"Pod": 5})).status == 400

    run(main)


def test_a_fleet_that_does_not_answer_is_said_in_time(run, monkeypatch):
    monkeypatch.setattr(kubernetes_view, "FIRST_S", 0.2)

    async def main():
        async with fleet() as (node, _, client, _):
            node.engine.hub.settled = False
            told = (await client.post("/k8s/filter", recorded("names_filter"))).json
            assert told["Error"] == (
                "dhtos: the fleet has not answered yet; "
                "try dhtos-node status on the machine of the extender"
            )  # fmt: skip
            answer = await client.post("/k8s/prioritize", recorded("names_filter"))
            assert answer.status == 503
            assert (await client.get("/k8s/view")).json["age_s"] is None
            node.engine.hub.settled = True
            while (await client.post("/k8s/filter", recorded("names_filter"))).json["Error"]:
                assert not node.engine.hub.conflict

    run(main)


def test_a_view_is_renewed_while_it_is_wanted(run, monkeypatch):
    monkeypatch.setattr(kubernetes_view, "PAUSE_S", 0.05)
    monkeypatch.setattr(kubernetes_view, "IDLE_S", 0.3)

    async def main():
        async with fleet(N309) as (node, extender, client, others):
            request = asking("4", names=["n103", "n309"])
            assert (await client.post("/k8s/filter", request)).json["NodeNames"] == ["n103", "n309"]
            first = extender._view.snapshot
            while extender._view.snapshot is first:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert extender._view.snapshot.asked == first.asked == ["cores"]  # before anybody asks
            lease = await node.place(Need(cores=7, where="cores == 8"))
            while (await client.post("/k8s/filter", request)).json["NodeNames"] != ["n103"]:
                assert not lease.lost
            while extender._view._keeping:  # noqa: ASYNC110 - nobody asks any more
                await asyncio.sleep(0.02)
            await lease.release()
            await others["n309"].label({"name": "n310"})
            while await node.count('label("name") == "n310"') != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            request["NodeNames"].append("n310")
            while (await client.post("/k8s/filter", request)).json["NodeNames"] != ["n103", "n310"]:
                assert extender._view._keeping

    run(main)


def test_only_a_sample_of_many_names_is_scored(run, monkeypatch):
    monkeypatch.setattr(kubernetes, "SCORED", 2)

    async def main():
        machines = [(f"m{n}", {"cores": 8}) for n in range(4)]
        async with fleet(*machines) as (_, extender, client, _):
            extender._rng = Random(3)
            names = ["n103", *(name for name, _ in machines), "unknown"]
            seen = set()
            while len(seen) < 5:
                told = (await client.post("/k8s/prioritize", asking("1", names=names))).json
                scores = {one["Host"]: one["Score"] for one in told}
                assert len(scores) == 2
                assert max(scores.values()) == 10
                seen |= scores.keys()
            assert "unknown" not in seen

    run(main)


# --- bind -----------------------------------------------------------------------------------------


def binding(name, pod=None):
    meta = (pod or recorded("bind_filter")["Pod"])["metadata"]
    return {
        "PodName": meta["name"], "PodNamespace": meta["namespace"], "PodUID": meta["uid"],
        "Node": name,
    }  # fmt: skip


def test_a_pod_is_bound_where_the_machine_granted_it_and_held_until_it_is_gone(run, monkeypatch):
    monkeypatch.setattr(kubernetes_bind, "POD_S", 0.05)

    async def main():
        with ApiServer() as api:
            async with fleet(N309, kubernetes={"url": api.url}) as (
                _node,
                extender,
                client,
                others,
            ):
                request = recorded("bind_filter")
                assert (await client.post("/k8s/filter", request)).json["NodeNames"] == [
                    "n103",
                    "n309",
                ]
                answer = await client.post("/k8s/bind", binding("n309"))
                assert (answer.status, answer.json) == (200, {"Error": ""})
                (bound,) = api.bound
                uid = request["Pod"]["metadata"]["uid"]
                assert bound["path"] == "/api/v1/namespaces/default/pods/pbind0/binding"
                assert bound["metadata"] == {"name": "pbind0", "namespace": "default", "uid": uid}
                assert bound["target"] == {"apiVersion": "v1", "kind": "Node", "name": "n309"}
                (grant,) = others["n309"].leases()
                assert dict(grant.resources) == {"cores": 1, "mem": 2**30}
                assert extender.stats()["k8s_pods_held"] == 1
                # The view knows of it before any record says so:
                eight = asking("8", names=["n309"])
                told = (await client.post("/k8s/filter", eight)).json
                assert told["FailedNodes"] == {"n309": "dhtos: not enough cores free"}
                api.pods["/api/v1/namespaces/default/pods/pbind0"]["status"]["phase"] = "Succeeded"
                while others["n309"].leases():  # noqa: ASYNC110 - until somebody looks
                    await asyncio.sleep(0.01)
                assert extender.stats()["k8s_pods_held"] == 0

    run(main)


@pytest.mark.parametrize("change", ["gone", "another", "elsewhere"])
def test_the_lease_of_a_pod_ends_with_it(run, monkeypatch, change):
    monkeypatch.setattr(kubernetes_bind, "POD_S", 0.05)
    path = "/api/v1/namespaces/default/pods/pbind0"

    async def main():
        with ApiServer() as api:
            async with fleet(kubernetes={"url": api.url}) as (node, _, client, _):
                await client.post("/k8s/filter", recorded("bind_filter"))
                assert (await client.post("/k8s/bind", binding("n103"))).json == {"Error": ""}
                pod = copy.deepcopy(api.pods[path])
                if change == "gone":
                    del api.pods[path]
                elif change == "another":
                    api.pods[path] = {**pod, "metadata": {**pod["metadata"], "uid": "other"}}
                else:
                    api.pods[path] = {**pod, "spec": {"nodeName": "n9"}}
                while node.leases():  # noqa: ASYNC110 - until somebody looks
                    await asyncio.sleep(0.01)

    run(main)


def test_a_binding_that_is_refused_gives_the_machine_back(run):
    async def main():
        with ApiServer() as api:
            async with fleet(kubernetes={"url": api.url}) as (node, extender, client, _):
                await client.post("/k8s/filter", recorded("bind_filter"))
                api.refuse = 409
                answer = await client.post("/k8s/bind", binding("n103"))
                assert answer.json["Error"] == (
                    "dhtos: the API server answered 409: pod is already assigned to node n9; "
                    "ask another node"
                )  # fmt: skip
                while node.leases():  # noqa: ASYNC110 - it waits for a datagram
                    await asyncio.sleep(0.001)
                assert extender.stats()["k8s_pods_held"] == 0
                api.refuse = 0
                assert (await client.post("/k8s/bind", binding("n103"))).json == {"Error": ""}
                # Asked again, since the answer did not arrive: one lease, not two.
                assert (await client.post("/k8s/bind", binding("n103"))).json == {"Error": ""}
                while len(node.leases()) != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

    run(main)


def test_an_answer_that_was_lost_is_looked_up(run):
    async def main():
        with ApiServer() as api:
            async with fleet(kubernetes={"url": api.url}) as (node, _extender, client, _):
                await client.post("/k8s/filter", recorded("bind_filter"))
                api.hang_up = True
                assert (await client.post("/k8s/bind", binding("n103"))).json == {"Error": ""}
                assert len(node.leases()) == len(api.bound) == 1
        other = {"url": api.url}  # nobody listens there any more
        async with fleet(kubernetes=other) as (node, _, client, _):
            await client.post("/k8s/filter", recorded("bind_filter"))
            answer = await client.post("/k8s/bind", binding("n103"))
            assert "does not answer" in answer.json["Error"]
            while node.leases():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    run(main)


def test_a_pod_that_was_not_seen_before_is_read(run, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    pod = recorded("bind_filter")["Pod"]

    async def main():
        with ApiServer() as api:
            settings = {"url": api.url, "token": str(token)}
            async with fleet(kubernetes=settings) as (node, _, client, _):
                answer = await client.post("/k8s/bind", binding("n103", pod))
                assert "there is no pod default/pbind0" in answer.json["Error"]
                api.pods["/api/v1/namespaces/default/pods/pbind0"] = pod
                assert (await client.post("/k8s/bind", binding("n103", pod))).json == {"Error": ""}
                assert dict(node.leases()[0].resources) == {"cores": 1, "mem": 2**30}
                assert api.tokens == {"Bearer secret"}

    run(main)


def test_bind_without_an_api_server_and_of_a_name_nobody_has(run):
    async def main():
        async with fleet() as (_, _, client, _):
            answer = await client.post("/k8s/bind", binding("n103"))
            assert answer.json["Error"] == (
                "dhtos: bind needs the API server; give its url in [kubernetes], or no bindVerb"
            )
        with ApiServer() as api:
            async with fleet(kubernetes={"url": api.url}) as (_, _extender, client, _):
                await client.post("/k8s/filter", recorded("bind_filter"))
                answer = await client.post("/k8s/bind", binding("n9"))
                assert answer.json["Error"].startswith("dhtos: no machine can take it: 0 of 1")
                assert api.bound == []

    run(main)


def test_who_refused_is_left_out_and_then_asked_last(run, monkeypatch):
    monkeypatch.setattr(kubernetes, "REST_S", 2)

    async def main():
        with ApiServer() as api:
            async with fleet(N309, kubernetes={"url": api.url}) as (
                node,
                _extender,
                client,
                others,
            ):
                names = ["n103", "n309"]
                assert (await client.post("/k8s/filter", recorded("bind_filter"))).json[
                    "NodeNames"
                ] == names
                before = (await client.post("/k8s/prioritize", asking("1", names=names))).json
                assert before == [{"Host": "n103", "Score": 10}, {"Host": "n309", "Score": 1}]
                await node.drain()
                answer = await client.post("/k8s/bind", binding("n103"))
                assert "none" in answer.json["Error"] or "no machine" in answer.json["Error"]
                told = (await client.post("/k8s/filter", recorded("bind_filter"))).json
                assert told["NodeNames"] == ["n309"]
                assert told["FailedNodes"]["n103"] == "dhtos: has not granted a claim just now"
                await node.undrain()
                while (await client.post("/k8s/filter", recorded("bind_filter"))).json[
                    "NodeNames"
                ] != names:
                    assert len(others) == 1
                after = (await client.post("/k8s/prioritize", asking("1", names=names))).json
                assert after == [{"Host": "n309", "Score": 10}, {"Host": "n103", "Score": 1}]

    run(main)


def test_what_is_remembered_of_pods_is_bounded(run):
    async def main():
        async with fleet() as (_, extender, _client, _):
            for n in range(EXTENDER_PODS_MAX + 3):
                pod = Pod(metadata=Metadata(name=str(n)))
                extender._remember(pod, Need(cores=1))
            assert len(extender._pods) == EXTENDER_PODS_MAX

    run(main)


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_becomes_node_affinity(run):
    async def main():
        async with fleet(N309) as (node, _, _, _):
            affinity = node_affinity(await node.plan(Need(cores=1)))
            terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            assert [term["matchFields"][0]["values"] for term in terms] == [["n103"], ["n309"]]
            preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
            assert [one["weight"] for one in preferred] == [100, 50]
            with pytest.raises(UsageError, match="has the label 'host'"):
                node_affinity(await node.plan(Need(cores=1)), label="host")

    run(main)


# --- daemons --------------------------------------------------------------------------------------


def grants(shell: Shell, daemon: Daemon) -> list[dict]:
    return json.loads(shell.run("leases", "--control", daemon.control, "--json").stdout)["leases"]


def test_the_first_candidate_is_killed_and_the_second_is_used(shell: Shell) -> None:
    with ApiServer() as api:
        settings = shell.home / "dhtos.toml"
        settings.write_text(f'[kubernetes]\nurl = "{api.url}"\n')
        first = shell.daemon(
            "--config", str(settings), "--http", "127.0.0.1:0", "--set", "cores=0.1",
        )  # fmt: skip
        tight = shell.daemon(
            "--seed",
            first.endpoint,
            "--label",
            "name=n103",
            "--set",
            "cores=2",
            "--set",
            "mem=8GiB",
        )
        wide = shell.daemon(
            "--seed",
            first.endpoint,
            "--label",
            "name=n309",
            "--set",
            "cores=9",
            "--set",
            "mem=64GiB",
        )
        client = Client(first.facts["http"].removeprefix("http://"))
        request = recorded("bind_filter")
        deadline = time.monotonic() + READY_S
        while client.ask("POST", "/k8s/filter", request).json["NodeNames"] != ["n103", "n309"]:
            assert time.monotonic() < deadline
        scores = client.ask("POST", "/k8s/prioritize", request).json
        best = max(scores, key=lambda one: one["Score"])["Host"]
        assert best == "n103"
        tight.stop(signal.SIGKILL)
        began = time.monotonic()
        error = client.ask("POST", "/k8s/bind", binding("n103")).json["Error"]
        assert time.monotonic() - began < 10  # below any time-out of a scheduler that is of use
        assert error.startswith("dhtos: no machine")
        assert api.bound == []
        left = client.ask("POST", "/k8s/filter", request).json
        assert left["NodeNames"] == ["n309"]
        assert client.ask("POST", "/k8s/bind", binding("n309")).json == {"Error": ""}
        (grant,) = grants(shell, wide)
        assert grant["resources"] == {"cores": 1, "mem": 2**30}
        assert [one["target"]["name"] for one in api.bound] == ["n309"]
        assert first.stop() == 0
        deadline = time.monotonic() + ENDED_S
        while grants(shell, wide):
            assert time.monotonic() < deadline, "a lease outlived the extender"


def test_settings_that_cannot_be_end_the_daemon_with_one_line(shell: Shell) -> None:
    for table, message in (
        ("urll = 'x'", "kubernetes: unknown key 'urll'"),
        ("url = 'ftp://x'", "kubernetes: url must be https://HOST:PORT, got 'ftp://x'"),
        ("token = 'nowhere'", f"kubernetes: {shell.home / 'nowhere'} is no file"),
    ):
        settings = shell.home / "dhtos.toml"
        settings.write_text(f"[kubernetes]\n{table}\n")
        said, _ = shell.refused("run", "--config", str(settings), "--http", "127.0.0.1:0")
        assert said == message
