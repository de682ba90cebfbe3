"""Members of one cluster for benchmarks: whoever asks for the same number gets the same one."""

import time
from random import Random

from dhtos.trust.cert import Cert, sign_cert
from dhtos.trust.keys import KeyPair
from dhtos.trust.member import Member
from dhtos.trust.token import root_hash

BEGIN, END = 1_700_000_000, 4_000_000_000
CAPS = ("query", "publish", "claim", "run")


def member(number: int) -> Member:
    """A member with a chain of two certificates."""
    rng = Random(0)
    root, issuer = KeyPair(rng.randbytes(32)), KeyPair(rng.randbytes(32))
    made = Cert(issuer.public, b"n" * 8, b"s" * 8, "issuer", (), (*CAPS, "issue"), BEGIN, END)
    above = sign_cert(root, None, made)
    own = Random(number)
    key = KeyPair(own.randbytes(32))
    cert = Cert(key.public, own.randbytes(8), own.randbytes(8), "node", (), CAPS, BEGIN, END)
    chain = sign_cert(issuer, above, cert)
    return Member(key, root_hash(root.public), entropy=own.randbytes, wall_s=time.time, chain=chain)
