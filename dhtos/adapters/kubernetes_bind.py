"""Binding pods: the machine is claimed first, then the API server is told; one without the other
is undone.

    bind -> claimed -> Binding accepted -> held until the pod is gone
                    -> refused          -> released
                    -> no answer        -> the pod is read: bound there, held; else released

A lease is held by this node while the pod lives, which the API server is asked about now and then.
"""

import asyncio
from dataclasses import dataclass

from dhtos.adapters.kubernetes_api import ApiServer
from dhtos.core.limits import EXTENDER_BINDINGS_MAX
from dhtos.errors import LeaseLost, PeerError, Refused, Unreachable, UsageError
from dhtos.node.background import Background
from dhtos.node.lease import Lease
from dhtos.node.node import Node
from dhtos.query import F, parse_text
from dhtos.sched import Need

CLAIM_S = 4.0  # until a machine has granted it
POD_S = 15.0  # between two looks at the pods whose leases are held
_GAP_S = 0.05  # between two questions to the API server

Key = tuple[str, str, str]
"""Namespace, name and uid of a pod."""


@dataclass(slots=True, eq=False)
class Held:
    """A lease of a pod, and the node it is for."""

    lease: Lease
    node: str


class Binder:
    """Binds pods on behalf of one node, and holds their leases."""

    def __init__(self, node: Node, api: ApiServer, label: str) -> None:
        self._node = node
        self._api = api
        self._label = label
        self._held: dict[Key, Held] = {}
        self._background = Background()
        self._watching = False
        self.lost = 0

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._held)

    async def aclose(self) -> None:
        """Give all leases back."""
        held = list(self._held.values())
        await self._background.aclose()
        for one in held:
            await one.lease.release()

    async def bind(self, pod: Key, name: str, need: Need) -> None:
        """Claim and bind; raises what a claim raises, Refused and Unreachable of the API server."""
        before = self._held.pop(pod, None)
        if before is not None:
            await before.lease.release()  # asked again: the first answer did not arrive
        if len(self._held) >= EXTENDER_BINDINGS_MAX:
            raise Refused(f"{EXTENDER_BINDINGS_MAX} pods are held by this extender; use another")
        lease = await self._node.place(self._here(need, name), deadline_s=CLAIM_S)
        held = Held(lease, name)
        self._held[pod] = held
        try:
            await self._tell(pod, name)
        except BaseException:
            del self._held[pod]
            await lease.release()
            raise
        self._background.spawn(self._wait(pod, held))
        if not self._watching:
            self._watching = True
            self._background.spawn(self._look())

    async def _tell(self, pod: Key, name: str) -> None:
        namespace, pod_name, uid = pod
        try:
            await self._api.bind(namespace, pod_name, uid, name)
        except Unreachable:
            found = await self._api.pod(namespace, pod_name)
            if found is None or found.metadata.uid != uid or found.spec.node_name != name:
                raise

    def _here(self, need: Need, name: str) -> Need:
        """The need, of the machine of that name alone."""
        where = F.label(self._label) == name
        if isinstance(need.where, str):
            where = parse_text(need.where) & where
        return need.where_is(where)

    async def _wait(self, pod: Key, held: Held) -> None:
        """A lease that is lost is counted: the pod runs on, and Kubernetes decides about it."""
        try:
            await held.lease.ended()
        except LeaseLost:
            self.lost += 1
        finally:
            if self._held.get(pod) is held:
                del self._held[pod]

    async def _look(self) -> None:
        """Give back the leases of pods that are gone, finished, or elsewhere."""
        while True:
            await asyncio.sleep(POD_S)
            for pod, held in list(self._held.items()):
                if await self._is_over(pod, held):
                    await held.lease.release()
                await asyncio.sleep(_GAP_S)

    async def _is_over(self, pod: Key, held: Held) -> bool:
        namespace, name, uid = pod
        try:
            found = await self._api.pod(namespace, name)
        except (Unreachable, PeerError, UsageError):
            return False  # not known: asked again
        if found is None or found.metadata.uid != uid:
            return True
        return found.status.phase in ("Succeeded", "Failed") or found.spec.node_name != held.node
