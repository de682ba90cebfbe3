"""Ray runs the work, dhtos says where: options for tasks and placement groups, and `run`.

A machine with a raylet runs a node too, and `register` tells the fleet the raylet's id in the label
`ray.node`. `ray_options` and `ray_bundles` turn what was planned or claimed into what Ray takes;
they need no Ray. `run` claims first, so that what Ray thinks is free there is also ours.

A selector of labels is used, not NodeAffinity: a raylet carries its id as a label, and only for
selectors has Ray a list of what to fall back to.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dhtos.adapters.engines import ANSWER_S, Claims, Engine, Placed, in_thread, leases_of
from dhtos.core.limits import LEASE_S
from dhtos.errors import EngineError, UsageError
from dhtos.node.lease import Plan
from dhtos.node.node import Node
from dhtos.node.placing import DEADLINE_S
from dhtos.sched import Need

if TYPE_CHECKING:
    from types import ModuleType

# The id of all ones is Ray's nil, which makes a driver abort that asks for it.
ENGINE = Engine("Ray", "ray.node", r"(?!f{56})[0-9a-f]{56}", "the id of a raylet, 56 digits")
BUNDLE = {"cores": "CPU", "gpus": "GPU"}  # memory is not: Ray has less of it than the machine
SUBMIT_S = 60.0  # how long a task may take to be handed over, with what is passed to it
CANCEL_S = 5.0  # how long a cancelled task may take to end before its lease is given back

_NODE_ID = "ray.io/node-id"


async def register(node: Node, raylet: str | None = None) -> None:
    """Tell the fleet which raylet works on the machine of `node`: the one this driver is on."""
    if raylet is None:
        raylet = str(_connected().get_runtime_context().get_node_id())
    await ENGINE.register(node, raylet)


def ray_options(placed: Placed) -> dict[str, Any]:
    """For `task.options(**...)`: the first of these machines, and the others if it is gone."""
    first, *others = [_selector(name) for name in ENGINE.names(placed)]
    return {
        "label_selector": first,
        "fallback_strategy": [{"label_selector": other} for other in others] or None,
    }


def ray_bundles(placed: Placed) -> dict[str, Any]:
    """For `placement_group(**...)`: a bundle on each of these machines, of what is needed there."""
    names = ENGINE.names(placed)
    if isinstance(placed, Plan):
        needs = [placed.need.resources] * len(names)
    else:
        needs = [lease.resources for lease in leases_of(placed)]
    return {
        "bundles": [_bundle(need) for need in needs],
        "bundle_label_selector": [_selector(name) for name in names],
    }


async def run(
    node: Node,
    need: Need,
    submit: Callable[[dict[str, Any]], Any],
    *,
    ttl_s: float = LEASE_S,
    deadline_s: float = DEADLINE_S,
) -> Any:  # noqa: ANN401 - whatever the task returns
    """Claim a machine, run a task there, give the machine back; what the task returned.

    `submit` gets the options and starts it: `lambda there: work.options(**there).remote(x)`. Where
    Ray has lost the machine, the next one is claimed and `submit` is called again. Cancelled, or
    when the lease is lost, the task is cancelled too. Raises what the task raises, as `Node.place`
    within `deadline_s`, LeaseLost, and EngineError for a Ray that is missing or silent.
    """
    ray = _connected()
    claims = Claims(ENGINE, node, need, ttl_s=ttl_s, deadline_s=deadline_s)
    while True:
        async with claims.next() as (lease, name):
            if name not in await _alive(ray):
                claims.rule_out(name, "its raylet is gone")
                continue
            try:
                return await _result(ray, submit, ray_options(lease))
            except ray.exceptions.TaskUnschedulableError:
                claims.rule_out(name, "its raylet went away")


async def _result(
    ray: "ModuleType", submit: Callable[[dict[str, Any]], Any], options: dict[str, Any]
) -> Any:  # noqa: ANN401
    """What one task returns; it does not outlive this call, even where that is left at once."""
    refs: list[Any] = []
    left = threading.Event()

    def begin() -> None:
        refs.append(submit(options))
        if left.is_set():
            ray.cancel(refs[0], force=True)

    waiting: asyncio.Future[Any] | None = None
    try:
        await _asked(begin, SUBMIT_S)
        waiting = asyncio.ensure_future(_awaited(refs[0]))
        return await asyncio.shield(waiting)
    except (asyncio.CancelledError, EngineError):
        left.set()
        if refs:
            await _asked(lambda: ray.cancel(refs[0], force=True), ANSWER_S)
        if waiting is not None:
            await asyncio.wait([waiting], timeout=CANCEL_S)
        raise
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def _awaited(ref: Any) -> Any:  # noqa: ANN401
    return await ref


async def _alive(ray: "ModuleType") -> frozenset[str]:
    """The raylets that Ray knows to be alive."""
    nodes: Iterable[Mapping[str, Any]] = await _asked(ray.nodes, ANSWER_S)
    return frozenset(str(one["NodeID"]) for one in nodes if one["Alive"])


async def _asked(work: Callable[[], Any], seconds: float) -> Any:  # noqa: ANN401
    """A call that goes to Ray's head, which blocks for a minute where that is gone."""
    try:
        return await in_thread(work, seconds)
    except TimeoutError as error:
        raise EngineError(
            f"Ray did not answer within {seconds:g} s: see whether its head runs, `ray status`"
        ) from error


def _connected() -> "ModuleType":
    """The module `ray` of a driver that is connected; raises EngineError."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise EngineError("Ray is not installed: pip install 'dhtos[ray]'") from error
    if not ray.is_initialized():
        raise EngineError(
            "Ray is not connected: start it with `ray start --head`, then ray.init(address='auto')"
        )
    module: ModuleType = ray
    return module


def _selector(name: str) -> dict[str, str]:
    return {_NODE_ID: name}


def _bundle(resources: Mapping[str, float]) -> dict[str, float]:
    bundle = {BUNDLE[name]: amount for name, amount in resources.items() if name in BUNDLE}
    if not bundle:
        raise UsageError(f"a bundle needs cores or gpus, got {', '.join(resources) or 'nothing'}")
    return bundle
