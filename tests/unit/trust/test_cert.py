"""Certificates: what each link may give, what a chain is, and what is refused before anything."""

from random import Random

import msgspec
import pytest
from trust_world import BEGIN, DAY_S, NODE, USER, Authority

from dhtos.errors import MalformedMessage, UsageError
from dhtos.trust.cert import (
    CHAIN_BYTES_MAX,
    CLOCK_SKEW_S,
    Cert,
    is_group,
    misfit,
    node_id,
    parse_chain,
    parse_link,
    sign_cert,
)
from dhtos.trust.keys import KeyPair

ONE, TWO, THREE = (KeyPair(bytes([n]) * 32) for n in (1, 2, 3))


@pytest.fixture
def authority():
    return Authority()


def cert(**changes):
    """A user's certificate that nothing is wrong with."""
    plain = Cert(ONE.public, b"", b"s" * 8, "user", (), USER, BEGIN, BEGIN + DAY_S)
    return msgspec.structs.replace(plain, **changes)


def signer(**changes):
    """An issuer that may give what nodes have, in any group."""
    return cert(
        **{
            "subject": TWO.public,
            "nonce": b"n" * 8,
            "caps": (*NODE, "issue", "admin"),
            "expires": BEGIN + 9 * DAY_S,
            **changes,
        }
    )


def rewired(chain, edit):
    """The bytes of a chain, changed in their decoded form."""
    root, links = msgspec.msgpack.decode(chain.wire)
    return msgspec.msgpack.encode(edit(root, links))


# --- attenuation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "above", "wrong"),
    [
        ({}, {}, None),
        ({"caps": ("query:gpu",)}, {}, None),
        ({"caps": ("query:gpu",)}, {"caps": ("query:gpu", "issue")}, None),
        ({"caps": ("query",)}, {"caps": ("query:gpu", "issue")}, "gives 'query'"),
        ({"caps": ("query:cpu",)}, {"caps": ("query:gpu", "issue")}, "gives 'query:cpu'"),
        ({"caps": ("admin",)}, {"caps": ("query", "issue")}, "gives 'admin'"),
        ({"caps": ()}, {}, None),
        ({"expires": BEGIN + 9 * DAY_S}, {}, None),
        ({"expires": BEGIN + 9 * DAY_S + 1}, {}, "ends after its signer's"),
        ({"caps": ("issue",)}, {}, "only the root"),
        ({"caps": ("issue:gpu",)}, {}, "only the root"),
        ({"groups": ("any",)}, {}, None),
        ({"groups": ("a",)}, {"caps": (*USER, "issue:a")}, None),
        ({"groups": ("b",)}, {"caps": (*USER, "issue:a")}, "names the group 'b'"),
        # Who may not issue lends what it has, and never what makes a member.
        ({"caps": ("query", "claim", "run")}, {"caps": NODE}, None),
        ({"caps": ("publish",), "nonce": b"n" * 8}, {"caps": NODE}, "lends publish"),
        ({"caps": ("admin",)}, {"caps": ("admin",)}, "lends admin"),
        ({"groups": ("a",)}, {"caps": NODE, "groups": ("a", "b")}, None),
        ({"groups": ("c",)}, {"caps": NODE, "groups": ("a", "b")}, "names the group 'c'"),
        ({"caps": ("publish",), "nonce": b"n" * 8}, {}, None),
    ],
)
def test_nobody_gives_more_than_it_has(changes, above, wrong):
    above = signer(**above)
    if "publish" not in above.caps:
        above = msgspec.structs.replace(above, nonce=b"")
    found = misfit(cert(**changes), above)
    assert found is None if wrong is None else wrong in found


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": b"short"},
        {"serial": b"short"},
        {"nonce": b"short"},
        {"nonce": b"n" * 8},  # and does not publish
        {"caps": NODE},  # and has no nonce
        {"name": ""},
        {"name": "x" * 64},
        {"name": "two\nlines"},
        {"groups": tuple(f"g{n}" for n in range(9))},
        {"groups": ("",)},
        {"groups": ("a b",)},
        {"groups": ("é",)},
        {"groups": ("x" * 33,)},
        {"groups": ("a:b",)},
        {"caps": ("fly",)},
        {"caps": ("query:",)},
        {"caps": ("query:a:b",)},
        {"caps": ("query ",)},
        {"caps": ("query:a",) * 17},
        {"not_before": BEGIN + DAY_S},
        {"not_before": -1},
        {"expires": 2**53},
    ],
)
def test_what_no_certificate_says_not_even_the_roots(changes, authority):
    wrong = cert(**changes)
    assert misfit(wrong, None) is not None
    assert misfit(wrong, signer()) == misfit(wrong, None)
    with pytest.raises(UsageError, match="this certificate "):
        sign_cert(authority.root, None, wrong)


def test_what_names_a_group():
    assert all(map(is_group, ("gpu", "site-a", "a.b_c", "7", "x" * 32)))
    assert not any(map(is_group, ("", "-", "._-", "a/b", "x" * 33, "a\0")))


def test_verbs_and_their_groups():
    mixed = cert(caps=("query", "claim:gpu", "claim:cpu"))
    assert mixed.scopes("query") is None
    assert mixed.scopes("claim") == {"gpu", "cpu"}
    assert mixed.scopes("run") == frozenset()
    assert mixed.may("query")
    assert mixed.may("claim", ("cpu", "x"))
    assert not mixed.may("claim", ("x",))
    assert not mixed.may("claim")
    assert not mixed.may("run", ("gpu",))
    assert not mixed.is_node


# --- dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wall_s", "wrong"),
    [
        (BEGIN - CLOCK_SKEW_S - 0.1, "begins in 90 s"),
        (BEGIN - CLOCK_SKEW_S, None),
        (BEGIN, None),
        (BEGIN + DAY_S, None),
        (BEGIN + DAY_S + CLOCK_SKEW_S - 0.1, None),
        (BEGIN + DAY_S + CLOCK_SKEW_S, "ended 90 s ago"),
        (BEGIN + 2 * DAY_S, "ended 86400 s ago"),
    ],
)
def test_when_it_holds(wall_s, wrong):
    if wrong is None:
        cert().check_date(wall_s)
    else:
        with pytest.raises(MalformedMessage, match=wrong):
            cert().check_date(wall_s)


# --- chains ---------------------------------------------------------------------------------------


def test_a_chain_comes_back(authority):
    chain = authority.admit(ONE, "node", groups=("gpu",))
    read = parse_chain(chain.wire)
    assert read == chain
    assert read.root == authority.root.public
    assert [one.name for one in read.certs] == ["issuer", "node"]
    assert read.leaf.groups == ("gpu",)
    assert read.leaf.is_node
    assert read.node_id() == node_id(ONE.public, read.leaf.nonce)
    assert read.expires == read.leaf.expires
    assert len(read.wire) < CHAIN_BYTES_MAX


def test_its_issuer_decides_the_id(authority):
    assert authority.admit(ONE, "a").node_id() != authority.admit(ONE, "a").node_id()


def test_a_delegate_ends_with_the_first_of_its_chain(authority):
    user = authority.admit(ONE, "alice", caps=USER)
    job = sign_cert(ONE, user, authority.cert(TWO, "job", caps=("claim",), days=1))
    assert parse_chain(job.wire) == job
    assert job.expires == job.leaf.expires


def test_in_whose_name_a_chain_speaks(authority):
    user = authority.admit(ONE, "alice", caps=USER)
    job = sign_cert(ONE, user, authority.cert(TWO, "job", caps=("claim",), days=1))
    assert [user.principal.name, job.principal.name] == ["alice", "alice"]
    assert authority.chain.principal.name == "issuer"
    founder = sign_cert(authority.root, None, authority.cert(ONE, "by the root", caps=USER))
    lent = sign_cert(ONE, founder, authority.cert(TWO, "job", caps=("claim",), days=1))
    assert lent.principal.name == "by the root"


def test_a_chain_has_three_certificates_at_most(authority):
    user = authority.admit(ONE, "alice", caps=USER)
    job = sign_cert(ONE, user, authority.cert(TWO, "job", caps=("claim",), days=2))
    deeper = authority.cert(THREE, "deeper", caps=("claim",), days=1)
    with pytest.raises(UsageError, match="at most 3 certificates"):
        sign_cert(TWO, job, deeper)
    body = msgspec.msgpack.encode(deeper)
    forged = rewired(job, lambda root, links: [root, [*links, [body, bytes(64)]]])
    with pytest.raises(MalformedMessage, match=r"1\.\.3|at most 900"):
        parse_chain(forged)


def test_a_chain_that_fits_in_no_handshake(authority):
    groups = tuple(f"{n}" * 32 for n in range(8))
    caps = tuple(f"claim:{group}" for group in groups) + tuple(f"run:{group}" for group in groups)
    with pytest.raises(UsageError, match="shorten names"):
        authority.admit(ONE, "x" * 63, groups=groups, caps=caps)


@pytest.mark.parametrize(
    "edit",
    [
        lambda root, links: [root, []],
        lambda root, links: [root[:31], links],
        lambda root, links: [root + b"\0", links],
        lambda root, links: [root, links, 1],
        lambda root, links: [root],
        lambda root, links: [root, [[links[0][0], links[0][1][:63]], links[1]]],
        lambda root, links: [root, [links[0], [links[1][0], bytes(64)]]],
        lambda root, links: [root, [links[0], [links[1][0], links[0][1]]]],
        lambda root, links: [root, [links[1], links[0]]],
        lambda root, links: [root, [links[1]]],  # a node that says the root made it
        lambda root, links: [root, [links[0], [b"junk", links[1][1]]]],
        lambda root, links: [KeyPair(b"r" * 32).public, links],
        lambda root, links: "text",
    ],
)
def test_what_is_no_chain(authority, edit):
    chain = authority.admit(ONE, "node")
    with pytest.raises(MalformedMessage):
        parse_chain(rewired(chain, edit))


def test_bytes_that_are_no_chain(authority):
    chain = authority.admit(ONE, "node")
    for length in range(len(chain.wire)):
        with pytest.raises(MalformedMessage):
            parse_chain(chain.wire[:length])
    with pytest.raises(MalformedMessage, match="at most 900 bytes, got 901"):
        parse_chain(bytes(901))
    with pytest.raises(MalformedMessage):
        parse_chain(chain.wire + b"\0")
    with pytest.raises(MalformedMessage):
        parse_chain(b"\x91" * 900)


def test_every_bit_of_a_chain_counts(authority):
    chain = authority.admit(ONE, "node")
    for at in range(len(chain.wire)):
        spoilt = bytearray(chain.wire)
        spoilt[at] ^= 1 << at % 8
        with pytest.raises(MalformedMessage):
            parse_chain(bytes(spoilt))


def test_a_member_that_makes_itself_more_is_not_read(authority):
    """It signs with its own key what it may not give: nobody else's code would refuse to."""
    rng = Random(1)
    node = authority.admit(ONE, "node")
    more = cert(subject=TWO.public, nonce=b"n" * 8, caps=NODE, serial=rng.randbytes(8))
    body = msgspec.msgpack.encode(more)
    from dhtos.trust.cert import _domain

    signature = ONE.sign(_domain(authority.root.public), body)
    forged = rewired(node, lambda root, links: [root, [*links, [body, signature]]])
    with pytest.raises(MalformedMessage, match="lends publish"):
        parse_chain(forged)


# --- links alone ----------------------------------------------------------------------------------


def test_a_link_is_read_by_who_knows_its_issuer(authority):
    chain = authority.admit(ONE, "node")
    issuer = authority.chain.leaf
    root = authority.root.public
    assert parse_link(chain.link, root, [issuer]) == (chain.leaf, issuer)
    assert parse_link(authority.chain.link, root, []) == (issuer, None)
    other = Authority(2).chain.leaf
    assert parse_link(chain.link, root, [other, issuer]) == (chain.leaf, issuer)
    for issuers in ([], [other]):
        with pytest.raises(MalformedMessage, match="not known here"):
            parse_link(chain.link, root, issuers)
    with pytest.raises(MalformedMessage):
        parse_link(chain.link, KeyPair(b"r" * 32).public, [issuer])  # another cluster


def test_what_is_no_link(authority):
    chain = authority.admit(ONE, "node")
    for wire in (b"", b"\xc1", chain.wire, chain.link[:-1], msgspec.msgpack.encode([b"x", b"y"])):
        with pytest.raises(MalformedMessage):
            parse_link(wire, authority.root.public, [authority.chain.leaf])
