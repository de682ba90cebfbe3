"""The file of a gateway: rows and their names, what is wrong with others, and reading again."""

import asyncio
import os
from pathlib import Path

import pytest

from dhtos.core.record import make_record
from dhtos.core.schema import default_schema
from dhtos.errors import ConfigError
from dhtos.node import gateway as module
from dhtos.node.gateway import GatewayFile, open_catalogue, read_rows

SCHEMA = default_schema()
OWN = make_record(
    SCHEMA,
    {"cores": 2},
    {},
    node_id=bytes(20),
    endpoint=("10.0.0.1", 7400),
    seq=1,
    identity=bytes(range(32)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "machines.csv"


def reading(path: Path, text: str):
    path.write_text(text)
    return read_rows(open_catalogue(path, SCHEMA), SCHEMA, OWN)


def opened(path: Path, text: str) -> GatewayFile:
    path.write_text(text)
    file = GatewayFile(path, SCHEMA)
    file.own = OWN
    file.read()
    return file


def touch(path: Path, text: str, stamp: int) -> None:
    """Write the file at a moment of its own, however coarse the clock of the disk is."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.utime(beside, ns=(stamp, stamp))
    beside.replace(path)


# --- rows and names -------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["name", "Name", "id", "ID"])
def test_a_row_is_called_what_its_column_says(path, column):
    read = reading(path, f"{column},vcpu,memory_gb\nups-1,8,32\nups-2,4,16\n")
    assert [row.name for row in read.rows] == ["ups-1", "ups-2"]
    assert read.rows[0].attributes == {"cores": 8, "mem": 32 * 2**30}
    assert read.rows[0].labels == {"name": "ups-1"}
    assert read.broken == ()


def test_a_name_is_better_than_an_id(path):
    read = reading(path, "id,name,cores\n7,ups,8\n")
    assert read.rows[0].name == "ups"


def test_without_a_name_the_content_is_the_name_and_likes_are_numbered(path):
    one = reading(path, "cores,arch\n8,x86_64\n4,arm64\n8,x86_64\n")
    other = reading(path, "cores,arch\n4,arm64\n8,x86_64\n8,x86_64\n")
    assert len({row.name for row in one.rows}) == 3
    assert {row.name for row in one.rows} == {row.name for row in other.rows}
    assert one.rows[0].labels == {}


def test_a_row_without_a_name_among_named_ones_is_called_by_its_content(path):
    read = reading(path, "name,cores\nups,8\n,8\n,8\n")
    assert len({row.name for row in read.rows}) == 3


# --- what is wrong --------------------------------------------------------------------------------


def test_each_broken_row_is_listed_and_the_rest_is_read(path):
    text = "name,vcpu,mem\na,many,1GiB\nb,8,1GiB\nb,8,2GiB\nc,8\n" + "d" * 65 + ",8,1GiB\ne,8,1m\n"
    read = reading(path, text)
    assert [row.name for row in read.rows] == ["b"]
    why = dict(read.broken)
    assert list(why) == [2, 4, 5, 6, 7]
    assert why[2].startswith("column 'vcpu': cores is a finite number, got 'many'")
    assert why[4] == "column 'name': 'b' is the name of line 3 already"
    assert why[5] == "2 cells, the header has 3"
    assert "at most 64 printable bytes, got 'ddd" in why[6]
    assert why[7].startswith("column 'mem': mem takes")


def test_a_row_too_large_for_a_datagram_is_broken(path, monkeypatch):
    monkeypatch.setattr("dhtos.core.record.RECORD_BYTES_MAX", 190)
    read = reading(path, "name,cores,site\na,8,x\nb,8," + "y" * 100 + "\n")
    assert [row.name for row in read.rows] == ["a"]
    assert "at most 190 bytes" in read.broken[0][1]


def test_so_many_rows_and_no_more(path, monkeypatch):
    monkeypatch.setattr(module, "GATEWAY_ROWS_MAX", 3)
    read = reading(path, "cores\n" + "8\n" * 5)
    assert len(read.rows) == 3
    assert [line for line, _ in read.broken] == [5, 6]
    assert "at most 3 machines" in read.broken[0][1]


def test_a_file_of_broken_rows_is_no_error_and_advertises_nothing(path):
    read = reading(path, "name,cores,mem\na,8\nb\n")
    assert read.rows == ()
    assert len(read.broken) == 2


def test_a_header_alone_advertises_nothing(path):
    read = reading(path, "name,cores\n")
    assert (read.rows, read.broken) == ((), ())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no rows"),
        (b"colour,shape\nred,round\n", "no column names an attribute"),
        (b"cores\n\xff\xfe\n", "is not a text file in UTF-8"),
        (b"cores\n" + b"9" * 200_000 + b"\n", "line"),
    ],
)
def test_a_file_of_no_use_is_one_error(path, content, says):
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        GatewayFile(path, SCHEMA).check()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_a_file_that_cannot_be_read_says_why(path, make):
    make(path)
    with pytest.raises(ConfigError, match=r"cannot be read: .*; give a CSV file"):
        GatewayFile(path, SCHEMA).check()


def test_warnings_name_the_file_the_line_and_the_column(path):
    file = opened(path, "name,cores,price,colour\na,8,cheap,red\nb,x,dear,red\nc,8,dear,blue\n")
    assert file.warnings == [
        "machines.csv column 'price' is left out: not the values of price",
        "machines.csv line 3 is left out: column 'cores': cores is a finite number, got 'x'",
    ]


def test_warnings_are_bounded(path, monkeypatch):
    monkeypatch.setattr(module, "WARNINGS_MAX", 2)
    file = opened(path, "name,cores\nb,8\n" + "a\n" * 5)
    assert len(file.warnings) == 3
    assert file.warnings[-1] == "machines.csv: 3 more lines are left out"


# --- reading again --------------------------------------------------------------------------------


def test_a_file_has_changed_when_its_time_or_size_has(path):
    touch(path, "cores\n8\n", 10**18)
    file = GatewayFile(path, SCHEMA)
    file.own = OWN
    file.read()
    assert not file.has_changed()
    touch(path, "cores\n9\n", 10**18 + 10**9)
    assert file.has_changed()
    file.read_again()
    assert [row.attributes for row in file.reading.rows] == [{"cores": 9}]


def test_a_file_that_is_gone_changes_nothing_and_says_so_once(path):
    file = opened(path, "name,cores\na,8\n")
    path.unlink()
    assert file.has_changed()
    file.read_again()
    assert [row.name for row in file.reading.rows] == ["a"]
    assert "what it said before is told on" in file.warnings[0]
    assert not file.has_changed()
    touch(path, "name,cores\nb,8\n", 10**18)
    assert file.has_changed()
    file.read_again()
    assert [row.name for row in file.reading.rows] == ["b"]
    assert file.warnings == []


async def test_a_change_is_told_and_what_is_wrong_is_said(path, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.001)
    file = opened(path, "name,cores\na,8\n")
    told, said = [], []
    seen = asyncio.Event()

    def changed(rows):
        told.append([row.name for row in rows])
        seen.set()

    keeping = asyncio.ensure_future(file.keep(changed, said.append))
    touch(path, "name,cores\nb,8\nc,none\n", 10**18)
    await seen.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert told == [["b"]]
    assert len(said) == 1
    assert said[0].startswith("machines.csv line 3 is left out: column 'cores'")


def test_plain_values_for_a_person(path):
    file = opened(path, "name,cores\na,8\nb\n")
    assert file.to_plain() == {"file": str(path), "rows": 1, "broken": 1}
