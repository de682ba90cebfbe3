"""A group under any sequence of calls, against a plain model of what it should hold."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dhtos.core.group import Group, State, bin_count, differing_bins
from dhtos.core.ids import ID_BITS, Prefix
from dhtos.core.limits import NODE_TTL_S
from dhtos.core.machine_schema import MACHINE_SCHEMA
from dhtos.core.record import Record, make_record

OWN = bytes.fromhex("5a" * 20)
SIZE = 8

RECORDS = {
    (seq, flavour): make_record(
        MACHINE_SCHEMA,
        {"cores": 2, "load1": float(flavour)},
        {},
        node_id=bytes(20),
        endpoint=("10.0.0.1", 7400),
        seq=seq,
        rev=1,
    )
    for seq in range(1, 7)
    for flavour in range(3)
}


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    """Keys that often share many bits with OWN."""
    share = draw(st.integers(0, 5))
    tail = draw(st.integers(0, 6))
    free = ID_BITS - 1 - share
    value = (int.from_bytes(OWN) >> free ^ 1) << free | tail
    return value.to_bytes(20)


records = st.sampled_from(sorted(RECORDS)).map(RECORDS.__getitem__)
others = keys().filter(lambda key: key != OWN)


@dataclass
class Seen:
    """What the model remembers of one key."""

    record: Record
    born: float
    suspect: bool = False


@dataclass
class Buried:
    """A version the model knows to be gone."""

    seq: int
    state: State
    since: float


class GroupMachine(RuleBasedStateMachine):
    """Random calls; the model is two dicts and the rules in words."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group(OWN, SIZE)
        self.members: dict[bytes, Seen] = {}
        self.buried: dict[bytes, Buried] = {}
        self.depth = 0
        self.now = 1000.0
        self.put(OWN, RECORDS[1, 0], 0.0)

    @property
    def prefix(self) -> Prefix:
        return Prefix.of(OWN, self.depth)

    @rule(step=st.sampled_from([0.0, 1.0, 100.0, 500.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(key=keys(), record=records, age=st.sampled_from([0.0, 5.0, 170.0, NODE_TTL_S + 1]))
    def put(self, key: bytes, record: Record, age: float) -> None:
        """News is: inside, young enough, newer than the grave, newer than what is held."""
        born = self.now - age
        grave, held = self.buried.get(key), self.members.get(key)
        news = self.prefix.holds(key) and age <= NODE_TTL_S
        news = news and (grave is None or record.seq > grave.seq)
        tie = held is not None and held.record.seq == record.seq and held.record != record
        if held is not None:
            news = news and record.seq >= held.record.seq and held.record != record
        got = self.group.put(key, record, born, self.now)
        if news and tie:
            # Which of two contents wins is a hash; the machine only asks that it is a fixed one.
            assert held is not None
            mirror = Group(key, SIZE)
            mirror.put(key, record, born, self.now)
            assert mirror.put(key, held.record, born, self.now) is not got
        else:
            assert got == news
        if got:
            self.buried.pop(key, None)
            self.members[key] = Seen(record, born)

    @rule(key=others, seq=st.integers(1, 7), state=st.sampled_from([State.DEAD, State.LEFT]))
    def bury(self, key: bytes, seq: int, state: State) -> None:
        grave, held = self.buried.get(key), self.members.get(key)
        if grave is not None:
            news = (seq, state) > (grave.seq, grave.state)
        elif held is not None:
            news = seq >= held.record.seq
        else:
            news = self.prefix.holds(key)
        assert self.group.bury(key, seq, state, self.now) == news
        if news:
            self.members.pop(key, None)
            self.buried[key] = Buried(seq, state, self.now)

    @rule(key=keys(), seq=st.integers(1, 7))
    def suspect(self, key: bytes, seq: int) -> None:
        held = self.members.get(key)
        news = held is not None and not held.suspect and held.record.seq <= seq
        assert self.group.suspect(key, seq) == news
        if news:
            assert held is not None
            held.suspect = True

    @rule(more=st.integers(0, 2))
    def narrow(self, more: int) -> None:
        wanted = min(self.depth + more, 12)
        while self.depth < wanted or len(self._inside(self.depth)) > SIZE:
            self.depth += 1
        outside = self.group.narrow(wanted)
        inside = self._inside(self.depth)
        assert {member.key for member in outside} == self.members.keys() - inside
        assert all(member.record == self.members[member.key].record for member in outside)
        self.members = {key: self.members[key] for key in inside}
        self.buried = {k: grave for k, grave in self.buried.items() if self.prefix.holds(k)}

    @precondition(lambda self: self.depth)
    @rule()
    def widen(self) -> None:
        self.depth -= 1
        self.group.widen()

    @rule()
    def expire(self) -> None:
        stale = {
            key
            for key, held in self.members.items()
            if self.now - held.born > NODE_TTL_S and key != OWN
        }
        assert {member.key for member in self.group.expire(self.now)} == stale
        for key in stale:
            del self.members[key]
        self.buried = {
            key: grave for key, grave in self.buried.items() if self.now - grave.since <= NODE_TTL_S
        }

    def _inside(self, depth: int) -> set[bytes]:
        return {key for key in self.members if Prefix.of(OWN, depth).holds(key)}

    @invariant()
    def the_group_is_as_the_model_says(self) -> None:
        group = self.group
        group.check()
        assert group.prefix == self.prefix
        assert len(group) == len(self.members)
        assert list(group.members) == sorted(self.members)
        for key, held in self.members.items():
            member = group.members[key]
            assert (member.record, member.born) == (held.record, held.born)
            assert (member.state is State.SUSPECT) == held.suspect
        graves = {key: (g.seq, g.state, g.since) for key, g in self.buried.items()}
        assert {k: (t.seq, t.state, t.since) for k, t in group.tombstones.items()} == graves

    @invariant()
    def whoever_holds_the_same_computes_the_same(self) -> None:
        """A second group, filled at once and one bit narrower, agrees where both look."""
        mirror = Group(OWN, SIZE)
        mirror.put(OWN, self.members[OWN].record, self.now, self.now)
        mirror.narrow(self.depth)
        for key in sorted(self.members, reverse=True):
            mirror.put(key, self.members[key].record, self.now, self.now)
        assert mirror.hash == self.group.hash
        narrower = Prefix.of(OWN, self.depth + 1)
        count = bin_count(len(self.group))
        for prefix in (self.prefix, narrower, narrower.sibling()):
            assert mirror.view_hash(prefix) == self.group.view_hash(prefix)
            ours, theirs = self.group.bins(prefix, count), mirror.bins(prefix, count)
            assert differing_bins(ours, theirs) == set()
            inside = [key for key in sorted(self.members) if prefix.holds(key)]
            assert [member.key for member in self.group.under(prefix)] == inside
            every_bin = set(range(count))
            assert [m.key for m in self.group.in_bins(prefix, count, every_bin)] == inside


GroupMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestGroup = GroupMachine.TestCase
