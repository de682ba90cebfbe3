"""Anything may come over HTTP: arbitrary documents, and ones made of the OpenAPI document.

No answer is a fault of ours, and each is what the document says it is.
"""

import asyncio
import json
import threading
from urllib.parse import urlencode

import msgspec
import pytest
from http_world import Client, served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dhtos.adapters.kubernetes_api import Settings
from dhtos.http.openapi import document
from dhtos.http.routes import QUESTIONS
from dhtos.http.shapes import Problem

DOCUMENT = document("test")
BODIES = [question for question in QUESTIONS if question.has_body]
PARAMETERS = [question for question in QUESTIONS if question.method == "GET"]
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(scope="module")
def client():
    """A client of a node that runs in a thread of its own as long as the module is tested."""
    ready, done = threading.Event(), asyncio.Event()
    found: list[Client] = []
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with served() as (_, _, one):
            found.append(one)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


def judge(question, answer):
    """A 2xx is as declared, all else a problem of a status that the document lists."""
    listed = DOCUMENT["paths"][question.path][question.method.lower()]["responses"]
    assert str(answer.status) in listed, (answer.status, answer.body)
    assert answer.status < 500
    if answer.status >= 400:
        told = msgspec.json.decode(answer.body, type=Problem)
        assert told.status == answer.status
        assert told.detail
        assert len(answer.body) < 5000
    elif question.is_stream:
        for line in answer.lines:
            msgspec.convert(line, question.gives)
    elif answer.headers["content-type"] == "application/json":
        msgspec.json.decode(answer.body, type=question.gives)


# --- strategies -----------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def made_of(schema):
    """Values of a schema of the document; texts now and then mean something."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return st.deferred(lambda: made_of(DOCUMENT["components"]["schemas"][name]))
    if "anyOf" in schema:
        return st.one_of([made_of(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            words = [
                "",
                "cores",
                "cores >= 1",
                "1",
                "8GiB",
                "100m",
                "2Gi",
                "n1",
                "team",
                "rtt(self)",
            ]
            return st.sampled_from(words) | st.text(max_size=min(schema.get("maxLength", 40), 40))
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum"))
            return st.floats(least, schema.get("maximum", 1e300), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(made_of(schema["items"]), max_size=3)
        case "object":
            return _object(schema)
    return anything


def _object(schema):
    extra = schema.get("additionalProperties")
    if "properties" not in schema:
        values = made_of(extra) if isinstance(extra, dict) else anything
        names = st.sampled_from(["cores", "mem", "cpu", "memory"]) | st.text(max_size=9)
        return st.dictionaries(names, values, max_size=3)
    told = {name: made_of(one) for name, one in schema["properties"].items()}
    needed = schema.get("required", [])
    return st.fixed_dictionaries(
        {name: told[name] for name in needed},
        optional={name: one for name, one in told.items() if name not in needed},
    )


def body_of(question):
    told = DOCUMENT["paths"][question.path]["post"]["requestBody"]
    return made_of(told["content"]["application/json"]["schema"])


# --- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", BODIES, ids=lambda question: question.name)
def test_any_document_is_answered(client, question):
    @EXAMPLES
    @given(anything)
    def check(told):
        judge(question, client.ask("POST", question.path, *sent(told)))

    check()


@pytest.mark.parametrize("question", BODIES, ids=lambda question: question.name)
def test_any_bytes_are_answered(client, question):
    @EXAMPLES
    @given(st.binary(max_size=64) | st.just(b"[" * 100_000) | st.just(b'{"a":' * 50_000))
    def check(told):
        headers = {"Content-Type": "application/json"}
        judge(question, client.ask("POST", question.path, told, headers))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("question", BODIES, ids=lambda question: question.name)
def test_what_the_document_allows_is_answered(client, question):
    def check(told):
        if question.name == "place":  # a claim that nobody grants would be asked for again
            told = {**told, "deadline_s": 0.2, "ttl_s": 1}
        judge(question, client.ask("POST", question.path, *sent(told)))

    EXAMPLES(given(body_of(question))(check))()


@pytest.mark.parametrize("question", PARAMETERS, ids=lambda question: question.name)
def test_any_parameters_are_answered(client, question):
    told = DOCUMENT["paths"][question.path]["get"].get("parameters", ())
    named = {one["name"]: made_of(one["schema"]) for one in told if one["in"] == "query"}

    @EXAMPLES
    @given(st.fixed_dictionaries({}, optional=named) | st.dictionaries(st.text(), st.text()))
    def check(given_):
        query = urlencode(given_, errors="replace")
        path = question.path.replace("{token}", "0" * 32)
        judge(question, client.ask("GET", f"{path}?{query}"))

    check()


@EXAMPLES
@given(st.text(), st.sampled_from(["GET", "POST", "DELETE"]))
def test_any_path_is_answered(client, name, method):
    path = "/" + urlencode({"": name}, errors="replace")[1:]
    answer = client.ask(method, path, {} if method == "POST" else None)
    assert answer.status in (404, 405) or answer.status < 300


@given(st.dictionaries(st.sampled_from(["url", "token", "ca", "label", "x"]), st.text()))
def test_any_settings_are_settings_or_a_config_error(told):
    from dhtos.errors import ConfigError

    try:
        assert Settings.of(told).label
    except ConfigError:
        return


def sent(told):
    """A document as bytes; what JSON has no words for is written as Python writes it."""
    return json.dumps(told).encode(), {"Content-Type": "application/json"}
