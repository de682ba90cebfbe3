"""A gateway on loopback: a file of machines, and another node that finds them."""

import asyncio
import os
from random import Random

import dhtos
from dhtos.node import gateway as module

ROWS = """name,vcpu,memory_gb,price,arch
ups-1,8,32,0.05,x86_64
printer,many,1,0.01,arm64
bmc-7,64,512,1.5,x86_64
short,1
"""


def config(*seeds, **settings):
    settings = {"host": "127.0.0.1", "port": 0, "sample": False, **settings}
    return dhtos.Config(seeds=[node.endpoint for node in seeds], **settings)


async def names(node, query="price < 9"):
    result = await node.find_all(query)
    return {hit.labels["name"] for hit in result.hits if hit.gateway}


async def until(node, expected):
    while await names(node) != expected:  # noqa: ASYNC110 - brought about by other nodes' timers
        await asyncio.sleep(0.02)


def test_another_node_finds_what_a_gateway_advertises(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.02)
    path = tmp_path / "machines.csv"
    path.write_text(ROWS)

    async def main():
        async with dhtos.Node(config(), rng=Random(1)) as other:
            gateway = dhtos.Node(config(other, gateway=path), rng=Random(2))
            said = []
            gateway.on_warning = said.append
            async with gateway:
                await gateway.joined()
                await until(other, {"ups-1", "bmc-7"})
                result = await other.find_all("cores >= 64")
                (hit,) = result.hits
                assert hit.gateway
                assert hit.endpoint == gateway.endpoint
                assert hit["mem"] == 512 * dhtos.GiB
                assert hit.id != gateway.id
                assert gateway.stats()["rows_advertised"] == 2
                assert [w.split(":")[0] for w in gateway.warnings] == [
                    "machines.csv line 3 is left out",
                    "machines.csv line 5 is left out",
                ]
                path.write_text("name,vcpu,price\nups-1,16,0.05\ntape,2,0.5\nbad,x,0.1\n")
                os.utime(path, ns=(10**18, 10**18))
                await until(other, {"ups-1", "tape"})
                assert [hit["cores"] for hit in (await other.find_all("price < 0.1")).hits] == [16]
                assert "column 'vcpu': cores is a finite number, got 'x'" in said[0]
                gateway.engine.check()
            await until(other, set())

    run(main)
