"""What the replies to `find_node` and `find_value` may say; MalformedMessage for all else."""

import re
from collections.abc import Callable, Container
from typing import Any

from dhtos.core.contact import Contact
from dhtos.core.ids import ID_BYTES, Endpoint
from dhtos.core.limits import CONTACTS_PER_REPLY_MAX, VALUE_TTL_S
from dhtos.errors import MalformedMessage
from dhtos.protocol.store import VALUE_TYPES, Held

SEQ_MAX = 2**63 - 1
Reader = Callable[[dict[str, Any], float], Held | None]
"""`reader(reply, now)` is the value of a `find_value` reply, None if it is not what was asked."""

_HOST = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:.%]{2,60}")


def read_contacts(value: object, known: Container[Endpoint]) -> list[Contact]:
    """The contacts of a reply whose endpoints are not known yet."""
    if type(value) is not list or len(value) > CONTACTS_PER_REPLY_MAX:
        raise MalformedMessage("a reply is a list of contacts")
    return [contact for item in value if (contact := _new_contact(item, known)) is not None]


def _new_contact(item: object, known: Container[Endpoint]) -> Contact | None:
    """The contact of a `[id, host, port]`, or None when its endpoint is known already."""
    if type(item) is not list or len(item) != 3:
        raise MalformedMessage("a contact is [id, host, port]")
    contact_id, host, port = item
    if type(host) is not str or type(port) is not int or not 0 < port < 65536:
        raise MalformedMessage("an endpoint is a host and a port 1..65535")
    if type(contact_id) is not bytes or len(contact_id) != ID_BYTES:
        raise MalformedMessage("a contact has an id of 20 bytes")
    endpoint = (host, port)
    if endpoint in known:
        return None
    if _HOST.fullmatch(host) is None:
        raise MalformedMessage("a host is a numeric address")
    return Contact(contact_id, endpoint)


def read_value(reply: dict[str, Any], now: float) -> Held:
    """The value of a `find_value` reply; dhtos peers add its number and the life it has left."""
    value: Any = reply.get("value")
    seq = reply.get("s", 0)
    ttl_s = reply.get("t", VALUE_TTL_S)
    if type(value) not in VALUE_TYPES:
        raise MalformedMessage("a value is str, bytes, int, float or bool")
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        raise MalformedMessage("a sequence number is 0..2**63-1")
    if type(ttl_s) not in (int, float) or not 0 < ttl_s <= VALUE_TTL_S:
        raise MalformedMessage("a value has 0 < t <= a week left to live")
    return Held(value, seq, now + ttl_s)
