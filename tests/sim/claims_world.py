"""A world for claims: a few machines, many who want a part of them, and all that can go wrong.

The machines and the schedulers are real engines with the two sides of a claim attached, as a node
does it. Their clocks have no common zero and run at speeds of their own; the journal of a machine
is what survives its crash. `Believing` is the property that all of it is for: what owners believe
is theirs at one moment, summed up for each machine, is never more than the machine has.
"""

from dataclasses import replace
from functools import partial

from dhtos.core.limits import HOLD_S
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import make_record
from dhtos.errors import Preempted
from dhtos.node.journal import LeaseJournal
from dhtos.protocol.claims import Bid, Claiming, Tenants
from dhtos.protocol.engine import Engine
from dhtos.protocol.grants import Grants
from dhtos.protocol.ledger import Ledger, NotWritten, Reason, State
from dhtos.protocol.operation import Finished
from dhtos.sim import Cluster
from dhtos.sim.checkers import Checker
from dhtos.sim.node import NodeState

SCHEMA = MACHINE_SCHEMA
CORES = 8
DRIFT = 0.001  # clocks that a server slews are off by at most half of this each
TERMS = (1.0, 2.0, 5.0, 20.0)
QUIET_S = 2 * max(TERMS) + HOLD_S + 5.0  # by then whatever was left behind has run out


class Paper:
    """The journal of one machine, which outlives its engines; the disk may be full."""

    def __init__(self):
        self.leases = {}
        self.epoch = 0
        self.full = False
        self.last_fence = 0

    def bound(self, grant):
        if grant.state is State.BOUND:
            assert grant.fence > self.last_fence, "a fence came twice"
            self.last_fence = grant.fence
        if self.full:
            raise NotWritten("disk full")
        self.leases[grant.token] = grant

    def ended(self, token):
        if self.full:
            raise NotWritten("disk full")
        self.leases.pop(token, None)

    def restored(self, now):
        """What a start finds: every lease for one more term."""
        self.epoch += 1
        return [replace(grant, expires=now + grant.ttl_s) for grant in self.leases.values()]


class Disk(Paper):
    """The same, and in a real file as well."""

    def __init__(self, directory):
        super().__init__()
        directory.mkdir()
        self.directory = directory
        self.file = LeaseJournal.open(directory, 0.0)

    def bound(self, grant):
        super().bound(grant)
        self.file.bound(grant)

    def ended(self, token):
        super().ended(token)
        self.file.ended(token)

    def restored(self, now):
        """What the file says, which is what was written."""
        expected = super().restored(now)
        self.file.close()
        self.file = LeaseJournal.open(self.directory, now)
        self.epoch = self.file.epoch
        assert sorted(self.file.leases, key=_token_of) == sorted(expected, key=_token_of)
        return self.file.leases


def _token_of(grant):
    return grant.token


class Machine:
    """An engine by a clock of its own speed, and the sides of a claim that it plays."""

    def __init__(self, node, now, *, rate, journal):
        self.rate = rate
        self.engine = Engine(node.id, rng=node.rng, now=now * rate, schema=SCHEMA)
        self.tenants = Tenants(self.engine.core)
        self.grants = None
        if journal is not None:
            bound = journal.restored(now * rate)
            ledger = Ledger(epoch=journal.epoch, bound=bound, journal=journal)
            self.grants = Grants(self.engine.hub, ledger)
            said = {"cores": CORES, **self.grants.offer({"cores": CORES}, {"cores": None})}
            self.engine.hub.advertise(
                make_record(SCHEMA, said, {}, node_id=node.id, endpoint=node.endpoint, seq=1),
                now * rate,
            )

    def receive(self, datagram, source, now):
        self.engine.receive(datagram, source, now * self.rate)

    def tick(self, now):
        self.engine.tick(now * self.rate)

    def next_deadline(self):
        return self.engine.next_deadline() / self.rate

    def outbox(self):
        return self.engine.outbox()

    def events(self):
        return self.engine.events()

    def check(self):
        self.engine.check()
        self.tenants.check()
        if self.grants is not None:
            self.grants.check()


class Believing(Checker):
    """No two owners believe in the same part of a machine, and it is set aside for who does."""

    def __init__(self, world):
        self.world = world
        self.highest = 0

    def inspect(self, now, nodes):
        for machine, leases in enumerate(self.world.believed):
            cores = 0
            for lease in tuple(leases):
                if lease.over():
                    leases.discard(lease)
                elif lease.stands(now):
                    cores += lease.cores
                    ledger = nodes[machine].engine.grants.ledger
                    assert lease.token in ledger._grants, (
                        f"{lease.owner!r} believes in a lease of which {nodes[machine]!r} is rid"
                    )
            self.highest = max(self.highest, cores)
            assert cores <= CORES, f"{nodes[machine]!r} is granted {cores} of {CORES} cores"


class Held:
    """A lease as its owner sees it."""

    def __init__(self, owner, tenancy, cores):
        self.owner, self.tenancy, self.cores = owner, tenancy, cores
        self.incarnation = owner.incarnation
        self.token = tenancy.granted.token

    def over(self):
        """Its owner has given it up, or has died; who is preempted may use it to the end."""
        dead = self.owner.state is NodeState.DOWN or self.owner.incarnation != self.incarnation
        return dead or self.token not in self.owner.engine.tenants.kept

    def stands(self, now):
        local = (now + self.owner.offset_s) * self.owner.engine.rate
        return local < self.tenancy.expires


class World:
    """Machines first, schedulers after them; `run` lets them race."""

    def __init__(self, seed, *, machines=3, schedulers=5, replay=None, directory=None, **options):
        self.machines = machines
        self.papers = [
            Paper() if directory is None else Disk(directory / f"{number}")
            for number in range(machines)
        ]
        self.believed = [set() for _ in range(machines)]
        self.claims = self.granted = self.lost = self.preempted = 0
        self.open = {}  # claims by their operation: who asked
        self.kept = {}  # leases by their operation
        self.believing = Believing(self)
        self.rates = {}
        self.cluster = Cluster(
            self._build, seed=seed, checkers=[self.believing], replay=replay, **options
        )
        self.cluster.on_event = self._happened
        self.rng = self.cluster.stream("race")
        self.cluster.add(machines + schedulers)
        self.hosts = self.cluster.nodes[:machines]
        self.schedulers = self.cluster.nodes[machines:]

    def _build(self, node, now):
        rate = self.rates.setdefault(node.index, 1 + node.rng.uniform(-1, 1) * DRIFT / 2)
        journal = self.papers[node.index] if node.index < self.machines else None
        return Machine(node, now, rate=rate, journal=journal)

    def begin(self, node, action):
        """Call `action(machine, now)` by the node's own clock."""
        return self.cluster.begin(node, lambda e, now: action(e, now * e.rate))

    # --- what schedulers do -----------------------------------------------------------------------

    def claim(self, node, hosts, cores, ttl_s, *, priority=0, preempt=False):
        """Ask some machines for so many cores, one after the other."""
        bids = [
            Bid(
                host.id, host.endpoint, {"cores": cores}, SCHEMA.tag,
                priority=priority, preempt=preempt,
            )
            for host in hosts
        ]  # fmt: skip
        operation = self.begin(
            node, lambda e, now: Claiming(e.engine.core, bids, ttl_s, now).operation
        )
        self.claims += 1
        self.open[operation] = node, cores, node.incarnation
        return operation

    def _happened(self, node, event):
        if not isinstance(event, Finished):
            return
        if event.operation in self.open:
            _, cores, _ = self.open.pop(event.operation)
            if event.operation.error is None and event.operation.result().granted is not None:
                self._keep(node, event.operation.result().granted, cores)
        elif event.operation in self.kept:
            del self.kept[event.operation]
            preempted = isinstance(event.operation.error, Preempted)
            self.preempted += preempted
            self.lost += event.operation.error is not None and not preempted

    def _keep(self, node, granted, cores):
        self.granted += 1
        tenancy = node.engine.tenants.keep(granted, self.cluster.local(node) * node.engine.rate)
        self.kept[tenancy.operation] = tenancy
        host = self.cluster.network.at(granted.endpoint)
        self.believed[host.index].add(Held(node, tenancy, cores))
        after_s = self.rng.expovariate(1 / (0.3 if self.rng.random() < 0.8 else 8.0))
        release = partial(self._release, node, tenancy, node.incarnation)
        self.cluster.call_at(self.cluster.now + after_s, release)

    def _release(self, node, tenancy, incarnation):
        if node.up and node.incarnation == incarnation:
            self.begin(node, lambda _, now: tenancy.release(now))

    def _cancel(self, node, operation, incarnation):
        if node.up and node.incarnation == incarnation and not operation.done:
            self.begin(node, lambda _, now: operation.cancel(now))

    def race(self, duration_s, *, pause_s=0.2):
        """Let all claim again and again, machines too, also of themselves; live through it."""
        end = self.cluster.now + duration_s
        for node in self.cluster.nodes:
            self._plan(node, end, pause_s)
        self.cluster.run_for(duration_s)

    def _plan(self, node, end, pause_s):
        when = self.cluster.now + self.rng.expovariate(1 / pause_s)
        if when < end:
            self.cluster.call_at(when, partial(self._act, node, end, pause_s))

    def _act(self, node, end, pause_s):
        self._plan(node, end, pause_s)
        rng = self.rng
        hosts = rng.sample(self.hosts, rng.randint(1, len(self.hosts)))
        cores, ttl_s = rng.choice((1, 1, 2, 3, CORES)), rng.choice(TERMS)
        hurried, delay_s = rng.random() < 0.05, rng.uniform(0, 0.3)
        priority, preempt = rng.choice((0, 0, 0, 1, 2)), rng.random() < 0.3
        if not node.up:
            return
        operation = self.claim(node, hosts, cores, ttl_s, priority=priority, preempt=preempt)
        if hurried:
            cancel = partial(self._cancel, node, operation, node.incarnation)
            self.cluster.call_at(self.cluster.now + delay_s, cancel)

    # --- what machines do -------------------------------------------------------------------------

    def meddle(self, duration_s, *, every_s=1.0):
        """Take leases back, drain, fill disks: one of these at one machine every so often."""
        when = self.cluster.now
        while (when := when + self.rng.expovariate(1 / every_s)) < self.cluster.now + duration_s:
            self.cluster.call_at(when, partial(self._meddle, self.rng.choice(self.hosts)))

    def _meddle(self, host):
        paper, number = self.papers[host.index], self.rng.randrange(6)
        soon = self.cluster.now + self.rng.expovariate(1 / 2.0)
        if number == 0:
            paper.full = True
            self.cluster.call_at(soon, partial(setattr, paper, "full", False))
        elif host.up and number == 1:
            self.begin(host, lambda e, now: e.grants.drain(now, revoke=self.rng.random() < 0.5))
            self.cluster.call_at(soon, partial(self._undrain, host))
        elif host.up and (grants := host.engine.grants.ledger.grants()):
            token = self.rng.choice(grants).token
            self.begin(host, lambda e, now: e.grants.revoke(token, Reason.GONE, now))

    def _undrain(self, host):
        if host.up:
            self.begin(host, lambda e, _: e.grants.undrain())

    # --- the end ----------------------------------------------------------------------------------

    def expect_whole(self):
        """After a quiet while nothing is left of anything, and every machine is free again."""
        for host in self.hosts:
            self.papers[host.index].full = False
            self._undrain(host)
        for node in self.cluster.up():
            self.begin(node, lambda e, now: e.tenants.release(now))
        self.cluster.run_for(QUIET_S)
        self._expect_free()
        # What a full disk could not strike out comes back with a start, for one term.
        self.cluster.crash(self.hosts)
        self.cluster.restart(self.hosts)
        self.cluster.run_for(QUIET_S)
        self._expect_free()
        for host in self.hosts:
            paper = self.papers[host.index]
            self.cluster.expect(not paper.leases, f"{host!r} has written {paper.leases}")

    def _expect_free(self):
        for node in self.cluster.nodes:
            self.cluster.expect(node.up, f"{node!r} is up again")
            self.cluster.expect(not node.engine.tenants.kept, f"{node!r} keeps leases")
            self.cluster.expect(not len(node.engine.engine.core.calls), f"{node!r} still asks")
        dead = [op for op, (node, _, life) in self.open.items() if node.incarnation == life]
        self.cluster.expect(not dead, f"{len(dead)} claims have not ended")
        for host in self.hosts:
            ledger = host.engine.grants.ledger
            self.cluster.expect(not len(ledger), f"{host!r} still owes {ledger.grants()}")
            self.cluster.expect(ledger.free() == {"cores": CORES}, f"{host!r}: {ledger.free()}")
        self.cluster.check()
