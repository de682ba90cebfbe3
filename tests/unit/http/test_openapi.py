"""The document: one source for routing, parsing and describing, so all of it must be there."""

import msgspec
import pytest

from dhtos.core.limits import HTTP_BODY_BYTES_MAX
from dhtos.http.metrics import exposition
from dhtos.http.openapi import document
from dhtos.http.routes import QUESTIONS
from dhtos.http.shapes import FindQuery, NeedBody, PlaceBody, PlanBody

DOCUMENT = document("1.2")


def resolved(schema):
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_it_is_json_and_says_its_version():
    assert msgspec.json.decode(msgspec.json.encode(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["info"]["version"] == "1.2"


def test_names_and_paths_are_there_once():
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)
    assert len({(question.method, question.path) for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_each_question_is_described_as_it_is_parsed(question):
    told = DOCUMENT["paths"][question.path][question.method.lower()]
    assert told["operationId"] == question.name
    assert told["summary"].endswith(".")
    answers = told["responses"]
    assert str(question.status) in answers
    assert {"400", "403", "503", "504"} <= answers.keys()
    for status, answer in answers.items():
        if int(status) >= 400:
            (media,) = answer["content"]
            assert media == "application/problem+json"
    if question.has_body:
        body = told["requestBody"]["content"]["application/json"]["schema"]
        shown = resolved(body)["properties"].keys()
        assert shown == set(question.takes.__struct_encode_fields__)
        assert "413" in answers
        assert question.bytes_max >= HTTP_BODY_BYTES_MAX
    else:
        assert "requestBody" not in told


def test_parameters_and_defaults_are_those_of_the_structs():
    parameters = DOCUMENT["paths"]["/v1/find"]["get"]["parameters"]
    shown = {one["name"]: one["schema"]["default"] for one in parameters}
    assert shown == msgspec.to_builtins(FindQuery())
    assert not any(one["required"] for one in parameters)
    token = DOCUMENT["paths"]["/v1/leases/{token}"]["get"]["parameters"][0]
    assert (token["in"], token["required"]) == ("path", True)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (PlaceBody, {"ttl_s": 0.5}), (PlaceBody, {"ttl_s": 3601}), (PlaceBody, {"deadline_s": 0}),
        (PlaceBody, {"deadline_s": 51}), (PlanBody, {"candidates": 0}),
        (PlanBody, {"candidates": 257}),
        (NeedBody, {"resources": {"cores": 0}}), (NeedBody, {"resources": {"cores": True}}),
        (NeedBody, {"resources": {f"r{n}": 1 for n in range(17)}}), (NeedBody, {"preempt": 1}),
        (NeedBody, {"max_price": -1}), (NeedBody, {"priority": 2**31}), (NeedBody, {"nothing": 1}),
        (NeedBody, {"where": "x" * 4097}),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_no_such_body(kind, told):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, kind)
    if kind is not PlaceBody or "ttl_s" not in told:
        assert msgspec.convert({}, kind)


def test_figures_become_samples_under_fit_names():
    text = exposition({"a.b": 1, "rtt_s": 0.25, "big": 2**60})
    assert text.splitlines() == [
        "# TYPE dhtos_a_b untyped", "dhtos_a_b 1",
        "# TYPE dhtos_big untyped", f"dhtos_big {2**60}",
        "# TYPE dhtos_rtt_s untyped", "dhtos_rtt_s 0.25",
    ]  # fmt: skip
    assert exposition({}) == ""
