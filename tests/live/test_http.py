"""HTTP as programs in other languages meet it: answers, errors, leases, limits, hanging up."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time

import msgspec
import pytest
from http_world import Client, config, served
from terminals import READY_S, Shell

import dhtos
from dhtos.errors import ConfigError
from dhtos.http import app, leases, serve, server, shapes
from dhtos.http.routes import QUESTIONS


def exact(answer, kind):
    """The answer has all that is declared of it, and nothing else."""
    found = msgspec.convert(answer, kind)
    assert msgspec.to_builtins(found).keys() >= answer.keys()
    return found


def world(run, main, **settings):
    async def with_node():
        async with served(**settings) as (node, _, client):
            await main(node, client)

    run(with_node)


# --- answers --------------------------------------------------------------------------------------


def test_find_streams_lines_and_ends_with_coverage(run):
    async def main(node, client):
        answer = await client.get("/v1/find?query=cores%20%3E%3D%204&limit=5&order_by=price")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        hit, end = answer.lines
        assert exact(hit["item"], shapes.Machine).id == str(node.id)
        assert hit["item"]["attributes"] == {
            "cores": 8, "mem": 2**34, "price": 0.1, "cores_free": 8, "mem_free": 2**34,
        }  # fmt: skip
        assert exact(end["end"], shapes.FindEnd).coverage.complete
        (end,) = (await client.get("/v1/find?selector=team")).lines
        assert end["end"]["matches"] == 0

    world(run, main)


def test_a_cursor_goes_on_where_an_answer_ended(run):
    async def main(first, client):
        async with dhtos.Node(config(first, advertise={"cores": 4})) as second:
            await second.joined()
            while await first.count() != 2:  # noqa: ASYNC110 - it waits for a datagram
                await asyncio.sleep(0.01)
            one, end = (await client.get("/v1/find?limit=1&order_by=cores")).lines
            cursor = end["end"]["cursor"].replace("+", "%2B")
            other, _ = (await client.get(f"/v1/find?order_by=cores&cursor={cursor}")).lines
            assert [one["item"]["attributes"]["cores"], other["item"]["attributes"]["cores"]] == [
                4,
                8,
            ]

    world(run, main)


def test_what_is_counted_planned_explained_and_told(run):
    async def main(node, client):
        assert exact((await client.get("/v1/count?query=cores>1")).json, shapes.Counted).count == 1
        need = {"resources": {"cores": 4, "mem": "8GiB"}, "where": "price < 1", "prefer": "cheap"}
        plan = exact((await client.post("/v1/plan", need)).json, shapes.Planned)
        assert [choice.id for choice in plan.choices] == [str(node.id)]
        assert exact((await client.post("/v1/plan", need)).json["choices"][0], shapes.Choice)
        why = exact(
            (await client.post("/v1/explain", {"resources": {"cores": 9}})).json, shapes.Explained
        )
        assert (why.machines, why.able, why.reasons) == (1, 0, {"cores": 1})
        members = (await client.get("/v1/members")).json
        assert exact(members, shapes.Members).machines[0].is_self
        exact(members["machines"][0], shapes.Member)
        status = (await client.get("/v1/status")).json
        assert (status["id"], status["joined"]) == (str(node.id), True)
        figures = (await client.get("/metrics")).body.decode()
        assert "\ndhtos_http_requests_200 " in figures
        assert "\ndhtos_http_leases 0\n" in figures

    world(run, main)


def test_head_and_options(run):
    async def main(_, client):
        answer = await asyncio.to_thread(client.ask, "HEAD", "/v1/count")
        assert (answer.status, answer.body) == (200, b"")
        answer = await asyncio.to_thread(client.ask, "OPTIONS", "/v1/leases/" + "0" * 32)
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
        assert "access-control-allow-origin" not in answer.headers

    world(run, main)


def test_the_document_says_what_there_is(run):
    async def main(_, client):
        told = (await client.get("/openapi.json")).json
        assert told["openapi"] == "3.1.0"
        shown = {(m.upper(), path) for path, methods in told["paths"].items() for m in methods}
        assert shown == {(question.method, question.path) for question in QUESTIONS}
        find = told["paths"]["/v1/find"]["get"]
        assert {p["name"] for p in find["parameters"]} == set(shapes.FindQuery.__struct_fields__)
        place = told["components"]["schemas"]["PlaceBody"]
        assert place["properties"]["ttl_s"]["maximum"] == 3600
        assert place["additionalProperties"] is False
        refs = json.dumps(told).split('"$ref": "#/components/schemas/')[1:]
        assert {ref.partition('"')[0] for ref in refs} <= told["components"]["schemas"].keys()

    world(run, main)


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail", "hint"),
    [
        ("GET", "/v1/find?query=coers>1", None,
         400, "unknown attribute 'coers' at column 1", "did you mean cores?"),
        ("GET", "/v1/find?limit=-1", None,
         400, "Expected `int` >= 0 - at `$.limit`", "/openapi.json says"),
        ("GET", "/v1/find?limt=1", None, 400, "unknown field `limt`", "/openapi.json says"),
        ("GET", "/v1/find?limit=1&limit=2", None,
         400, "the parameter 'limit' came twice", "give it once"),
        ("GET", "/v1/find?query=cores>1&selector=a", None,
         400, "give a query or a selector, not both", ""),
        ("GET", "/v1/find?cursor=%25", None, 400, "the argument 'cursor' is not base64", ""),
        ("GET", "/v1/finds", None, 404, "there is no /v1/finds", "did you mean /v1/find?"),
        ("GET", "/", None, 404, "there is no /", "/openapi.json lists what there is"),
        ("PUT", "/v1/count", None, 405, "/v1/count takes", ""),
        ("GET", "/v1/leases/" + "0" * 32, None, 404, "no lease with the token", "it was released"),
        ("POST", "/v1/leases/x/renew", None, 404, "no lease with the token 'x'", "it was released"),
        ("POST", "/v1/plan", {"resources": {"core": 1}},
         400, "unknown resource 'core'", "did you mean 'cores'?"),
        ("POST", "/v1/plan", {"resources": {"cores": 0}},
         400, "Expected `int` >= 1 - at `$.resources[...]`", ""),
        ("POST", "/v1/plan", {"resources": {"mem": "8Gib"}},
         400, "mem takes TiB", "did you mean GiB?"),
        ("POST", "/v1/plan", {"prefer": "chaep"},
         400, "Invalid enum value 'chaep' - at `$.prefer`", ""),
        ("POST", "/v1/plan", [], 400, "Expected `object`, got `array`", "/openapi.json says"),
        ("POST", "/v1/leases", {"ttl_s": 0.5}, 400, "Expected `float` >= 1.0 - at `$.ttl_s`", ""),
        ("POST", "/v1/leases", {"resources": {"cores": 9}},
         422, "no machine can take it", "ask for less"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(run, method, path, body, status, detail, hint):
    async def main(_, client):
        answer = await asyncio.to_thread(client.ask, method, path, body)
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        told = exact(answer.json, shapes.Problem)
        assert (told.status, told.type) == (status, "about:blank")
        assert detail in told.detail
        assert hint in told.hint
        assert told.hint or status == 405

    world(run, main)


def test_reasons_and_refusals(run):
    async def main(node, client):
        answer = await client.post("/v1/leases", {"resources": {"cores": 9, "mem": "1TiB"}})
        assert (answer.status, answer.json["reasons"]) == (422, {"cores": 1, "mem": 1})
        await node.drain()
        answer = await client.post("/v1/leases", {"resources": {"cores": 1}})
        assert answer.status == 409
        assert answer.json["reasons"] == {"draining": 3}
        assert answer.json["code"] == "ClaimsRefused"

    world(run, main)


def test_a_node_without_its_place_says_come_again(run):
    async def main(node, client):
        node.engine.hub.settled = False
        answer = await client.get("/v1/count")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "not joined" in answer.json["detail"]
        assert (await client.get("/v1/status")).json["joined"] is False
        node.engine.hub.settled = True
        assert (await client.get("/v1/count")).status == 200

    world(run, main)


def test_a_fault_of_our_own_is_told_to_the_operator_alone(run, monkeypatch):
    async def main(node, client):
        said = []
        node.on_warning = said.append
        monkeypatch.setattr(node, "stats", lambda: 1 / 0)
        answer = await client.get("/metrics")
        assert answer.status == 500
        assert "division" not in answer.body.decode()
        assert "ZeroDivisionError" in said[0]

    world(run, main)


# --- whom it serves -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:1", 200), ("LOCALHOST", 200), ("[::1]:80", 200),
        ("Fleet.example:7480", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("", 403),
        ("127.0.0.1.nip.io", 403),
    ],
)  # fmt: skip
def test_only_names_that_are_known_are_answered(run, host, status):
    async def main(_, client):
        answer = await client.get("/v1/count", Host=host)
        assert answer.status == status
        assert status == 200 or "http_names" in answer.json["hint"]

    world(run, main, http_names=("fleet.example",))


def test_web_pages_of_others_are_refused(run):
    async def main(node, client):
        for origin in ("https://evil.example", "null", f"https://{client.endpoint}.evil.example"):
            answer = await client.post("/v1/leases", {}, Origin=origin)
            assert answer.status == 403
        assert node.leases() == ()
        assert (await client.get("/v1/count", Origin=f"http://{client.endpoint}")).status == 200
        # What a form of a page may send without asking first:
        sent = {"Content-Type": "text/plain"}
        answer = await asyncio.to_thread(client.ask, "POST", "/v1/plan", b"{}", sent)
        assert answer.status == 415
        assert "Content-Type must be application/json, got text/plain" in answer.json["detail"]

    world(run, main)


# --- leases ---------------------------------------------------------------------------------------


def test_a_lease_is_held_while_its_client_renews_it(run):
    async def main(node, client):
        answer = await client.post("/v1/leases", {"resources": {"cores": 3}, "ttl_s": 2})
        lease = exact(answer.json, shapes.Lease)
        assert answer.status == 201
        assert answer.headers["location"] == path(lease)
        assert lease.renew_within_s == 2
        (grant,) = node.leases()
        assert (grant.token.hex(), dict(grant.resources)) == (lease.token, {"cores": 3})
        began = time.monotonic()
        while time.monotonic() < began + 4:  # twice as long as it would live
            assert (await client.post(path(lease) + "/renew")).status == 200
        assert (await client.get(path(lease))).json["fence"] == lease.fence
        while node.leases():  # noqa: ASYNC110 - until nobody has renewed it for two seconds
            await asyncio.sleep(0.01)
        for asked in (
            client.get(path(lease)),
            client.post(path(lease) + "/renew"),
            client.delete(path(lease)),
        ):
            answer = await asked
            assert (answer.status, answer.json["code"]) == (410, "LeaseLost")
            assert answer.json["detail"] == "its client did not renew it within 2 s"

    world(run, main)


def path(lease):
    return f"/v1/leases/{lease.token}"


def test_a_lease_is_given_back_once(run):
    async def main(node, client):
        lease = exact(
            (await client.post("/v1/leases", {"resources": {"cores": 8}})).json, shapes.Lease
        )
        answer = await client.delete(path(lease))
        assert (answer.status, answer.body) == (204, b"")
        while node.leases():  # noqa: ASYNC110 - it waits for a datagram
            await asyncio.sleep(0.001)
        assert (await client.delete(path(lease))).status == 404
        assert (await client.post("/v1/leases", {"resources": {"cores": 8}})).status == 201

    world(run, main)


def test_a_lease_that_is_taken_back_is_gone(run):
    async def main(node, client):
        lease = exact((await client.post("/v1/leases", {})).json, shapes.Lease)
        await node.drain(revoke=True)
        while (await client.get(path(lease))).status == 200:
            assert lease.token
        answer = await client.post(path(lease) + "/renew")
        assert (answer.status, answer.json["hint"]) == (410, "stop what it covered")

    world(run, main)


def test_a_lease_gives_way_to_what_matters_more(run):
    async def main(node, client):
        first = {"resources": {"cores": 8}, "ttl_s": 20}
        lease = exact((await client.post("/v1/leases", first)).json, shapes.Lease)
        refused = await client.post("/v1/leases", {**first, "priority": 5})
        assert refused.status in (409, 422)  # it did not say that others may go for it
        second = {**first, "priority": 5, "preempt": True}
        placing = asyncio.create_task(client.post("/v1/leases", second))
        while (answer := await client.get(path(lease))).status == 200:
            assert not placing.done()
        told = exact(answer.json, shapes.Problem)
        assert (told.status, told.code) == (410, "Preempted")
        assert told.grace_s is not None
        assert 0 < told.grace_s <= 20
        began = time.monotonic()
        assert (await client.delete(path(lease))).status == 410  # lost, and given back at once
        assert (await placing).status == 201
        assert time.monotonic() - began < told.grace_s
        (grant,) = node.leases()
        assert grant.priority == 5

    world(run, main)


def test_leases_are_bounded_and_end_with_the_server(run, monkeypatch):
    monkeypatch.setattr(leases, "HTTP_LEASES_MAX", 2)

    async def main():
        async with dhtos.Node(config(advertise={"cores": 8})) as node:
            async with serve(node, "127.0.0.1:0") as http:
                client = Client(http.endpoint)
                answers = [
                    await client.post("/v1/leases", {"resources": {"cores": 1}}) for _ in range(3)
                ]
                assert [answer.status for answer in answers] == [201, 201, 503]
                assert "at most 2 leases" in answers[2].json["detail"]
                assert len(node.leases()) == 2
            while node.leases():  # noqa: ASYNC110 - it waits for a datagram
                await asyncio.sleep(0.001)

    run(main)


# --- limits and hanging up ------------------------------------------------------------------------


async def raw(http):
    host, port = http.endpoint.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


def test_a_client_that_hangs_up_frees_its_question(run):
    async def main():
        async with served() as (node, http, _):
            before = len(node.driver._conditions)
            node.engine.hub.settled = False
            reader, writer = await raw(http)
            http._service._check_joined = lambda: None  # as if it left its place in between
            writer.write(b"GET /v1/count HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while len(node.driver._conditions) == before:  # noqa: ASYNC110 - the question travels
                await asyncio.sleep(0.001)
            writer.close()
            while len(node.driver._conditions) != before:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            node.engine.hub.settled = True
            assert await reader.read() == b""

    run(main)


def rows(tmp_path, count):
    file = tmp_path / "machines.csv"
    file.write_text("name,vcpu\n" + "".join(f"m{n},{n % 60 + 1}\n" for n in range(count)))
    return file


@contextlib.asynccontextmanager
async def unread(tmp_path):
    """A node that serves, and a find of which its client reads nothing: writing has to wait."""
    async with served(gateway=rows(tmp_path, 1500)) as (node, http, client):
        while await node.count() < 1000:  # noqa: ASYNC110 - the gateway puts them one by one
            await asyncio.sleep(0.01)
        http._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with contextlib.closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            host, port = http.endpoint.rsplit(":", 1)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            sock.send(b"GET /v1/find HTTP/1.1\r\nHost: localhost\r\n\r\n")
            state = http._server.server_state
            while not any(one.flow.write_paused for one in state.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield http, client, state


def test_a_client_that_does_not_read_is_cut_off_and_frees_its_find(run, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "HTTP_STALL_S", 0.3)
    freed = []
    stream = app._stream

    async def watched(first, rest, send):
        try:
            await stream(first, rest, send)
        finally:  # cancelled, or through with what it had at hand
            freed.append(rest)

    monkeypatch.setattr(app, "_stream", watched)

    async def main():
        async with unread(tmp_path) as (_, client, state):
            assert not freed
            while not freed:  # noqa: ASYNC110 - until its time is up
                await asyncio.sleep(0.01)
            assert freed[0].ag_frame is None  # the answer is closed, and its query with it
            assert not state.connections
            assert (await client.get("/v1/count")).status == 200

    run(main)


def test_a_body_is_bounded_in_size_and_time(run, monkeypatch):
    monkeypatch.setattr(app, "HTTP_BODY_S", 0.2)

    async def main():
        async with served() as (_, http, client):
            answer = await client.post("/v1/plan", {"where": "x" * 2**20})
            assert answer.status == 413
            assert "at most 1048576 bytes" in answer.json["detail"]
            reader, writer = await raw(http)
            writer.write(
                b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.close()

    run(main)


def test_a_request_that_never_comes_ends(run, monkeypatch):
    monkeypatch.setattr(server, "HTTP_HEAD_S", 0.1)

    async def main():
        async with served() as (_, http, client):
            for sent in (b"", b"GET /v1/count HT"):
                reader, writer = await raw(http)
                writer.write(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            assert (await client.get("/v1/count")).status == 200

    run(main)


def test_what_is_no_http_gets_400_and_no_word_in_our_logs(run, caplog, capfd):
    logger = logging.getLogger("uvicorn.error")
    before = logger.level, logger.propagate, list(logger.handlers)

    async def main():
        async with served() as (_, http, client):
            reader, writer = await raw(http)
            writer.write(b"\x00\x01 nonsense\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            assert (await client.get("/v1/count")).status == 200

    run(main)
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert capfd.readouterr() == ("", "")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_connections_are_bounded(run, monkeypatch):
    monkeypatch.setattr(server, "HTTP_CONNECTIONS_MAX", 3)

    async def main():
        async with served() as (_, http, client):
            others = [await raw(http) for _ in range(3)]
            assert (await client.get("/v1/count")).status == 503
            for _, writer in others:
                writer.close()
            while (await client.get("/v1/count")).status == 503:
                assert others, "until the server has seen them go"

    run(main)


def test_a_busy_port_and_wrong_settings_are_one_error(run):
    async def main():
        async with served() as (node, http, _):
            with pytest.raises(ConfigError, match=r"in use; choose another with --http"):
                async with serve(node, http.endpoint):
                    raise AssertionError("it listens twice")
            with pytest.raises(ConfigError, match="say where to listen"):
                async with serve(node):
                    raise AssertionError("it listens nowhere")

    run(main)


def test_closing_does_not_wait_for_who_does_not_read(run, tmp_path):
    async def main():
        async with unread(tmp_path) as (http, _, state):
            await http.aclose()
            while state.connections:  # noqa: ASYNC110 - cut off, long before its time is up
                await asyncio.sleep(0)

    run(main)


def test_closing_ends_what_is_still_asked(run):
    async def main():
        async with dhtos.Node(config(advertise={"cores": 8})) as node:
            async with serve(node, "127.0.0.1:0") as http:
                node.engine.hub.settled = False
                http._service._check_joined = lambda: None
                reader, writer = await raw(http)
                before = len(node.driver._conditions)
                writer.write(b"GET /v1/count HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while len(node.driver._conditions) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                await http.aclose()
                await http.aclose()
                assert b"200 OK" not in await reader.read()
                writer.close()
            assert not node.driver._conditions

    run(main)


# --- the daemon -----------------------------------------------------------------------------------


def test_a_daemon_serves_http_until_its_end(shell: Shell) -> None:
    daemon = shell.daemon("--http", "127.0.0.1:0", "--set", "cores=8")
    client = Client(daemon.facts["http"].removeprefix("http://"))
    other = shell.daemon("--seed", daemon.endpoint, "--set", "cores=64")
    deadline = time.monotonic() + READY_S
    while client.ask("GET", "/v1/count").json["count"] != 2:
        assert time.monotonic() < deadline
    lease = client.ask("POST", "/v1/leases", {"resources": {"cores": 32}})
    assert lease.json["node"] == other.facts["id"]
    message, hint = shell.refused(
        "run", "--host", "127.0.0.1", "--port", "0", "--http", client.endpoint
    )
    assert message == f"http {client.endpoint}: Address already in use"
    assert hint == "choose another with --http"
    assert daemon.stop(signal.SIGTERM) == 0
    with pytest.raises(ConnectionRefusedError):
        client.ask("GET", "/v1/count")
    while json.loads(shell.run("leases", "--control", other.control, "--json").stdout)["leases"]:
        assert time.monotonic() < deadline, "the lease of a client outlived its holder"


def test_a_daemon_without_the_extra_says_what_to_install(shell: Shell) -> None:
    (shell.home / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')\n")
    shell.environment["PYTHONPATH"] = f"{shell.home}:{shell.environment.get('PYTHONPATH', '')}"
    message, hint = shell.refused("run", "--port", "0", "--http", "127.0.0.1:0")
    assert message == "http needs uvicorn, which is not installed"
    assert hint == "use pip install 'dhtos[http]'"
    message, _ = shell.refused("run", "--http", "0.0.0.0:7480")
    assert message.startswith("http serves whoever reaches 0.0.0.0:7480")
