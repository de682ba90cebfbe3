"""A user's key that stays in ssh-agent: it signs, and never leaves.

The agent of a login session (OpenSSH's, or any that speaks its protocol) keeps keys that were
unlocked once, also across a forwarded connection. What is asked of it here: which Ed25519 keys it
has, and a signature by one. The protocol is draft-ietf-sshm-ssh-agent: a length, a type, and
strings with their lengths, over the Unix socket that SSH_AUTH_SOCK names.

What is signed begins with `dhtos/1`, and so can never be taken for a login by SSH, which begins
with the length of a session's id, nor for an SSH signature, which begins with `SSHSIG`.

Everything here blocks, for AGENT_S at most unless the agent asks its owner to confirm.
"""

import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from dhtos.errors import MalformedMessage, Unreachable, UsageError
from dhtos.trust.keys import PUBLIC_BYTES, SIGNATURE_BYTES, signed_text, verify

AGENT_S = 10.0
CONFIRM_S = 60.0  # a person may have to press a button
MESSAGE_BYTES_MAX = 256 * 1024  # as OpenSSH has it
_KEYS_MAX = 2048
_ED25519 = b"ssh-ed25519"
_KEYS, _SIGN = 11, 13  # what is asked; the answer to each is one more


@dataclass(frozen=True, slots=True)
class AgentKey:
    """An Ed25519 key that an agent holds; signs as `dhtos.trust.keys.KeyPair` does."""

    path: str
    public: bytes
    comment: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-add -l` shows it."""
        digest = sha256(_blob(self.public)).digest()
        return "SHA256:" + b64encode(digest).decode().rstrip("=")

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """The agent's signature; raises Unreachable where it is gone, locked, or was told no."""
        body = _string(_blob(self.public)) + _string(signed_text(domain, message)) + bytes(4)
        answer = _ask(self.path, _SIGN, body, CONFIRM_S)
        if answer is None:
            raise Unreachable(
                f"ssh-agent does not sign with {self.comment or self.fingerprint}: it is locked, "
                "or somebody said no; unlock it with ssh-add -X"
            )
        try:
            kind, signature = read_signature(answer)
        except MalformedMessage as error:
            raise Unreachable(f"{self.path} answers as no ssh-agent does: {error}") from error
        if kind != _ED25519 or not verify(self.public, signature, domain, message):
            raise Unreachable(f"{self.path} gives a signature that does not hold: ask another")
        return signature


def agent_keys(environ: Mapping[str, str] = os.environ) -> list[AgentKey]:
    """The Ed25519 keys of this login session's agent; raises Unreachable where there is none."""
    path = environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise Unreachable(
            "no ssh-agent is known here, SSH_AUTH_SOCK is not set: "
            "use eval $(ssh-agent), then ssh-add"
        )
    answer = _ask(path, _KEYS, b"", AGENT_S)
    try:
        found = [] if answer is None else read_keys(answer)
    except MalformedMessage as error:
        raise Unreachable(f"{path} answers as no ssh-agent does: {error}") from error
    return [AgentKey(path, public, comment) for public, comment in found]


def choose_key(keys: list[AgentKey], text: str) -> AgentKey:
    """The key of that comment or fingerprint, or the only one; raises UsageError."""
    matching = [key for key in keys if text in ("", key.comment, key.fingerprint)]
    if len(matching) == 1:
        return matching[0]
    if not keys:
        raise UsageError(
            "ssh-agent holds no Ed25519 key, or is locked: "
            "use ssh-keygen -t ed25519 and ssh-add, or ssh-add -X"
        )
    shown = ", ".join(key.comment or key.fingerprint for key in keys[:4])
    if not matching:
        raise UsageError(f"ssh-agent holds no Ed25519 key {text!r}: give one of {shown}")
    raise UsageError(f"ssh-agent holds several Ed25519 keys: give --agent-key, one of {shown}")


def held_key(keys: list[AgentKey], public: bytes) -> AgentKey:
    """The very key; raises Unreachable where the agent does not hold it."""
    for key in keys:
        if key.public == public:
            return key
    raise Unreachable(
        "ssh-agent does not hold the key of this user, or is locked: use ssh-add, or ssh-add -X"
    )


# --- the protocol ---------------------------------------------------------------------------------


def read_keys(body: bytes) -> list[tuple[bytes, str]]:
    """The Ed25519 keys of an answer and their comments; raises MalformedMessage."""
    count, body = int.from_bytes(body[:4]), body[4:]
    if count > _KEYS_MAX:
        raise MalformedMessage(f"an agent has at most {_KEYS_MAX} keys")
    found = []
    for _ in range(count):
        blob, body = _take(body)
        comment, body = _take(body)
        kind, rest = _take(blob)
        if kind == _ED25519:
            public, _ = _take(rest)
            if len(public) != PUBLIC_BYTES:
                raise MalformedMessage("an Ed25519 key has 32 bytes")
            text = comment.decode(errors="replace")
            found.append((public, text if text.isprintable() else ""))
    return found


def read_signature(body: bytes) -> tuple[bytes, bytes]:
    """The scheme and the signature of an answer; raises MalformedMessage."""
    signature, _ = _take(body)
    kind, rest = _take(signature)
    raw, _ = _take(rest)
    if len(raw) != SIGNATURE_BYTES and kind == _ED25519:
        raise MalformedMessage("an Ed25519 signature has 64 bytes")
    return kind, raw


def _ask(path: str, kind: int, body: bytes, patience_s: float) -> bytes | None:
    """One question and its answer; None where the agent says no. Raises Unreachable."""
    message = bytes([kind]) + body
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience_s)
        try:
            sock.connect(path)
            sock.sendall(len(message).to_bytes(4) + message)
            size = int.from_bytes(_receive(sock, 4))
            if not 1 <= size <= MESSAGE_BYTES_MAX:
                raise Unreachable(f"{path} answers as no ssh-agent does: {size} bytes")
            answer = _receive(sock, size)
        except OSError as error:
            why = error.strerror or str(error)
            raise Unreachable(f"ssh-agent does not answer on {path} ({why}): start one") from error
    return answer[1:] if answer[0] == kind + 1 else None


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data


def _blob(public: bytes) -> bytes:
    return _string(_ED25519) + _string(public)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """A string and what comes after it."""
    size = int.from_bytes(data[:4])
    if len(data) < 4 + size:
        raise MalformedMessage("it is cut off")
    return data[4 : 4 + size], data[4 + size :]
