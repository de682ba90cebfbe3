"""Joining from a program: many at once, by clocks that are wrong, without blocking the loop."""

import asyncio
import ipaddress
import json
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import dhtos
from dhtos.errors import ConfigError, NoPeers, Refused
from dhtos.node.address import outward
from dhtos.node.audit import AuditLog
from dhtos.node.enrolling import ask_to_join, join_cluster, make_token
from dhtos.node.founding import found_cluster
from dhtos.node.membership import Membership, read_credentials
from dhtos.node.state import Identity
from dhtos.protocol.enrol import Request
from dhtos.trust.token import Token

DAY_S = 86_400


def config(path: Path | None, **settings) -> dhtos.Config:
    return dhtos.Config(host="127.0.0.1", port=0, state_dir=path, sample=False, **settings)


@asynccontextmanager
async def first_node(path: Path, began_s: float = 0.0, **settings):
    """The first node of a cluster that was made so many seconds ago."""
    await asyncio.to_thread(found_cluster, path, "first", time.time() - began_s)
    async with dhtos.Node(config(path, **settings)) as node:
        yield node


async def join(path: Path, token: Token, *, shift_s: float = 0.0):
    """Join by a clock that is so many seconds ahead."""
    return await join_cluster(
        path, token, host="127.0.0.1", name="new", wall_clock=lambda: time.time() + shift_s
    )


def test_many_join_at_once_with_one_token(run, tmp_path):
    count = 40

    async def main():
        async with first_node(tmp_path / "first") as first:
            token = await make_token(first, uses=count - 1)
            joining = [join(tmp_path / f"n{n}", token) for n in range(count)]
            ended = await asyncio.gather(*joining, return_exceptions=True)
            chains = [one.chain for one in ended if not isinstance(one, Exception)]
            (refused,) = [one for one in ended if isinstance(one, Exception)]
            assert isinstance(refused, Refused)
            assert str(refused) == "the token is used up: use a new one"
            assert len({chain.node_id() for chain in chains}) == count - 1
            figures = first.stats()
            assert figures["enrolments_granted"] >= count - 1  # some ask twice, and are told twice
            assert figures["enrolments_refused"] >= 1

    run(main)


def test_whoever_was_admitted_is_a_member(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first", advertise={"cores": 8}) as first:
            await join(tmp_path / "second", await make_token(first))
            async with dhtos.Node(config(tmp_path / "second", advertise={"cores": 4})) as second:
                await second.joined()
                assert await second.count("cores >= 4") == 2
                assert second.membership is not None
                assert second.membership.chain.leaf.name == "new"
                assert second.admission is not None
                assert second.admission.issuer is None
            await join(tmp_path / "user", await make_token(first, kind="user", name="u"))
            asking = dhtos.Config(
                host="127.0.0.1", port=0, client=True, credentials=tmp_path / "user"
            )
            async with dhtos.Node(asking) as user:
                assert await user.count("cores >= 8") == 1
                assert user.admission is None

    run(main)


def test_what_a_certificate_does_not_give_is_refused_at_once(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first", advertise={"cores": 8}) as first:
            token = await make_token(first, kind="user", name="u", caps=["query"])
            await join(tmp_path / "user", token)
            asking = dhtos.Config(
                host="127.0.0.1", port=0, client=True, credentials=tmp_path / "user"
            )
            async with dhtos.Node(asking) as user:
                assert await user.count() == 1
                for verb, attempt in (
                    ("publish", lambda: user.put("k", "v")),
                    ("claim", lambda: user.place(dhtos.Need(cores=1))),
                    ("claim", lambda: user.place_gang(dhtos.Need(cores=1), 2)),
                    ("claim", lambda: user.replicas(dhtos.Need(cores=1), 2)),
                ):
                    with pytest.raises(Refused, match=f"'u' may not {verb} here: use another"):
                        await attempt()
            assert not first.leases()
            async with first.place(dhtos.Need(cores=1)):
                assert len(first.leases()) == 1

    run(main)


def test_nobody_is_admitted_who_cannot_be_written_down(run, tmp_path, monkeypatch):
    def full(_log, what, **_facts):
        raise ConfigError(f"audit.jsonl cannot be written: {what}")

    async def main():
        async with first_node(tmp_path / "first") as first:
            token = await make_token(first)
            with monkeypatch.context() as patch:
                patch.setattr(AuditLog, "append", full)
                with pytest.raises(Refused, match="cannot write down who comes"):
                    await join(tmp_path / "second", token)
            assert first.stats()["enrolments_failed"] >= 1
            await join(tmp_path / "second", token)  # nothing was used up

    run(main)


def test_the_first_node_is_where_others_can_come(run, tmp_path):
    """Not on the loopback, of which only this machine has any; where there is a way to others."""

    async def main():
        await asyncio.to_thread(found_cluster, tmp_path, "first", time.time())
        settings = {"host": "0.0.0.0", "port": 0, "sample": False}
        async with dhtos.Node(dhtos.Config(state_dir=tmp_path, **settings)) as first:
            assert first.endpoint == f"{outward()}:{first.port}"
            (seed,) = (await make_token(first)).seeds
            assert seed == (outward(), first.port)
            assert not ipaddress.ip_address(seed[0]).is_unspecified
        async with dhtos.Node(dhtos.Config(**settings)) as alone:
            assert alone.endpoint == f"127.0.0.1:{alone.port}"

    run(main)


def test_a_member_sends_those_who_come_to_an_issuer(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
            async with dhtos.Node(config(tmp_path / "second")) as second:
                token = await make_token(first)
                other = Token(token.root, token.secret, (second.advert.endpoint,))
                assert (await join(tmp_path / "third", other)).chain.leaf.is_node
            await first.aclose()
            async with dhtos.Node(config(tmp_path / "second")) as second:
                other = Token(token.root, token.secret, (second.advert.endpoint,))
                with pytest.raises(Refused, match="this node admits nobody"):
                    await join(tmp_path / "fourth", other)

    run(main)


@pytest.mark.parametrize("began_s", [0, 10 * DAY_S])
def test_a_clock_that_is_a_day_behind_is_said_to_be(run, tmp_path, began_s):
    """Of a young cluster no certificate holds yet; of an older one only our own does not."""

    async def main():
        async with first_node(tmp_path / "first", began_s) as first:
            token = await make_token(first)
            with pytest.raises(Refused, match="is a clock wrong"):
                await join(tmp_path / "late", token, shift_s=-DAY_S)
            assert not (tmp_path / "late" / "membership.json").exists()
            await join(tmp_path / "late", token)  # the same key: nothing was used up

    run(main)


def test_a_clock_that_is_a_day_ahead_ends_what_a_user_gets(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            token = await make_token(first, kind="user", name="u")
            with pytest.raises(Refused, match="a certificate ended"):
                await join(tmp_path / "user", token, shift_s=DAY_S + 100)

    run(main)


def test_a_member_whose_clock_is_wrong_does_not_start_and_frees_its_port(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
        for shift_s in (-DAY_S, 31 * DAY_S):
            node = dhtos.Node(
                config(tmp_path / "second"), wall_clock=lambda s=shift_s: time.time() + s
            )
            with pytest.raises(ConfigError, match="this node's certificate is of no use"):
                await node.start()

    run(main)


def test_a_directory_keeps_its_kind(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            await join(tmp_path / "second", await make_token(first))
            before = await asyncio.to_thread(read_credentials, tmp_path / "second")
            user = await make_token(first, kind="user", name="u")
            with pytest.raises(ConfigError, match="is of a node, 'new', and the token is not for"):
                await join(tmp_path / "second", user)
            assert await asyncio.to_thread(read_credentials, tmp_path / "second") == before

    run(main)


def test_what_is_cut_off_leaves_nothing_behind(run, tmp_path):
    async def main():
        token = Token(bytes(20), b"s" * 16, (("127.0.0.1", 9),))
        joining = asyncio.ensure_future(join(tmp_path / "new", token))
        await asyncio.sleep(0.1)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        with pytest.raises(NoPeers, match="nobody whom the token names answers"):
            await join(tmp_path / "new", token)  # the directory is free again
        six = Token(bytes(20), b"s" * 16, (("::1", 9),))
        identity = Identity.generate()
        request = Request(six.secret, identity.public_key, "n")
        with pytest.raises(NoPeers, match="not reachable from 127"):
            await ask_to_join(identity, six, request, host="127.0.0.1", wall_clock=time.time)

    run(main)


def test_an_issuer_that_is_leaving_leaves_no_half_invite(run, tmp_path):
    async def main():
        async with first_node(tmp_path / "first") as first:
            token = await make_token(first)
            joining = asyncio.ensure_future(join(tmp_path / "new", token))
            await first.driver.until(lambda: first.engine.counters["enrolments_asked"] > 0)
        (ended,) = await asyncio.gather(joining, return_exceptions=True)
        stored = json.loads((tmp_path / "first" / "invites.json").read_bytes())
        (invite,) = stored.values()
        assert invite["uses"] + len(invite["given"]) == 1
        assert isinstance(ended, NoPeers if invite["uses"] else NoPeers | Membership)

    run(main)
