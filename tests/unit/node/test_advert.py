"""What a node says of itself, and the versions of it."""

import pytest

from dhtos.core.schema import default_schema
from dhtos.errors import UsageError
from dhtos.node.advert import Advert
from dhtos.node.state import Identity

SCHEMA = default_schema()
IDENTITY = Identity.generate(bytes(32))
HERE = ("127.0.0.1", 7400)


def advert(**parts):
    return Advert(SCHEMA, IDENTITY, HERE, **parts)


def test_told_stands_over_sampled():
    mine = advert(told={"cores": 4}, sampled={"cores": 16, "mem": 2**33})
    assert mine.attributes == {"cores": 4, "mem": 2**33}


def test_none_takes_a_value_back():
    mine = advert(told={"price": 0.08}, labels={"team": "video"}, sampled={"cores": 2})
    changed = mine.changed(told={"price": None, "site": "edge"}, labels={"team": None})
    assert changed.attributes == {"cores": 2, "site": "edge"}
    assert changed.labels == {}
    assert mine.told == {"price": 0.08}


def test_the_first_record_carries_who_and_where():
    record = advert(told={"cores": 4}, labels={"a": "b"}).record(None, 7, None)
    assert (record.node_id, record.identity) == (IDENTITY.node_id, IDENTITY.public_key)
    assert (record.endpoint, record.seq, record.rev) == (HERE, 7, 7)
    assert record.labels == (("a", "b"),)


def test_a_dynamic_change_keeps_the_revision():
    mine = advert(sampled={"cores": 2, "cpu_free": 90})
    first = mine.record(None, 1, None)
    second = mine.changed(sampled={"cores": 2, "cpu_free": 10}).record(first, 1, (0.0, 0.0))
    assert (second.seq, second.rev) == (2, 1)
    assert second.attributes(SCHEMA)["cpu_free"] == 10


@pytest.mark.parametrize(
    "change", [{"told": {"price": 1}}, {"labels": {"a": "b"}}, {"sampled": {"cores": 4}}]
)
def test_a_lasting_change_is_a_new_revision(change):
    mine = advert(sampled={"cores": 2})
    first = mine.record(None, 1, None)
    assert mine.changed(**change).record(first, 1, None).rev == 2


def test_a_refused_value_is_named():
    with pytest.raises(UsageError, match="did you mean 'price'"):
        advert().changed(told={"prise": 1}).record(None, 1, None)
