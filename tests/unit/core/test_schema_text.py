"""Schemas as TOML: what is read, what is written, and every mistake by its name."""

import pytest

from dhtos.core.scale import Codes, Flag, Hashed, Linear, Log2, Log2p1
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import ConfigError

TEXT = """
name = "lab"
version = 2
key_order = ["cores", "arch"]

[[attribute]]
name = "cores"
kind = "number"
role = "static"
scale = {type = "log2", low = 1, high = 1024}
keyed_bits = 12
doc = "logical \\"CPUs\\""

[[attribute]]
name = "arch"
kind = "text"
role = "static"
scale = {type = "codes", words = ["x86_64", "arm64"], open = true}
keyed_bits = 4

[[attribute]]
name = "cpu_free"
kind = "number"
role = "dynamic"
unit = "%"
scale = {type = "linear", low = 0, high = 100.0}
"""


def test_toml_is_read():
    assert Schema.from_toml(TEXT) == Schema(
        "lab",
        2,
        (
            Attribute("cores", "number", "static", Log2(1, 1024), "", 12, 'logical "CPUs"'),
            Attribute("arch", "text", "static", Codes(("x86_64", "arm64"), open=True), "", 4),
            Attribute("cpu_free", "number", "dynamic", Linear(0, 100), "%"),
        ),
        ("cores", "arch"),
    )


def test_the_machine_schema_survives_its_text():
    schema = default_schema()
    again = Schema.from_toml(schema.to_toml())
    assert again == schema
    assert again.tag == schema.tag
    assert again.to_toml() == schema.to_toml()


def test_every_scale_survives_its_text():
    scales = [
        ("number", Log2(0.001, 1e300)),
        ("number", Log2p1(0, 31)),
        ("number", Linear(-1e-7, 2**62)),
        ("text", Codes(("a b", 'quo"te', "back\\slash", "é", "\N{SNOWMAN}"))),
        ("text", Codes(("x",), open=True)),
        ("text", Hashed()),
        ("bool", Flag()),
    ]
    attributes = tuple(
        Attribute(f"a{n}", kind, "dynamic", scale) for n, (kind, scale) in enumerate(scales)
    )
    schema = Schema("every", 3, attributes)
    assert Schema.from_toml(schema.to_toml()) == schema


def test_mappings_are_read_as_the_toml_they_stand_for():
    mapping = {
        "name": "lab",
        "version": 0,
        "attribute": [
            {"name": "rack", "kind": "text", "role": "static", "scale": {"type": "hashed"}}
        ],
    }
    schema = Schema.from_mapping(mapping)
    assert schema.key_order == ()
    assert schema.attribute("rack").scale == Hashed()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "lab"', "name = ", "schema is not TOML"),
        ('name = "lab"', "", "schema: key 'name' is missing"),
        ('name = "lab"', "name = 3", "schema: name must be a text, got 3"),
        ("version = 2", "version = '2'", "schema: version must be an integer, got '2'"),
        ("version = 2", "version = true", "schema: version must be an integer, got True"),
        ("version = 2", "version = 9", "schema version must be 0..3, got 9"),
        ("version = 2", "versoin = 2", "unknown key 'versoin'; did you mean 'version'?"),
        ("version = 2", "version = 2\nzzz = 1", "known: name, version, key_order, attribute"),
        ('["cores", "arch"]', '["cores", 1]', "key_order must be a list of attribute names"),
        ('["cores", "arch"]', '"cores"', "schema: key_order must be a list, got 'cores'"),
        ('["cores", "arch"]', '["cores", "arc"]', "key_order names 'arc'"),
        ('name = "cores"', "", "attribute number 1: key 'name' is missing"),
        ('name = "cores"', "name = 1", "attribute number 1: name must be a text, got 1"),
        ('kind = "number"', "", "attribute 'cores': key 'kind' is missing"),
        ('kind = "number"', 'kind = "int"', "attribute 'cores': kind must be number, text or"),
        ('role = "static"', 'rule = "static"', "attribute 'cores': unknown key 'rule'; did you"),
        ("keyed_bits = 12", "keyed_bits = 20", "attribute 'cores': keyed_bits must be 0..16"),
        ("keyed_bits = 12", "keyed_bits = 1.5", "attribute 'cores': keyed_bits must be an integer"),
        ('"log2"', '"log"', "attribute 'cores': scale.type must be one of log2, log2p1, linear"),
        ('type = "log2", ', "", "attribute 'cores': scale.type must be one of"),
        ("low = 1,", "", "attribute 'cores': scale.low must be a number, got None"),
        ("low = 1,", "low = 0,", "attribute 'cores': scale.low must be a number > 0"),
        ("low = 1,", "low = true,", "attribute 'cores': scale.low must be a number, got True"),
        ("high = 1024", "high = 'x'", "attribute 'cores': scale.high must be a number, got 'x'"),
        ("high = 1024", "high = inf", "attribute 'cores': scale must be two finite numbers"),
        ("high = 1024", "hi = 1", "attribute 'cores': scale.hi is no key of log2; it has low, hig"),
        ('["x86_64", "arm64"]', '["x86_64", 64]', "attribute 'arch': scale.words must be a list"),
        ('["x86_64", "arm64"]', "3", "attribute 'arch': scale.words must be a list of texts"),
        ('["x86_64", "arm64"]', "[]", "attribute 'arch': scale.words must be a list of diff"),
        ("open = true", "open = 1", "attribute 'arch': scale.open must be true or false, got 1"),
        ('unit = "%"', 'unit = "percent"', "attribute 'cpu_free': unit must be one of"),
        ('unit = "%"', "keyed_bits = 3", "attribute 'cpu_free': keyed_bits must be 0 for a dyn"),
    ],
)
def test_every_mistake_is_named(old, new, words):
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        Schema.from_toml(TEXT.replace(old, new, 1))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (3, "attribute number 1: must be a table, got 3"),
        ({"name": "a", "kind": "text", "role": "static", "scale": "hashed"}, "must be a table"),
        (
            {"name": "a", "kind": "text", "role": "static", "scale": {"type": "hashed", "low": 1}},
            "scale.low is no key of hashed; it has none",
        ),
        (
            {"name": "a", "kind": "bool", "role": "static", "scale": {"type": "log2p1"}},
            "scale.high must be a number, got None",
        ),
    ],
)
def test_mappings_of_other_shapes_are_refused(attribute, words):
    with pytest.raises(ConfigError) as caught:
        Schema.from_mapping({"name": "lab", "version": 0, "attribute": [attribute]})
    assert words in str(caught.value)
