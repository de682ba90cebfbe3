"""Who a node is and what it saves, with a directory and without one."""

import random
from pathlib import Path

import pytest

from dhtos.core.contact import Contact
from dhtos.core.schema import default_schema
from dhtos.errors import ConfigError
from dhtos.node.keeper import Keeper
from dhtos.node.state import SEQ_RESERVE
from dhtos.protocol.engine import Engine


def engine(*contacts: Contact) -> Engine:
    made = Engine(bytes(20), rng=random.Random(1), now=0.0, schema=default_schema())
    for contact in contacts:
        made.base.routing.add(contact, 0.0)
    return made


async def test_without_a_directory_everybody_is_new_and_nothing_is_saved() -> None:
    first, second = await Keeper.open(None, lambda: 1e9), await Keeper.open(None, lambda: 1e9)
    assert first.identity.node_id != second.identity.node_id
    assert (first.contacts, first.first_seq, first.warnings) == ([], 1, ())
    await first.save(engine())
    first.close()


async def test_a_directory_remembers_who_we_are_and_lets_one_in(tmp_path: Path) -> None:
    keeper = await Keeper.open(tmp_path, lambda: 1e9)
    with pytest.raises(ConfigError):
        await Keeper.open(tmp_path, lambda: 1e9)
    keeper.close()
    again = await Keeper.open(tmp_path, lambda: 1e9)
    assert again.identity.node_id == keeper.identity.node_id
    assert again.first_seq >= keeper.first_seq + SEQ_RESERVE
    again.close()


async def test_versions_that_were_told_are_never_told_again(tmp_path: Path) -> None:
    keeper = await Keeper.open(tmp_path, lambda: 1e9)
    running = engine()
    told = running.hub.rows.seq = keeper.first_seq + 10 * SEQ_RESERVE
    await keeper.save(running)
    keeper.close()
    again = await Keeper.open(tmp_path, lambda: 1e9)
    assert again.first_seq > told
    again.close()


async def test_a_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "contacts.json").write_text("{")
    keeper = await Keeper.open(tmp_path, lambda: 1e9)
    (warning,) = keeper.warnings
    assert "contacts.json" in warning
    keeper.close()
