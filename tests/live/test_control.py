"""The control socket of a running node, through its client and through raw lines."""

import asyncio
import contextlib
import os
import socket
import stat

import pytest

import dhtos
from dhtos.core.limits import CONTROL_CLIENTS_MAX, CONTROL_LINE_BYTES_MAX
from dhtos.errors import (
    ConfigError,
    KeyNotFound,
    MalformedMessage,
    PredicateError,
    Unreachable,
    UsageError,
)
from dhtos.node.control import ControlClient, decode_line, default_control_path
from dhtos.node.control_server import ControlServer


@pytest.fixture
def serve(run, tmp_path):
    """Run a test with a node that has a control socket, and a connected client."""

    def runner(main, **settings):
        async def with_node():
            told = {"advertise": {"cores": 8, "price": 0.1}, "labels": {"team": "video"}}
            config = dhtos.Config(
                host="127.0.0.1", port=0, sample=False, control=True,
                control_path=tmp_path / "c.sock", **{**told, **settings},
            )  # fmt: skip
            async with dhtos.Node(config) as node, ControlClient(tmp_path / "c.sock") as client:
                await main(node, client)

        run(with_node)

    return runner


async def raw(path):
    return await asyncio.open_unix_connection(str(path), limit=CONTROL_LINE_BYTES_MAX * 2)


def test_find_streams_hits_and_ends_with_coverage(serve):
    async def main(node, client):
        answer = client.ask("find", query="cores >= 4", limit=5, order_by="price")
        with pytest.raises(UsageError, match="not read to its end"):
            _ = answer.end
        hits = [hit async for hit in answer]
        assert len(hits) == 1
        assert hits[0]["id"] == str(node.id)
        assert hits[0]["endpoint"] == node.endpoint
        assert hits[0]["attributes"] == {"cores": 8, "price": 0.1, "cores_free": 8}
        assert hits[0]["labels"] == {"team": "video"}
        assert answer.end["coverage"]["complete"] is True
        assert answer.end["matches"] == 1
        end = await client.call("find", query="cores > 8")
        assert end["matches"] == 0
        end = await client.call("find", verify=2)
        assert end["coverage"]["verified"] == 1  # the only member there is
        assert "steps" not in end
        end = await client.call("find", query="cores >= 4", explain=True)
        (step,) = end["steps"]
        assert (step["prefix"], step["asked"], step["hits"]) == ("", None, 1)
        assert step["means"] == {}
        assert (await client.call("count", verify=2))["coverage"]["verified"] == 1
        for op in ("find", "count"):
            with pytest.raises(UsageError, match=r"verify must be 1\.\.4 members, got 9"):
                await client.call(op, verify=9)

    serve(main)


def test_a_long_answer_pages_with_its_cursor(serve):
    async def main(node, client):
        others = [
            dhtos.Config(
                host="127.0.0.1", port=0, sample=False, seeds=[node.endpoint],
                advertise={"cores": n},
            )
            for n in (1, 2, 3)
        ]  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:
            for config in others:
                await (await stack.enter_async_context(dhtos.Node(config))).joined()
            while (await client.call("count"))["count"] != 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            seen, cursor = [], None
            while True:
                answer = client.ask("find", limit=3, order_by="cores", cursor=cursor)
                seen += [hit["attributes"]["cores"] async for hit in answer]
                cursor = answer.end["cursor"]
                if cursor is None or len(seen) >= 4:
                    break
            assert seen == [1, 2, 3, 8]

    serve(main)


def test_the_closest_come_nearest_first_and_never_the_node_itself(serve):
    async def main(node, client):
        assert await client.call("closest") == {"machines": 0}
        other = dhtos.Config(
            host="127.0.0.1", port=0, sample=False, seeds=[node.endpoint], advertise={"cores": 2}
        )
        async with dhtos.Node(other) as second:
            await second.joined()
            while (await client.call("count"))["count"] != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            answer = client.ask("closest", k=3, probes=2)
            hits = [hit async for hit in answer]
            assert [hit["id"] for hit in hits] == [str(second.id)]
            assert hits[0]["rtt_s"] > 0
            assert answer.end == {"machines": 1}
            assert hits[0]["rtt_measured"] is True
            assert len(hits[0]["coordinate"]) == 7
            assert await client.call("closest", query="cores > 2") == {"machines": 0}
            rtt = await client.call("rtt", a=str(second.id)[:8])
            assert rtt["measured"] is True
            assert rtt["error"] == 0.0
            assert 0 < rtt["rtt_s"] < 1
            assert (await client.call("rtt", a="self"))["rtt_s"] == 0.0
            near = client.ask("within", seconds=1, limit=3, probes=0)
            assert [hit["id"] async for hit in near] == [str(second.id)]
            assert near.end == {"machines": 1}
            middle = client.ask("central", others=["self"], k=1)
            (found,) = [central async for central in middle]
            assert found["id"] == str(second.id)
            assert found["worst_s"] == found["mean_s"] == found["others"][0]["rtt_s"]
            assert found["others"][0]["measured"] is True
            assert middle.end == {"machines": 1}

    serve(main)


def test_every_op(serve):
    async def main(node, client):
        assert (await client.call("count", query="cores >= 1"))["count"] == 1
        assert (await client.call("count", selector="team in (video, audio)"))["count"] == 1
        assert (await client.call("count"))["coverage"]["complete"] is True
        summed = await client.call("sum", attribute="price", query="cores >= 1", verify=2)
        assert (summed["sum"], summed["mean"], summed["present"]) == (0.1, 0.1, 1)
        assert summed["coverage"]["verified"] == 1
        binned = await client.call("histogram", attribute="cores", edges=[8], strict=True)
        assert (binned["counts"], binned["missing"], binned["edges"]) == ([0, 1], 0, [8])
        binned = await client.call("histogram", attribute="mem", selector="team=video")
        assert (sum(binned["counts"]), binned["missing"], len(binned["edges"])) == (0, 1, 15)
        drawn = client.ask("sample", k=3, query="cores >= 1", strict=True)
        assert [hit["id"] async for hit in drawn] == [str(node.id)]
        assert (drawn.end["matches"], drawn.end["cursor"]) == (1, None)
        put = await client.call("put", key="a", value="text", ttl_s=60)
        assert (put["stored_on"], put["wanted"]) == (1, 20)
        got = await client.call("get", key="a")
        assert got["value"] == "text"
        assert 50 < got["expires_s"] <= 60
        await client.call("put", key="b", base64="AP8=", seq=5)
        assert await client.call("get", key="b") | {"expires_s": 0} == {
            "base64": "AP8=", "seq": 5, "expires_s": 0,
        }  # fmt: skip
        told = await client.call("advertise", attributes={"site": "lab"}, labels={"team": None})
        assert told == {
            "attributes": {"cores": 8, "price": 0.1, "cores_free": 8, "site": "lab"}, "labels": {},
        }  # fmt: skip
        assert node.attributes["site"] == "lab"
        members = client.ask("members")
        listed = [member async for member in members]
        assert [(m["id"], m["state"], m["self"]) for m in listed] == [(str(node.id), "alive", True)]
        assert members.end == {"prefix": "00", "members": 1}
        config = await client.call("config")
        assert config["host"] == "127.0.0.1"
        assert config["control"] is True

    serve(main)


def test_status_tells_what_runs(serve):
    async def main(node, client):
        status = await client.call("status")
        assert status["id"] == str(node.id)
        assert status["endpoint"] == node.endpoint
        assert status["pid"] == os.getpid()
        assert status["joined"] is True
        assert status["group"] == {"prefix": "00", "members": 1}
        assert status["kernels"] in ("compiled", "reference")
        assert status["loop"] in ("asyncio", "uvloop")
        assert status["warnings"] == []
        assert status["stats"]["socket_dropped"] == 0

    serve(main)


def test_errors_arrive_as_themselves(serve):
    async def main(_, client):
        with pytest.raises(PredicateError) as caught:
            await client.call("find", query="coers >= 8")
        assert (caught.value.column, caught.value.hint) == (1, "cores")
        with pytest.raises(KeyNotFound, match="no reachable node holds"):
            await client.call("get", key="nothing")
        with pytest.raises(UsageError, match="did you mean 'price'"):
            await client.call("advertise", attributes={"prise": 1})
        assert (await client.call("count"))["count"] == 1

    serve(main)


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        ("get", {}, "'key' is missing"),
        ("get", {"key": 7}, "'key' must be of type str, got int"),
        ("find", {"limit": "many"}, "'limit' must be of type int, got str"),
        ("find", {"limit": True}, "'limit' must be of type int, got bool"),
        ("find", {"cursor": "not base64!"}, "'cursor' is not base64"),
        ("find", {"qeury": "x"}, "unknown arguments: 'qeury'"),
        ("count", {"query": "cores > 1", "selector": "a"}, "not both"),
        ("put", {"key": "a"}, "'value' is missing"),
        ("put", {"key": "a", "value": [1]}, "a value is str, bytes"),
        ("put", {"key": "a", "value": "b", "ttl_s": -1}, "ttl_s must be above 0"),
        ("status", {"verbose": True}, "unknown arguments"),
        ("sum", {}, "'attribute' is missing"),
        ("sum", {"attribute": "arch"}, "arch is a text, which has no sum"),
        ("sum", {"attribute": "cores", "edges": [1]}, "unknown arguments"),
        ("sum", {"attribute": "cores", "verify": 9}, "verify must be 1..4"),
        ("histogram", {"attribute": "cores", "edges": 4}, "must be of type list"),
        ("histogram", {"attribute": "cores", "edges": [4, "x"]}, "finite numbers, got 'x'"),
        ("histogram", {"attribute": "cores", "edges": []}, "1..64 edges, got 0"),
        ("sample", {}, "'k' is missing"),
        ("sample", {"k": 257}, "1..256 machines, got 257"),
        ("sample", {"k": True}, "must be of type int"),
        ("closest", {"k": "many"}, "'k' must be of type int, got str"),
        ("closest", {"k": 0}, "k must be 1..256, got 0"),
        ("closest", {"probes": 257}, "probes must be 1..256, got 257"),
        ("closest", {"query": "cores > 1", "to": "x"}, "unknown arguments: 'to'"),
        ("rtt", {}, "'a' is missing"),
        ("rtt", {"a": "n9"}, "no machine is named 'n9'"),
        ("rtt", {"a": "self", "b": 7}, "'b' must be of type str, got int"),
        ("within", {}, "'seconds' is missing"),
        ("within", {"seconds": "20ms"}, "'seconds' must be of type float"),
        ("within", {"seconds": 0}, "a round trip is above 0 s"),
        ("central", {}, "'others' is missing"),
        ("central", {"others": []}, "name 1..64 machines, got 0"),
        ("central", {"others": ["self"] * 65}, "name 1..64 machines, got 65"),
        ("central", {"others": [7]}, "a machine is named by a text, got 7"),
    ],
)
def test_a_bad_argument_is_named(serve, op, args, words):
    async def main(_, client):
        with pytest.raises(UsageError) as caught:
            await client.call(op, **args)
        assert words in str(caught.value)

    serve(main)


def test_strange_lines_get_an_error_and_the_connection_lives(serve):
    async def main(_, client):
        reader, writer = await raw(client.path)
        for line in (b"nonsense", b"[]", b"{}", b'{"op": 7}', b'{"op": "fnd"}',
                     b'{"op": "status", "args": []}', b"\xff\xfe", b""):  # fmt: skip
            writer.write(line + b"\n")
            answer = decode_line(await reader.readline())
            assert answer["error"]["code"] in ("UsageError", "MalformedMessage"), line
        writer.write(b'{"op": "count"}\n{"op": "config"}\n')
        assert decode_line(await reader.readline())["end"]["count"] == 1
        assert decode_line(await reader.readline())["end"]["port"] == 0
        writer.close()
        await writer.wait_closed()

    serve(main)


def test_a_line_over_the_limit_ends_the_connection(serve):
    async def main(_, client):
        reader, writer = await raw(client.path)
        writer.write(b"x" * (CONTROL_LINE_BYTES_MAX * 2) + b"\n")
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        assert (await client.call("count"))["count"] == 1

    serve(main)


def test_a_client_that_goes_away_cancels_its_question(serve):
    async def main(node, client):
        node.engine.hub.settled = False
        asking = asyncio.ensure_future(client.call("count"))
        while not node.driver._conditions:  # noqa: ASYNC110 - the question travels first
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await client.aclose()
        while node.driver._conditions:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        node.engine.hub.settled = True

    serve(main)


def test_one_question_at_a_time(serve):
    async def main(_, client):
        first = client.ask("find")
        await anext(first)
        with pytest.raises(UsageError, match="not read to its end"):
            client.ask("count")
        await first.finish()
        assert (await client.call("count"))["count"] == 1

    serve(main)


def test_a_node_that_closes_cuts_its_answers_off(serve):
    async def main(node, client):
        node.engine.hub.settled = False
        asking = asyncio.ensure_future(client.call("count"))
        while not node.driver._conditions:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await node.aclose()
        with pytest.raises(Unreachable, match="went away"):
            await asking
        with pytest.raises(Unreachable):
            await client.call("count")
        assert not client.path.exists()
        await client.aclose()
        with pytest.raises(Unreachable, match="start one with dhtos-node run"):
            await client.connect()

    serve(main)


def test_connections_are_bounded(serve):
    async def main(_, client):
        others = [await raw(client.path) for _ in range(CONTROL_CLIENTS_MAX)]
        reader, _ = others[-1]
        assert "at most" in decode_line(await reader.readline())["error"]["message"]
        for _, writer in others:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        assert (await client.call("count"))["count"] == 1

    serve(main)


def test_the_socket_is_private_and_not_shared(serve):
    async def main(node, client):
        assert stat.S_IMODE(client.path.stat().st_mode) == 0o600
        with pytest.raises(ConfigError, match="another node answers"):
            await ControlServer(node, client.path).start()

    serve(main)


def test_a_dead_socket_is_replaced_and_a_trap_is_not(run, tmp_path, monkeypatch):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    trap = tmp_path / "open"
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    deep = tmp_path / ("d" * 120)

    async def main():
        async with dhtos.Node(dhtos.Config(host="127.0.0.1", port=0, sample=False)) as node:
            server = ControlServer(node, tmp_path / "left.sock")
            await server.start()
            async with ControlClient(tmp_path / "left.sock") as client:
                assert (await client.call("count"))["count"] == 1
            await server.aclose()
            await server.aclose()
            with pytest.raises(ConfigError, match="no other can write to"):
                await ControlServer(node, trap / "c.sock").start()
            with pytest.raises(ConfigError, match="control socket"):
                await ControlServer(node, deep / "c.sock").start()

    run(main)


def test_the_default_place_is_found_by_port(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def main():
        config = dhtos.Config(host="127.0.0.1", port=0, sample=False, control=True)
        async with (
            dhtos.Node(config) as node,
            ControlClient(default_control_path(None, node.port)) as client,
        ):
            assert (await client.call("status"))["port"] == node.port

    run(main)


def test_a_node_that_talks_nonsense_is_malformed(run, tmp_path):
    async def main():
        async def nonsense(reader, writer):
            await reader.readline()
            writer.write(b'{"what": 1}\n')
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(nonsense, str(tmp_path / "n.sock"))
        async with ControlClient(tmp_path / "n.sock") as client:
            with pytest.raises(MalformedMessage, match="answered with 'what'"):
                await client.call("status")
        server.close()
        await server.wait_closed()

    run(main)
