"""Every question: its path, what it takes, what it gives, and who answers it.

The same table routes requests, parses them and makes `/openapi.json`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse

from dhtos.adapters.kubernetes import (
    Binding,
    Bound,
    Filtered,
    HostScore,
    Judged,
    ViewState,
)
from dhtos.core.limits import EXTENDER_BODY_BYTES_MAX, HTTP_BODY_BYTES_MAX
from dhtos.http import metrics
from dhtos.http.service import Service
from dhtos.http.shapes import (
    Counted,
    CountQuery,
    Explained,
    FindLine,
    FindQuery,
    Lease,
    Members,
    NeedBody,
    Nothing,
    PlaceBody,
    PlanBody,
    Planned,
    Status,
    Token,
)

Handler = Callable[[Service, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """One method of one path; `takes` is its body with POST, its parameters with GET.

    Where the path names a token, that is what the handler gets. What it answers becomes JSON, but
    bytes, which are JSON already. `problems` are the status codes that it can fail with, beside
    those that any can.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Handler
    takes: Any = Nothing
    gives: Any = None
    status: int = 200
    media_type: str = "application/json"
    problems: tuple[int, ...] = ()
    bytes_max: int = HTTP_BODY_BYTES_MAX

    @property
    def has_body(self) -> bool:
        """Whether it takes a JSON document."""
        return self.method == "POST" and self.takes not in (Nothing, Token)

    @property
    def has_token(self) -> bool:
        """Whether its path names a lease."""
        return self.takes is Token

    @property
    def is_stream(self) -> bool:
        """Whether it gives line after line."""
        return self.media_type == LINES


LINES = "application/x-ndjson"


async def _metrics(service: Service, asked: Nothing) -> PlainTextResponse:
    text = metrics.exposition(await service.stats(asked))
    return PlainTextResponse(text, media_type=metrics.MEDIA_TYPE)


def _lease(
    method: str, name: str, summary: str, handle: Handler, gives: type | None, *, suffix: str = ""
) -> Question:
    return Question(
        method,
        f"/v1/leases/{{token}}{suffix}",
        name,
        summary,
        handle,
        Token,
        gives,
        status=200 if gives else 204,
        problems=(404, 410),
    )


def _extender(name: str, summary: str, handle: Handler, takes: type, gives: object) -> Question:
    return Question(
        "POST",
        f"/k8s/{name}",
        f"k8s_{name}",
        summary,
        handle,
        takes,
        gives,
        bytes_max=EXTENDER_BODY_BYTES_MAX,
    )


QUESTIONS: tuple[Question, ...] = (
    Question(
        "GET", "/v1/find", "find", "Find machines: a line each, then the end.",
        Service.find, FindQuery, FindLine, media_type=LINES,
    ),
    Question(
        "GET", "/v1/count", "count", "Count machines.", Service.count, CountQuery, Counted
    ),
    Question(
        "POST", "/v1/plan", "plan", "Rank machines for a need; nothing is claimed.",
        Service.plan, PlanBody, Planned,
    ),
    Question(
        "POST", "/v1/explain", "explain", "Say what is short for a need.",
        Service.explain, NeedBody, Explained,
    ),
    Question(
        "POST", "/v1/leases", "place", "Claim a part of a machine and hold it.",
        Service.place, PlaceBody, Lease, status=201, problems=(409, 422),
    ),
    _lease("GET", "lease", "Show a lease.", Service.lease, Lease),
    _lease(
        "POST", "renew", "Keep a lease for another term.", Service.renew, Lease, suffix="/renew"
    ),
    _lease("DELETE", "release", "Give a lease back.", Service.release, None),
    Question(
        "GET", "/v1/members", "members", "The machines that this node itself holds.",
        Service.members, Nothing, Members,
    ),
    Question(
        "GET", "/v1/status", "status", "What this node is and how it fares.",
        Service.status, Nothing, Status,
    ),
    Question(
        "GET", "/metrics", "metrics", "Counters and sizes, as Prometheus reads them.",
        _metrics, Nothing, str, media_type="text/plain",
    ),
    _extender(
        "filter", "Kubernetes: the nodes that can take a pod.",
        lambda service, asked: service.extender.filter(asked), Judged, Filtered,
    ),
    _extender(
        "prioritize", "Kubernetes: scores of nodes for a pod, 0 to 10.",
        lambda service, asked: service.extender.prioritize(asked), Judged, list[HostScore],
    ),
    _extender(
        "bind", "Kubernetes: claim the node, then bind the pod to it.",
        lambda service, asked: service.extender.bind(asked), Binding, Bound,
    ),
    Question(
        "GET", "/k8s/view", "k8s_view", "Kubernetes: how fresh what filter and prioritize use is.",
        lambda service, _: service.extender.state(), Nothing, ViewState,
    ),
)  # fmt: skip
"""In the order of the document."""
