"""Needs: what may be asked for, and which attributes of a schema can be shared out."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from dhtos.core.scale import Codes, Hashed, Linear, Log2p1
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import UsageError
from dhtos.query import F
from dhtos.sched import PROFILES, Need, Weights, check

GIB = 2**30


def number(name, role="static", unit="", scale=None):
    return Attribute(name, "number", role, scale or Log2p1(0, 1000), unit)


SCHEMA = Schema(
    "shop",
    0,
    (
        number("cores"),
        number("mem", unit="B"),
        number("gpus"),
        number("gpu_mem", unit="B"),
        number("slots"),
        number("slot_width"),
        number("clock", unit="Hz"),
        number("power"),
        Attribute("zone", "text", "static", Hashed()),
        number("cores_free", "dynamic"),
        number("mem_free", "dynamic", "B"),
        number("gpus_free", "dynamic"),
        number("gpu_mem_free", "dynamic", "B"),
        number("slots_free", "dynamic"),
        number("slot_width_free", "dynamic"),
        number("clock_free", "dynamic", "%", Linear(0, 100)),
        number("power_free"),
        Attribute("zone_free", "text", "dynamic", Codes(("yes", "no"))),
        number("lonely_free", "dynamic"),
    ),
)


# --- resources ------------------------------------------------------------------------------------


def test_a_resource_has_a_free_partner():
    assert SCHEMA.resources == ("cores", "mem", "gpus", "slots")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu_mem", "describes one of the gpus"),
        ("slot_width", "describes one of the slots"),
        ("clock", "its partner has another unit"),
        ("power", "its partner never changes"),
        ("zone", "is no number"),
        ("lonely", "is not there"),
    ],
)
def test_other_attributes_are_no_resources(name, why):
    assert name not in SCHEMA.resources, why


def test_the_resources_of_machines():
    assert default_schema().resources == ("cores", "mem", "disk", "gpus")


# --- what may be asked for ------------------------------------------------------------------------


def test_a_need_shows_what_it_was_made_of():
    need = Need(mem=8 * GIB, cores=4, where="arch == 'arm64'", max_price=0.5, prefer="near")
    assert dict(need.resources) == {"cores": 4, "mem": 8 * GIB}
    assert list(need.resources) == ["cores", "mem"]  # by name, whatever the order they came in
    assert (need.where, need.max_price, need.priority) == ("arch == 'arm64'", 0.5, 0)
    assert need.weights is PROFILES["near"]
    assert repr(need) == (
        f"Need(cores=4, mem={8 * GIB}, where=\"arch == 'arm64'\", prefer='near', max_price=0.5)"
    )
    assert repr(Need(cores=1)) == "Need(cores=1)"


def test_a_need_may_ask_for_nothing_but_a_place():
    assert not Need(where="gpus >= 1").resources


def test_equal_needs_are_one():
    one, other = Need(cores=4, mem=GIB), Need(mem=GIB, cores=4)
    assert one == other
    assert len({one, other}) == 1
    assert one != Need(cores=4)
    assert one != Need(cores=4, mem=GIB, priority=1)
    assert one != Need(cores=4, mem=GIB, preempt=True)


def test_where_may_be_an_expression():
    need = Need(cores=1, where=F.site == "lab")
    assert "where=" in repr(need)
    assert need == Need(cores=1, where=F.site == "lab")
    assert hash(need) == hash(Need(cores=1, where=F.site == "lab"))


def test_a_need_does_not_change():
    need = Need(cores=4)
    with pytest.raises(FrozenInstanceError):
        need.priority = 3
    with pytest.raises(TypeError):
        need.resources["cores"] = 8


def test_a_need_travels():
    need = Need(cores=4, where="x", prefer=Weights(fit=2), priority=-3, max_price=0.0)
    assert pickle.loads(pickle.dumps(need)) == need
    assert copy.deepcopy(need) == need


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf"), True, "4", None, 10**30])
def test_amounts_are_numbers_above_zero(amount):
    with pytest.raises(UsageError, match="cores must be a number above 0, got"):
        Need(cores=amount)


@pytest.mark.parametrize("amount", [1.5, 2.25])
def test_several_gpus_are_whole(amount):
    with pytest.raises(UsageError, match=f"a share below 1 or a whole number, got {amount}"):
        Need(gpus=amount)
    assert Need(cores=amount).resources["cores"] == amount


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefer": "packed"}, "prefer is one of pack, spread.*did you mean 'pack'"),
        ({"prefer": 3}, "prefer is one of"),
        ({"preempt": 1}, "preempt must be True or False"),
        ({"priority": 1.0}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
        ({"priority": 2**31}, "priority must be a whole number"),
        ({"max_price": -0.1}, "max_price must be a number >= 0 or None"),
        ({"max_price": float("nan")}, "max_price must be a number >= 0 or None"),
        ({"max_price": "cheap"}, "max_price must be a number >= 0 or None"),
    ],
)
def test_what_else_cannot_be(arguments, message):
    with pytest.raises(UsageError, match=message):
        Need(cores=1, **arguments)


# --- against a schema -----------------------------------------------------------------------------


def test_a_need_that_fits_the_schema():
    check(Need(cores=4, gpus=0.5, prefer="spread"), SCHEMA)
    check(Need(), SCHEMA)


def test_unknown_resources_name_the_nearest():
    with pytest.raises(UsageError, match=r"unknown resource 'core'; did you mean 'cores'\?"):
        check(Need(core=4), SCHEMA)
    with pytest.raises(UsageError, match="unknown resource 'xyz'; known: cores, mem, gpus, slots"):
        check(Need(xyz=4), SCHEMA)


def test_an_attribute_that_is_no_resource_belongs_into_where():
    with pytest.raises(UsageError, match=r"'gpu_mem' is no resource but an attribute: .* where"):
        check(Need(gpu_mem=4), SCHEMA)


def test_a_schema_without_resources_says_so():
    bare = Schema("bare", 0, (number("cores"),))
    with pytest.raises(UsageError, match="known: none: no number attribute has a partner"):
        check(Need(gpus=4), bare)


def test_a_need_of_other_machines_or_amounts_is_else_the_same():
    need = Need(cores=4, where="x", prefer="cheap", priority=3, max_price=0.5, preempt=True)
    others = {"prefer": "cheap", "priority": 3, "max_price": 0.5, "preempt": True}
    assert need.where_is("y") == Need(cores=4, where="y", **others)
    assert need.of({"mem": 7}) == Need(mem=7, where="x", **others)
