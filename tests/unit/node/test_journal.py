"""The journal: leases and epochs across restarts, kills, full disks and damaged files."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace

import msgspec
import pytest

from dhtos.errors import ConfigError
from dhtos.node.journal import FILE, LeaseJournal
from dhtos.protocol.ledger import Grant, Ledger, NotWritten, Reason, State

OWNER = ("10.0.0.9", 7400)
T0 = 1000.0


def token(number):
    return number.to_bytes(16)


def lease(number=1, *, fence=0, state=State.BOUND, cores=2.0, user="", subject=b""):
    resources = {"cores": cores}
    return Grant(
        token(number), resources, OWNER, -3, T0, state, 30.0, fence or number, user, subject
    )


class Run:
    """One life of a node that grants, on the file that the last one left."""

    def __init__(self, directory, now=T0):
        self.now = now
        self.journal = LeaseJournal.open(directory, now)
        self.ledger = Ledger(
            epoch=self.journal.epoch, bound=self.journal.leases, journal=self.journal
        )
        self.ledger.offer({"cores": 8.0}, {})
        self.ledger.check()

    def bind(self, number, cores=2.0, **who):
        self.ledger.hold(token(number), {"cores": cores}, OWNER, self.now, **who)
        return self.ledger.confirm(token(number), self.ledger.epoch, 30.0, self.now)


@pytest.fixture
def life(tmp_path):
    """Start the next life; the one before was killed: nothing was closed in order."""
    runs = []

    def start(now=T0):
        if runs:
            runs[-1].journal.close()
        runs.append(Run(tmp_path, now))
        return runs[-1]

    yield start
    for run in runs:
        run.journal.close()


def rows(directory, statement="SELECT * FROM lease"):
    database = sqlite3.connect(directory / FILE)
    try:
        with database:
            return database.execute(statement).fetchall()
    finally:
        database.close()


# --- what is kept ---------------------------------------------------------------------------------


def test_a_node_that_never_grants_has_no_file(tmp_path, life):
    run = life()
    assert run.journal.epoch == 1
    run.ledger.hold(token(1), {"cores": 1.0}, OWNER, T0)
    assert list(tmp_path.iterdir()) == []
    assert life().journal.epoch == 1


def test_every_field_of_a_lease_comes_back_with_one_more_term(tmp_path):
    journal = LeaseJournal.open(tmp_path, T0)
    journal.bound(lease(2, fence=9, cores=0.1))
    paid = replace(lease(3, fence=11), price=0.25, began=1_800_000_000.5)
    journal.bound(lease(1, fence=10, user="alice \u00e9", subject=b"\0k" * 16))
    journal.bound(paid)
    journal.close()
    again = LeaseJournal.open(tmp_path, T0 + 500)
    expected = [replace(one, expires=T0 + 530) for one in (
        lease(2, fence=9, cores=0.1),
        lease(1, fence=10, user="alice \u00e9", subject=b"\0k" * 16),
        paid,
    )]  # fmt: skip
    assert list(again.leases) == expected
    again.close()


def test_what_is_ended_is_struck_out(tmp_path, life):
    run = life()
    run.bind(1)
    run.bind(2)
    run.ledger.release(token(1))
    assert [row[0] for row in rows(tmp_path)] == [token(2)]
    run.ledger.expire(T0 + 30)
    assert rows(tmp_path) == []


def test_a_restart_owes_what_the_last_run_told(life):
    told = life().bind(1, 5.0)
    run = life(T0 + 100)
    assert run.ledger.free() == {"cores": 3.0}
    assert run.ledger.renew(token(1), told.fence, T0 + 110).expires == T0 + 140
    assert run.ledger.confirm(token(1), 1, 30.0, T0 + 110).fence == told.fence
    assert run.ledger.expire(T0 + 140)[0].token == token(1)
    assert life(T0 + 200).ledger.free() == {"cores": 8.0}


def test_who_a_lease_was_granted_to_is_known_after_a_restart(life):
    told = life().bind(1, user="alice", subject=b"a" * 32)
    (kept,) = life().ledger.grants()
    assert (told.user, told.subject) == (kept.user, kept.subject) == ("alice", b"a" * 32)


def test_a_lease_that_was_taken_back_comes_back_as_that(life):
    run = life()
    fence = run.bind(1, 8.0).fence
    run.ledger.revoke(token(1))
    run = life()
    assert run.ledger.grants() == ()
    assert run.ledger.free() == {"cores": 0.0}
    assert run.ledger.renew(token(1), fence, T0) is Reason.GONE


def test_every_start_has_an_epoch_and_fences_grow_across_all(tmp_path, life):
    fences = []
    for number in range(1, 6):
        run = life()
        assert run.journal.epoch == number
        fences.append(run.bind(number).fence)
        run.ledger.release(token(number))
    assert fences == sorted(set(fences))
    assert rows(tmp_path, "SELECT * FROM start") == [(5,)]


def test_a_hold_does_not_survive_a_start(life):
    life().bind(1)
    run = life()
    run.ledger.hold(token(2), {"cores": 1.0}, OWNER, T0)
    before = run.journal.epoch
    run = life()
    assert run.ledger.confirm(token(2), before, 30.0, T0) is Reason.EPOCH


def test_the_file_is_private(tmp_path):
    mask = os.umask(0)
    try:
        journal = LeaseJournal.open(tmp_path, T0)
        journal.bound(lease())
    finally:
        os.umask(mask)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    journal.close()
    journal.close()


def test_what_was_told_survives_a_kill(tmp_path):
    """A process of its own that is killed while it binds: whatever it printed is there."""
    program = """
        import sys
        from pathlib import Path
        from dhtos.node.journal import LeaseJournal
        from dhtos.protocol.ledger import Ledger
        journal = LeaseJournal.open(Path(sys.argv[1]), 0.0)
        ledger = Ledger(epoch=journal.epoch, bound=journal.leases, journal=journal)
        ledger.offer({"cores": 4000.0}, {})
        for number in range(4000):
            token = number.to_bytes(16)
            ledger.hold(token, {"cores": 1.0}, ("10.0.0.9", 7400), 0.0)
            print(ledger.confirm(token, ledger.epoch, 30.0, 0.0).fence, flush=True)
            if number % 3 == 0:
                ledger.release(token)
                print(-number, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines() if line]
    journal = LeaseJournal.open(tmp_path, T0)
    journal.close()
    fences = [number for number in told if number > 0]
    ended = {-number for number in told if number <= 0}
    kept = {int.from_bytes(one.token): one.fence for one in journal.leases}
    assert journal.epoch == 2
    for number, fence in enumerate(fences[:-1]):  # the last may be struck out, and that untold
        assert (kept.get(number) == fence) == (number not in ended)


# --- what goes wrong ------------------------------------------------------------------------------


def damage(path, content):
    for name in ("", "-wal", "-shm"):
        path.with_name(FILE + name).unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"{}", b"SQLite format 3\0" + bytes(4096)])
def test_a_corrupt_file_stops_the_start_and_is_left_as_it_is(tmp_path, content):
    path = tmp_path / FILE
    damage(path, content)
    with pytest.raises(ConfigError, match=r"restore it from a backup, or move it away once no"):
        LeaseJournal.open(tmp_path, T0)
    assert path.read_bytes() == content


def test_a_page_that_is_damaged_behind_the_first_stops_the_start_too(tmp_path):
    """It is found while rows are read, after the query has begun."""
    journal = LeaseJournal.open(tmp_path, T0)
    for number in range(1, 400):
        journal.bound(lease(number))
    journal.close()
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle:] = b"\xff" * (len(content) - middle)
    damage(path, bytes(content))
    with pytest.raises(ConfigError, match="cannot be used"):
        LeaseJournal.open(tmp_path, T0)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lease SET resources = x'c1'",
        "UPDATE lease SET resources = 5",
        "UPDATE lease SET resources = x'a0'",
        "UPDATE lease SET ttl_s = 'long'",
        "UPDATE lease SET fence = 'high'",
        "UPDATE lease SET state = 'gone'",
        "UPDATE lease SET host = x'00ff'",
        "UPDATE lease SET user = x'00ff'",
        "UPDATE lease SET subject = 'alice'",
        "UPDATE start SET epoch = 'first'",
        "DELETE FROM start; ALTER TABLE lease RENAME COLUMN fence TO gate",
        "DROP TABLE lease; CREATE TABLE lease (token BLOB, fence INTEGER); "
        "INSERT INTO lease VALUES (x'00', 1)",
    ],
)
def test_a_row_that_makes_no_sense_stops_the_start(tmp_path, change):
    journal = LeaseJournal.open(tmp_path, T0)
    journal.bound(lease())
    journal.close()
    database = sqlite3.connect(tmp_path / FILE)
    database.executescript(change)
    database.close()
    with pytest.raises(ConfigError, match="cannot be used"):
        LeaseJournal.open(tmp_path, T0)


def test_a_file_that_says_nothing_of_who_asked_stops_the_start_also_when_it_is_empty(tmp_path):
    """Whoever wrote to it would find out at its first lease, and grant nothing ever."""
    journal = LeaseJournal.open(tmp_path, T0)
    journal.bound(lease())
    journal.ended(token(1))
    journal.close()
    database = sqlite3.connect(tmp_path / FILE)
    database.executescript("ALTER TABLE lease DROP COLUMN subject")
    database.close()
    with pytest.raises(ConfigError, match=r"cannot be used \(no such column: subject\)"):
        LeaseJournal.open(tmp_path, T0)


def test_a_directory_in_the_way_is_a_refusal_with_advice(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(ConfigError, match=r"unable to open.*move it away"):
        LeaseJournal.open(tmp_path, T0)


def test_a_directory_that_cannot_be_written_grants_nothing(tmp_path):
    """Gone, as an unmounted disk: whoever runs the tests may write to what is read-only."""
    run = Run(tmp_path / "unmounted")
    assert run.bind(1) is Reason.DISK
    (tmp_path / "unmounted").mkdir()
    assert run.bind(2).state is State.BOUND
    run.journal.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_directory_grants_nothing(tmp_path):
    directory = tmp_path / "state"
    directory.mkdir(0o500)
    run = Run(directory)
    assert run.bind(1) is Reason.DISK
    directory.chmod(0o700)
    assert run.bind(2).state is State.BOUND
    run.journal.close()


def test_a_file_system_without_permissions_grants_nothing(tmp_path, monkeypatch):
    """The file would be readable by all; nothing but NotWritten may leave the journal."""

    def refuse(_path, _mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.chmod", refuse)
    run = Run(tmp_path)
    assert run.bind(1) is Reason.DISK
    run.journal.close()


def test_a_first_attempt_that_failed_half_way_costs_no_epoch(tmp_path, monkeypatch, life):
    """The file is there, its epoch is not: the next lease must write it, or fences repeat."""
    run = life()
    with monkeypatch.context() as patch:
        patch.setattr("dhtos.node.journal._SCHEMA", "CREATE TABLE oops (")
        assert run.bind(1) is Reason.DISK
    assert (tmp_path / FILE).exists()
    first = run.bind(2)
    assert first.state is State.BOUND
    run.ledger.release(token(2))
    run = life()
    assert run.journal.epoch == 2
    assert run.bind(3).fence > first.fence


def test_an_empty_file_is_a_first_start(tmp_path, life):
    """A kill between making the file and filling it; nobody was told anything."""
    (tmp_path / FILE).touch()
    assert life().bind(1).state is State.BOUND
    assert len(life().ledger.grants()) == 1


def test_a_full_disk_grants_nothing_and_recovers(tmp_path, life):
    """Files may not grow beyond 300 kB for a while; what was told before is kept."""
    resource = pytest.importorskip("resource")
    run = life()
    run.ledger.offer({"cores": 1e6}, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        answers = [run.bind(number, 1.0) for number in range(1, 200)]
        assert run.ledger.release(token(1)) is not None  # cannot be struck out, and ends
        run.ledger.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = [answer for answer in answers if isinstance(answer, Grant)]
    assert {answer for answer in answers if not isinstance(answer, Grant)} == {Reason.DISK}
    assert len(told) > 10
    late = run.bind(500, 1.0)
    assert late.fence > max(one.fence for one in told)
    kept = {one.token: one.fence for one in life().ledger.grants()}
    for one in (*told[1:], late):
        assert kept[one.token] == one.fence


def test_who_holds_the_file_locked_does_not_hold_up_the_node(tmp_path, life):
    run = life()
    run.bind(1)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert run.bind(2) is Reason.DISK
    other.execute("ROLLBACK")
    assert run.bind(3).state is State.BOUND
    other.execute("BEGIN")
    other.execute("SELECT * FROM lease").fetchall()
    assert run.bind(4).state is State.BOUND  # a reader, as a backup is, keeps nobody waiting
    other.close()


def test_a_connection_that_fails_says_so_in_one_way(tmp_path):
    class Broken:
        def execute(self, _statement, _values):
            raise sqlite3.OperationalError("disk I/O error")

        def close(self):
            pass

    journal = LeaseJournal(tmp_path / FILE)
    journal._database = Broken()
    for write in (lambda: journal.bound(lease()), lambda: journal.ended(token(1))):
        with pytest.raises(NotWritten, match="disk I/O error"):
            write()
    journal.close()


def test_resources_are_plain_messagepack(tmp_path):
    """For people who look into the file, and for later versions."""
    journal = LeaseJournal.open(tmp_path, T0)
    journal.bound(lease(cores=2.5))
    journal.close()
    ((_, host, port, resources, *_, state, _, _, price, began),) = rows(tmp_path)
    assert (price, began) == (None, 0.0)
    assert (host, port, state) == (*OWNER, "bound")
    assert msgspec.msgpack.decode(resources) == {"cores": 2.5}
