"""Slurm runs the work, dhtos says where: a lease becomes a reservation that is named by its token.

A machine with a slurmd runs a node too, and `register` tells the fleet its name in the label
`slurm.node`. `allocate` claims a machine, reserves as many of its cores in Slurm, and gives both
back at the end. A machine that is down or drained in Slurm is ruled out, and the next one claimed.

A reservation is made for three minutes and put off each minute. When its owner is killed Slurm ends
it, and the jobs inside, by itself: what a lease means to a node, in Slurm's own words. Slurm's
commands do the work, so their user must be one whom Slurm lets make reservations (an operator).
"""

import asyncio
import math
import os
import pwd
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from dhtos.adapters.engines import Claims, Engine, Placed
from dhtos.core.limits import LEASE_S
from dhtos.errors import EngineError
from dhtos.node.lease import Lease, Plan
from dhtos.node.node import Node
from dhtos.node.placing import DEADLINE_S
from dhtos.sched import Need

ENGINE = Engine(
    "Slurm",
    "slurm.node",
    r"(?!(?i:ALL)\Z)[A-Za-z][A-Za-z0-9._-]{0,63}",  # no list, no file, and not all of them
    "the name of one node, as `n17`",
)
COMMAND_S = 20.0  # how long scontrol and scancel may take
START_S = 30  # how long srun may wait for what is reserved
STOP_S = 5.0  # how long a command may take to end after SIGTERM
TERM_MIN = 3  # of a reservation whose owner is not heard of
RENEW_S = 60.0
END_S = 30.0  # how long jobs may take to end before their reservation is left to its own end

_DOWN = ("DOWN", "DRAIN", "FAIL", "NOT_RESPONDING", "POWERED_DOWN", "UNKNOWN", "MAINT", "REBOOT")
_BUSY = ("Requested nodes are busy", "Invalid node name", "Requested node configuration")


@dataclass(frozen=True, slots=True)
class Allocation:
    """A machine that is ours for dhtos and for Slurm: its name, and the reservation on it."""

    lease: Lease
    name: str
    reservation: str
    cores: int | None

    @property
    def options(self) -> tuple[str, ...]:
        """For srun, sbatch and salloc: this node, and this reservation."""
        return (f"--nodelist={self.name}", f"--reservation={self.reservation}")

    async def run(self, *command: str) -> str:
        """Run a command there as one task on all of the cores; what it wrote to its output.

        Raises EngineError where Slurm or the command fails, with the last line of its errors.
        """
        cores = () if self.cores is None else (f"--cpus-per-task={self.cores}",)
        options = (*self.options, "--ntasks=1", *cores, f"--immediate={START_S}")
        return await _command("srun", *options, "--", *command, seconds=None)


async def register(node: Node, name: str | None = None) -> None:
    """Tell the fleet what Slurm calls the machine of `node`: its short host name, unless told."""
    if name is None:
        name = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    await ENGINE.register(node, name)


def slurm_options(placed: Placed) -> list[str]:
    """For srun, sbatch and salloc: the first of these machines; of a gang, all of them."""
    names = ENGINE.names(placed)
    return [f"--nodelist={names[0] if isinstance(placed, Plan) else ','.join(names)}"]


@asynccontextmanager
async def allocate(
    node: Node, need: Need, *, ttl_s: float = LEASE_S, deadline_s: float = DEADLINE_S
) -> AsyncIterator[Allocation]:
    """Claim a machine and reserve it in Slurm; both end with the block, and the jobs in it.

    The cores of the need are reserved, or the whole node where it names none. Raises as
    `Node.place` within `deadline_s`, LeaseLost, and EngineError for a Slurm that is missing, silent
    or unwilling.
    """
    claims = Claims(ENGINE, node, need, ttl_s=ttl_s, deadline_s=deadline_s)
    while True:
        async with claims.next() as (lease, name):
            refused = await _unfit(name)
            allocation = _allocation(lease, name)
            refused = refused or await _reserve(allocation)
            if refused is not None:
                claims.rule_out(name, refused)
                continue
            keeping = asyncio.create_task(_keep(allocation))
            try:
                yield allocation
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
                await _end(allocation)
            return


def _allocation(lease: Lease, name: str) -> Allocation:
    cores = lease.resources.get("cores")
    whole = None if cores is None else max(1, math.ceil(cores))
    return Allocation(lease, name, f"dhtos-{lease.token}", whole)


# --- what is asked of Slurm -----------------------------------------------------------------------


async def _unfit(name: str) -> str | None:
    """Why Slurm would run nothing on a node; None where it would."""
    try:
        fields = _fields(await _command("scontrol", "--oneliner", "show", "node", name))
    except EngineError as error:
        if "not found" not in str(error):
            raise
        return "Slurm has no such node"
    state = fields.get("State", "UNKNOWN")
    words = state.upper().replace("*", "+NOT_RESPONDING").split("+")
    return f"Slurm says {state}" if any(word.startswith(_DOWN) for word in words) else None


async def _reserve(allocation: Allocation) -> str | None:
    """Make the reservation; why not, where another machine may do."""
    cores = () if allocation.cores is None else (f"CoreCnt={allocation.cores}",)
    try:
        await _command(
            "scontrol", "create", "reservation", f"ReservationName={allocation.reservation}",
            f"Nodes={allocation.name}", *cores, f"Users={_user()}",
            "StartTime=now", f"Duration={TERM_MIN}", "Flags=IGNORE_JOBS",
        )  # fmt: skip
    except EngineError as error:
        if any(words in str(error) for words in _BUSY):
            return "its cores are reserved"
        raise
    except asyncio.CancelledError:
        await _delete(allocation)  # scontrol was killed, and may have been heard
        raise
    return None


async def _keep(allocation: Allocation) -> None:
    """Put the end of the reservation off for as long as it is ours."""
    while True:
        await asyncio.sleep(RENEW_S)
        with suppress(EngineError):  # a controller that restarts is back before the end
            await _command(
                "scontrol", "update", f"ReservationName={allocation.reservation}",
                f"EndTime=now+{TERM_MIN}minutes",
            )  # fmt: skip


async def _end(allocation: Allocation) -> None:
    """End the jobs inside, and then the reservation, which Slurm keeps for as long as one runs.

    Where that does not come about it ends by itself, `TERM_MIN` after it was last put off.
    """
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(END_S):
            await _command("scancel", f"--reservation={allocation.reservation}")
            while not await _delete(allocation):  # noqa: ASYNC110 - it asks Slurm
                await asyncio.sleep(0.1)


async def _delete(allocation: Allocation) -> bool:
    """Whether the reservation is gone; False where a job still runs in it."""
    try:
        await _command("scontrol", "delete", f"ReservationName={allocation.reservation}")
    except EngineError as error:
        return "in use" not in str(error)
    return True


def _fields(line: str) -> Mapping[str, str]:
    """`Name=value Name=value` of a one-line answer, whose last field is free text."""
    fields: dict[str, str] = {}
    for word in line.split():
        name, equals, value = word.partition("=")
        if equals:
            fields.setdefault(name, value)
    return fields


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


async def _command(program: str, *arguments: str, seconds: float | None = COMMAND_S) -> str:
    """The output of one of Slurm's commands; EngineError with one line where it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise EngineError(
            f"Slurm's command {program} is not installed: on Debian, apt-get install slurm-client"
        ) from error
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise EngineError(f"Slurm: {program} did not end within {seconds:g} s") from error
    finally:
        if process.returncode is None:
            await _stop(process)
    if process.returncode:
        told = (errors or output).decode(errors="replace")
        raise EngineError(_failure(program, process.returncode, told))
    return output.decode(errors="replace")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a command; srun passes the signal on to its job, and may be given time for that."""
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _failure(program: str, code: int, errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = lines[-1] if lines else f"exit code {code}"
    if "Unable to contact slurm controller" in errors:
        told += "; start slurmctld, or see `scontrol ping`"
    elif "Unable to process configuration" in errors:
        told += "; SLURM_CONF names the configuration of the cluster"
    elif "permission" in errors.lower() or "Access" in errors:
        told += "; reservations are for Slurm's operators"
    return f"Slurm: {program}: {told}"
