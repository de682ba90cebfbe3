"""What an issuer is asked about other clusters, word by word."""

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from trust_world import USER, Authority

from dhtos.core.limits import WELCOMES_MAX
from dhtos.errors import Refused, UsageError
from dhtos.node.authority import Issuer
from dhtos.node.control import OPS
from dhtos.node.control_guests import guest_ops, read_cluster
from dhtos.node.enrolling import Admission
from dhtos.node.founding import found_cluster
from dhtos.node.membership import read_credentials
from dhtos.protocol.engine import Engine
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import Token

NOW = 1_800_000_000.0
THEIRS = Authority(2)
NAME = THEIRS.name.hex()


@pytest.fixture
def first(tmp_path: Path) -> Any:
    """What the ops use of the node that made a cluster; `saved` counts what it wrote."""
    found_cluster(tmp_path, "first", NOW)
    identity, membership = read_credentials(tmp_path)
    issuer = Issuer(tmp_path, KeyPair(identity.secret), membership.chain, wall_s=lambda: NOW)
    member = membership.member(identity, wall_clock=lambda: NOW)
    engine = Engine(identity.node_id, rng=Random(1), now=0.0, member=member)
    saved: list[int] = []

    async def save() -> None:
        saved.append(len(member.welcomes))

    return SimpleNamespace(
        membership=membership,
        admission=Admission(engine.core, issuer, lambda: None),
        advert=SimpleNamespace(endpoint=("10.0.0.1", 7400)),
        engine=engine,
        driver=SimpleNamespace(clock=lambda: 0.0, flush=lambda: None),
        save=save,
        saved=saved,
        member=member,
        home=tmp_path,
    )


async def ask(node: Any, op: str, **args: Any) -> list[dict[str, Any]]:
    """All lines of an answer."""
    return [line async for line in guest_ops(node)[op](args)]


def test_all_can_be_asked(first: Any) -> None:
    assert set(guest_ops(first)) <= set(OPS)


async def test_a_cluster_is_welcome_and_then_no_more(first: Any) -> None:
    (end,) = await ask(first, "guest_add", cluster=NAME, caps=["query", "claim"], group="partner")
    said = {
        "cluster": NAME,
        "caps": ["query", "claim"],
        "group": "partner",
        "begins": int(NOW),
        "expires": int(NOW) + 30 * 86_400,
        "issuer": "first",
        "holds": True,
    }
    assert end == {"end": said}
    assert await ask(first, "guests") == [{"item": said}, {"end": {"guests": 1}}]
    (end,) = await ask(first, "guest_add", cluster=NAME, days=0.5)  # in the same second
    assert (end["end"]["begins"], end["end"]["caps"]) == (NOW + 1, ["query"])
    (end,) = await ask(first, "guest_remove", cluster=NAME)
    assert (end["end"]["caps"], end["end"]["holds"]) == ([], False)
    assert await ask(first, "guests") == [{"end": {"guests": 0}}]
    assert first.saved == [1, 1, 1]
    with pytest.raises(UsageError, match="is not welcome"):
        await ask(first, "guest_remove", cluster=NAME)
    told = [(e["what"], e["name"]) for e in first.admission.issuer._audit.entries()]
    assert told == [("promoted", "first")] * (len(told) - 3) + [
        ("welcomed", NAME),
        ("welcomed", NAME),
        ("unwelcomed", NAME),
    ]


async def test_the_token_is_for_visitors(first: Any) -> None:
    (end,) = await ask(first, "guest_token")
    token = Token.parse(end["end"]["token"])
    assert token.is_visit
    assert (token.root, token.seeds) == (first.member.root, (("10.0.0.1", 7400),))
    assert read_cluster(str(token)) == first.member.root


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"cluster": "beef"}, "40 hex digits"),
        ({"cluster": "x" * 40}, "40 hex digits"),
        ({"cluster": "dhtos1-aaaa"}, "mistyped"),
        ({"cluster": NAME, "caps": ["publish"]}, "query, claim or run"),
        ({"cluster": NAME, "caps": "query"}, "must be of type list"),
        ({"cluster": NAME, "caps": [1]}, "list of texts"),
        ({"cluster": NAME, "group": "a b"}, "names a group"),
        ({"cluster": NAME, "days": 91}, "90 days at most"),
        ({"cluster": NAME, "days": 0}, "90 days at most"),
        ({"cluster": NAME, "name": "x"}, "unknown arguments"),
        ({}, "'cluster' is missing"),
    ],
)
async def test_what_cannot_be_said(first: Any, args: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        await ask(first, "guest_add", **args)
    assert first.member.welcomes == {}


async def test_so_many_clusters(first: Any) -> None:
    for number in range(WELCOMES_MAX):
        await ask(first, "guest_add", cluster=f"{number:040x}")
    with pytest.raises(UsageError, match="64 clusters"):
        await ask(first, "guest_add", cluster=NAME)
    await ask(first, "guest_remove", cluster=f"{0:040x}")


async def test_only_an_issuer_is_asked(first: Any) -> None:
    first.admission.issuer = None
    for op, args in (
        ("guest_add", {"cluster": NAME}),
        ("guest_remove", {"cluster": NAME}),
        ("guests", {}),
        ("guest_token", {}),
    ):
        with pytest.raises(UsageError, match="this node admits nobody"):
            await ask(first, op, **args)


async def test_our_own_cluster_is_no_guest(first: Any) -> None:
    with pytest.raises(UsageError, match="this cluster itself"):
        await ask(first, "guest_add", cluster=first.member.root.hex())


async def test_no_certificate_of_ours_comes_of_a_visit(first: Any) -> None:
    await ask(first, "guest_add", cluster=NAME, caps=["query", "claim", "run"])
    chain = first.member.admit(THEIRS.admit(KeyPair(b"v" * 32), "v", caps=USER).wire)
    with pytest.raises(Refused, match="of another cluster"):
        first.admission.issuer.renew(chain)
