"""How often an address may have us work: so many times a second, and so many at once.

Addresses of IPv6 count by their first half: whoever has one usually has all of it. The table is
bounded; who comes back after being forgotten begins anew, and to be forgotten takes the work of
thousands of addresses.
"""

from dhtos.core.limits import HANDSHAKE_SOURCES_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_S


class Rates:
    """Handshakes by address."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # how many, and when

    def admit(self, host: str, now: float) -> bool:
        """Count one more; whether the address has not asked for too much."""
        network = network_of(host)
        left, since = self._left.pop(network, (float(HANDSHAKES_BURST), now))
        left = min(left + (now - since) * HANDSHAKES_PER_S, float(HANDSHAKES_BURST))
        if len(self._left) >= HANDSHAKE_SOURCES_MAX:
            del self._left[next(iter(self._left))]
        self._left[network] = (max(left - 1, 0.0), now)
        return left >= 1


def network_of(host: str) -> str:
    """Whose rate an address counts for: of IP version 6 the first half."""
    if ":" not in host:
        return host
    from ipaddress import IPv6Address

    try:
        return IPv6Address(host.partition("%")[0]).packed[:8].hex()
    except ValueError:
        return host
