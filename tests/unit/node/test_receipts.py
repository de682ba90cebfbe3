"""The log of leases: written in order by a thread, bounded, verified, and added up."""

import asyncio

import msgspec
import pytest

from dhtos.errors import ConfigError
from dhtos.node import receipts as module
from dhtos.node.audit import AuditLog, read_audit
from dhtos.node.receipts import ReceiptBook, facts_of, read_receipts, receipt_of, sums
from dhtos.protocol.receipts import Settled
from dhtos.trust.keys import KeyPair
from dhtos.trust.receipt import (
    Receipt,
    amounts,
    lease_hash,
    sign_as_host,
    sign_as_owner,
    write_receipt,
)

HOST, ALICE, BOB = (KeyPair(bytes([n]) * 32) for n in range(3))
CLUSTER = b"c" * 20
USERS = {"alice": ALICE, "bob": BOB}


def facts(number=0, *, user="alice", signed=True, role="host", **changes):
    """An event of the log."""
    key = USERS[user]
    receipt = Receipt(
        lease_hash(bytes([number]) * 16),
        b"n" * 20,
        user,
        key.public,
        amounts({"cores": 2.0, "mem": 2.0**30}),
        1000.0 + number,
        1100.0 + number,
        0.36,
        5.0,
        2.0**30,
    )
    receipt = msgspec.structs.replace(receipt, **changes)
    wire = write_receipt(receipt)
    settled = Settled(receipt, HOST.public, sign_as_host(HOST, CLUSTER, wire))
    if signed:
        owner = sign_as_owner(key, CLUSTER, wire)
        settled = Settled(receipt, HOST.public, settled.host, key.public, owner)
    return {"role": role, "cluster": CLUSTER.hex(), **facts_of(settled)}


def kept(directory, *events):
    """Write events down as a node does."""

    async def main():
        book = ReceiptBook(directory, lambda: 5.0)
        await book.open()
        for event in events:
            book.note("receipt", **event)
        await asyncio.gather(book.flush(), book.flush())
        return book

    return asyncio.run(main())


def test_what_is_kept_is_read_again(tmp_path):
    events = [facts(n) for n in range(3)]
    assert kept(tmp_path, *events).failures == 0
    found = list(read_receipts(tmp_path))
    assert [entry["number"] for entry in found] == [1, 2, 3]
    assert [receipt_of(entry) for entry in found] == [receipt_of(event) for event in events]
    kept(tmp_path, facts(3))
    assert len(list(read_receipts(tmp_path))) == 4


def test_without_a_directory_nothing_is_kept():
    assert kept(None, facts()).failures == 0


def test_a_disk_that_is_full_costs_events_only(tmp_path, monkeypatch):
    def full(_self, _events):
        raise ConfigError("receipts.jsonl cannot be written: no space")

    monkeypatch.setattr(AuditLog, "extend", full)
    assert kept(tmp_path, facts(), facts(1)).failures == 2
    monkeypatch.setattr(module, "_WAITING_MAX", 1)
    assert kept(tmp_path, facts(), facts(1)).failures == 2


def test_sums_are_of_each_user_and_side(tmp_path):
    events = [facts(0), facts(1, signed=False), facts(2, role="owner"), facts(3, user="bob")]
    kept(tmp_path, *events)
    entries = list(read_receipts(tmp_path))
    alice, had, bob = sums(entries)
    assert (alice.user, alice.role, alice.leases, alice.signed) == ("alice", "host", 2, 1)
    assert (alice.seconds, alice.cpu_s, alice.memory_byte_s) == (200.0, 10.0, 2.0**31)
    assert alice.cost == pytest.approx(0.02)
    assert alice.amount_s == {"cores": 400.0, "mem": 200.0 * 2**30}
    assert (had.role, had.leases, bob.user, bob.leases) == ("owner", 1, "bob", 1)
    assert [one.user for one in sums(entries, user="bob")] == ["bob"]
    assert [one.leases for one in sums(entries, since=1101.0)] == [1, 1, 1]
    assert sums(entries, since=2000.0) == []


@pytest.mark.parametrize("what", ["cpu_s", "ended", "price"])
def test_a_log_that_was_written_anew_has_not_the_signatures(tmp_path, what):
    """Hashes are no secret: who owns the file can make it follow."""
    for signed in (True, False):
        event = facts(signed=signed)
        event[what] += 1.0
        home = tmp_path / str(signed)
        home.mkdir()
        kept(home, event)
        with pytest.raises(ConfigError, match="a signature of line 1 is wrong"):
            list(read_receipts(home))


def test_a_log_with_a_bound_goes_on_in_another_file(tmp_path):
    log = AuditLog(tmp_path, lambda: 1.0, bytes_max=2000)
    for n in range(100):
        log.append("admitted", name=f"n{n}")
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 2000 + 1000
    found = list(read_audit(tmp_path))
    numbers = [entry["number"] for entry in found]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert found[0]["what"] == "continued"
    assert found[-1]["name"] == "n99"
    log = AuditLog(tmp_path, lambda: 1.0, bytes_max=2000)
    log.append("admitted", name="again")
    assert next(iter(reversed(list(read_audit(tmp_path)))))["number"] == numbers[-1] + 1


@pytest.mark.parametrize("which", ["audit.before.jsonl", "audit.jsonl"])
def test_no_file_of_a_log_can_be_changed_or_exchanged(tmp_path, which):
    log = AuditLog(tmp_path, lambda: 1.0, bytes_max=2000)
    for n in range(40):
        log.append("admitted", name=f"n{n}")
    path = tmp_path / which
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(ConfigError, match=f"{which} was changed: line 4"):
        list(read_audit(tmp_path))
    if which == "audit.before.jsonl":
        path.write_bytes(b"".join(lines[:-1]))
        with pytest.raises(ConfigError, match=r"audit.jsonl was changed: line 1"):
            list(read_audit(tmp_path))
