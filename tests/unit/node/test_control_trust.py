"""What a node may be asked about its cluster, word by word."""

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dhtos.errors import UsageError
from dhtos.node.authority import Issuer
from dhtos.node.control import OPS
from dhtos.node.control_trust import trust_ops
from dhtos.node.enrolling import Admission
from dhtos.node.founding import found_cluster
from dhtos.node.membership import read_credentials
from dhtos.protocol.rpc import Core
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import Token

NOW = 1_800_000_000.0


@pytest.fixture
def first(tmp_path: Path) -> Any:
    """What the ops use of the node that made a cluster."""
    found_cluster(tmp_path, "first", NOW)
    identity, membership = read_credentials(tmp_path)
    issuer = Issuer(tmp_path, KeyPair(identity.secret), membership.chain, wall_s=lambda: NOW)
    admission = Admission(Core(Random(1)), issuer, lambda: None)
    advert = SimpleNamespace(endpoint=("10.0.0.1", 7400))
    return SimpleNamespace(membership=membership, admission=admission, advert=advert)


async def ask(node: Any, op: str, **args: Any) -> list[dict[str, Any]]:
    """All lines of an answer."""
    return [line async for line in trust_ops(node)[op](args)]


async def test_who_the_node_is(first: Any) -> None:
    (end,) = await ask(first, "whoami")
    assert end["end"] == {
        "cluster": first.membership.root.hex(),
        "kind": "issuer",
        "name": "first",
        "groups": [],
        "caps": ["query", "publish", "claim", "run", "issue", "admin"],
        "chain": ["first"],
        "expires": NOW + 365 * 86_400,
        "seeds": [],
    }


async def test_a_token_leads_back_to_who_made_it(first: Any) -> None:
    (end,) = await ask(first, "invite", uses=2, ttl_s=60, groups=["lab"])
    token = Token.parse(end["end"]["token"])
    assert token.root == first.membership.root
    assert token.seeds == (("10.0.0.1", 7400),)
    item, total = await ask(first, "invites")
    assert total == {"end": {"invites": 1}}
    assert item["item"].pop("id")
    assert item["item"] == {
        "kind": "node", "name": "", "groups": ["lab"], "uses": 2, "expires": NOW + 60,
        "caps": ["query", "publish", "claim", "run"],
    }  # fmt: skip
    leaf = first.admission.issuer.admit(token.secret, KeyPair(bytes(32)).public, "n").leaf
    assert leaf.groups == ("lab",)


async def test_one_that_was_taken_back_is_gone(first: Any) -> None:
    await ask(first, "invite", kind="user", name="alice", lifetime_s=60.0)
    item, _ = await ask(first, "invites")
    assert await ask(first, "uninvite", prefix=item["item"]["id"][:9]) == [
        {"end": {"id": item["item"]["id"]}}
    ]
    assert await ask(first, "invites") == [{"end": {"invites": 0}}]


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        ("whoami", {"x": 1}, "unknown arguments: 'x'"),
        ("invite", {"kind": "king"}, "must be node or user, got 'king'"),
        ("invite", {"uses": "2"}, "must be of type int"),
        ("invite", {"uses": True}, "must be of type int"),
        ("invite", {"groups": "lab"}, "must be of type list"),
        ("invite", {"groups": [1]}, "'groups' must be a list of texts"),
        ("invite", {"ttl_s": -1}, "lasts"),
        ("invite", {"for": "me"}, "unknown arguments: 'for'"),
        ("invites", {"x": 1}, "unknown arguments"),
        ("uninvite", {}, "'prefix' is missing"),
        ("uninvite", {"prefix": "00", "all": True}, "unknown arguments"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    first: Any, op: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        await ask(first, op, **args)
    assert first.admission.issuer.invites() == {}


@pytest.mark.parametrize("op", ["invite", "invites", "uninvite"])
async def test_others_let_nobody_in(first: Any, op: str) -> None:
    args = {"prefix": "00"} if op == "uninvite" else {}
    open_node = SimpleNamespace(membership=None, admission=None)
    with pytest.raises(UsageError, match="in open mode, which anybody may join"):
        await ask(open_node, op, **args)
    first.admission.issuer = None
    with pytest.raises(UsageError, match="this node admits nobody: give the command on"):
        await ask(first, op, **args)
    with pytest.raises(UsageError, match="in open mode, of no cluster"):
        await ask(open_node, "whoami")


def test_a_client_knows_these_ops(first: Any) -> None:
    assert set(trust_ops(first)) <= set(OPS)
