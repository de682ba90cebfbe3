"""Reading machines out of CSV files: columns, aliases, units, and rows that cannot be used."""

from pathlib import Path

import pytest

from dhtos.cli.demo_catalogue import shipped_catalogue
from dhtos.core.schema import default_schema
from dhtos.errors import ConfigError
from dhtos.node.catalogue import ALIASES, ROWS_MAX, load_catalogue, read_catalogue

SCHEMA = default_schema()
GIB = 2**30


def catalogue(text: str) -> object:
    return read_catalogue(text.splitlines(keepends=True), SCHEMA, source="x.csv")


def machines(text: str) -> list[dict[str, object]]:
    read = read_catalogue(text.splitlines(keepends=True), SCHEMA, source="x.csv")
    return [dict(machine.attributes) for machine in read.machines]


def test_the_shipped_catalogue_is_whole() -> None:
    shipped = shipped_catalogue(SCHEMA)
    assert len(shipped.machines) == 2478
    assert shipped.broken == []
    assert shipped.unmapped == []
    assert shipped.columns == {
        "provider": "provider",
        "type": "type",
        "family": "family",
        "vcpu": "cores",
        "memory_mb": "mem",
        "gpu": "gpus",
        "arch": "arch",
    }
    first = shipped.machines[0]
    assert first.line == 2
    assert first.attributes == {
        "provider": "aws",
        "type": "a1.2xlarge",
        "family": "a1",
        "cores": 8,
        "mem": 16 * GIB,
        "gpus": 0,
        "arch": "arm64",
    }
    assert {m.attributes["arch"] for m in shipped.machines} == {"arm64", "x86_64"}


def test_every_alias_means_an_attribute() -> None:
    assert {attribute for attribute, _ in ALIASES.values()} <= {a.name for a in SCHEMA.attributes}
    assert not set(ALIASES) & {a.name for a in SCHEMA.attributes}


def test_own_names_aliases_and_factors() -> None:
    assert machines("cores,ram_bytes,gpu_count,disk_bytes,clock_hz\n8,1024,2,4096,2e9\n") == [
        {"cores": 8, "mem": 1024, "gpus": 2, "disk": 4096, "clock": 2 * 10**9}
    ]
    assert machines("cpu_milli,memory_mib,clock_ghz\n1500,1.5,2.4\n") == [
        {"cores": 1.5, "mem": 3 * 2**19, "clock": 2_400_000_000}
    ]
    assert machines("NB-Cores, Price \n4,0.25\n") == [{"cores": 4, "price": 0.25}]


def test_values_may_carry_units() -> None:
    assert machines("mem,clock\n32GiB,2.4 GHz\n") == [{"mem": 32 * GIB, "clock": 2_400_000_000}]


def test_names_of_architectures_are_translated() -> None:
    assert [m["arch"] for m in machines("arch\namd64\naarch64\nx86_64\n")] == [
        "x86_64",
        "arm64",
        "x86_64",
    ]


def test_an_empty_cell_is_a_missing_attribute() -> None:
    assert machines("cores,site\n8,\n,lab\n") == [{"cores": 8}, {"site": "lab"}]


def test_an_own_name_wins_over_its_alias() -> None:
    read = read_catalogue(["vcpu,cores\n", "2,8\n"], SCHEMA, source="x.csv")
    assert read.machines[0].attributes == {"cores": 8}
    assert [column for column, _ in read.unmapped] == ["vcpu"]


def test_the_first_of_two_aliases_wins() -> None:
    read = read_catalogue(["vcpu,nb_cores\n", "2,8\n"], SCHEMA, source="x.csv")
    assert read.machines[0].attributes == {"cores": 2}
    assert read.unmapped == [("nb_cores", "cores has a column already")]


def test_what_no_attribute_is_called_is_reported_once_and_left_out() -> None:
    read = read_catalogue(["cores,colour\n", "8,red\n", "4,blue\n"], SCHEMA, source="x.csv")
    assert read.unmapped == [("colour", "no such attribute")]
    assert read.columns == {"cores": "cores"}


def test_a_column_of_text_is_no_number_whatever_its_name() -> None:
    read = read_catalogue(["cores,price\n", "8,cheap\n", "4,dear\n"], SCHEMA, source="x.csv")
    assert read.unmapped == [("price", "not the values of price")]
    assert read.broken == []
    assert len(read.machines) == 2


def test_broken_rows_are_listed_with_their_lines_and_the_rest_is_used() -> None:
    text = "cores,mem\n8,1GiB\nmany,1GiB\n4\n\n2,1GiB\n16,-5\n1,2,3\n"
    read = read_catalogue(text.splitlines(keepends=True), SCHEMA, source="x.csv")
    assert [machine.line for machine in read.machines] == [2, 6]
    assert [line for line, _ in read.broken] == [3, 4, 7, 8]
    why = dict(read.broken)
    assert "cores is a finite number" in why[3]
    assert why[4] == "1 cells, the header has 2"
    assert "mem" in why[7]


def test_a_quoted_cell_over_two_lines_keeps_the_count_of_lines() -> None:
    text = 'cores,site\n8,"two\nlines"\nmany,x\n4,lab\n2,lab\n1,lab\n'
    read = read_catalogue(text.splitlines(keepends=True), SCHEMA, source="x.csv")
    assert [line for line, _ in read.broken] == [3, 4]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("cores\n", "has no rows"),
        ("\n\n\n", "has no rows"),
        ("colour\nred\n", "no column names an attribute"),
        ("cores\nmany\n", "no column names an attribute"),
        ("cores,mem\n8\n", "no row can be used; line 2: 1 cells"),
    ],
)
def test_a_file_of_no_use_says_why(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        catalogue(text)


def test_a_file_without_one_good_row_names_the_first_bad_one() -> None:
    with pytest.raises(ConfigError, match="line 2: 3 cells, the header has 2"):
        catalogue("cores,mem\n8,1,2\n")


def test_a_cell_beyond_all_bounds_is_an_error_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"x\.csv line"):
        catalogue("cores\n" + "9" * 200_000 + "\n")


def test_only_so_many_rows_are_read() -> None:
    lines = iter(["cores\n", *["8\n"] * (ROWS_MAX + 5)])
    assert len(read_catalogue(lines, SCHEMA, source="x.csv").machines) == ROWS_MAX


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_bytes(b"\xef\xbb\xbfcores\r\n8\r\n")
    read = load_catalogue(path, SCHEMA)
    assert read.source == "fleet.csv"
    assert read.machines[0].attributes == {"cores": 8}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_bytes(b"cores\n\xff\xfe\x00\n")
    with pytest.raises(ConfigError, match="is not a text file in UTF-8"):
        load_catalogue(path, SCHEMA)
