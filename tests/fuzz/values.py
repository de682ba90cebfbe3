"""Targets around the values of a cluster: the proof that one carries, and the reply that has it."""

from parsers import AUTHORITY, KEY, target
from target import Target

from dhtos.errors import MalformedMessage
from dhtos.protocol.signed import reader, signed
from dhtos.protocol.wire import decode_plain, encode_value
from dhtos.trust.value import NOTHING, check_value, owned_key, sign_value

OWNER = AUTHORITY.member("owner")
MEMBER = AUTHORITY.member("reader")
VALUE = encode_value("value")
SALT = b"salt"
END = 1_800_003_600
SAID = sign_value(OWNER, KEY, VALUE, seq=7, expires=END)
OWNED = sign_value(
    OWNER, owned_key(OWNER.key.public, SALT), VALUE, seq=2**40, expires=END, salt=SALT
)
GONE = sign_value(OWNER, KEY, NOTHING, seq=8, expires=END, gone=True)


def proof(data: bytes) -> None:
    """Nothing is believed but what was signed, each for its own key and value."""
    for key, value, said in (
        (KEY, VALUE, SAID),
        (owned_key(OWNER.key.public, SALT), VALUE, OWNED),
        (KEY, NOTHING, GONE),
    ):
        try:
            found = check_value(MEMBER, key, value, data)
        except MalformedMessage:
            continue
        assert found == said
        return
    raise MalformedMessage("believed under no key")


def reply(data: bytes) -> None:
    """A reply to `find_value` is a value that was signed, or none."""
    told = decode_plain(data)
    if not isinstance(told, dict):
        raise MalformedMessage("no map")
    held = reader(MEMBER, KEY, b"", lambda: None)(told, 0.0)
    assert held is not None
    assert (held.value, held.seq) in (("value", 7), (b"", 8))
    assert 0 < held.expires <= 3600.0


def replies() -> tuple[bytes, ...]:
    """What honest holders say."""
    fresh = signed(OWNER, KEY, "value", 0.0, seq=7, ttl_s=3600.0)
    assert fresh.said == SAID
    return (
        encode_value({"value": "value", "p": SAID.proof}),
        encode_value({"value": b"", "p": GONE.proof}),
    )


TARGETS: dict[str, Target] = {
    "value_proof": target(proof, SAID.proof, OWNED.proof, GONE.proof),
    "value_reply": target(reply, *replies()),
}
