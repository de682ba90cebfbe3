"""The file that makes a node a member: what it must be, where it lies, and who may touch it."""

from pathlib import Path

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, Authority

from dhtos.errors import ConfigError, NoPeers
from dhtos.node.config import Config
from dhtos.node.keeper import Keeper
from dhtos.node.known import silence
from dhtos.node.membership import (
    NAME,
    WELCOMES,
    Membership,
    check_private,
    default_home,
    member_home,
    read_credentials,
    read_membership,
    read_welcomes,
    write_membership,
    write_welcomes,
)
from dhtos.node.state import Identity, StateDir
from dhtos.protocol.engine import Engine
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import Token
from dhtos.trust.welcome import make_welcome


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The directory of a member, that knows where to ask."""
    with StateDir(tmp_path) as state:
        identity = state.identity()
    chain = Authority().admit(KeyPair(identity.secret), "bench-7")
    write_membership(tmp_path, Membership(chain, ("10.0.0.1:7400", "[fe80::1]:7401")))
    return tmp_path


def wall() -> float:
    return float(BEGIN)


def identity_of(home: Path) -> Identity:
    with StateDir(home) as state:
        return state.identity()


def test_it_reads_back(home: Path) -> None:
    found = read_membership(home, identity_of(home))
    assert found is not None
    assert found.root == Authority().name
    assert found.seeds == ("10.0.0.1:7400", "[fe80::1]:7401")
    assert found.chain.leaf.name == "bench-7"
    assert (home / NAME).stat().st_mode & 0o777 == 0o600
    identity, shown = read_credentials(home)
    assert shown == found
    assert identity.node_id == found.chain.node_id()


async def test_what_a_token_named_is_asked_first(home: Path) -> None:
    keeper = await Keeper.open(home, wall)
    assert keeper.seeds == [("10.0.0.1", 7400), ("fe80::1", 7401)]
    assert keeper.contacts == []
    assert keeper.member(wall) is not None
    keeper.close()
    client = await Keeper.open(None, wall, home)
    assert client.seeds == keeper.seeds
    assert client.identity.node_id == keeper.identity.node_id
    assert (await Keeper.open(None, wall)).seeds == []


@pytest.mark.parametrize("days", [-2, 31])
def test_a_clock_that_is_wrong_is_named(home: Path, days: int) -> None:
    identity, membership = read_credentials(home)
    with pytest.raises(ConfigError, match=r"this node's certificate is of no use: .* see `date`"):
        membership.member(identity, wall_clock=lambda: BEGIN + days * DAY_S)


def test_the_certificate_of_another_key_is_refused(home: Path) -> None:
    (home / "identity.json").unlink()
    with pytest.raises(ConfigError, match=r"is for another key than identity.json"):
        read_membership(home, identity_of(home))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"root": "", "chain": "zz"}'])
def test_a_damaged_one_says_how_to_get_another(home: Path, content: bytes) -> None:
    (home / NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=r"is corrupt .* with a new token"):
        read_credentials(home)


def test_a_flipped_bit_is_noticed(home: Path) -> None:
    stored = msgspec.json.decode((home / NAME).read_bytes())
    chain = bytearray(bytes.fromhex(stored["chain"]))
    chain[len(chain) // 2] ^= 1
    stored["chain"] = chain.hex()
    (home / NAME).write_bytes(msgspec.json.encode(stored))
    with pytest.raises(ConfigError, match="is corrupt"):
        read_credentials(home)


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o700, True), (0o755, True), (0o775, False), (0o777, False)]
)
def test_nobody_else_writes_to_the_directory(home: Path, mode: int, fine: bool) -> None:
    home.chmod(mode)
    if fine:
        read_credentials(home)
        return
    with pytest.raises(ConfigError, match=rf"use chmod go-w {home}"):
        read_credentials(home)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_is_for_its_owner(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    check_private(file)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"use chmod 600 {file}"):
        check_private(file)


def test_an_open_directory_has_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no identity.json and membership.json"):
        read_credentials(tmp_path)
    identity_of(tmp_path)
    assert read_membership(tmp_path, identity_of(tmp_path)) is None


# --- where it lies --------------------------------------------------------------------------------


def test_the_usual_place_is_where_states_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_home() == tmp_path / "dhtos"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for unfit in ("", "relative/path"):
        monkeypatch.setenv("XDG_STATE_HOME", unfit)
        assert default_home() == tmp_path / "me" / ".local" / "state" / "dhtos"


def test_the_usual_place_counts_once_it_is_a_members(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert member_home(None) is None
    assert member_home(home) == home
    usual = default_home()
    usual.mkdir(parents=True)
    assert member_home(None) is None
    (usual / NAME).touch()
    assert member_home(None) == usual
    assert member_home(home) == home


# --- why nobody answered --------------------------------------------------------------------------


def engine(*, secured: bool) -> Engine:
    authority = Authority()
    member = authority.member() if secured else None
    return Engine(bytes(20), rng=authority.rng, now=0.0, member=member)


def test_silence_is_explained_by_what_is_known() -> None:
    error, seed = NoPeers("no seed answered: 10.0.0.1:7400"), ("10.0.0.1", 7400)
    assert "joined it with dhtos-node join" in str(silence(engine(secured=False), [seed], error))
    ours = engine(secured=True)
    assert "a node in open mode does not answer" in str(silence(ours, [seed], error))
    assert ours.core.sessions is not None
    ours.core.sessions.refusals[seed] = "a certificate is of another cluster"
    told = str(silence(ours, [seed], error))
    assert told.startswith(f"{error} (a certificate is of another cluster); try a member")
    other = ("10.0.0.2", 7400)
    assert "another cluster" not in str(silence(ours, [other], error))


# --- other clusters -------------------------------------------------------------------------------


def test_who_is_welcome_is_kept(home: Path) -> None:
    assert read_welcomes(home) == []
    ours = Authority()
    said = [
        make_welcome(
            ours.key, ours.name, bytes([n]) * 20, caps=["query"], begins=BEGIN, expires=BEGIN + 9
        )
        for n in range(2)
    ]
    write_welcomes(home, said)
    assert read_welcomes(home) == said
    for junk in (b"junk", b'["AAAA"]', b"{}"):
        (home / WELCOMES).write_bytes(junk)
        with pytest.raises(ConfigError, match=r"welcomes\.json is corrupt"):
            read_welcomes(home)


async def test_a_visitor_shows_its_own_chain_to_whom_the_token_names(home: Path) -> None:
    token = str(Token.to_visit(Authority(2).name, (("10.0.0.9", 7400),)))
    config = Config(client=True, credentials=home, visit=token)
    keeper = await Keeper.open(None, wall, home)
    keeper.visit(config)
    assert keeper.seeds == [("10.0.0.9", 7400)]
    member = keeper.member(wall)
    assert member is not None
    assert member.root == Authority(2).name
    assert member.home == Authority().name
    assert member.chain == read_credentials(home)[1].chain


async def test_who_cannot_visit(home: Path) -> None:
    token = str(Token.to_visit(Authority(2).name, (("10.0.0.9", 7400),)))
    own = str(Token.to_visit(Authority().name, (("10.0.0.9", 7400),)))
    keeper = await Keeper.open(None, wall, home)
    keeper.visit(Config(visit=token))  # of a daemon it is ignored: the environment may have it
    keeper.visit(Config(client=True))
    assert keeper.seeds[0] == ("10.0.0.1", 7400)
    with pytest.raises(ConfigError, match="our own cluster"):
        keeper.visit(Config(client=True, visit=own))
    with pytest.raises(ConfigError, match="membership to show"):
        (await Keeper.open(None, wall)).visit(Config(client=True, visit=token))
    kept = await Keeper.open(home, wall)
    with pytest.raises(ConfigError, match="no state_dir"):
        kept.visit(Config(client=True, visit=token))
    kept.close()
    join = str(Token(Authority(2).name, bytes(range(16)), (("10.0.0.9", 7400),)))
    for text in (join, token[:-2], "x"):
        with pytest.raises(ConfigError, match=r"^visit: "):
            Config(client=True, visit=text)
