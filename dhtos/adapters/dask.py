"""Dask runs the work, dhtos says where: restrictions for `submit` and `annotate`, and `run`.

A machine with a Dask worker runs a node too, and `register` tells the fleet the worker's address or
name in the label `dask.worker`. `dask_kwargs` turns what was planned or claimed into what Dask
takes; it needs no Dask. `run` claims first, and looks after the worker: a task that Dask has
restricted to a worker that is gone waits for it for ever.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dhtos.adapters.engines import ANSWER_S, Claims, Engine, Placed
from dhtos.core.limits import LEASE_S
from dhtos.errors import EngineError, UsageError
from dhtos.node.node import Node
from dhtos.node.placing import DEADLINE_S
from dhtos.sched import Need

if TYPE_CHECKING:
    from distributed import Client, Future

ENGINE = Engine("Dask", "dask.worker", r"[!-~]{1,64}", "the address or the name of a worker")
WATCH_S = 1.0  # how often it is asked whether the worker is still there

_START = "start it with `dask scheduler`, and workers with `dask worker ADDRESS`"


async def register(node: Node, worker: str) -> None:
    """Tell the fleet which worker works on the machine of `node`: its address or its name."""
    await ENGINE.register(node, worker)


def dask_kwargs(placed: Placed, resources: Mapping[str, float] | None = None) -> dict[str, Any]:
    """For `client.submit(..., **...)` or `dask.annotate(**...)`: only these machines.

    Dask chooses among them. `resources` are those that the workers were started with; a task that
    asks for others waits for ever, so none are taken over from the need.
    """
    kwargs: dict[str, Any] = {"workers": ENGINE.names(placed), "allow_other_workers": False}
    return kwargs | ({"resources": dict(resources)} if resources else {})


async def run(
    node: Node,
    need: Need,
    client: "Client",
    submit: Callable[[dict[str, Any]], "Future"],
    *,
    ttl_s: float = LEASE_S,
    deadline_s: float = DEADLINE_S,
) -> Any:  # noqa: ANN401 - whatever the task returns
    """Claim a machine, run a task there, give the machine back; what the task returned.

    `submit` gets the restrictions and starts it: `lambda there: client.submit(work, x, **there)`;
    the client is an asynchronous one. Where the worker is gone, the next machine is claimed and
    `submit` is called again. Cancelled, or when the lease is lost, the task is cancelled too.
    Raises what the task raises, as `Node.place` within `deadline_s`, LeaseLost, and EngineError for
    a Dask that is missing or silent.
    """
    if not client.asynchronous:
        raise UsageError("run awaits: make the client with Client(address, asynchronous=True)")
    claims = Claims(ENGINE, node, need, ttl_s=ttl_s, deadline_s=deadline_s)
    while True:
        async with claims.next() as (lease, name):
            if name not in await _workers(client):
                claims.rule_out(name, "Dask has no such worker")
                continue
            done, result = await _watched(client, submit(dask_kwargs(lease)), name)
            if done:
                return result
            claims.rule_out(name, "the worker went away")


async def _watched(client: "Client", future: "Future", name: str) -> tuple[bool, Any]:
    """The result of a task; (False, None) once the worker it is restricted to is gone."""
    waiting = asyncio.ensure_future(_awaited(future))
    try:
        while True:
            await asyncio.wait([waiting], timeout=WATCH_S)
            if waiting.done():
                if future.cancelled():
                    raise EngineError(
                        f"Dask cancelled the task, or its scheduler is gone: {_START}"
                    )
                return True, waiting.result()
            if name not in await _workers(client):
                return False, None
    finally:
        if not waiting.done():
            await _cancel(client, future)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _awaited(future: "Future") -> Any:  # noqa: ANN401
    return await future


async def _cancel(client: "Client", future: "Future") -> None:
    """Take a task back, which a scheduler that is gone has forgotten anyway."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(ANSWER_S):
            await client.cancel([future])


async def _workers(client: "Client") -> frozenset[str]:
    """The addresses and names of the workers that the scheduler knows."""
    try:
        async with asyncio.timeout(ANSWER_S):
            known = (await client.scheduler.identity())["workers"]
    except (TimeoutError, OSError, AttributeError) as error:  # a closed client has no scheduler
        raise EngineError(f"Dask's scheduler does not answer: {_START}") from error
    return frozenset(known) | {str(one["name"]) for one in known.values()}
