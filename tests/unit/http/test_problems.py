"""Problems: a status for each error, and the words that the command line has."""

import msgspec
import pytest

from dhtos import errors
from dhtos.cli.failure import explain
from dhtos.errors import (
    ClaimsRefused,
    Closed,
    Conflict,
    DhtosError,
    KeyNotFound,
    LeaseLost,
    MalformedMessage,
    NoCandidates,
    NoPeers,
    PredicateError,
    Preempted,
    Refused,
    Unreachable,
    UsageError,
)
from dhtos.http.problems import HttpError, answer, problem, status_of

KNOWN = [
    (UsageError("limit must be 0 (none) or more, got -1"), 400),
    (PredicateError("unknown attribute 'coers' at column 1", column=1, hint="cores"), 400),
    (KeyNotFound("no node holds 'x'"), 404),
    (ClaimsRefused("none granted it: full (2)", {"full": 2}), 409),
    (Refused("the machine is draining: try another"), 409),
    (Conflict("a newer version exists"), 409),
    (LeaseLost("its node was silent for a whole term"), 410),
    (Preempted("something of a higher priority needs it", 12.5), 410),
    (NoCandidates("no machine can take it", {"cores": 3}), 422),
    (MalformedMessage("no such field"), 502),
    (Unreachable("the fleet does not answer"), 503),
    (NoPeers("no seed answers"), 503),
    (Closed("the node is not running"), 503),
    (DhtosError("something else"), 500),
]


@pytest.mark.parametrize(("error", "status"), KNOWN, ids=lambda value: type(value).__name__)
def test_each_error_has_a_status_and_the_words_of_the_command_line(error, status):
    told = problem(error)
    said = explain(error)
    assert (told.status, told.code, told.type) == (status, type(error).__name__, "about:blank")
    assert told.detail == said.message
    if told.hint and not told.hint.startswith("/openapi.json"):
        assert told.hint == said.hint


def test_every_error_there_is_has_a_status():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, DhtosError):
            made = kind("x", 1.0) if kind is Preempted else kind("x")
            assert status_of(made) in range(400, 600), name


def test_what_more_an_error_knows():
    assert problem(KNOWN[1][0]).column == 1
    assert problem(KNOWN[1][0]).hint == "did you mean cores?"
    assert problem(KNOWN[3][0]).reasons == {"full": 2}
    assert problem(KNOWN[8][0]).reasons == {"cores": 3}
    assert problem(KNOWN[7][0]).grace_s == 12.5
    bare = msgspec.json.decode(msgspec.json.encode(problem(UsageError("x"))))
    assert bare.keys() == {"type", "title", "status", "detail", "code", "hint"}


def test_what_only_http_can_get_wrong():
    error = HttpError(415, "Content-Type must be application/json, got none", "say so")
    assert problem(error).code == "UnsupportedMediaType"
    assert (problem(error).title, problem(error).hint) == ("Unsupported Media Type", "say so")
    assert problem(HttpError(400, "bad")).hint == "/openapi.json says what can be asked"


def test_no_error_breaks_a_line_or_grows_without_bound():
    told = problem(UsageError("a\nb\x1b[31m" + "x" * 10_000))
    assert told.detail.isprintable()
    assert len(told.detail) <= 1000


def test_answers_say_their_type_and_when_to_come_again():
    response = answer(Unreachable("the fleet does not answer"))
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    response = answer(HttpError(405, "no", headers={"Allow": "GET"}))
    assert response.headers["allow"] == "GET"
    assert "retry-after" not in response.headers
