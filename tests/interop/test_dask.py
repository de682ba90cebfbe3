"""Dask itself, with real workers: tasks run where the lease is, and move on when a worker dies."""

import asyncio
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="Dask is not installed here")

from distributed import Client, get_worker

from dhtos import Need
from dhtos.adapters import dask
from dhtos.errors import EngineError, LeaseLost

from engines import DEADLINE_S, HOST, PYTHON, Page  # isort: skip
from engines import answering, environment, fleet, free_port, known, released  # isort: skip

NEED = Need(cores=1, prefer="cheap")
ALL = 'label("dask.worker").exists()'


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, stack, folder):
        self._stack = stack
        self.folder = folder
        self.address = f"tcp://{HOST}:{free_port()}"
        port = self.address.rpartition(":")[2]
        options = ["--host", HOST, "--port", port, "--no-dashboard", "--no-show"]
        self.scheduler = self.start("scheduler", *options)

    def start(self, kind, *options):
        log = self._stack.enter_context((self.folder / f"{kind}.log").open("a"))
        process = subprocess.Popen(
            [PYTHON, "-m", "dask", kind, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(DASK_TEMPORARY_DIRECTORY=str(self.folder)),
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def worker(self, name, *options):
        """Start a worker without a nanny: what is killed stays dead."""
        always = ["--host", HOST, "--name", name, "--nthreads", "2", "--no-nanny"]
        return self.start("worker", self.address, *always, "--no-dashboard", *options)

    @asynccontextmanager
    async def client(self, *workers):
        """An asynchronous client, once these workers are there."""
        async with (
            asyncio.timeout(DEADLINE_S),
            Client(self.address, asynchronous=True, timeout=DEADLINE_S) as client,
        ):
            while not {*workers} <= await dask._workers(client):  # noqa: ASYNC110 - it asks
                await asyncio.sleep(0.05)
            yield client


@pytest.fixture(scope="module")
def cluster():
    """Two workers, `w1` and `w2`, of whom `w2` has a resource."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dhtos")))
        made = Cluster(stack, folder)
        made.worker("w1")
        made.worker("w2", "--resources", "LENS=1")
        yield made


def whereabouts():
    """A task that says where it runs; by value, since workers cannot import this file."""

    def where():
        return str(get_worker().name)

    return where


def forever(path):
    """A task that says that it runs, and does so until its worker ends."""

    def wait():
        import threading

        Path(path).write_text(str(get_worker().name))
        threading.Event().wait()

    return wait


@asynccontextmanager
async def machines(*names):
    """A machine with a worker each, the cheapest first, and a scheduler of dhtos."""
    async with fleet([n + 1 for n in range(len(names))]) as (nodes, client):
        for node, name in zip(nodes, names, strict=True):
            await dask.register(node, name)
        await known(client, ALL, len(names))
        yield nodes, client


async def test_a_task_runs_on_the_machine_that_granted_it(cluster):
    async with cluster.client("w1", "w2") as client, machines("w2", "w1") as (nodes, scheduler):
        granted = []

        def submit(there):
            granted.extend(node.labels["dask.worker"] for node in nodes if node.leases())
            return client.submit(whereabouts(), pure=False, **there)

        for _ in range(6):
            assert [await dask.run(scheduler, NEED, client, submit)] == granted
            await released(*nodes)
            granted.clear()


async def test_the_address_of_a_worker_is_as_good_as_its_name(cluster):
    async with cluster.client("w1", "w2") as client:
        known_workers = (await client.scheduler.identity())["workers"]
        addresses = {one["name"]: address for address, one in known_workers.items()}
        async with machines(addresses["w1"]) as (_, scheduler):
            submit = lambda there: client.submit(whereabouts(), pure=False, **there)  # noqa: E731
            assert await dask.run(scheduler, NEED, client, submit) == "w1"


async def test_a_plan_restricts_submit_and_annotate(cluster):
    import dask as engine

    async with cluster.client("w1", "w2") as client, machines("w2") as (nodes, scheduler):
        plan = await scheduler.plan(NEED)
        there = dask.dask_kwargs(plan, {"LENS": 1})
        for _ in range(5):
            assert await client.submit(whereabouts(), pure=False, **there) == "w2"
        with engine.annotate(**there):
            tasks = [engine.delayed(whereabouts(), pure=False)() for _ in range(4)]
        found = client.compute(tasks, optimize_graph=False)
        assert await client.gather(found) == ["w2"] * 4
        assert nodes[0].leases() == ()


async def test_gangs_run_on_all_their_machines_and_no_other(cluster):
    async with cluster.client("w1", "w2") as client, machines("w1", "w2") as (nodes, scheduler):
        need = Need(cores=4, where=ALL)
        async with scheduler.place_gang(need, 2) as gang:
            assert sorted(dask.dask_kwargs(gang)["workers"]) == ["w1", "w2"]
            for lease in gang.leases:
                there = dask.dask_kwargs(lease)
                found = await client.submit(whereabouts(), pure=False, **there)
                assert found == there["workers"][0]
        await released(*nodes)


async def test_a_dead_worker_is_passed_over(cluster):
    gone = cluster.worker("gone")
    async with cluster.client("w1", "gone") as client, machines("gone", "w1") as (nodes, scheduler):
        gone.kill()
        gone.wait()
        submit = lambda there: client.submit(whereabouts(), pure=False, **there)  # noqa: E731
        assert await dask.run(scheduler, NEED, client, submit) == "w1"
        await released(*nodes)


async def test_a_task_whose_worker_is_killed_runs_again_elsewhere(cluster, tmp_path):
    """Dask alone would keep it for the dead worker for ever."""
    doomed = {name: cluster.worker(name) for name in ("x1", "x2")}
    began = tmp_path / "began"
    tries = []
    async with cluster.client(*doomed) as client, machines(*doomed) as (nodes, scheduler):

        def submit(there):
            tries.extend(there["workers"])
            work = forever(str(began)) if len(tries) == 1 else whereabouts()
            return client.submit(work, pure=False, **there)

        running = asyncio.ensure_future(dask.run(scheduler, NEED, client, submit))
        while not began.exists():  # noqa: ASYNC110 - a worker writes it
            await asyncio.sleep(0.02)
        doomed[tries[0]].kill()
        found = await running
        assert found == tries[1]
        assert set(tries) == set(doomed)
        await released(*nodes)


async def test_who_has_no_worker_left_says_so(cluster):
    async with cluster.client("w1") as client, machines("nobody", "no-one") as (nodes, scheduler):
        told = r"Dask has no machine left.*(no.*: Dask has no such worker.*){2}"
        with pytest.raises(EngineError, match=told):
            await dask.run(scheduler, NEED, client, None)
        await released(*nodes)


async def test_nobody_registered_is_said(cluster):
    async with cluster.client("w1") as client, fleet([1]) as (_, scheduler):
        with pytest.raises(EngineError, match="no machine says what Dask calls it"):
            await dask.run(scheduler, NEED, client, None)


async def test_what_the_task_raises_comes_out(cluster):
    def fail():
        raise ZeroDivisionError("of the task")

    async with cluster.client("w1") as client, machines("w1") as (nodes, scheduler):
        submit = lambda there: client.submit(fail, pure=False, **there)  # noqa: E731
        with pytest.raises(ZeroDivisionError, match="of the task"):
            await dask.run(scheduler, NEED, client, submit)
        await released(*nodes)


@pytest.mark.parametrize("how", ["revoked", "cancelled"])
async def test_a_task_does_not_outlive_its_lease(cluster, how):
    """One that waits for data that never comes: Dask cannot stop a thread that runs."""
    async with cluster.client("w1") as client, machines("w1") as (nodes, scheduler):
        never = client.submit(lambda: 1, workers=["nobody"], pure=False)
        futures = []

        def submit(there):
            futures.append(client.submit(lambda _: 2, never, pure=False, **there))
            return futures[0]

        running = asyncio.ensure_future(dask.run(scheduler, NEED, client, submit))
        while not futures:  # noqa: ASYNC110 - `run` calls it
            await asyncio.sleep(0.01)
        if how == "revoked":
            await nodes[0].drain(revoke=True)
        else:
            running.cancel()
        with pytest.raises(LeaseLost if how == "revoked" else asyncio.CancelledError):
            await running
        assert futures[0].cancelled()
        await released(*nodes)


async def test_a_scheduler_that_dies_is_one_clear_error(tmp_path):
    with ExitStack() as stack:
        own = Cluster(stack, tmp_path)
        own.worker("w1")
        async with own.client("w1") as client, machines("w1") as (nodes, scheduler):
            began = tmp_path / "began"
            submit = lambda there: client.submit(forever(str(began)), **there)  # noqa: E731
            running = asyncio.ensure_future(dask.run(scheduler, NEED, client, submit))
            while not began.exists():  # noqa: ASYNC110 - a worker writes it
                await asyncio.sleep(0.02)
            own.scheduler.send_signal(signal.SIGKILL)
            with pytest.raises(EngineError, match=r"Dask.*start it with `dask scheduler`"):
                await running
            await released(*nodes)


async def test_the_how_to_does_what_it_says(tmp_path):
    dask_port, node_port = free_port(), free_port(socket.SOCK_DGRAM)
    page = Page(
        "dask.md",
        {
            "10.0.0.1:8786": f"{HOST}:{dask_port}",
            "10.0.0.1 --port 8786": f"{HOST} --port {dask_port}",
            "10.0.0.2:7400": f"{HOST}:{node_port}",
            "--port 7400": f"--port {node_port}",
            "--host 10.0.0.2": f"--host {HOST}",
        },
    )
    with ExitStack() as stack:
        page.start(stack, tmp_path, *page.bash[1:], XDG_RUNTIME_DIR=str(tmp_path))
        async with (
            asyncio.timeout(DEADLINE_S),
            Client(f"tcp://{HOST}:{dask_port}", asynchronous=True, timeout=DEADLINE_S) as client,
        ):
            while "edge-2" not in await dask._workers(client):  # noqa: ASYNC110 - it asks
                await asyncio.sleep(0.05)
            async with answering(f"{HOST}:{node_port}", page):
                assert await asyncio.to_thread(page.run, tmp_path) == "49\n64\n"
