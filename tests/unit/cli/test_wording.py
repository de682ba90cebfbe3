"""Values as people write and read them."""

from typing import Any

import pytest

from dhtos.cli.wording import (
    age_text,
    coverage_text,
    milliseconds,
    percent,
    plural,
    read_label,
    read_setting,
    read_value,
    value_text,
)
from dhtos.core.scale import Flag
from dhtos.core.schema import Attribute, Value, default_schema
from dhtos.errors import UsageError

SCHEMA = default_schema()
FLAG = Attribute("idle", "bool", "static", Flag())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mem", 32 * 2**30, "32GiB"),
        ("mem", 3 * 2**29, "1.5GiB"),
        ("mem", 100, "100B"),
        ("mem", 0, "0B"),
        ("clock", 2_400_000_000, "2.4GHz"),
        ("cpu_free", 87.5, "87.5%"),
        ("price", 0.08, "0.08"),
        ("cores", 8, "8"),
        ("cores", 123456, "123456"),
        ("site", "edge-7", "edge-7"),
    ],
)
def test_a_value_is_shown_with_its_unit(name: str, value: Value, text: str) -> None:
    assert value_text(SCHEMA.attribute(name), value) == text


def test_a_flag_is_shown_as_a_word() -> None:
    assert value_text(FLAG, True) == "true"
    assert value_text(FLAG, False) == "false"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mem", "32GiB", 32 * 2**30),
        ("mem", " 32 GiB ", 32 * 2**30),
        ("mem", "1e9", 10**9),
        ("mem", "0.5KiB", 512),
        ("clock", "2.4GHz", 2_400_000_000),
        ("cpu_free", "50%", 50),
        ("cores", "8", 8),
        ("cores", "8.0", 8),
        ("price", "0.08", 0.08),
        ("site", "edge-7", "edge-7"),
        ("arch", "arm64", "arm64"),
    ],
)
def test_a_value_is_read_with_or_without_its_unit(name: str, text: str, value: Value) -> None:
    read = read_value(SCHEMA.attribute(name), text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mem", "32GHz", "mem takes TiB"),
        ("mem", "32gib", "did you mean GiB"),
        ("cores", "8GiB", "cores takes no unit"),
        ("cores", "many", "cores is a finite number"),
        ("cores", "", "cores is a finite number"),
        ("cores", "nan", "cores is a finite number"),
        ("cores", "-3", "cores is a number >= 0"),
        ("arch", "arm64x", "did you mean 'arm64'"),
        ("site", "", "site is a text"),
    ],
)
def test_a_value_that_cannot_be_names_its_attribute(name: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_value(SCHEMA.attribute(name), text)


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("TRUE", True), ("0", False)])
def test_a_flag_is_read_from_the_usual_words(text: str, value: bool) -> None:
    assert read_value(FLAG, text) is value


def test_a_flag_is_not_read_from_other_words() -> None:
    with pytest.raises(UsageError, match="true or false"):
        read_value(FLAG, "perhaps")


def test_settings_and_labels_are_read_at_the_first_equals_sign() -> None:
    assert read_setting(SCHEMA, "site = a=b") == ("site", "a=b")
    assert read_label("team=video=2") == ("team", "video=2")


@pytest.mark.parametrize("text", ["price", "=3", ""])
def test_a_setting_without_a_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="try --set"):
        read_setting(SCHEMA, text)
    with pytest.raises(UsageError, match="try --label"):
        read_label(text)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'price'"):
        read_setting(SCHEMA, "prise=3")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.00123, "1.2"), (0.0999, "99.9"), (1.2, "1200")]
)
def test_milliseconds_have_about_three_digits(seconds: float | None, text: str) -> None:
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0.0s"), (11.0, "11s"), (3600, "60min")])
def test_ages_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_only_a_whole_is_a_hundred_per_cent() -> None:
    assert percent(0.99999) == "99.9%"
    assert percent(1.0) == "100%"
    assert percent(0.0) == "0%"


def test_a_coverage_is_never_shown_better_than_it_is(plain: Any) -> None:
    assert coverage_text(plain.COMPLETE) == "complete"
    assert coverage_text(plain.LIMITED) == "limit met"
    assert coverage_text(plain.GAPS) == "75%, gaps"
    assert coverage_text(plain.GAPS | {"fraction": 1.0}) == "99.9%, gaps"


def test_one_is_not_many() -> None:
    assert plural(0, "call") == "0 calls"
    assert plural(1, "call") == "1 call"
