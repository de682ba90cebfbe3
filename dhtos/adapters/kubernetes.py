"""Kubernetes: a scheduler extender that answers from the fleet, and plans as node affinity.

`Extender` answers the three calls of kube-scheduler; `dhtos.http` serves it under `/k8s`. It knows
no sockets. Whatever goes wrong is said in the `Error` of the answer, which kube-scheduler shows as
an event of the pod.

    filter      which of these names can take the pod, and why the others cannot
    prioritize  1 to 10 for those that can; of many, for a random sample, the others have 0
    bind        claim from the machine itself, then tell the API server
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from random import Random, SystemRandom
from typing import Any

import msgspec
from msgspec import Struct

from dhtos.adapters.kubernetes_affinity import node_affinity, patch_affinity
from dhtos.adapters.kubernetes_api import ApiServer, Settings
from dhtos.adapters.kubernetes_bind import Binder, Key
from dhtos.adapters.kubernetes_pods import Pod, need_of_pod, parse_quantity
from dhtos.adapters.kubernetes_verdicts import Snapshot, Verdicts
from dhtos.adapters.kubernetes_view import View
from dhtos.core.limits import EXTENDER_PODS_MAX
from dhtos.errors import ClaimsRefused, DhtosError, NoCandidates, UsageError
from dhtos.node.advice import advise, one_line
from dhtos.node.node import Node
from dhtos.sched import Candidate, Demand, Need, check, rank

__all__ = [
    "Binding", "Bound", "Extender", "Filtered", "HostScore", "Judged", "Settings", "ViewState",
    "node_affinity", "parse_quantity", "patch_affinity",
]  # fmt: skip

SCORED = 64  # names that are scored for a pod: 16 at random are as good as all
SCORE_MAX = 10
REST_S = 10.0  # a machine that has not granted what we asked of it is left out for so long
REFUSAL_S = 60.0  # and asked last for so long
_REFUSED_MAX = 1024


class NodeList(Struct, frozen=True):
    """Nodes as Kubernetes has them; they are passed on as they are."""

    items: list[msgspec.Raw]
    metadata: dict[str, Any] = {}


class Judged(Struct, frozen=True, rename="pascal", kw_only=True):
    """What filter and prioritize are asked: nodes by name (`nodeCacheCapable`), or whole."""

    pod: Pod
    nodes: NodeList | None = None
    node_names: list[str] | None = None


class Filtered(Struct, frozen=True, rename="pascal", kw_only=True):
    """What filter answers; a node that preempting others does not help with is in both maps."""

    nodes: NodeList | None = None
    node_names: list[str] | None = None
    failed_nodes: dict[str, str] = {}
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostScore(Struct, frozen=True, rename="pascal"):
    """What prioritize answers for a name."""

    host: str
    score: int


class Binding(Struct, frozen=True, rename="pascal", kw_only=True):
    """What bind is asked."""

    pod_name: str
    pod_namespace: str
    node: str
    pod_uid: str = msgspec.field(name="PodUID", default="")


class Bound(Struct, frozen=True, rename="pascal"):
    """What bind answers; no error means that the pod is bound."""

    error: str = ""


class ViewState(Struct, frozen=True):
    """How fresh what filter and prioritize use is; `age_s` is missing before the first view."""

    machines: int
    age_s: float | None
    complete: bool
    names_twice: list[str]
    took_s: float
    pause_s: float
    failure: str


class _Meta(Struct, frozen=True):
    name: str


class _Named(Struct, frozen=True):
    metadata: _Meta


class Extender:
    """Answers kube-scheduler on behalf of a started node."""

    def __init__(self, node: Node, settings: Settings, *, rng: Random | None = None) -> None:
        self._node = node
        self._settings = settings
        self._rng = rng or Random(SystemRandom().getrandbits(64))
        self._view = View(node, settings.label)
        self._api = ApiServer(settings)
        self._binder = Binder(node, self._api, settings.label)
        self._pods: OrderedDict[Key, Need] = OrderedDict()
        self._refused: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._demand = Demand()
        self._binding: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Give back the leases of pods, keep no view."""
        for binding in self._binding:
            binding.cancel()
        await asyncio.gather(*self._binding, return_exceptions=True)
        await self._binder.aclose()
        await self._view.aclose()

    def stats(self) -> dict[str, float]:
        """Sizes."""
        snapshot = self._view.snapshot
        return {
            "k8s_view_machines": 0 if snapshot is None else len(snapshot.index),
            "k8s_pods_held": len(self._binder),
            "k8s_leases_lost": self._binder.lost,
        }

    async def state(self) -> ViewState:
        """How fresh the view is; keeps it for another minute."""
        try:
            snapshot: Snapshot | None = await self._view.current()
        except DhtosError:
            snapshot = self._view.snapshot
        return ViewState(
            0 if snapshot is None else len(snapshot.index),
            self._view.age_s,
            snapshot is not None and snapshot.complete,
            [] if snapshot is None else sorted(snapshot.twice)[:100],
            self._view.took_s,
            self._view.pause_s,
            self._view.failure,
        )

    # --- filter -----------------------------------------------------------------------------------

    async def filter(self, asked: Judged) -> bytes:
        """Who can take the pod, a `Filtered` in JSON; never raises what dhtos raises."""
        try:
            names, raw = _names(asked)
            _, _, verdicts = await self._judge(asked.pod, self._resting())
        except DhtosError as error:
            return msgspec.json.encode(Filtered(error=said(error)))
        kept, failed, never = verdicts.sort(names)
        if raw is None:
            return _filled(Filtered(node_names=kept), failed, never)
        return _filled(Filtered(nodes=NodeList([raw[name] for name in kept])), failed, never)

    async def _judge(
        self, pod: Pod, resting: Iterable[str] = ()
    ) -> tuple[Need, Snapshot, Verdicts]:
        need = need_of_pod(pod, self._node.schema)
        check(need, self._node.schema)
        self._remember(pod, need)
        snapshot = await self._view.current()
        return need, snapshot, self._view.verdicts(snapshot, need, resting)

    def _remember(self, pod: Pod, need: Need) -> None:
        """A Binding names the pod and does not show it."""
        key = (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)
        self._pods[key] = need
        self._pods.move_to_end(key)
        if len(self._pods) > EXTENDER_PODS_MAX:
            self._pods.popitem(last=False)

    # --- prioritize -------------------------------------------------------------------------------

    async def prioritize(self, asked: Judged) -> list[HostScore]:
        """Scores; raises what dhtos raises, as this answer has no place for it.

        Names that are left out have 0, as kube-scheduler counts.
        """
        names, _ = _names(asked)
        need, snapshot, verdicts = await self._judge(asked.pod)
        self._demand.add(need)
        scores = self._scores(need, snapshot, verdicts.able(names))
        return [HostScore(name, score) for name, score in scores.items()]

    def _scores(self, need: Need, snapshot: Snapshot, names: list[str]) -> dict[str, int]:
        if len(names) > SCORED:
            names = self._rng.sample(names, SCORED)
        by_id: dict[bytes, str] = {}
        candidates = []
        for name in names:
            candidate = self._candidate(snapshot, name)
            by_id[candidate.node_id] = name
            candidates.append(candidate)
        ranked = rank(need, candidates, rng=self._rng, demand=self._demand).ranked
        if not ranked:
            return {}
        best, worst = ranked[0].score, ranked[-1].score
        span = (worst - best) or 1.0
        return {
            by_id[one.candidate.node_id]: round(
                SCORE_MAX - (SCORE_MAX - 1) * (one.score - best) / span
            )
            for one in ranked
        }

    def _candidate(self, snapshot: Snapshot, name: str) -> Candidate:
        candidate = snapshot.candidates[snapshot.index[name]]
        times, at = self._refused.get(name, (0, 0.0))
        if not times or self._node.driver.clock() - at > REFUSAL_S:
            return candidate
        return replace(candidate, refusals=times)

    # --- bind -------------------------------------------------------------------------------------

    async def bind(self, asked: Binding) -> Bound:
        """Claim the machine, then bind the pod; never raises what dhtos raises.

        A scheduler that hangs up does not stop it half-way: the pod would be bound without a lease.
        """
        binding = asyncio.get_running_loop().create_task(self._bind(asked))
        self._binding.add(binding)
        binding.add_done_callback(self._bound)
        try:
            await asyncio.shield(binding)
        except DhtosError as error:
            return Bound(said(error))
        return Bound()

    def _bound(self, binding: asyncio.Task[None]) -> None:
        self._binding.discard(binding)
        if not binding.cancelled():
            binding.exception()  # seen, also where nobody waits for it any more

    async def _bind(self, asked: Binding) -> None:
        if not self._settings.url:
            raise UsageError(
                "bind needs the API server; give its url in [kubernetes], or no bindVerb"
            )
        key = (asked.pod_namespace, asked.pod_name, asked.pod_uid)
        need = self._pods.get(key) or await self._read_need(key)
        try:
            await self._binder.bind(key, asked.node, need)
        except (ClaimsRefused, NoCandidates):
            self._rest(asked.node)
            raise
        self._pods.pop(key, None)
        self._refused.pop(asked.node, None)
        self._view.take(asked.node, need)

    async def _read_need(self, key: Key) -> Need:
        """The need of a pod that was filtered by somebody else, or long ago."""
        pod = await self._api.pod(key[0], key[1])
        if pod is None or pod.metadata.uid != key[2]:
            raise UsageError(f"there is no pod {key[0]}/{key[1]} with the uid {key[2]}")
        need = need_of_pod(pod, self._node.schema)
        check(need, self._node.schema)
        return need

    def _rest(self, name: str) -> None:
        times, _ = self._refused.pop(name, (0, 0.0))
        if len(self._refused) >= _REFUSED_MAX:
            self._refused.popitem(last=False)
        self._refused[name] = (times + 1, self._node.driver.clock())

    def _resting(self) -> set[str]:
        """Machines that were asked in vain some seconds ago."""
        now = self._node.driver.clock()
        return {name for name, (_, at) in self._refused.items() if now - at < REST_S}


def _names(asked: Judged) -> tuple[list[str], dict[str, msgspec.Raw] | None]:
    """The names that are asked about, and the whole nodes where those came."""
    if asked.node_names is not None:
        return asked.node_names, None
    if asked.nodes is None:
        raise UsageError("neither NodeNames nor Nodes came; use kube-scheduler's extender calls")
    raw: dict[str, msgspec.Raw] = {}
    for item in asked.nodes.items:
        try:
            raw[msgspec.json.decode(item, type=_Named).metadata.name] = item
        except (msgspec.DecodeError, RecursionError) as error:
            raise UsageError(f"a node must have metadata.name: {error}") from error
    return list(raw), raw


def _filled(answer: Filtered, failed: list[bytes], never: list[bytes]) -> bytes:
    """An answer with the pieces of its reasons put in: they are most of it, and copied once."""
    before, between, after = msgspec.json.encode(answer).rsplit(b"{}", 2)
    return b"".join([before, b"{", *failed, b"}", between, b"{", *never, b"}", after])


def said(error: DhtosError) -> str:
    """An error as one line of an answer."""
    message, advice = advise(error)
    return f"dhtos: {one_line(message)}{'; ' + one_line(advice) if advice else ''}"
