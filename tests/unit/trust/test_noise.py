"""One handshake as it should be, and what is told of it."""

import pytest
from nacl.bindings import crypto_scalarmult_base

from dhtos.errors import MalformedMessage
from dhtos.trust.noise import MESSAGE_1_BYTES, MESSAGE_2_BYTES, Handshake, seal, unseal

A, B, EA, EB = (bytes([n]) * 32 for n in (1, 2, 3, 4))


def pair(prologue=b"cookie"):
    """Both ends before the first message."""
    return (
        Handshake.initiator(A, crypto_scalarmult_base(B), EA, prologue),
        Handshake.responder(B, EB, prologue),
    )


def test_two_messages_make_a_session():
    initiator, responder = pair()
    first = initiator.write(b"request")
    assert len(first) == MESSAGE_1_BYTES + len(b"request")
    assert responder.read(first) == b"request"
    assert responder.remote == crypto_scalarmult_base(A)
    second = responder.write(b"response")
    assert len(second) == MESSAGE_2_BYTES + len(b"response")
    assert initiator.read(second) == b"response"
    assert initiator.hash == responder.hash
    sending, receiving = initiator.split()
    assert responder.split() == (receiving, sending)
    assert unseal(sending, 7, seal(sending, 7, b"data", b"head"), b"head") == b"data"
    with pytest.raises(MalformedMessage):
        unseal(receiving, 7, seal(sending, 7, b"data"))
