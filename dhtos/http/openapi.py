"""`/openapi.json`: made of the table that routes and parses, so that it says what is so."""

from http import HTTPStatus
from typing import Any

import msgspec

from dhtos.http.problems import MEDIA_TYPE
from dhtos.http.routes import QUESTIONS, Question
from dhtos.http.shapes import Problem, Token

_ALWAYS = (400, 403, 503, 504)
_ABOUT = (
    "What a dhtos node answers. It is asked without saying who asks: serve it on loopback or in a "
    "private network. Durations are seconds, sizes bytes."
)
_REF = "#/components/schemas/{name}"


def document(version: str) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    types = [Problem, Token]
    for question in QUESTIONS:
        types += [kind for kind in (question.takes, question.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for question in QUESTIONS:
        operation = _operation(question, by_type, components)
        paths.setdefault(question.path, {})[question.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "dhtos", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(
    question: Question, by_type: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": question.name, "summary": question.summary}
    parameters = _parameters(question, by_type, components)
    if parameters:
        told["parameters"] = parameters
    if question.has_body:
        schema = by_type[repr(question.takes)]
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    told["responses"] = _responses(question, by_type)
    return told


def _parameters(
    question: Question, by_type: dict[str, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    if question.has_token:
        schema = by_type[repr(Token)]
        return [{"name": "token", "in": "path", "required": True, "schema": schema}]
    if question.has_body:
        return []
    struct = components[by_type[repr(question.takes)]["$ref"].rpartition("/")[2]]
    wanted = struct.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in wanted, "schema": schema}
        for name, schema in struct["properties"].items()
    ]


def _responses(question: Question, by_type: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": HTTPStatus(question.status).phrase}
    if question.gives is not None:
        schema = by_type[repr(question.gives)]
        done["content"] = {question.media_type: {"schema": schema}}
    if question.is_stream:
        done["description"] = "A line for each machine, and one more for the end or an error."
    if question.status == 201:
        done["headers"] = {"Location": {"schema": {"type": "string"}}}
    failed = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": by_type[repr(Problem)]}},
        }
        for status in sorted(
            {*_ALWAYS, *question.problems, *((408, 413, 415) if question.has_body else ())}
        )
    }
    return {str(question.status): done, **failed}
