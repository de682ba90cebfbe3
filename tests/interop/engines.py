"""What the tests of the engines share: dhtos nodes that stand for their machines."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import dhtos
from dhtos.errors import NoPeers

HOST = "127.0.0.1"
PYTHON = sys.executable
DEADLINE_S = 120.0  # of what starts processes: the machine may be busy
_PAGES = Path(__file__).resolve().parents[2] / "docs" / "howto"
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def config(*seeds, **settings):
    """A node on loopback that says what the test tells."""
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=list(seeds), **settings)


@contextlib.asynccontextmanager
async def fleet(prices, cores=4):
    """A node of so many cores for each price, and the scheduler: one that only asks.

    `prefer="cheap"` puts the machines in the order of their prices.
    """
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for price in prices:
            seeds = [node.endpoint for node in nodes[:3]]
            told = config(*seeds, advertise={"cores": cores, "price": price})
            nodes.append(await stack.enter_async_context(dhtos.Node(told)))
        for node in nodes:
            await node.joined()
        asking = config(*[node.endpoint for node in nodes[:3]], client=True)
        client = await stack.enter_async_context(dhtos.Node(asking))
        yield nodes, client


@contextlib.asynccontextmanager
async def answering(endpoint, page):
    """A scheduler that joined through this node, once the commands of the page have started it."""
    while True:
        page.check()
        try:
            async with dhtos.Node(config(endpoint, client=True)) as node:
                yield node
                return
        except NoPeers:  # it starts
            await asyncio.sleep(0.05)


async def known(client, query, count):
    """Wait until so many machines match."""
    while await client.count(query) != count:  # noqa: ASYNC110 - what it waits for is an answer
        await asyncio.sleep(0.02)


async def released(*nodes):
    """Wait until these machines have everything back."""
    while any(node.leases() for node in nodes):  # noqa: ASYNC110 - it waits for a datagram
        await asyncio.sleep(0.02)


def environment(**more):
    """This program's, with this dhtos."""
    package = Path(dhtos.__file__).parent.parent
    return {**os.environ, "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1", **more}


def free_port(kind=socket.SOCK_STREAM):
    """A port that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Page:
    """A how-to that a test follows, as a user would, with the addresses of this machine.

    `bash` are its commands, a line each, and `python` is its program.
    """

    def __init__(self, name, addresses):
        text = (_PAGES / name).read_text(encoding="utf-8")
        for shown, here in addresses.items():
            assert shown in text, f"{name} does not show {shown}"
            text = text.replace(shown, here)
        blocks = [(match[1], match[2]) for match in _BLOCK.finditer(text)]
        self.bash = [
            line for language, block in blocks if language == "bash" for line in block.splitlines()
        ]
        self.python = "\n".join(block for language, block in blocks if language == "python")
        self._started = []

    def start(self, stack, folder, *commands, **more):
        """Start commands of the page, which go on until the stack is closed."""
        programs = folder / "bin"
        programs.mkdir(exist_ok=True)
        for name, module in (("dhtos-node", "dhtos.cli.main"), ("dask", "dask.__main__")):
            text = f"#!{PYTHON}\nfrom {module} import main\n\nmain()\n"
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = f"{programs}:{Path(PYTHON).parent}:{os.environ['PATH']}"
        for command in commands:
            assert command in self.bash, command
            log = folder / f"command{len(self._started)}.log"
            out = stack.enter_context(log.open("w"))
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(PATH=path, **more),
            )
            self._started.append((process, command, log))
            stack.callback(process.wait, DEADLINE_S)
            stack.callback(process.terminate)

    def check(self):
        """Fail with what a command wrote if it has ended."""
        for process, command, log in self._started:
            assert process.poll() is None, f"{command}\n{log.read_text()}"

    def run(self, folder, **more):
        """What the program writes; it must succeed."""
        program = folder / "page.py"
        program.write_text(self.python, encoding="utf-8")
        done = subprocess.run(
            [PYTHON, str(program)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(**more),
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout
