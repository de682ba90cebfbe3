"""Junk for a port, so many datagrams a second: half of it asks for an answer, none deserves much.

    flood.py LOOP

Each datagram begins like one of the secured wire, or of the stock one. Sources are the ports of
four sockets, so nobody's share of anything is used up by one of them.
"""

import asyncio
import random
import socket
import time

from _serve import Command, serve

HOST = "127.0.0.1"
STEP_S = 0.001
KINDS = (0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD4, 0x00, 0x01)


def junk(rng: random.Random) -> bytes:
    """A datagram with the first byte of a true one."""
    kind = rng.choice(KINDS)
    return bytes([kind]) + rng.randbytes(65 if kind == 0xD0 else rng.choice((60, 100, 300, 900)))


async def start() -> dict[str, Command]:
    """The command `flood` sends for some seconds, and says how many a second it was."""
    rng = random.Random(3)
    datagrams = [junk(rng) for _ in range(4096)]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    for one in sockets:
        one.setblocking(False)

    async def flood(port: int, rate: int, seconds: float) -> float:
        target = (HOST, port)
        began = time.perf_counter()
        sent = 0
        while (passed := time.perf_counter() - began) < seconds:
            for _ in range(int(passed * rate) - sent):
                try:
                    sockets[sent & 3].sendto(datagrams[sent & 4095], target)
                except BlockingIOError:
                    break
                sent += 1
            await asyncio.sleep(STEP_S)
        return sent / (time.perf_counter() - began)

    return {"flood": flood}


if __name__ == "__main__":
    serve(start)
