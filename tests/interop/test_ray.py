"""Ray itself, with real raylets: tasks and bundles land where the lease is, and move on."""

import asyncio
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from engines import (
    DEADLINE_S,
    PYTHON,
    Page,
    answering,
    environment,
    fleet,
    free_port,
    known,
    released,
)

from dhtos import Need
from dhtos.adapters import ray
from dhtos.errors import EngineError, LeaseLost

engine = pytest.importorskip("ray", reason="Ray is not installed here")

from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.placement_group import (  # noqa: E402
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: E402

NEED = Need(cores=1, prefer="cheap")
ALL = 'label("ray.node").exists()'
IP = "127.0.0.2"  # Ray takes 127.0.0.1 for the machine's own address, and looks for it there
ROOM = {"node_ip_address": IP, "object_store_memory": 80 * 2**20}
SOON_DEAD = {  # by default a raylet that is silent counts as alive for a quarter of a minute
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no tasks, and two raylets of two cores each; this process is a driver."""
    head = {**ROOM, "num_cpus": 0, "include_dashboard": False, "_system_config": SOON_DEAD}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.stable = [raylet(made) for _ in range(2)]
        engine.init(
            address=made.address, _node_ip_address=IP, log_to_driver=False, logging_level="error"
        )
        yield made
    finally:
        engine.shutdown()
        made.shutdown()


def raylet(cluster):
    """One more machine of Ray's."""
    return cluster.add_node(num_cpus=2, **ROOM)


@asynccontextmanager
async def machines(*raylets):
    """A machine of dhtos for each of these raylets, the cheapest first, and a scheduler."""
    async with asyncio.timeout(DEADLINE_S), fleet([n + 1 for n in range(len(raylets))]) as found:
        nodes, client = found
        for node, one in zip(nodes, raylets, strict=True):
            await ray.register(node, one if isinstance(one, str) else one.node_id)
        await known(client, ALL, len(raylets))
        yield nodes, client


def whereabouts():
    """A task that says where it runs; by value, since workers cannot import this file."""

    @engine.remote
    def where():
        import ray

        return ray.get_runtime_context().get_node_id()

    return where


def forever(path):
    """A task that says that it runs, and does so until it is killed."""

    @engine.remote
    def wait():
        import os
        import threading
        from pathlib import Path

        Path(f"{path}.new").write_text(str(os.getpid()))
        Path(f"{path}.new").rename(path)
        threading.Event().wait()

    return wait


async def test_a_task_runs_on_the_machine_that_granted_it(cluster):
    async with machines(*cluster.stable) as (nodes, scheduler):
        granted = []

        def submit(there):
            granted.extend(node.labels["ray.node"] for node in nodes if node.leases())
            return whereabouts().options(**there).remote()

        for _ in range(6):
            assert [await ray.run(scheduler, NEED, submit)] == granted
            await released(*nodes)
            granted.clear()


async def test_the_raylet_of_this_driver_is_what_is_registered(cluster):
    async with fleet([1]) as ((node,), scheduler):
        await ray.register(node)
        assert dict(node.labels) == {"ray.node": engine.get_runtime_context().get_node_id()}
        plan = await scheduler.plan(Need(cores=1, where=ALL))
        assert ray.ray_options(plan)["label_selector"] == {
            "ray.io/node-id": cluster.head_node.node_id
        }


async def test_the_first_of_a_plan_is_taken_and_the_next_when_it_is_dead(cluster):
    doomed, spare = raylet(cluster), cluster.stable[0]
    async with machines(doomed, spare) as (nodes, scheduler):
        there = ray.ray_options(await scheduler.plan(NEED))
        assert await whereabouts().options(**there).remote() == doomed.node_id
        cluster.remove_node(doomed, allow_graceful=False)
        assert await whereabouts().options(**there).remote() == spare.node_id
        assert all(node.leases() == () for node in nodes)


async def test_a_dead_raylet_is_passed_over(cluster):
    doomed, spare = raylet(cluster), cluster.stable[0]
    async with machines(doomed, spare) as (nodes, scheduler):
        cluster.remove_node(doomed, allow_graceful=False)
        submit = lambda there: whereabouts().options(**there).remote()  # noqa: E731
        assert await ray.run(scheduler, NEED, submit) == spare.node_id
        await released(*nodes)


async def test_a_task_whose_raylet_is_killed_runs_again_elsewhere(cluster, tmp_path):
    doomed = {one.node_id: one for one in (raylet(cluster), raylet(cluster))}
    began = tmp_path / "began"
    tries = []
    async with machines(*doomed) as (nodes, scheduler):

        def submit(there):
            tries.append(there["label_selector"]["ray.io/node-id"])
            work = forever(str(began)) if len(tries) == 1 else whereabouts()
            return work.options(**there).remote()

        running = asyncio.ensure_future(ray.run(scheduler, NEED, submit))
        while not began.exists():  # noqa: ASYNC110 - a worker writes it
            await asyncio.sleep(0.02)
        cluster.remove_node(doomed[tries[0]], allow_graceful=False)
        found = await running
        assert found == tries[1]
        assert set(tries) == set(doomed)
        await released(*nodes)
    cluster.remove_node(doomed[tries[1]])


async def test_bundles_land_on_the_machines_of_a_gang(cluster):
    async with machines(*cluster.stable) as (nodes, scheduler):
        whole = Need(cores=4, where=ALL)  # so that no machine takes two members
        async with scheduler.place_gang(whole, 2) as gang:
            told = ray.ray_bundles(gang)
            told["bundles"] = [{"CPU": 1}] * 2  # Ray was told of two cores, dhtos of four
            group = placement_group(**told)
            try:
                await asyncio.wait_for(group.ready(), DEADLINE_S)
                tasks = [
                    whereabouts().options(
                        scheduling_strategy=PlacementGroupSchedulingStrategy(group, n)
                    )
                    for n in range(2)
                ]
                found = await asyncio.gather(*(task.remote() for task in tasks))
            finally:
                remove_placement_group(group)
            assert found == [lease.hit.labels["ray.node"] for lease in gang.leases]
            assert set(found) == {one.node_id for one in cluster.stable}
        await released(*nodes)


async def test_bundles_ask_ray_for_what_was_granted(cluster):
    need = Need(cores=1, where=ALL, prefer="spread")
    async with (
        machines(*cluster.stable) as (_, scheduler),
        scheduler.place_gang(need, 2) as gang,
    ):
        told = ray.ray_bundles(gang)
        assert told["bundles"] == [{"CPU": 1}] * 2
        group = placement_group(**told)
        try:
            await asyncio.wait_for(group.ready(), DEADLINE_S)
        finally:
            remove_placement_group(group)


async def test_who_has_no_raylet_left_says_so(cluster):
    strangers = ["a1" * 28, "b2" * 28]
    async with machines(*strangers) as (nodes, scheduler):
        told = "Ray has no machine left.*(a1|b2)+: its raylet is gone; (a1|b2)+: its raylet is gone"
        with pytest.raises(EngineError, match=told):
            await ray.run(scheduler, NEED, None)
        await released(*nodes)


async def test_nobody_registered_is_said(cluster):
    async with fleet([1]) as (_, scheduler):
        with pytest.raises(EngineError, match="no machine says what Ray calls it"):
            await ray.run(scheduler, NEED, None)


async def test_what_the_task_raises_comes_out(cluster):
    @engine.remote
    def fail():
        raise ZeroDivisionError("of the task")

    async with machines(cluster.stable[0]) as (nodes, scheduler):
        with pytest.raises(ZeroDivisionError, match="of the task"):
            await ray.run(scheduler, NEED, lambda there: fail.options(**there).remote())
        await released(*nodes)


@pytest.mark.parametrize("how", ["revoked", "cancelled"])
async def test_a_task_does_not_outlive_its_lease(cluster, tmp_path, how):
    began = tmp_path / "began"
    async with machines(cluster.stable[0]) as (nodes, scheduler):
        submit = lambda there: forever(str(began)).options(**there).remote()  # noqa: E731
        running = asyncio.ensure_future(ray.run(scheduler, NEED, submit))
        while not began.exists():  # noqa: ASYNC110 - a worker writes it
            await asyncio.sleep(0.02)
        if how == "revoked":
            await nodes[0].drain(revoke=True)
        else:
            running.cancel()
        with pytest.raises(LeaseLost if how == "revoked" else asyncio.CancelledError):
            await running
        process = Path("/proc", began.read_text())
        while process.exists():  # noqa: ASYNC110, ASYNC240 - Ray kills it; not a disk
            await asyncio.sleep(0.02)
        await released(*nodes)


_HEADLESS = f"""
import asyncio, os
import ray as engine
from ray.cluster_utils import Cluster
from dhtos.adapters import ray

async def main():
    ray.ANSWER_S = 2.0
    head = {{**{ROOM!r}, "include_dashboard": False}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    engine.init(address=cluster.address, _node_ip_address={IP!r}, log_to_driver=False)
    cluster.head_node.kill_gcs_server()
    try:
        await ray._alive(engine)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    for node in [cluster.head_node]:
        node.kill_all_processes(check_alive=False, allow_graceful=False)

asyncio.run(main())
os._exit(0)  # Ray ends a driver whose head is gone, after a minute
"""


def test_a_head_that_dies_is_one_clear_error(tmp_path):
    done = subprocess.run(
        [PYTHON, "-c", _HEADLESS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(RAY_ADDRESS=""),
        timeout=DEADLINE_S,
        check=False,
    )
    told = "EngineError Ray did not answer within 2 s: see whether its head runs, `ray status`"
    assert told in done.stdout, f"{done.stdout}\n{done.stderr}"


async def test_the_how_to_does_what_it_says(tmp_path):
    head_port, node_port, other = free_port(), free_port(socket.SOCK_DGRAM), "127.0.0.3"
    init = f"10.0.0.1:6379{{}}, _node_ip_address={{}}{other}{{}}, logging"
    page = Page(
        "ray.md",
        {
            "10.0.0.1:6379', logging": init.format("'", "'", "'"),
            '10.0.0.1:6379", logging': init.format('"', '"', '"'),
            "10.0.0.1": IP,
            "port=6379": f"port={head_port}",
            ":6379": f":{head_port}",
            "10.0.0.2:7400": f"{other}:{node_port}",
            "--port 7400": f"--port {node_port}",
            "10.0.0.2": other,
        },
    )
    _, head, worker, node = page.bash
    more = {"XDG_RUNTIME_DIR": str(tmp_path), "RAY_ADDRESS": ""}
    with ExitStack() as stack:
        page.start(stack, tmp_path, head, worker, **more)
        await connected(f"{IP}:{head_port}", other)
        page.start(stack, tmp_path, node, **more)
        async with asyncio.timeout(DEADLINE_S), answering(f"{other}:{node_port}", page):
            written = await asyncio.to_thread(page.run, tmp_path, RAY_ADDRESS="")
    assert written.splitlines() == ["49", "64", "[{'CPU': 1.0}, {'CPU': 1.0}]"]


async def connected(address, ip):
    """Wait until a driver can connect to the raylet of this address."""
    init = f"import ray; ray.init(address={address!r}, _node_ip_address={ip!r})"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            trying = await asyncio.create_subprocess_exec(
                PYTHON, "-c", init, stderr=asyncio.subprocess.DEVNULL, env=environment()
            )
            if await trying.wait() == 0:
                return
