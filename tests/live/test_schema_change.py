"""Nodes of two schema versions on loopback: what each finds, and what a forgotten version does."""

import asyncio

import pytest

import dhtos
from dhtos.core.ids import Prefix
from dhtos.core.scale import Log2
from dhtos.core.schema import Attribute, Schema
from dhtos.errors import PredicateError, SchemaConflict, UsageError


def shop(version, *names):
    attributes = tuple(Attribute(n, "number", "static", Log2(1, 4096), "", 12) for n in names)
    return Schema("shop", version, attributes, names)


OLD, NEW = shop(0, "cores", "slots"), shop(1, "cores", "watts")
CHANGED = shop(0, "cores", "watts")


def node(schema, *others, seeds=(), client=False, **told):
    return dhtos.Node(
        dhtos.Config(
            host="127.0.0.1",
            port=0,
            seeds=[seed.endpoint for seed in seeds],
            sample=False,
            schema=schema,
            other_schemas=others,
            client=client,
            advertise=told,
        )
    )


async def names_the_other(asker):
    """Wait until news of the other version has come, and ask for everything."""
    while (found := await asker.find_all()).coverage.complete:  # noqa: ASYNC110 - no event of ours
        await asyncio.sleep(0.01)
    return found


def test_a_node_that_moved_finds_both_and_one_that_did_not_says_so(run):
    async def main():
        async with node(OLD, cores=8, slots=2) as first:
            await first.joined()
            async with node(NEW, OLD, seeds=[first], cores=16, watts=90) as moved:
                await moved.joined()
                both = await moved.find_all("cores >= 4", order_by="cores", descending=True)
                assert [hit["cores"] for hit in both.hits] == [16, 8]
                assert [hit.schema.version for hit in both.hits] == [1, 0]
                assert both.coverage.complete
                assert await moved.count("watts < 100") == await moved.count("slots >= 1") == 1
                by_slots = await moved.find_all(order_by="slots", explain=True)
                assert [hit.get("slots") for hit in by_slots.hits] == [2, None]
                assert {step.schema.version for step in by_slots.steps} == {0, 1}
                with pytest.raises(UsageError, match="no version of the schema has all"):
                    await moved.find_all("slots >= 1 and watts >= 1")
                found = await names_the_other(first)
                assert [hit["cores"] for hit in found.hits] == [8]
                assert found.coverage.failed_prefixes == (Prefix(0b01, 2),)
                with pytest.raises(PredicateError):
                    first.find("watts >= 1")
                async with node(NEW, OLD, seeds=[first], client=True) as client:
                    assert await client.count() == 2
                    assert (await client.find_all("slots >= 1")).coverage.complete
                assert moved.warnings == first.warnings == ()
            while not (await first.find_all()).coverage.complete:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

    run(main)


def test_a_forgotten_version_ends_with_what_to_do(run):
    async def main():
        async with node(OLD, cores=8) as first:
            await first.joined()
            async with node(CHANGED, seeds=[first], cores=16) as wrong:
                with pytest.raises(
                    SchemaConflict, match="give the changed schema the next version"
                ):
                    await wrong.joined()
                with pytest.raises(SchemaConflict):
                    await wrong.count()
                (line,) = wrong.warnings
                assert f"peer {first.endpoint} runs another schema as version 0" in line
            (line,) = first.warnings
            assert f"(tag {CHANGED.tag:08x})" in line
            assert first.stats()["schema_conflicts"] >= 1
            assert await first.count() == 1
            async with node(CHANGED, seeds=[first], client=True) as client:
                for ask in (client.count, client.find_all):
                    with pytest.raises(SchemaConflict, match="schema conflict: peer"):
                        await ask()

    run(main)
