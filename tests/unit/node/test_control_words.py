"""The lines of the control socket and the errors that travel on them."""

import pytest

from dhtos import errors
from dhtos.errors import (
    ConfigError,
    DhtosError,
    KeyNotFound,
    MalformedMessage,
    PredicateError,
    UsageError,
)
from dhtos.node.control import (
    ControlClient,
    decode_line,
    default_control_path,
    encode_line,
    error_from_wire,
    error_to_wire,
)


def test_a_line_reads_back():
    message = {"op": "find", "args": {"query": "cores >= 8\n"}}
    line = encode_line(message)
    assert line.count(b"\n") == 1
    assert decode_line(line) == message


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"nonsense\n", b'"x"\n', b"[" * 100_000])
def test_a_strange_line_is_malformed(line):
    with pytest.raises(MalformedMessage):
        decode_line(line)


@pytest.mark.parametrize("error", [ConfigError("a"), KeyNotFound("b"), UsageError("c")])
def test_an_error_arrives_as_itself(error):
    found = error_from_wire(error_to_wire(error))
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_a_predicate_error_keeps_column_and_hint():
    found = error_from_wire(error_to_wire(PredicateError("bad", column=7, hint="cores")))
    assert isinstance(found, PredicateError)
    assert (found.column, found.hint) == (7, "cores")


def test_who_is_preempted_learns_how_long_there_is():
    found = error_from_wire(error_to_wire(errors.Preempted("no", 7.5)))
    assert isinstance(found, errors.Preempted)
    assert (str(found), found.grace_s) == ("no", 7.5)
    assert error_from_wire({"code": "Preempted", "message": "m", "grace_s": "x"}).grace_s == 0


@pytest.mark.parametrize("wire", [None, 7, {}, {"code": "SystemExit"}, {"code": "__name__"}])
def test_a_strange_error_is_still_an_error(wire):
    assert isinstance(error_from_wire(wire), DhtosError)


def test_every_error_of_the_tree_travels():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, DhtosError):
            assert type(error_from_wire({"code": name, "message": "m"})) is kind


def test_where_the_socket_is(tmp_path, monkeypatch):
    assert default_control_path(tmp_path, 7400) == tmp_path / "control.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_control_path(None, 7400) == tmp_path / "dhtos" / "7400.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    path = default_control_path(None, 7400)
    assert path.name == "7400.sock"
    assert path.parent.name.startswith("dhtos-")


async def test_a_client_must_connect_and_ask_what_there_is(tmp_path):
    client = ControlClient(tmp_path / "none.sock")
    with pytest.raises(errors.Unreachable, match="not connected"):
        client.ask("status")
    with pytest.raises(errors.UsageError, match="unknown op"):
        client.ask("stauts")
    with pytest.raises(errors.Unreachable, match="start one with dhtos-node run"):
        await client.connect()
    await client.aclose()
