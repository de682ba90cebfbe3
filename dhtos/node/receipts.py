"""What a node of a cluster writes down of leases: those it grants, and the receipts of both sides.

`receipts.jsonl` in the state directory is a log like that of admissions (`dhtos.node.audit`), with
a bound; on the machine of a user without a node it is beside the user's key. Its events:

    leased     the node has granted a lease: to whom, of what, at what price
    receipt    one has ended; `role` says whether this is the machine's copy or the owner's

Events are written by a thread, in their order, while the node goes on; what waits is written at the
end. A disk that is full costs events, and no leases.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dhtos.core.limits import RECEIPT_WAIT_S, RECEIPTS_BYTES_MAX
from dhtos.errors import Closed, ConfigError
from dhtos.node.audit import AuditLog, read_audit
from dhtos.node.background import Background
from dhtos.protocol.ledger import Grant
from dhtos.protocol.receipts import Receipts, Settled
from dhtos.trust.receipt import (
    Receipt,
    amounts,
    is_signed_by_host,
    is_signed_by_owner,
    lease_hash,
    write_receipt,
)

if TYPE_CHECKING:
    from dhtos.node.node import Node

NAME = "receipts.jsonl"
_WAITING_MAX = 1024  # events that wait for the disk


class ReceiptBook:
    """The log of one directory; without one nothing is kept."""

    def __init__(self, directory: Path | None, wall_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._directory = directory
        self._log: AuditLog | None = None
        self._waiting: list[dict[str, Any]] = []
        self._writing = asyncio.Lock()
        self.failures = 0  # events that could not be written down

    async def open(self) -> None:
        """Take over what is there; raises ConfigError for a log that was changed."""
        directory = self._directory
        if directory is not None:
            self._log = await asyncio.to_thread(
                AuditLog, directory, self._wall_s, name=NAME, bytes_max=RECEIPTS_BYTES_MAX
            )

    def note(self, what: Literal["leased", "receipt"], **facts: object) -> None:
        """Have something written down at the next `flush`."""
        if self._log is not None:
            if len(self._waiting) >= _WAITING_MAX:
                self.failures += 1
            else:
                self._waiting.append({"at": self._wall_s(), "what": what, **facts})

    async def flush(self) -> None:
        """Write down what waits."""
        async with self._writing:
            events, self._waiting = self._waiting, []
            if events and self._log is not None:
                try:
                    await asyncio.to_thread(self._log.extend, events)
                except ConfigError:
                    self.failures += len(events)


class ReceiptKeeper:
    """Receipts of one node: offered when its leases end, signed for leases of its own, kept."""

    def __init__(self, node: "Node", book: ReceiptBook, wall_s: Callable[[], float]) -> None:
        self._node = node
        self.book = book
        self._wall_s = wall_s
        self._tasks = Background()
        self._closing = False
        self.receipts = Receipts(node.engine.core)
        self.receipts.on_signed = lambda settled: self._keep(settled, "owner")

    def follow(self) -> None:
        """Hear of the leases that this node grants."""
        grants = self._node.grants
        grants.on_bound = self._on_bound
        grants.on_over = self._on_over

    def _on_bound(self, grant: Grant, _now: float) -> None:
        lease = lease_hash(grant.token).hex()
        facts = {"user": grant.user, "subject": grant.subject.hex(), "price": grant.price}
        self.book.note("leased", lease=lease, resources=dict(grant.resources), **facts)
        self._spawn_flush()

    def _on_over(self, grant: Grant, _now: float) -> None:
        if grant.subject and grant.began and not self._closing:
            self._tasks.spawn(self._settle(grant, self._wall_s()))

    async def _settle(self, grant: Grant, ended: float) -> None:
        """Have the receipt of a lease signed once nothing runs under it any more, and keep it."""
        node, settled = self._node, None
        try:
            await node.command_gone(grant.token)
            settled = self.receipts.alone(self._receipt(grant, ended))
            now = node.driver.clock()
            settled = await node.driver.wait(self.receipts.offer(settled, grant.owner, now))
        except Closed:
            pass  # nobody can be asked any more: it is signed by us alone
        finally:
            self._keep(settled or self.receipts.alone(self._receipt(grant, ended)), "host")

    def _receipt(self, grant: Grant, ended: float) -> Receipt:
        cpu_s, memory_byte_s = self._used(grant)
        return Receipt(
            lease_hash(grant.token),
            self._node.engine.id,
            grant.user,
            grant.subject,
            amounts(grant.resources),
            grant.began,
            max(ended, grant.began),
            grant.price,
            cpu_s,
            memory_byte_s,
        )

    def _used(self, grant: Grant) -> tuple[float, float]:
        """Processor time, and memory for how long, of the commands under a lease."""
        label = f"{self._node.id}-{grant.fence}"
        rows = [row for row in self._node.usage() if row.lease == label]
        cpu_s = sum((row.user_s + row.system_s for row in rows), 0.0)  # never a whole number
        return cpu_s, sum((row.memory_bytes * row.wall_s for row in rows), 0.0)

    def _keep(self, settled: Settled, role: Literal["host", "owner"]) -> None:
        cluster = self.receipts.sessions.member.root.hex()
        self.book.note("receipt", role=role, cluster=cluster, **facts_of(settled))
        self._spawn_flush()

    def _spawn_flush(self) -> None:
        if not self._closing:
            self._tasks.spawn(self.book.flush())

    async def _wait(self) -> None:
        """Give the machines whose leases we have just given up a moment for their receipts."""
        driver, receipts = self._node.driver, self.receipts
        if receipts.owed(driver.clock()):
            try:
                async with asyncio.timeout(RECEIPT_WAIT_S):
                    await driver.until(lambda: not receipts.owed(driver.clock()))
            except TimeoutError:
                pass

    async def aclose(self) -> None:
        """Write down what is left; whoever has not answered by now has not signed."""
        await self._wait()
        self._closing = True
        await self._tasks.aclose()
        await self.book.flush()


def facts_of(settled: Settled) -> dict[str, Any]:
    """A receipt as the log says it."""
    receipt = settled.receipt
    return {
        "lease": receipt.lease.hex(),
        "node": receipt.node_id.hex(),
        "user": receipt.user,
        "subject": receipt.subject.hex(),
        "resources": dict(receipt.resources),
        "began": receipt.began,
        "ended": receipt.ended,
        "price": receipt.price,
        "cpu_s": receipt.cpu_s,
        "memory_byte_s": receipt.memory_byte_s,
        "host_key": settled.host_key.hex(),
        "host": settled.host.hex(),
        "owner_key": settled.owner_key.hex(),
        "owner": settled.owner.hex(),
        "declined": settled.declined,
    }


# --- what is written ------------------------------------------------------------------------------


class Sums(NamedTuple):
    """What somebody has had, by the receipts of one log."""

    user: str
    role: str  # whose log it is: the machine's, or the owner's of the leases
    leases: int
    signed: int  # by both
    seconds: float
    cpu_s: float
    memory_byte_s: float
    cost: float
    amount_s: dict[str, float]  # of each resource, for how long


def read_receipts(directory: Path) -> Iterator[dict[str, Any]]:
    """The events of a directory's log, each verified, with its signatures; raises ConfigError."""
    for entry in read_audit(directory, NAME):
        if entry["what"] == "receipt":
            _check_signatures(directory / NAME, entry)
        yield entry


def receipt_of(entry: dict[str, Any]) -> Receipt:
    """The receipt that an event of the log tells of."""
    return Receipt(
        bytes.fromhex(entry["lease"]),
        bytes.fromhex(entry["node"]),
        entry["user"],
        bytes.fromhex(entry["subject"]),
        amounts(entry["resources"]),
        entry["began"],
        entry["ended"],
        entry["price"],
        entry["cpu_s"],
        entry["memory_byte_s"],
    )


def _check_signatures(path: Path, entry: dict[str, Any]) -> None:
    wire, cluster = write_receipt(receipt_of(entry)), bytes.fromhex(entry["cluster"])
    host_key, host, owner_key, owner = (
        bytes.fromhex(entry[name]) for name in ("host_key", "host", "owner_key", "owner")
    )
    by_host = is_signed_by_host(host_key, cluster, wire, host)
    by_owner = not owner or is_signed_by_owner(owner_key, cluster, wire, owner)
    if not by_host or not by_owner:
        raise ConfigError(f"{path} was changed: a signature of line {entry['number']} is wrong")


def sums(entries: Iterable[dict[str, Any]], *, user: str = "", since: float = 0.0) -> list[Sums]:
    """What each user has had of leases that ended since then, by name."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        recent = entry["what"] == "receipt" and entry["ended"] >= since
        if recent and user in ("", entry["user"]):
            found.setdefault((entry["user"], entry["role"]), []).append(entry)
    return [_sums(*key, found[key]) for key in sorted(found)]


def _sums(user: str, role: str, entries: list[dict[str, Any]]) -> Sums:
    receipts = [receipt_of(entry) for entry in entries]
    amount_s: dict[str, float] = {}
    for one in receipts:
        for name, amount in one.resources:
            amount_s[name] = amount_s.get(name, 0.0) + amount * one.seconds
    return Sums(
        user,
        role,
        len(receipts),
        sum(bool(entry["owner"]) for entry in entries),
        sum(one.seconds for one in receipts),
        sum(one.cpu_s for one in receipts),
        sum(one.memory_byte_s for one in receipts),
        sum(one.cost for one in receipts),
        amount_s,
    )
