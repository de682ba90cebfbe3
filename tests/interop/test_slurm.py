"""Slurm itself, with real daemons: leases become reservations, and jobs run inside them."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from engines import DEADLINE_S, HOST, Page, answering, fleet, free_port, known, released

from dhtos import Need
from dhtos.adapters import slurm
from dhtos.errors import EngineError, LeaseLost

PROGRAMS = ("slurmctld", "slurmd", "scontrol", "srun", "scancel")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
if MISSING:
    pytest.skip(f"Slurm is not installed here: no {', '.join(MISSING)}", allow_module_level=True)
if os.getuid() != 0 or "TEST_SLURM" not in os.environ:
    pytest.skip(
        "starts Slurm's daemons as root: TEST_SLURM=1 lets it, as `.ci/run` does",
        allow_module_level=True,
    )

CORES = 4
NEED = Need(cores=2, prefer="cheap")
ALL = 'label("slurm.node").exists()'


class Cluster:
    """A controller and nodes of four cores, each a process, with a port each."""

    def __init__(self, stack, folder, *names):
        self._stack = stack
        self.folder = folder
        self.conf = folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        lines = [
            "ClusterName=test", f"SlurmctldHost={host}({HOST})", f"SlurmctldPort={free_port()}",
            "SlurmUser=root", "AuthType=auth/none", "CredType=cred/none", "MpiDefault=none",
            "ProctrackType=proctrack/pgid", "TaskPlugin=task/none", "SwitchType=switch/none",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "SlurmdTimeout=5",
            "SlurmdParameters=config_overrides", "ReturnToService=2", "KillWait=2",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            f"StateSaveLocation={folder}", f"SlurmdSpoolDir={folder}/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid", f"SlurmdPidFile={folder}/%n.pid",
            *(
                f"NodeName={name} NodeHostname={host} NodeAddr={HOST} Port={free_port()} "
                f"CPUs={CORES} State=UNKNOWN"
                for name in names
            ),
            f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP",
        ]  # fmt: skip
        self.conf.write_text("\n".join(lines) + "\n")
        self.controller = self._start("slurmctld", "-D")
        self.nodes = {name: self._start("slurmd", "-D", "-N", name) for name in names}

    def _start(self, program, *options):
        # What Debian calls slurmctld may be another package's alternative.
        real = shutil.which(f"{program}-wlm") or program
        log = self._stack.enter_context((self.folder / "log").open("a"))
        process = subprocess.Popen(
            [real, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "SLURM_CONF": str(self.conf)},
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    async def is_in(self, name, *states):
        """Wait until Slurm says one of these of a node."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    shown = await slurm._command("scontrol", "-o", "show", "node", name)
                except EngineError:  # the controller starts
                    shown = ""
                if any(f"State={state} " in shown for state in states):
                    return
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes, `n1` and `n2`, and one that the tests stop, `n3`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dhtos")))
        yield Cluster(stack, folder, "n1", "n2", "n3")


@pytest.fixture(autouse=True)
def _configured(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


@asynccontextmanager
async def machines(cluster, *names, cores=CORES):
    """A machine of dhtos for each of these nodes, the cheapest first, and a scheduler."""
    async with fleet([n + 1 for n in range(len(names))], cores) as (nodes, client):
        for node, name in zip(nodes, names, strict=True):
            await slurm.register(node, name)
        await known(client, ALL, len(names))
        for name in names:
            if name in ("n1", "n2"):
                await cluster.is_in(name, "IDLE", "MIXED", "ALLOCATED")
        yield nodes, client


async def reservations():
    shown = await slurm._command("scontrol", "-o", "show", "reservation")
    return [line for line in shown.splitlines() if line.startswith("ReservationName=")]


async def test_a_job_runs_in_a_reservation_that_has_the_token_as_its_name(cluster):
    async with machines(cluster, "n2", "n1") as (nodes, scheduler):
        async with slurm.allocate(scheduler, NEED) as there:
            granted = {node.labels["slurm.node"]: one for node in nodes for one in node.leases()}
            ((name, grant),) = granted.items()
            assert name == there.name
            (shown,) = await reservations()
            assert shown.startswith(f"ReservationName=dhtos-{grant.token.hex()} ")
            assert f" Nodes={name} " in shown
            assert " CoreCnt=2 " in shown
            command = "echo $SLURMD_NODENAME $SLURM_CPUS_PER_TASK $SLURM_JOB_ID"
            ran_on, cores, job = (await there.run("sh", "-c", command)).split()
            assert (ran_on, cores) == (name, "2")
            job = await slurm._command("scontrol", "-o", "show", "job", job)
            assert f"Reservation={there.reservation} " in job
        assert await reservations() == []
        await released(*nodes)


async def test_two_leases_share_a_machine_and_a_third_finds_no_cores(cluster):
    """Slurm has as many cores as dhtos thinks, but a stranger has reserved half of them."""
    async with machines(cluster, "n1", cores=8) as (nodes, scheduler):
        async with slurm.allocate(scheduler, NEED) as one, slurm.allocate(scheduler, NEED) as other:
            assert one.name == other.name == "n1"
            jobs = [each.run("sh", "-c", "echo $SLURMD_NODENAME") for each in (one, other)]
            assert await asyncio.gather(*jobs) == ["n1\n", "n1\n"]
            with pytest.raises(EngineError, match="n1: its cores are reserved"):
                async with slurm.allocate(scheduler, NEED):
                    pass
        assert await reservations() == []
        await released(*nodes)


async def test_a_need_without_cores_takes_the_whole_node(cluster):
    async with (
        machines(cluster, "n1") as (_, scheduler),
        slurm.allocate(scheduler, Need(prefer="cheap")) as there,
    ):
        assert await there.run("echo", "all of it") == "all of it\n"
        assert f" CoreCnt={CORES} " in (await reservations())[0]


@pytest.mark.parametrize("state", ["DRAIN", "DOWN"])
async def test_a_node_that_is_down_or_drained_is_passed_over(cluster, state):
    await cluster.is_in("n2", "IDLE")
    await slurm._command("scontrol", "update", "NodeName=n2", f"State={state}", "Reason=test")
    try:
        async with fleet([1, 2], CORES) as (nodes, scheduler):
            for node, name in zip(nodes, ("n2", "n1"), strict=True):
                await slurm.register(node, name)
            await known(scheduler, ALL, 2)
            async with slurm.allocate(scheduler, NEED) as there:
                assert there.name == "n1"
                await released(nodes[0])
    finally:
        await slurm._command("scontrol", "update", "NodeName=n2", "State=RESUME")
        await cluster.is_in("n2", "IDLE")


async def test_a_node_whose_daemon_was_killed_is_passed_over(cluster):
    await cluster.is_in("n3", "IDLE")
    cluster.nodes["n3"].send_signal(signal.SIGKILL)
    await cluster.is_in("n3", "DOWN", "DOWN*", "IDLE*", "DOWN+NOT_RESPONDING")
    async with machines(cluster, "n3", "n1") as (nodes, scheduler):
        async with slurm.allocate(scheduler, NEED) as there:
            assert there.name == "n1"
        await released(*nodes)


async def test_who_has_no_node_left_says_why_of_each(cluster):
    async with machines(cluster, "n8", "n9") as (nodes, scheduler):
        told = "Slurm has no machine left.*(n[89]: Slurm has no such node.*){2}"
        with pytest.raises(EngineError, match=told):
            async with slurm.allocate(scheduler, NEED):
                pass
        await released(*nodes)


async def test_a_command_that_fails_is_one_line(cluster):
    async with (
        machines(cluster, "n1") as (_, scheduler),
        slurm.allocate(scheduler, NEED) as there,
    ):
        with pytest.raises(EngineError, match=r"^Slurm: srun: .*exit code 3$") as caught:
            await there.run("sh", "-c", "exit 3")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["revoked", "cancelled", "left"])
async def test_jobs_do_not_outlive_the_lease(cluster, tmp_path, how):
    pid = tmp_path / "pid"
    async with machines(cluster, "n1") as (nodes, scheduler):

        async def hold():
            async with slurm.allocate(scheduler, NEED) as there:
                job = there.run("sh", "-c", f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 999")
                running = asyncio.ensure_future(job)
                while not pid.exists():  # noqa: ASYNC110 - the job writes it
                    await asyncio.sleep(0.02)
                began.set()
                try:
                    if how == "left":
                        return
                    await running
                finally:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)

        began = asyncio.Event()
        holding = asyncio.ensure_future(hold())
        await began.wait()
        if how == "revoked":
            await nodes[0].drain(revoke=True)
            with pytest.raises(LeaseLost):
                await holding
        elif how == "cancelled":
            holding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holding
        else:
            await holding
        while alive(int(pid.read_text())):  # noqa: ASYNC110 - Slurm kills it
            await asyncio.sleep(0.05)
        assert await reservations() == []
        await released(*nodes)


async def test_a_command_that_is_cancelled_ends_while_the_allocation_goes_on(cluster, tmp_path):
    pid = tmp_path / "pid"
    async with (
        machines(cluster, "n1") as (_, scheduler),
        slurm.allocate(scheduler, NEED) as there,
    ):
        job = there.run("sh", "-c", f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 999")
        running = asyncio.ensure_future(job)
        while not pid.exists():  # noqa: ASYNC110 - the job writes it
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        while alive(int(pid.read_text())):  # noqa: ASYNC110 - Slurm kills it
            await asyncio.sleep(0.05)
        assert await there.run("echo", "again") == "again\n"


def alive(pid):
    """Whether a process runs, and is not only unburied."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_a_reservation_is_put_off_while_it_is_ours(cluster, monkeypatch):
    monkeypatch.setattr(slurm, "RENEW_S", 0.2)
    async with machines(cluster, "n1") as (_, scheduler), slurm.allocate(scheduler, NEED):
        (made,) = await reservations()
        end = slurm._fields(made)["EndTime"]
        while slurm._fields((await reservations())[0])["EndTime"] <= end:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_controller_that_dies_is_one_clear_error(cluster, tmp_path, monkeypatch):
    with ExitStack() as stack:
        own = Cluster(stack, tmp_path, "n1")
        monkeypatch.setenv("SLURM_CONF", str(own.conf))
        async with machines(own, "n1") as (nodes, scheduler):
            own.controller.kill()
            own.controller.wait()
            with pytest.raises(EngineError, match="start slurmctld, or see `scontrol ping`"):
                async with slurm.allocate(scheduler, NEED):
                    pass
            await released(*nodes)


async def test_a_configuration_that_is_missing_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    monkeypatch.setattr(slurm, "COMMAND_S", 0.5)
    with pytest.raises(EngineError, match=r"Slurm: scontrol (did not end|.*SLURM_CONF)"):
        await slurm._command("scontrol", "ping", seconds=0.5)


async def test_the_how_to_does_what_it_says(cluster, tmp_path):
    port = free_port(socket.SOCK_DGRAM)
    addresses = {
        "10.0.0.2:7400": f"{HOST}:{port}",
        "--port 7400": f"--port {port}",
        "--host 10.0.0.2": f"--host {HOST}",
    }
    page = Page("slurm.md", addresses)
    await cluster.is_in("n1", "IDLE")
    with ExitStack() as stack:
        page.start(stack, tmp_path, *page.bash, XDG_RUNTIME_DIR=str(tmp_path))
        async with asyncio.timeout(DEADLINE_S), answering(f"{HOST}:{port}", page):
            written = await asyncio.to_thread(page.run, tmp_path)
    told = ["n1", "--nodelist=n1 --reservation=dhtos-TOKEN", "['--nodelist=n1']"]
    assert written.splitlines() == told
