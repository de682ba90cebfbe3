"""Hits: what a user reads off one machine of an answer."""

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from dhtos.core.hit import Hit
from dhtos.core.ids import NodeId
from dhtos.core.record import make_record, row_id
from dhtos.core.scale import Hashed
from dhtos.core.schema import Attribute, default_schema
from dhtos.errors import UsageError

SCHEMA = default_schema()


def hit(host="10.0.0.1", seq=3, **values):
    """A hit on a machine with these values."""
    record = make_record(
        SCHEMA, values, {"team": "ml"}, node_id=bytes(20), endpoint=(host, 7400), seq=seq
    )
    return Hit(record, SCHEMA, 1.5, 0.012)


def test_a_hit_shows_the_machine():
    found = hit(cores=8, cpu_free=50.0)
    assert found.id == NodeId(bytes(20))
    assert found.endpoint == "10.0.0.1:7400"
    assert found.seq == 3
    assert found.age_s == 1.5
    assert found.rtt_s == 0.012
    assert found["cores"] == 8
    assert found["cpu_free"] == 50
    assert found.attributes == {"cores": 8, "cpu_free": 50}
    assert found.labels == {"team": "ml"}


def test_an_ipv6_endpoint_has_brackets():
    assert hit(host="::1").endpoint == "[::1]:7400"


def test_a_missing_value_is_a_key_error_and_an_unknown_name_is_explained():
    found = hit(cores=8)
    with pytest.raises(KeyError, match="price"):
        found["price"]
    assert found.get("price") is None
    assert found.get("price", 9) == 9
    assert found.get("cores", 9) == 8
    with pytest.raises(UsageError, match="did you mean 'cores'"):
        found["core"]


def test_a_value_that_is_false_is_not_missing():
    assert hit(gpus=0)["gpus"] == 0


def test_a_hit_cannot_be_changed():
    found = hit(cores=8)
    with pytest.raises(FrozenInstanceError):
        found.age_s = 0.0
    with pytest.raises(TypeError):
        found.attributes["cores"] = 9
    with pytest.raises(TypeError):
        found.labels["team"] = "x"


def test_hits_on_one_version_are_equal():
    assert hit(cores=8) == hit(cores=8)
    assert len({hit(cores=8), hit(cores=8), hit(cores=8, seq=4)}) == 2
    assert hit(cores=8) != hit(cores=9)
    assert hit() != 3
    assert pickle.loads(pickle.dumps(hit(cores=8))) == hit(cores=8)


def test_repr_names_the_machine():
    assert repr(hit()) == f"<Hit {'00' * 20} 10.0.0.1:7400 seq=3>"


def test_a_hit_tells_machines_behind_a_gateway():
    record = make_record(
        SCHEMA,
        {"cores": 8},
        {},
        node_id=row_id(bytes(32), "ups-1"),
        endpoint=("10.0.0.9", 7400),
        seq=1,
        identity=bytes(32),
        row="ups-1",
    )
    assert Hit(record, SCHEMA, 0.0).gateway
    assert Hit(record, SCHEMA, 0.0).endpoint == "10.0.0.9:7400"
    assert not hit(cores=8).gateway


def test_what_only_another_schema_version_has_is_missing():
    zone = Attribute("zone", "text", "static", Hashed())
    words = replace(SCHEMA, version=1, attributes=(*SCHEMA.attributes, zone))
    known = replace(hit(cores=8), words=words)
    assert known.get("zone") is None
    with pytest.raises(KeyError, match="zone"):
        known["zone"]
    assert known["cores"] == 8
    for found in (hit(cores=8), known):
        with pytest.raises(UsageError, match="unknown attribute 'zones'"):
            found.get("zones")
