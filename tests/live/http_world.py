"""A node that serves HTTP, and a client of the standard library, which blocks in a thread."""

import asyncio
import contextlib
import http.client
import json
from dataclasses import dataclass

import dhtos
from dhtos.http import serve

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [json.loads(line) for line in self.body.splitlines()]


class Client:
    """Asks one server; a `dict` as the body is sent as JSON."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def ask(self, method, path, body=None, headers=None) -> Answer:
        connection = http.client.HTTPConnection(self.endpoint, timeout=30)
        try:
            given = dict(headers or {})
            if isinstance(body, dict | list):
                body, given = json.dumps(body).encode(), {**JSON, **given}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()

    async def get(self, path, **headers) -> Answer:
        return await asyncio.to_thread(self.ask, "GET", path, None, headers)

    async def post(self, path, body=None, **headers) -> Answer:
        return await asyncio.to_thread(self.ask, "POST", path, body, headers)

    async def delete(self, path) -> Answer:
        return await asyncio.to_thread(self.ask, "DELETE", path)


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


@contextlib.asynccontextmanager
async def served(*seeds, **settings):
    """A node of eight cores that serves HTTP, and a client for it."""
    told = {"advertise": {"cores": 8, "mem": 2**34, "price": 0.1}, "name": "n1", **settings}
    async with dhtos.Node(config(*seeds, **told)) as node:
        await node.joined()
        async with serve(node, "127.0.0.1:0") as server:
            yield node, server, Client(server.endpoint)
