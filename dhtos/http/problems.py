"""Errors as problem documents (RFC 9457): the words of the command line, and a status code."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from dhtos.errors import (
    ClaimsRefused,
    Closed,
    Conflict,
    DhtosError,
    KeyNotFound,
    LeaseLost,
    NoCandidates,
    PeerError,
    PredicateError,
    Preempted,
    Refused,
    Unreachable,
    UsageError,
)
from dhtos.http.shapes import Problem
from dhtos.node.advice import advise, one_line

MEDIA_TYPE = "application/problem+json"
_DETAIL_MAX = 1000  # characters of what came are repeated at most
_SHOWS = "/openapi.json says what can be asked"


class HttpError(DhtosError):
    """What only HTTP can get wrong: paths, methods, headers, sizes, times."""

    def __init__(
        self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint
        self.headers = dict(headers or {})


def status_of(error: DhtosError) -> int:
    """The status code of an error.

    >>> status_of(NoCandidates("no machine can take it"))
    422
    """
    match error:
        case HttpError():
            return error.status
        case UsageError():
            return 400
        case KeyNotFound():
            return 404
        case ClaimsRefused() | Refused() | Conflict():
            return 409
        case LeaseLost():
            return 410
        case NoCandidates():
            return 422
        case PeerError():
            return 502
        case Unreachable() | Closed():
            return 503
    return 500


def problem(error: DhtosError) -> Problem:
    """The document of an error."""
    message, hint = advise(error)
    status = status_of(error)
    if isinstance(error, HttpError):
        hint = error.hint or hint
    if not hint and status == 400:
        hint = _SHOWS
    code = _word(status) if isinstance(error, HttpError) else type(error).__name__
    reasons = error.reasons if isinstance(error, NoCandidates | ClaimsRefused) else None
    return Problem(
        "about:blank",
        HTTPStatus(status).phrase,
        status,
        one_line(message[:_DETAIL_MAX]),
        code,
        one_line(hint),
        error.column if isinstance(error, PredicateError) else None,
        reasons,
        error.grace_s if isinstance(error, Preempted) else None,
    )


def answer(error: DhtosError) -> Response:
    """The response that tells of an error; 503 says when to come again."""
    told = problem(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if told.status == 503:
        headers.setdefault("Retry-After", "1")
    return Response(msgspec.json.encode(told), told.status, headers, MEDIA_TYPE)


def _word(status: int) -> str:
    """The name of a status code in the form of our own errors.

    >>> _word(415)
    'UnsupportedMediaType'
    """
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
