"""What comes in and what goes out: the declarations that parse a request and make `/openapi.json`.

A request is converted into one of these and so is checked by them. An answer is made by
`dhtos.node.plain`; what is declared of it here is checked by the tests.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from dhtos.core.limits import LEASE_S, LEASE_S_MAX, LEASE_S_MIN, SAMPLE_MAX, VERIFY_MAX
from dhtos.node.placing import CANDIDATES

Said = Annotated[str, Meta(max_length=4096)]
Query = Annotated[str, Meta(max_length=4096, description="a predicate, as `cores >= 8`")]
Selector = Annotated[str, Meta(max_length=4096, description="a Kubernetes label selector")]
Whole = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Verify = Annotated[int, Meta(ge=1, le=VERIFY_MAX)]
Amount = (
    Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] | Annotated[str, Meta(max_length=64)]
)
Token = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Value = str | float | bool


# --- what comes in ------------------------------------------------------------------------------


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class CountQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which machines to count."""

    query: Query = ""
    selector: Selector = ""
    strict: bool = False
    verify: Verify = 1


class FindQuery(CountQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which machines to find, and in which order."""

    limit: Annotated[Whole, Meta(description="0 is no limit")] = 0
    order_by: Annotated[str, Meta(max_length=256, description="an attribute, or rtt(self)")] = ""
    descending: bool = False
    cursor: Annotated[str, Meta(max_length=100_000, description="of an earlier answer")] = ""


class NeedBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of what, and where. Amounts may have units: `{"cores": 4, "mem": "8GiB"}`."""

    resources: Annotated[dict[Said, Amount], Meta(max_length=16)] = {}
    where: Query = ""
    prefer: Literal["pack", "spread", "near", "cheap"] = "pack"
    priority: Annotated[int, Meta(ge=-(2**31) + 1, le=2**31 - 1)] = 0
    max_price: Annotated[float, Meta(ge=0)] | None = None
    preempt: bool = False


class PlanBody(NeedBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A need, and how many machines to draw and compare."""

    candidates: Annotated[int, Meta(ge=1, le=SAMPLE_MAX)] = CANDIDATES
    spread: Annotated[str, Meta(max_length=64, description="attribute or label of a place")] = ""


class PlaceBody(NeedBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A need, and how long its lease lasts without a renewal."""

    ttl_s: Annotated[float, Meta(ge=LEASE_S_MIN, le=LEASE_S_MAX)] = LEASE_S
    deadline_s: Annotated[float, Meta(gt=0, le=50)] | None = None


# --- what goes out ------------------------------------------------------------------------------


class Coverage(Struct, frozen=True):
    """How much of the fleet an answer is of."""

    fraction: float
    complete: bool
    limited: bool
    failed_prefixes: list[str]
    max_age_s: float
    asked: int
    rtt: int
    pruned: int
    verified: int


class Machine(Struct, frozen=True):
    """A machine as an answer shows it."""

    id: str
    endpoint: str
    seq: int
    age_s: float
    rtt_s: float | None
    rtt_measured: bool
    coordinate: list[float] | None
    gateway: bool
    attributes: dict[str, Value]
    labels: dict[str, str]


class Member(Machine, frozen=True, rename={"is_self": "self"}):
    """A machine that the node itself holds."""

    state: str
    is_self: bool


class Choice(Machine, frozen=True):
    """A machine of a plan; the lowest score is the best, `terms` are what it is the sum of."""

    score: float
    terms: dict[str, float]


class FindEnd(Struct, frozen=True):
    """What is said after the last machine."""

    matches: int
    coverage: Coverage
    cursor: str | None


class Problem(Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457): what was expected and what came, and in `hint` what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    column: int | None = None
    reasons: dict[str, int] | None = None
    grace_s: float | None = None


class FindLine(Struct, frozen=True, omit_defaults=True):
    """One line of an answer: a machine, or as the last one its end or an error."""

    item: Machine | None = None
    end: FindEnd | None = None
    error: Problem | None = None


class Counted(Struct, frozen=True):
    """How many machines match."""

    count: int
    coverage: Coverage


class Planned(Struct, frozen=True):
    """Machines for a need, the best first; `refused` counts those that were drawn and cannot."""

    choices: list[Choice]
    refused: dict[str, int]
    coverage: Coverage


class Explained(Struct, frozen=True):
    """How many machines match, can take the need, and lack each resource."""

    machines: int
    matching: int
    able: int
    reasons: dict[str, int]
    coverage: Coverage


class Lease(Struct, frozen=True):
    """A part of a machine that is held; the client renews it within `renew_within_s`."""

    node: str
    endpoint: str
    token: str
    fence: int
    expires_s: float
    resources: dict[str, float]
    labels: dict[str, str]
    renew_within_s: float


class Members(Struct, frozen=True):
    """The machines that the node itself holds."""

    machines: list[Member]
    prefix: str
    members: int


Status = Annotated[dict[str, Any], Meta(description="what the node is and how it fares")]
