"""A world for replicas: real nodes in virtual time that grant, die, drain and are cut off.

The machines and the owner are whole `dhtos.Node`s on one simulated network; only their random
numbers come from the seed, those of the operating system included, so that one seed is one story.
`Counting` is the property that all of it is for: never more leases are believed in than wanted,
each by its machine too unless that is dead, and no machine is believed to hold more than it has.
"""

import asyncio
from collections import Counter

import dhtos
from dhtos import Need
from dhtos.errors import DhtosError
from dhtos.sim import Cluster, EchoEngine, run, sockets
from dhtos.sim.checkers import Checker

CORES = 4
SITES = 4
NEED = Need(cores=2, where="cores >= 1")


class Counting(Checker):
    """What the owner believes in, after every moment."""

    def __init__(self, world):
        self.world = world
        self.highest = 0

    def inspect(self, now, nodes):
        world = self.world
        if world.owner is None or world.owner._tenants is None:
            return
        kept = world.owner._tenants.kept.values()
        clock = world.owner.driver.clock() if not world.owner._driver.closed else now
        believed = [one for one in kept if one.expires > clock]
        count = sum(not one.operation.done for one in believed)  # the others wind up
        self.highest = max(self.highest, count)
        assert count <= world.most, f"{count} leases where {world.most} are wanted"
        held = Counter()
        for one in believed:
            held[one.granted.node_id] += one.granted.resources["cores"]
            machine = world.machines.get(one.granted.node_id)
            if machine is not None:
                granted = machine.grants.ledger._grants  # those taken back, too, for their term
                assert one.granted.token in granted, "believed in, but not promised any more"
        assert all(cores <= CORES for cores in held.values()), held


class World:
    """Machines of some sites, one owner, and what may happen to them."""

    def __init__(self, seed, monkeypatch, *, machines=8, replay=None, **options):
        self.owner = None
        self.machines = {}  # those that run, by their id
        self.most = 0
        self.count = machines
        self.counting = Counting(self)
        self.cluster = Cluster(
            lambda node, now: EchoEngine(),
            seed=seed, replay=replay, checkers=[self.counting], **options,
        )  # fmt: skip
        self.rng = self.cluster.stream("story")
        self.started = 0
        monkeypatch.setattr("os.urandom", self.cluster.stream("system").randbytes)

    def run(self, program):
        """Run `program(self)` in a fleet that has found together, and close everything."""

        async def whole():
            self.seed = first = await self.start()
            for _ in range(self.count - 1):
                await self.start(first)
            # A member, which grants nothing: a light client forgets a fleet that is replaced.
            self.owner = self._node(first, advertise={"site": "office"})
            await self.owner.start()
            await self.owner.joined()
            await self.seen(self.count)
            try:
                return await program(self)
            finally:
                for node in [self.owner, *self.machines.values()]:
                    await node.aclose()

        return run(self.cluster, whole(), limit_s=5000.0)

    def _node(self, *seeds, **options):
        config = dhtos.Config(
            seeds=[node.endpoint for node in seeds], control=False, sample=False, **options
        )
        self.started += 1
        return dhtos.Node(
            config,
            rng=self.cluster.stream(f"program/{self.started}"),
            wall_clock=lambda: 1e9,
            open_socket=sockets(self.cluster),
        )

    async def start(self, *seeds, cores=CORES):
        """One more machine; they take the sites in turn."""
        site = f"s{self.started % SITES}"
        node = self._node(*seeds, advertise={"cores": cores, "site": site})
        await node.start()
        await node.joined()
        self.machines[bytes(node.id)] = node
        return node

    async def seen(self, count):
        """Wait until the owner can find so many machines."""
        while await self.owner.count("cores >= 1") != count:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(0.5)

    def guest(self, node):
        """The machine of a node in the cluster."""
        host, _, port = node.endpoint.rpartition(":")
        return self.cluster.network.at((host, int(port)))

    def on(self, lease):
        """The machine that granted a lease."""
        return self.machines[bytes(lease.node)]

    async def kill(self, node):
        """Take its power: nobody hears of it again."""
        del self.machines[bytes(node.id)]
        self.cluster.crash([self.guest(node)])
        await node.aclose()

    async def free(self):
        """Wait until no machine owes anything."""
        while any(node.leases() for node in self.machines.values()):  # noqa: ASYNC110 - theirs
            await asyncio.sleep(0.1)

    async def full(self, replicas):
        """The moment when as many are alive as are wanted."""
        await replicas.settled(deadline_s=600.0)
        return self.cluster.now

    # --- a drawn story --------------------------------------------------------------------------

    async def meddle(self, duration_s, *, every_s):
        """Something happens every so often; all of it is over when this returns."""
        end = self.cluster.now + duration_s
        self.happened = Counter()
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.rng.expovariate(1 / every_s))
                if self.cluster.now >= end:
                    return
                deed = self.rng.choice(
                    (self._replace, self._drain, self._empty, self._revoke, self._cut, self._alone)
                )
                self.happened[deed.__name__] += 1
                group.create_task(deed(self.rng.uniform(0.5, 15.0)))

    def _one(self):
        return self.rng.choice(list(self.machines.values()))

    async def _replace(self, for_s):
        """A machine dies, and a while later another comes, through the one that all know."""
        node = self._one()
        if len(self.machines) > self.count // 2 and node is not self.seed:
            await self.kill(node)
            await asyncio.sleep(for_s)
            while True:
                try:
                    await self.start(self.seed)
                except DhtosError:  # that is cut off just now
                    await asyncio.sleep(1.0)
                else:
                    return

    async def _drain(self, for_s, *, revoke=False):
        node = self._one()
        await node.drain(revoke=revoke)
        await asyncio.sleep(for_s)
        if bytes(node.id) in self.machines:
            await node.undrain()

    async def _empty(self, for_s):
        await self._drain(for_s, revoke=True)

    async def _revoke(self, _for_s):
        node = self._one()
        for grant in node.leases()[:1]:
            await node.revoke(grant.token.hex())

    async def _cut(self, for_s):
        """Some machines are cut off from all others."""
        number = self.rng.randint(1, self.count // 3)
        away = self.rng.sample(list(self.machines.values()), min(number, len(self.machines)))
        await self._apart([self.guest(node) for node in away], for_s)

    async def _alone(self, for_s):
        """The owner is cut off from everybody."""
        await self._apart([self.guest(self.owner)], for_s)

    async def _apart(self, guests, for_s):
        name = f"cut {self.cluster.now}"
        self.cluster.network.cut(name, guests)
        await asyncio.sleep(for_s)
        self.cluster.network.heal(name)
