"""What only an issuer has: the root that makes a cluster, and the invites that let others in.

    root.json      the root's seed, on the node that made the cluster and nowhere else
    invites.json   what was promised to whoever shows a secret: kept by the secret's hash, with the
                   chains that were given for it, so that a lost answer can be given again

An invite is counted by the issuer that made it, and by no other: nobody has to agree. Whoever
calls `admit` may be on any thread; the file is written before the chain is told.
"""

import os
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

from dhtos.core.limits import INVITE_S_MAX, INVITE_USES_MAX, INVITES_MAX
from dhtos.core.value import is_printable
from dhtos.errors import ConfigError, MalformedMessage, Refused, UsageError
from dhtos.node.audit import AuditLog, What
from dhtos.node.membership import Membership, check_private, write_membership
from dhtos.node.state import Identity, write_atomically
from dhtos.protocol.renewal import is_due
from dhtos.trust.cert import (
    NAME_BYTES_MAX,
    NONCE_BYTES,
    SERIAL_BYTES,
    Cert,
    Chain,
    Verb,
    node_id,
    parse_chain,
    sign_cert,
)
from dhtos.trust.keys import SEED_BYTES, KeyPair
from dhtos.trust.revocation import Revocation, revoke
from dhtos.trust.token import SECRET_BYTES, root_hash

ROOT = "root.json"
INVITES = "invites.json"
DAY_S = 86_400
ISSUER_S = 365 * DAY_S
NODE_S = 30 * DAY_S
USER_S = DAY_S
NODE_CAPS: tuple[Verb, ...] = ("query", "publish", "claim", "run")
USER_CAPS: tuple[Verb, ...] = ("query", "claim")
_ISSUER_CAPS: tuple[Verb, ...] = (*NODE_CAPS, "issue", "admin")

Kind = Literal["node", "user"]
Entropy = Callable[[int], bytes]


class Unknown(Refused):
    """An issuer has not made this invite, or has forgotten it; another may have."""


class _RootFile(msgspec.Struct, forbid_unknown_fields=True):
    seed: str


# --- the root -------------------------------------------------------------------------------------


def make_cluster(
    directory: Path, identity: Identity, name: str, wall_s: float, *, entropy: Entropy = os.urandom
) -> Membership:
    """Make a root and be its first issuer; the directory then holds root and membership."""
    root = KeyPair(entropy(SEED_BYTES))
    chain = _issuer_chain(root, identity.public_key, name, wall_s, entropy(NONCE_BYTES))
    content = msgspec.json.encode(_RootFile(root.seed.hex()))
    write_atomically(directory / ROOT, content + b"\n")
    membership = Membership(chain)
    write_membership(directory, membership)
    return membership


def renew_issuer(directory: Path, membership: Membership, wall_s: float) -> Membership:
    """The membership of the node that holds the root, new where less than half of it is left."""
    root = read_root(directory)
    leaf = membership.chain.leaf
    if root is None or not is_due(leaf, wall_s):
        return membership
    chain = _issuer_chain(root, leaf.subject, leaf.name, wall_s, leaf.nonce)
    renewed = Membership(chain, membership.seeds)
    write_membership(directory, renewed)
    return renewed


def read_root(directory: Path) -> KeyPair | None:
    """The root of the cluster that was made here; None elsewhere. Raises ConfigError."""
    path = directory / ROOT
    try:
        check_private(path)
        seed = bytes.fromhex(msgspec.json.decode(path.read_bytes(), type=_RootFile).seed)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{path} is corrupt: restore it from a backup") from error
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} is corrupt: restore it from a backup")
    return KeyPair(seed)


def _issuer_chain(root: KeyPair, public: bytes, name: str, wall_s: float, nonce: bytes) -> Chain:
    begin = int(wall_s)
    serial = blake2b(public + begin.to_bytes(8), digest_size=SERIAL_BYTES, key=root.seed).digest()
    cert = Cert(public, nonce, serial, name, (), _ISSUER_CAPS, begin, begin + ISSUER_S)
    return sign_cert(root, None, cert)


# --- invites --------------------------------------------------------------------------------------


class Invite(msgspec.Struct, forbid_unknown_fields=True):
    """What a secret is good for. `name` is empty where the one who comes says it."""

    kind: Kind
    name: str
    groups: list[str]
    caps: list[str]
    uses: int  # left
    expires: int  # seconds since 1970, after which nobody is admitted
    lifetime_s: int  # of the certificates
    given: dict[str, bytes] = {}  # the chain of each public key


class Issuer:
    """Who admits others: its key and chain, and the invites it has made.

    Raises ConfigError for a file of invites that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        key: KeyPair,
        chain: Chain,
        *,
        wall_s: Callable[[], float],
        entropy: Entropy = os.urandom,
    ) -> None:
        assert chain.leaf.subject == key.public
        self._path = directory / INVITES
        self._key = key
        self._chain = chain
        self._wall_s = wall_s
        self._entropy = entropy
        self._lock = threading.Lock()
        self._invites = _read_invites(self._path)
        self._refused: set[str] = set()  # invites of which a refusal was written down
        self._audit = AuditLog(directory, wall_s)

    def invite(
        self,
        *,
        kind: Kind = "node",
        name: str = "",
        groups: Iterable[str] = (),
        caps: Iterable[str] = (),
        uses: int = 1,
        ttl_s: float = 3600.0,
        lifetime_s: float | None = None,
    ) -> bytes:
        """Promise to admit whoever shows the secret that is returned; raises UsageError.

        Without `caps` it is what nodes, or users, usually may.
        """
        life = lifetime_s or (NODE_S if kind == "node" else USER_S)
        if not 1 <= uses <= INVITE_USES_MAX:
            raise UsageError(f"an invite has 1..{INVITE_USES_MAX} uses, got {uses}")
        if not 1 <= ttl_s <= INVITE_S_MAX:
            raise UsageError(f"an invite lasts 1..{INVITE_S_MAX:.0f} seconds, got {ttl_s:g}")
        now = self._wall_s()
        given = list(dict.fromkeys(caps or (NODE_CAPS if kind == "node" else USER_CAPS)))
        if all(cap.partition(":")[0] != "query" for cap in given):
            given.insert(0, "query")  # who may not, is not even told who is there
        if kind == "node" and "publish" not in given:
            given.append("publish")
        if kind == "user" and "publish" in given:
            raise UsageError("a user may not publish, which only nodes do: leave it out")
        invite = Invite(
            kind, name, list(dict.fromkeys(groups)), given, uses, int(now + ttl_s), int(life)
        )
        self._sign(invite, self._key.public, name or "n" * NAME_BYTES_MAX)  # raises for what cannot
        secret = self._entropy(SECRET_BYTES)
        with self._lock:
            self._forget(now)
            if len(self._invites) >= INVITES_MAX:
                raise UsageError(f"{INVITES_MAX} invites are open: revoke some of them")
            self._write({**self._invites, secret_hash(secret): invite})
        self._audit.append("invited", invite=secret_hash(secret), kind=kind, name=name)
        return secret

    def admit(self, secret: bytes, public: bytes, name: str = "") -> Chain:
        """The chain of a new key; raises Refused, `Unknown` where another issuer may know more."""
        try:
            return self._admit(secret, public, name)
        except Unknown:
            raise  # anybody can try a secret: strangers do not fill a disk
        except Refused as refused:
            self._note_refusal(secret_hash(secret), public, name, str(refused))
            raise

    def _note_refusal(self, invite: str, public: bytes, name: str, reason: str) -> None:
        """The first time of each invite: who has a token that is used up may ask for ever."""
        with self._lock:
            first = invite not in self._refused
            self._refused.add(invite)
            self._refused &= self._invites.keys()
        if first:
            facts = {"name": name, "subject": public.hex(), "reason": reason}
            self._audit.append("refused", invite=invite, **facts)

    def _admit(self, secret: bytes, public: bytes, name: str) -> Chain:
        now, found = self._wall_s(), secret_hash(secret)
        with self._lock:
            invite = self._invites.get(found)
            if invite is None:
                raise Unknown(
                    "this issuer does not know the token, it is of another or was revoked: use "
                    "a new one"
                )
            given = invite.given.get(public.hex())
            if given is not None:
                return parse_chain(given)
            if now >= invite.expires:
                ago = now - invite.expires
                raise Refused(f"the token ended {ago:.0f} s ago: use a new one")
            if invite.uses < 1:
                raise Refused("the token is used up: use a new one")
            name = invite.name or name
            if not name or not is_printable(name, NAME_BYTES_MAX):
                raise Refused("whoever joins has a name of 1..63 printable bytes: give --name")
            try:
                chain = self._sign(invite, public, name)
            except UsageError as error:
                raise Refused(str(error)) from error
            used = msgspec.structs.replace(
                invite, uses=invite.uses - 1, given={**invite.given, public.hex(): chain.wire}
            )
            self._note("admitted", chain.leaf, invite=found)  # or nobody could take it back
            self._write({**self._invites, found: used})
            return chain

    def renew_itself(self, membership: Membership, wall_s: float) -> Chain | None:
        """The issuer's own chain, by the root, and signed under from now on; None without one."""
        renewed = renew_issuer(self._path.parent, membership, wall_s)
        if renewed is membership:
            return None
        with self._lock:
            self._chain = renewed.chain
        return renewed.chain

    def renew(self, chain: Chain) -> Chain:
        """A member's chain with a new term, past half of the old one; raises Refused."""
        leaf, now = chain.leaf, self._wall_s()
        if not is_due(leaf, now):
            raise Refused("this certificate is not half over: ask later")
        if not leaf.is_node or leaf.may("issue"):
            raise Refused("this is no certificate of a machine that an issuer admitted")
        begin = int(now)
        cert = msgspec.structs.replace(
            leaf,
            serial=self._entropy(SERIAL_BYTES),
            not_before=begin,
            expires=min(begin + leaf.expires - leaf.not_before, self._chain.expires),
        )
        try:
            renewed = sign_cert(self._key, self._chain, cert)
        except UsageError as error:
            raise Refused(str(error)) from error
        self._note("renewed", cert)
        return renewed

    def revoke(self, who: str) -> list[Revocation]:
        """Take back all certificates of somebody: by name, by id, or by a serial number.

        Raises UsageError unless that is just one whom this issuer admitted.
        """
        now = self._wall_s()
        given = [e for e in self._audit.entries() if e["what"] in ("admitted", "renewed")]
        subjects = {e["subject"] for e in given if who and who in (e["name"], e["id"], e["serial"])}
        if len(subjects) != 1:
            told = ", ".join(sorted({e["id"] for e in given if e["subject"] in subjects}))
            why = (
                f"several are called so, name one by its id: {told}"
                if told
                else (
                    "nobody was admitted here under that name, id or serial number: see "
                    "dhtos-node audit show"
                )
            )
            raise UsageError(f"cannot revoke {who!r}: {why}")
        held = [e for e in given if e["subject"] in subjects and e["expires"] > now]
        if not held:
            raise UsageError(f"{who!r} holds no certificate that has not ended by itself")
        for entry in held:
            self._audit.append("revoked", **{k: entry[k] for k in ("name", "id", "serial")})
        return [
            revoke(self._key, root_hash(self._chain.root), bytes.fromhex(e["serial"]), e["expires"])
            for e in held
        ]

    def _note(self, what: What, cert: Cert, **facts: str) -> None:
        self._audit.append(
            what,
            name=cert.name,
            subject=cert.subject.hex(),
            id=node_id(cert.subject, cert.nonce).hex(),
            serial=cert.serial.hex(),
            expires=cert.expires,
            groups=list(cert.groups),
            caps=list(cert.caps),
            **facts,
        )

    def revoke_invite(self, prefix: str) -> str:
        """Admit nobody more by the invite whose hash begins so; its whole hash. UsageError."""
        with self._lock:
            matching = [found for found in self._invites if prefix and found.startswith(prefix)]
            if len(matching) != 1:
                what = "several invites begin" if matching else "no invite begins"
                raise UsageError(f"{what} with {prefix!r}; known are those of invite --list")
            left = dict(self._invites)
            del left[matching[0]]
            self._write(left)
        self._audit.append("uninvited", invite=matching[0])
        return matching[0]

    def invites(self) -> dict[str, Invite]:
        """The invites that may still be used, by the hashes of their secrets."""
        with self._lock:
            now = self._wall_s()
            return {f: i for f, i in self._invites.items() if i.uses and i.expires > now}

    def _sign(self, invite: Invite, public: bytes, name: str) -> Chain:
        """Never for longer than our own chain holds."""
        begin = int(self._wall_s())
        nonce = self._entropy(NONCE_BYTES) if invite.kind == "node" else b""
        cert = Cert(
            public,
            nonce,
            self._entropy(SERIAL_BYTES),
            name,
            tuple(invite.groups),
            tuple(invite.caps),
            begin,
            min(begin + invite.lifetime_s, self._chain.expires),
        )
        return sign_cert(self._key, self._chain, cert)

    def _forget(self, now: float) -> None:
        """Drop what ended an hour ago: until then a late answer is given again."""
        self._invites = {f: i for f, i in self._invites.items() if i.expires + 3600 > now}

    def _write(self, invites: dict[str, Invite]) -> None:
        """What cannot be written has not happened."""
        try:
            write_atomically(self._path, msgspec.json.encode(invites) + b"\n")
        except OSError as error:
            raise Refused(f"{self._path.name} cannot be written: {error.strerror}") from error
        self._invites = invites


def secret_hash(secret: bytes) -> str:
    """The name of an invite: nobody who reads it learns the secret."""
    return blake2b(secret, digest_size=16, person=b"dhtos-invite").hexdigest()


def _read_invites(path: Path) -> dict[str, Invite]:
    try:
        check_private(path)
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Invite])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, MalformedMessage) as error:
        raise ConfigError(
            f"{path} is corrupt ({error}): move it away, and all open invites are void"
        ) from error
