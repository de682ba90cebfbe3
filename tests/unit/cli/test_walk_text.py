"""The walk as a table: who led to whom, and what each line says."""

from typing import Any

import pytest

from dhtos.cli.walk_text import COLUMNS, meaning_text, walk_lines
from dhtos.core.machine_schema import MACHINE_SCHEMA as SCHEMA


def lines(*steps: dict[str, Any]) -> list[str]:
    return list(walk_lines(list(steps), SCHEMA))


def test_a_step_stands_under_the_one_that_named_it(plain: Any) -> None:
    step = plain.step
    _, *rows = lines(
        step(covers="0001", found=[["001", 5.0], ["01", 2.0]]),
        step(prefix="001", asked="10.0.0.1:7400", covers="001", hits=3, expected=5.0, took_s=0.05),
        step(prefix="01", asked="10.0.0.2:7400", covers="0110", found=[["010", 1.0]]),
        step(prefix="010", asked="10.0.0.3:7400", covers="010", start_s=0.1),
    )
    at = {row.split()[-1]: row.rindex(row.split()[-1]) for row in rows if "10.0.0" in row}
    assert at["001"] == at["01"] == at["010"] - 2
    assert rows[0].split() == ["0.0", "-", "-", "0", "own", "view", "everything"]
    assert rows[1].split() == ["covers", "4", "bits;", "2", "subtrees", "to", "ask"]
    assert rows[2].split() == ["0.0", "50.0", "5.0", "3", "10.0.0.1:7400", "001"]


def test_checks_and_pages_stand_under_the_answer_they_go_on_from(plain: Any) -> None:
    step = plain.step
    _, *rows = lines(
        step(prefix="01", covers="01", matches=9, hits=5),
        step(prefix="01", asked="10.0.0.2:7400", covers="01", page=True, hits=4, matches=4),
        step(prefix="01", asked="10.0.0.3:7400", covers="01", voice=2, hits=9, matches=9),
    )
    texts = [row.strip() for row in rows]
    assert texts[1] == "9 match"
    assert texts[3] == "next page"
    assert texts[5] == "member 2 for the same"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"outcome": "no answer", "covers": None, "hedge": True},
         "because the one before is late; no answer"),
        ({"bound": 0.25, "late": True}, "best possible 0.25; late"),
        ({"cut": ["00", "1"], "pruned": 2}, "2 ruled out by key; 2 by summary"),
    ],
)  # fmt: skip
def test_what_became_of_a_step(plain: Any, changes: dict[str, Any], text: str) -> None:
    assert lines(plain.step(asked="10.0.0.1:7400", **changes))[-1].strip() == text


def test_what_a_prefix_means() -> None:
    means = {
        "cores": [7.9999, 16.0], "mem": [None, 2**35], "price": [0.5, None], "gpus": None,
        "arch": ["x86_64", "arm64"], "site": ["1 in 4"], "strange": [1],
    }  # fmt: skip
    assert meaning_text(SCHEMA, means) == (
        "cores 8..16, mem ..32GiB, price 0.5.., no gpus, arch x86_64 arm64, site 1 in 4, strange 1"
    )


def test_no_line_is_wider_than_a_hundred_columns(plain: Any) -> None:
    step = plain.step
    means = {f"attribute{n}": ["word"] for n in range(30)}
    deep = [step(prefix="", found=[["0", 1.0]])]
    for depth in range(1, 60):
        prefix = "0" * depth
        deep.append(
            step(
                prefix=prefix, covers=prefix, asked="255.255.255.255:65535", means=means,
                found=[["0" * (depth + 1), 1.0]], start_s=1.5, took_s=9.5, expected=12345.6,
            )
        )  # fmt: skip
    assert max(map(len, lines(*deep))) <= COLUMNS
    assert lines(*deep)[-3].rstrip().endswith("..0")
