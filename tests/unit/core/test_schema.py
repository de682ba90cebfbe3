"""Schemas: attributes by name, values at the door, the bits of the key, errors at load."""

import math
import pickle
from dataclasses import replace

import pytest

from dhtos.core.limits import ATTRIBUTES_MAX, KEYED_ATTRIBUTES_MAX, TEXT_BYTES_MAX
from dhtos.core.machine_schema import ARCHITECTURES
from dhtos.core.record import make_record, record_size
from dhtos.core.scale import POSITION_MAX, Codes, Flag, Hashed, Linear, Log2, Log2p1
from dhtos.core.schema import KEY_ATTRIBUTE_BITS_MAX, Attribute, Schema, default_schema
from dhtos.errors import ConfigError, UsageError

CORES = Attribute("cores", "number", "static", Log2(1, 1024), "", 12)
ARCH = Attribute("arch", "text", "static", Codes(("x86_64", "arm64")), "", 4)
SITE = Attribute("site", "text", "static", Hashed())
LOAD = Attribute("load", "number", "dynamic", Log2p1(0, 100))
TEMPERATURE = Attribute("temperature", "number", "dynamic", Linear(-40, 110))
SPOT = Attribute("spot", "bool", "static", Flag(), "", 2)
SMALL = Schema("small", 1, (CORES, LOAD, ARCH, SITE, TEMPERATURE, SPOT), ("arch", "cores", "spot"))


# --- attributes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "Cores"}, "name must be"),
        ({"name": "9cores"}, "name must be"),
        ({"name": "a" * 33}, "name must be"),
        ({"name": "class"}, "name must be"),
        ({"name": "label"}, "name must be"),
        ({"name": "rtt"}, "name must be"),
        ({"kind": "integer"}, "kind must be number, text or bool, got 'integer'"),
        ({"role": "fixed"}, "role must be static or dynamic, got 'fixed'"),
        ({"unit": "GB"}, "unit must be one of"),
        ({"keyed_bits": 17}, "keyed_bits must be 0..16, got 17"),
        ({"keyed_bits": -1}, "keyed_bits must be 0..16, got -1"),
        ({"keyed_bits": True}, "keyed_bits must be 0..16, got True"),
        ({"role": "dynamic"}, "keyed_bits must be 0 for a dynamic attribute, got 12"),
        ({"doc": "two\nlines"}, "doc must be one printable line"),
        ({"scale": Hashed()}, "scale must be a scale for number"),
        ({"scale": Log2(0, 8)}, "scale.low must be a number > 0"),
        ({"scale": Log2(8, 8)}, "low < high"),
        ({"scale": Log2(9, 8)}, "low < high"),
        ({"scale": Log2(1, math.inf)}, "finite"),
        ({"scale": Linear(math.nan, 1)}, "finite"),
        ({"scale": Log2p1(1, 8)}, "scale.low must be 0 for log2p1"),
        ({"kind": "text", "scale": Log2(1, 2)}, "scale must be a scale for text"),
        ({"kind": "text", "scale": Codes(())}, "scale.words must be a list of different words"),
        ({"kind": "text", "scale": Codes(("a", "a"))}, "scale.words must be"),
        ({"kind": "text", "scale": Codes(("",))}, "printable"),
        ({"kind": "text", "scale": Codes(("\t",))}, "printable"),
        ({"kind": "text", "scale": Hashed(), "unit": "B"}, "numbers only"),
        ({"kind": "bool", "scale": Linear(0, 1)}, "scale must be a scale for bool (flag)"),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match="attribute ") as caught:
        replace(CORES, **changes)
    assert words in str(caught.value)
    assert repr(changes.get("name", "cores")) in str(caught.value)


def test_floor_is_the_first_position_of_cell_one():
    assert CORES.floor == 16
    assert CORES.cell(CORES.position(1)) == 1
    assert CORES.cell(POSITION_MAX) == 4095
    assert SITE.floor == 1


def test_one_bit_tells_present_from_missing():
    one_bit = replace(CORES, keyed_bits=1)
    assert {one_bit.cell(one_bit.position(n)) for n in (1, 10, 2000)} == {1}


def test_position_bounds_hold_the_positions_of_their_values():
    first, last = CORES.position_bounds(8, 64)
    assert first == CORES.position(8)
    assert last == CORES.position(64)
    assert all(first <= CORES.position(n) <= last for n in range(8, 65))


def test_no_bound_is_the_end_of_the_axis():
    assert CORES.position_bounds(None, None) == (CORES.floor, POSITION_MAX)
    assert CORES.position_bounds(-math.inf, math.inf) == (CORES.floor, POSITION_MAX)
    assert CORES.position_bounds(4, None) == (CORES.position(4), POSITION_MAX)
    assert CORES.position_bounds(None, 4) == (CORES.floor, CORES.position(4))


def test_position_sets_are_exact():
    assert ARCH.position_set(["arm64"]) == {ARCH.position("arm64")}
    assert len(ARCH.position_set(["arm64", "x86_64"])) == 2
    assert SPOT.position_set([True, False]) == {SPOT.position(True), SPOT.position(False)}


def test_value_bounds_enclose_the_values():
    first, last = CORES.position_bounds(8, 64)
    low, high = CORES.value_bounds(first, last)
    assert low <= 8 < 64 <= high
    assert low > 7.99
    assert high < 64.1
    assert CORES.value_bounds(CORES.floor, POSITION_MAX) == (-math.inf, math.inf)


# --- values at the door -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("cores", 8, 8),
        ("cores", 8.0, 8),
        ("cores", 0.5, 0.5),
        ("cores", 0, 0),
        ("cores", 10**6, 10**6),
        ("temperature", -12.5, -12.5),
        ("temperature", -0.0, 0),
        ("arch", "arm64", "arm64"),
        ("site", "Saint-Étienne", "Saint-Étienne"),
        ("spot", True, True),
    ],
)
def test_values_are_checked_and_made_plain(name, value, held):
    checked = SMALL.check(name, value)
    assert checked == held
    assert type(checked) is type(held)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cores", "8", "cores is a finite number, got '8'"),
        ("cores", True, "cores is a finite number, got True"),
        ("cores", math.nan, "cores is a finite number, got nan"),
        ("cores", math.inf, "cores is a finite number, got inf"),
        ("cores", 2**63, "cores is a finite number"),
        ("cores", -1, "cores is a number >= 0, got -1"),
        ("load", -0.1, "load is a number >= 0"),
        ("arch", "arm", "did you mean 'arm64'?"),
        ("arch", "riscv", "arch is one of x86_64, arm64; got 'riscv'"),
        ("arch", 1, "arch is a text, got 1"),
        ("site", "", "1..128 printable bytes"),
        ("site", "a\nb", "1..128 printable bytes"),
        ("site", "x" * (TEXT_BYTES_MAX + 1), "1..128 printable bytes"),
        ("spot", 1, "spot is true or false, got 1"),
        ("core", 1, "unknown attribute 'core'; did you mean 'cores'?"),
        ("zzz", 1, "known: cores, load"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name, value, words):
    with pytest.raises(UsageError) as caught:
        SMALL.check(name, value)
    assert words in str(caught.value)


def test_a_number_with_a_unit_says_so():
    with pytest.raises(UsageError, match="mem is a finite number in B, got '32GiB'"):
        default_schema().check("mem", "32GiB")


def test_an_open_list_takes_other_words():
    open_arch = replace(ARCH, scale=Codes(("x86_64",), open=True))
    assert open_arch.check("riscv64") == "riscv64"
    assert open_arch.floor <= open_arch.position("riscv64") <= POSITION_MAX


# --- schemas ------------------------------------------------------------------------------------


def test_parts_and_places():
    assert [a.name for a in SMALL.static] == ["cores", "arch", "site", "spot"]
    assert [a.name for a in SMALL.dynamic] == ["load", "temperature"]
    assert [a.name for a in SMALL.keyed] == ["arch", "cores", "spot"]
    assert SMALL.slots == (0, 0, 1, 2, 1, 3)
    assert SMALL.key_slots == (1, 0, 3)
    assert SMALL.index("site") == 3
    assert SMALL.attribute("site") is SITE
    assert "site" in SMALL
    assert "sites" not in SMALL
    assert 3 not in SMALL


def test_key_schedule_is_round_robin_until_bits_are_used_up():
    assert SMALL.key_bits == (4, 12, 2)
    assert list(SMALL.key_schedule) == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, *[1] * 8]


def test_a_schema_without_a_key_is_allowed():
    bare = Schema("bare", 0, (SITE, LOAD))
    assert bare.key_schedule == b""
    assert bare.keyed == ()


def numbered(count, bits=0):
    """A schema's worth of attributes."""
    return tuple(
        Attribute(f"a{n}", "number", "static", Linear(0, 1), "", bits) for n in range(count)
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Small", 0, (SITE,)), "schema name must be"),
        (("small", 4, (SITE,)), "schema version must be 0..3, got 4"),
        (("small", -1, (SITE,)), "schema version must be 0..3, got -1"),
        (("small", True, (SITE,)), "schema version must be 0..3"),
        (("small", 0, ()), "a schema has 1..64 attributes, got 0"),
        (("small", 0, numbered(ATTRIBUTES_MAX + 1)), "got 65"),
        (("small", 0, (SITE, SITE)), "attribute 'site': name is declared twice"),
        (("small", 0, (CORES,), ("core",)), "key_order names 'core', which is no attribute; did"),
        (("small", 0, (CORES,), ("cores", "cores")), "key_order must name each attribute once"),
        (("small", 0, (CORES, SITE), ("cores", "site")), "attribute 'site': key_order names it"),
        (("small", 0, (CORES,), ()), "attribute 'cores': keyed_bits is set but key_order"),
        (
            ("s", 0, numbered(17, 1), tuple(f"a{n}" for n in range(17))),
            f"at most {KEYED_ATTRIBUTES_MAX} attributes, got 17",
        ),
        (
            ("s", 0, numbered(7, 14), tuple(f"a{n}" for n in range(7))),
            f"at most {KEY_ATTRIBUTE_BITS_MAX}, got 98",
        ),
    ],
)
def test_a_schema_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ConfigError) as caught:
        Schema(*arguments)
    assert words in str(caught.value)


def test_tag_changes_with_everything_that_matters():
    others = [
        replace(SMALL, name="other"),
        replace(SMALL, version=2),
        replace(SMALL, key_order=("cores", "arch", "spot")),
        replace(SMALL, attributes=(LOAD, CORES, *SMALL.attributes[2:])),
        replace(SMALL, attributes=(replace(CORES, keyed_bits=11), *SMALL.attributes[1:])),
        replace(SMALL, attributes=(replace(CORES, scale=Log2(1, 2048)), *SMALL.attributes[1:])),
        replace(SMALL, attributes=(replace(CORES, unit="Hz"), *SMALL.attributes[1:])),
    ]
    tags = {schema.tag for schema in others} | {SMALL.tag}
    assert len(tags) == len(others) + 1
    assert all(0 <= tag < 2**32 for tag in tags)


def test_tag_does_not_change_with_words_or_spelling():
    documented = replace(SMALL, attributes=(replace(CORES, doc="x"), *SMALL.attributes[1:]))
    assert documented.tag == SMALL.tag
    floats = replace(CORES, scale=Log2(1.0, 1024.0))
    assert replace(SMALL, attributes=(floats, *SMALL.attributes[1:])).tag == SMALL.tag


def test_tag_is_the_same_in_every_process():
    assert SMALL.tag == 1468133783


def test_schemas_are_values():
    again = Schema.from_toml(SMALL.to_toml())
    assert again == SMALL
    assert hash(again) == hash(SMALL)
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL


# --- the machine schema -------------------------------------------------------------------------


def test_machine_schema_is_the_one_the_design_names():
    schema = default_schema()
    assert default_schema() is schema
    assert schema.key_order == (
        "cores", "mem", "gpus", "price", "arch", "site", "disk", "provider",
    )  # fmt: skip
    assert sum(schema.key_bits) == KEY_ATTRIBUTE_BITS_MAX
    assert {a.name for a in schema.dynamic} == {
        "cpu_free", "load1", "mem_free", "disk_free", "gpus_free", "price_spot", "load_5s",
        "load_15s", "load_error", "mem_pressure", "io_pressure", "net_in", "net_out",
        "temperature", "battery", "plugged", "gpu_mem_free", "cores_free",
    }  # fmt: skip
    assert all(a.doc for a in schema.attributes)


def test_keys_do_not_depend_on_what_changes():
    """A dynamic attribute more or less leaves every machine where it is."""
    schema = default_schema()
    lean = Schema(schema.name, schema.version, schema.static, schema.key_order)
    values = {"cores": 8, "mem": 2**35, "price": 0.1, "arch": "arm64"}
    keys = set()
    for told in (schema, lean):
        record = make_record(
            told, values, {}, node_id=bytes(20), endpoint=("::1", 1), seq=1, identity=bytes(32)
        )
        keys.add(record.key(told))
    assert len(keys) == 1


def test_what_a_machine_does_not_say_costs_its_record_a_byte():
    """And all that it may say leaves room for labels: RECORD_BYTES_MAX is 1000."""
    schema = default_schema()

    def size(**values):
        record = make_record(
            schema, values, {}, node_id=bytes(20), endpoint=("10.0.0.1", 7400), seq=2**40,
            identity=bytes(32),
        )  # fmt: skip
        return record_size(record)

    assert size() <= 120 + len(schema.attributes)
    server = {
        "cores": 16, "mem": 67381800960, "disk": 502468108288, "arch": "x86_64", "os": "linux",
        "python": "3.12", "cpu_model": "Intel(R) Xeon(R) Platinum 8488C", "clock": 3800000000,
        "host": "0123456789abcdef", "price": 0.8064, "site": "eu-west-1a", "region": "eu-west-1",
        "provider": "aws", "type": "m7i.4xlarge", "cpu_free": 63.4, "load1": 5.31,
        "mem_free": 41234567168, "disk_free": 212468108288, "load_5s": 5.42, "load_15s": 5.38,
        "load_error": 0.61, "mem_pressure": 0, "io_pressure": 2, "net_in": 830000,
        "net_out": 21000000,
    }  # fmt: skip
    assert size(**server) <= 360


def test_architectures_have_cells_of_their_own():
    arch = default_schema().attribute("arch")
    cells = {arch.cell(arch.position(word)) for word in ARCHITECTURES}
    assert len(cells) == len(ARCHITECTURES)
    assert 0 not in cells


def test_the_machines_on_sale_are_inside_the_scales():
    schema = default_schema()
    for name, smallest, largest in (
        ("cores", 2, 896),
        ("mem", 2**29, 32 * 2**40),
        ("price", 0.0042, 200),
        ("gpus", 1, 16),
        ("clock", 1.1e9, 5.7e9),
    ):
        attribute = schema.attribute(name)
        low, high = attribute.position(smallest), attribute.position(largest)
        assert attribute.floor < low < high < POSITION_MAX
