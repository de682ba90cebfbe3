"""What only an issuer has: the invites that let others in, and how it admits and puts out.

    invites.json   what was promised to whoever shows a secret: kept by the secret's hash, with the
                   chains that were given for it, so that a lost answer can be given again

An invite is counted by the issuer that made it, and by no other: nobody has to agree. Where the
root is (`dhtos.node.root`), the first machines that come become issuers, too. Whoever calls `admit`
may be on any thread; the file is written before the chain is told.
"""

import os
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

from dhtos.core.limits import INVITE_S_MAX, INVITE_USES_MAX, INVITES_MAX, WELCOME_S_MAX
from dhtos.core.value import is_printable
from dhtos.errors import ConfigError, MalformedMessage, Refused, UsageError
from dhtos.node.audit import AuditLog, What
from dhtos.node.held import GIVEN, Held, held_by
from dhtos.node.membership import Membership, check_private
from dhtos.node.root import NAME as ROOT
from dhtos.node.root import (
    PASSPHRASE,
    Locked,
    issuer_chain,
    issuers_wanted,
    no_root,
    read_line,
    read_root,
    renew_issuer,
    rotate_root,
)
from dhtos.node.state import write_atomically
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
from dhtos.trust.keys import KeyPair
from dhtos.trust.revocation import Revocation, revoke
from dhtos.trust.token import SECRET_BYTES, root_hash
from dhtos.trust.welcome import Welcome, make_welcome, may_welcome

INVITES = "invites.json"
DAY_S = 86_400
NODE_S = 30 * DAY_S
USER_S = DAY_S
NODE_CAPS: tuple[Verb, ...] = ("query", "publish", "claim", "run")
USER_CAPS: tuple[Verb, ...] = ("query", "claim")
_NEWS_S = DAY_S  # by which a revocation outlives what it takes back: another may renew it meanwhile

Kind = Literal["node", "user"]
Entropy = Callable[[int], bytes]


class Unknown(Refused):
    """An issuer has not made this invite, or has forgotten it; another may have."""


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
        self.passphrase = os.environ.pop(PASSPHRASE, "")  # no command that runs here inherits it
        self._made = {key.public.hex()} | {  # those who were made issuers here, and ourselves
            entry["subject"]
            for entry in self._audit.entries()
            if entry["what"] in GIVEN and "issue" in entry["caps"]
        }

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
        left_s = self._chain.expires - now
        if lifetime_s is not None and lifetime_s > left_s:
            raise UsageError(
                f"a certificate ends before its issuer's, which has {left_s / DAY_S:.1f} days "
                f"left, got {lifetime_s / DAY_S:.1f}: give less"
            )
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

    def admit(
        self, secret: bytes, public: bytes, name: str = "", *, in_agent: bool = False
    ) -> Chain:
        """The chain of a new key; raises Refused, `Unknown` where another issuer may know more.

        A key `in_agent` signs and can take part in no session: it is of a user.
        """
        try:
            return self._admit(secret, public, name, in_agent=in_agent)
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

    def _admit(self, secret: bytes, public: bytes, name: str, *, in_agent: bool) -> Chain:
        now, found = self._wall_s(), secret_hash(secret)
        with self._lock:
            invite = self._invites.get(found)
            if invite is None:
                raise Unknown(
                    "this issuer does not know the token, it is of another or was revoked: use "
                    "a new one"
                )
            if in_agent and invite.kind == "node":
                raise Refused(
                    "the token is of a machine, whose key is in no agent: leave --agent out"
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
                chain = self._raised(invite, self._sign(invite, public, name))
            except UsageError as error:
                raise Refused(str(error)) from error
            used = msgspec.structs.replace(
                invite, uses=invite.uses - 1, given={**invite.given, public.hex(): chain.wire}
            )
            self._note("admitted", chain.leaf, invite=found)  # or nobody could take it back
            self._write({**self._invites, found: used})
            if chain.leaf.may("issue"):
                self._made.add(public.hex())
            return chain

    def _raised(self, invite: Invite, chain: Chain) -> Chain:
        """The chain of an issuer, for the first machines that come as machines usually do."""
        usual = invite.kind == "node" and invite.lifetime_s == NODE_S and not invite.groups
        if not usual or tuple(invite.caps) != NODE_CAPS or not self.makes_issuers():
            return chain
        try:
            return self._issuer_chain(chain.leaf)
        except UsageError:  # the root is locked, which its owner is told of
            return chain

    def makes_issuers(self) -> bool:
        """Whether the next machine that comes is to be made an issuer."""
        return len(self._made) < issuers_wanted(self._path.parent)

    def _root(self, passphrase: str) -> tuple[KeyPair, Chain]:
        """The root of our cluster and the line to it; raises UsageError.

        That is `Locked` for want of a passphrase.
        """
        directory = self._path.parent
        line = read_line(directory)
        if line is None or line.root != self._chain.root:
            raise no_root(directory)
        if len(line.heirs) < len(self._chain.heirs):
            raise UsageError(
                f"{directory / ROOT} is not the last root of this cluster: restore the one that is "
                "from a backup"
            )
        root = read_root(directory, passphrase or self.passphrase)
        assert root is not None
        return root, line

    def _issuer_chain(self, leaf: Cert, passphrase: str = "") -> Chain:
        root, line = self._root(passphrase)
        return issuer_chain(root, leaf, serial=leaf.serial, wall_s=self._wall_s(), line=line)

    # --- issuers ----------------------------------------------------------------------------------

    @property
    def chain(self) -> Chain:
        """Our own, under which we sign; it changes with its term."""
        return self._chain

    def go_on(self, chain: Chain) -> None:
        """Sign under this chain of ours from now on."""
        assert chain.leaf.subject == self._key.public
        with self._lock:
            self._chain = chain

    def promote(self, leaf: Cert, passphrase: str = "") -> Chain:
        """What makes a member an issuer who has this certificate; raises UsageError."""
        if not leaf.is_node:
            raise UsageError(f"{leaf.name!r} is a user, and only machines admit others")
        chain = self._issuer_chain(leaf, passphrase)
        with self._lock:
            self._note("promoted", chain.leaf)
            self._made.add(leaf.subject.hex())
        return chain

    def rotate(
        self, keep_s: float, revoked: Iterable[Revocation], passphrase: str = ""
    ) -> tuple[Chain, list[Revocation]]:
        """Make a new root of the cluster; the old one's word holds for so many seconds.

        Returns our chain by the new one, and by it again what the old one took back. Raises
        UsageError.
        """
        self._root(passphrase)  # it is here and of our cluster
        words, directory = passphrase or self.passphrase, self._path.parent
        rotate_root(directory, words, int(self._wall_s() + keep_s), entropy=self._entropy)
        chain, (root, _) = self._issuer_chain(self._chain.leaf, words), self._root(words)
        self._note("rotated", chain.leaf)
        self.go_on(chain)
        cluster = root_hash(chain.root)
        return chain, [revoke(root, cluster, one.serial, one.expires) for one in revoked]

    def renew_itself(self, membership: Membership, wall_s: float) -> Chain | None:
        """The issuer's own chain, by the root, and signed under from now on; None without one."""
        renewed = renew_issuer(self._path.parent, membership, wall_s, self.passphrase)
        if renewed is membership:
            return None
        self.go_on(renewed.chain)
        return renewed.chain

    def renew(self, chain: Chain) -> Chain:
        """The chain with a new term of whoever it speaks for, past half of the old one.

        Raises Refused, `Unknown` where another issuer may do what this one cannot.
        """
        leaf, above = chain.principal, self._chain
        if chain.root != above.root:
            raise Refused("this certificate is of another cluster")
        if leaf.may("issue"):
            line = read_line(self._path.parent)
            if line is None:
                raise Unknown("the root is not here")
            above = line
        if not is_due(leaf, self._wall_s()) and len(chain.heirs) >= len(above.heirs):
            raise Refused("this certificate is not half over: ask later")
        try:
            renewed = self._renewed_issuer(leaf) if leaf.may("issue") else self._renewed(leaf)
        except UsageError as error:
            raise Refused(str(error)) from error
        self._note("renewed", renewed.leaf)
        return renewed

    def _renewed_issuer(self, leaf: Cert) -> Chain:
        try:
            return self._issuer_chain(leaf)
        except UsageError as error:
            raise Unknown("the root is locked, or not here") from error

    def _renewed(self, leaf: Cert) -> Chain:
        begin = int(self._wall_s())
        end = min(begin + leaf.expires - leaf.not_before, self._chain.expires)
        cert = msgspec.structs.replace(leaf, not_before=begin, expires=end)
        return sign_cert(self._key, self._chain, cert)

    def held_by(self, who: str, seen: Iterable[Cert] = ()) -> list[Held]:
        """What somebody holds whom this node admitted, or sees; raises UsageError for several."""
        return held_by(who, self._audit.entries(), seen)

    def revoke(
        self, who: str, seen: Iterable[Cert] = (), *, issuer: bool = False, passphrase: str = ""
    ) -> list[Revocation]:
        """Take back all certificates of somebody: by name, by id, or by a serial number.

        `seen` are certificates of members and users that others may have admitted; with `issuer`
        it has to be one. Raises UsageError unless that is just one, whom this node may put out.
        """
        theirs = self.held_by(who, seen)
        if not theirs:
            raise UsageError(
                f"nobody is known here under the name, id or serial number {who!r}: see "
                "dhtos-node audit show, here and on the other issuers"
            )
        if theirs[0].subject == self._key.public.hex():
            raise UsageError("that is this node itself: give the command on another issuer")
        issues = any(one.issues for one in theirs)
        if issuer and not issues:
            raise UsageError(f"{who!r} is no issuer: dhtos-node revoke puts it out")
        key = self._key
        if issues:
            try:
                key, _ = self._root(passphrase)
            except Locked:
                raise
            except UsageError as error:
                raise UsageError(
                    f"{who!r} is an issuer, which only the root puts out: use dhtos-node demote "
                    "on the machine that has root.json"
                ) from error
        for one in theirs:
            self._audit.append("revoked", name=one.name, id=one.id, serial=one.serial)
        cluster, now = root_hash(self._chain.root), int(self._wall_s())
        return [
            revoke(key, cluster, bytes.fromhex(one.serial), now + one.lasts_s + _NEWS_S)
            for one in theirs
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

    def welcome(
        self, cluster: bytes, *, caps: Iterable[str], group: str, lasts_s: float, after: int
    ) -> Welcome:
        """Say what those of another cluster may here, or without `caps` that it is nothing.

        It begins later than `after`; raises UsageError.
        """
        begin = max(int(self._wall_s()), after + 1)
        lasts_s = lasts_s if caps else WELCOME_S_MAX
        try:
            said = make_welcome(
                self._key, root_hash(self._chain.root), cluster,
                caps=dict.fromkeys(caps), group=group, begins=begin, expires=begin + int(lasts_s),
            )  # fmt: skip
        except MalformedMessage as error:
            raise UsageError(str(error)) from error
        if not may_welcome(self._chain.leaf, said):
            raise UsageError("this issuer may not give all of that: see dhtos-node whoami")
        facts = {"caps": list(said.caps), "groups": [group] if group else []}
        what: What = "welcomed" if said.caps else "unwelcomed"
        self._audit.append(what, name=cluster.hex(), expires=said.expires, **facts)
        return said

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
