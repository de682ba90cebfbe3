"""What commands have used: kept in order, bounded, over restarts, whatever the disk does."""

import asyncio

import msgspec
import pytest

from dhtos.core.limits import USAGE_ROWS_MAX
from dhtos.node.command import Command, Exit, Usage
from dhtos.node.usage import FILE, UsageLog, UsageRow


def command(number=1, program=b"sh"):
    return Command(
        argv=(program, b"secret"),
        env={b"PASSWORD": b"secret"},
        stdin=False,
        resources={"cores": 1.0},
        lease=f"node-{number}",
        token="secret",
        fence=number,
        owner="10.0.0.9:7400",
    )


ENDED = Exit(-9, Usage(1.5, 0.25, 1 << 30, 2.0))


def opened(folder, at=1000.0):
    log = UsageLog(folder, lambda: at)
    log.read()
    return log


async def add(log, count, first=1):
    for number in range(first, first + count):
        await log.add(command(number), ENDED)


def leases(log):
    return [row.lease for row in log.rows()]


async def test_a_row_says_what_was_used_and_no_secret(tmp_path):
    log = opened(tmp_path)
    await log.add(command(), ENDED)
    row = UsageRow("node-1", "10.0.0.9:7400", "sh", 1000.0, -9, 1.5, 0.25, 1 << 30, 2.0)
    assert log.rows() == (row,)
    text = (tmp_path / FILE).read_bytes()
    assert msgspec.json.decode(text, type=UsageRow) == row
    assert b"secret" not in text
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_rows_outlive_a_restart_and_stay_in_order(tmp_path):
    await add(opened(tmp_path), 3)
    again = opened(tmp_path)
    await add(again, 2, first=4)
    assert leases(again) == leases(opened(tmp_path)) == [f"node-{n}" for n in range(1, 6)]


async def test_without_a_folder_they_are_remembered_until_the_end():
    log = opened(None)
    await add(log, 2)
    assert leases(log) == ["node-1", "node-2"]


def test_a_node_that_ran_nothing_has_no_file(tmp_path):
    assert opened(tmp_path).rows() == ()
    assert not (tmp_path / FILE).exists()


async def test_the_last_rows_are_kept_in_memory_and_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("dhtos.node.usage.USAGE_ROWS_MAX", 4)
    log = opened(tmp_path)
    assert log._rows.maxlen == 4 < USAGE_ROWS_MAX
    for number in range(1, 30):
        await add(log, 1, first=number)
        assert (tmp_path / FILE).read_bytes().count(b"\n") <= 8
    assert leases(log) == leases(opened(tmp_path)) == [f"node-{n}" for n in range(26, 30)]
    again = opened(tmp_path)  # a file that is long already is cut by who comes next
    await add(again, 8, first=30)
    assert (tmp_path / FILE).read_bytes().count(b"\n") <= 8
    assert leases(opened(tmp_path)) == [f"node-{n}" for n in range(34, 38)]


async def test_a_line_that_was_cut_off_costs_that_line(tmp_path):
    await add(opened(tmp_path), 2)
    path = tmp_path / FILE
    path.write_bytes(b'{"lease"\n[]\n\n' + path.read_bytes() + b"\xff\n")
    log = opened(tmp_path)
    assert leases(log) == ["node-1", "node-2"]
    await add(log, 1, first=3)
    assert leases(opened(tmp_path)) == ["node-1", "node-2", "node-3"]


async def test_rows_that_end_together_are_written_one_after_the_other(tmp_path):
    log = opened(tmp_path)
    await asyncio.gather(*(log.add(command(n), ENDED) for n in range(20)))
    assert sorted(leases(opened(tmp_path))) == sorted(f"node-{n}" for n in range(20))


async def test_a_disk_that_does_not_take_it_costs_no_command(tmp_path):
    log = UsageLog(tmp_path / "gone", lambda: 1.0)
    log.read()
    await add(log, 2)
    assert log.failures == 2
    assert leases(log) == ["node-1", "node-2"]


@pytest.mark.parametrize(("program", "shown"), [(b"\xff", "?"), ("ä".encode(), "ä")])
async def test_names_are_text_whatever_they_are(tmp_path, program, shown):
    log = opened(tmp_path)
    await log.add(command(program=program), ENDED)
    assert opened(tmp_path).rows()[0].command == shown
