"""What `audit sum` reads and shows."""

import pytest

from dhtos.cli.commands_audit import _begin_of, _hours
from dhtos.errors import UsageError

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("since", "begin"),
    [
        ("", 0.0),
        ("1h", NOW - 3600),
        ("7 d", NOW - 7 * 86_400),
        ("2027-01-15", 1_799_971_200.0),
        ("2027-01-15T08:00", NOW),
        ("2027-01-15T10:00+02:00", NOW),
    ],
)
def test_since_is_a_period_or_a_date(since, begin):
    assert _begin_of(since, NOW) == begin


@pytest.mark.parametrize("since", ["yesterday", "7", "-1h", "2027-13-01"])
def test_another_word_is_no_time(since):
    with pytest.raises(UsageError, match="--since is a period or a date"):
        _begin_of(since, NOW)


def test_amounts_are_hours_and_bytes_are_gib():
    assert _hours("cores", 4 * 1800.0) == "2"
    assert _hours("mem", 2**30 * 3600.0) == "1 GiB"
    assert _hours("licences", 5400.0) == "1.5"
    assert [_hours("cores", seconds) for seconds in (0.0, 1.0, 3.6)] == ["0", "<0.001", "0.001"]
