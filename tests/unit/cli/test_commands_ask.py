"""The asking commands: what they ask, what they show, how they end."""

import json
from pathlib import Path
from typing import Any

import pytest

from dhtos.cli.commands_ask import read_stored
from dhtos.errors import NoPeers, PredicateError, UsageError

# --- find ---------------------------------------------------------------------------------------


def test_find_shows_what_the_question_is_about(shell: Any, fleet: Any) -> None:
    lines = shell.run("find", 'cores >= 8 and site != "mem"', "--order-by", "price").splitlines()
    assert lines[0].split() == ["id", "endpoint", "cores", "site", "price", "age", "rtt", "ms"]
    assert lines[1].split() == ["0" * 39 + "1", "10.0.0.1:7400", "8", "lab", "0.25", "1.5s", "1.0"]
    assert lines[2].split()[2:5] == ["128", "-", "0.5"]
    assert shell.err == "2 machines; complete; 3 calls in 2 round trips; oldest record 12s\n"


def test_find_says_through_whom_a_machine_without_a_node_is_reached(shell: Any, fleet: Any) -> None:
    fleet.machines[0]["gateway"] = True
    lines = shell.run("find", "cores >= 8").splitlines()
    assert " via 10.0.0.1:7400 " in lines[1]
    assert " via " not in lines[2]


def test_find_shows_the_usual_when_the_question_names_nothing(shell: Any, fleet: Any) -> None:
    head = shell.run("find").splitlines()[0]
    assert head.split() == [
        "id", "endpoint", "cores", "mem", "arch", "cpu_free", "mem_free", "age", "rtt", "ms",
    ]  # fmt: skip


def test_find_shows_the_columns_that_were_asked_for(shell: Any, fleet: Any) -> None:
    lines = shell.run("find", "cores >= 8", "--columns", "mem, site").splitlines()
    assert lines[0].split() == ["id", "endpoint", "mem", "site", "age", "rtt", "ms"]
    assert lines[1].split()[2:4] == ["32GiB", "lab"]
    message, hint = shell.refused("find", "--columns", "mme")
    assert message == "unknown attribute 'mme'"
    assert hint == "did you mean 'mem'?"
    assert len(fleet.asked) == 1


def test_find_passes_on_everything(shell: Any, fleet: Any) -> None:
    shell.run(
        *("find", "cores >= 8", "--limit", "5", "--order-by", "-price", "--strict"),
        *("--cursor", "YWJj", "--verify", "3"),
    )
    (asked,) = fleet.asked
    question = asked[1]
    assert question.query == "cores >= 8"
    assert question.limit == 5
    assert question.order_by == "price"
    assert question.descending
    assert question.strict
    assert question.verify == 3
    assert question.cursor == "YWJj"


def test_find_as_json_is_a_line_for_each_machine(shell: Any, fleet: Any) -> None:
    lines = shell.run("find", "cores >= 8", "--json").splitlines()
    assert [json.loads(line) for line in lines] == fleet.machines
    assert shell.err == ""


def test_find_as_json_can_end_with_its_coverage(shell: Any, fleet: Any) -> None:
    fleet.cursor = "YWJj"
    lines = shell.run("find", "cores >= 8", "--json", "--coverage").splitlines()
    end = json.loads(lines[-1])
    assert end == {"matches": 2, "coverage": fleet.coverage, "cursor": "YWJj"}


def test_find_tells_how_to_go_on(shell: Any, fleet: Any, plain: Any) -> None:
    fleet.coverage, fleet.cursor = plain.LIMITED, "YWJj"
    shell.run("find", "cores >= 8", "--limit", "2", "--require-complete")
    assert "limit met" in shell.err
    assert shell.err.endswith("more: --cursor YWJj\n")


def test_find_that_finds_nothing_ends_with_three(shell: Any, fleet: Any) -> None:
    fleet.machines = []
    message, hint = shell.refused("find", "cores >= 8", code=3)
    assert message == "no machine matches 'cores >= 8'"
    assert hint == "try a wider question"
    shell.run("find", "cores >= 8", "--json", code=3)


def test_an_incomplete_answer_ends_with_six_only_where_asked(
    shell: Any, fleet: Any, plain: Any
) -> None:
    fleet.coverage = plain.GAPS
    shell.run("find", "cores >= 8")
    assert "75%, gaps" in shell.err
    shell.run("find", "cores >= 8", "--require-complete", code=6)
    assert "error: 2 subtrees did not answer: 75%, gaps" in shell.err
    lines = shell.run("find", "cores >= 8", "--json").splitlines()
    assert len(lines) == 2
    assert shell.err == "warning: the answer is not complete: 75%, gaps\n"
    shell.run("count", "--require-complete", code=6)


def test_whoever_wanted_more_members_hears_when_there_are_fewer(
    shell: Any, fleet: Any, plain: Any
) -> None:
    shell.run("find", "cores >= 8", "--verify", "2")
    assert "warning: 1 member answered for some subtree, not 2\n" in shell.err
    shell.run("count", "cores >= 8", "--verify", "2")
    assert "warning: 1 member answered for some subtree, not 2\n" in shell.err
    fleet.coverage = plain.LIMITED
    shell.run("find", "cores >= 8", "--verify", "2")  # it stopped as soon as it had enough
    assert "answered for some" not in shell.err
    fleet.coverage = plain.COMPLETE | {"verified": 2}
    shell.run("find", "cores >= 8", "--verify", "2")
    assert "answered for some" not in shell.err
    shell.refused("find", "cores >= 8", "--verify", "9")


def test_find_explains_its_walk_after_the_hits(shell: Any, fleet: Any, plain: Any) -> None:
    fleet.steps = [plain.step(), plain.step(prefix="001", asked="10.0.0.1:7400")]
    lines = shell.run("find", "cores >= 8", "--explain").splitlines()
    assert fleet.asked[0][1].explain
    head = next(n for n, line in enumerate(lines) if line.lstrip().startswith("at ms"))
    assert head > len(fleet.machines)
    assert "own view" in lines[head + 1]
    assert lines[head + 2].split()[-2:] == ["10.0.0.1:7400", "001"]
    lines = shell.run("find", "cores >= 8", "--explain", "--json", "--coverage").splitlines()
    assert json.loads(lines[-2]) == fleet.steps
    assert "steps" not in json.loads(lines[-1])
    shell.run("find", "cores >= 8")
    assert not fleet.asked[-1][1].explain


def test_a_sample_says_that_it_was_drawn(shell: Any, fleet: Any, plain: Any) -> None:
    fleet.coverage = plain.LIMITED
    shell.run("find", "cores >= 8", "--sample", "2", "--strict")
    question = fleet.asked[0][1]
    assert (question.sample, question.strict, question.limit) == (2, True, 0)
    assert shell.err.startswith("2 machines; drawn from more; 3 calls in 2 round trips")
    fleet.coverage = plain.COMPLETE
    shell.run("find", "cores >= 8", "--sample", "2")
    assert shell.err.startswith("2 machines; complete;")


@pytest.mark.parametrize(
    "other",
    [
        ("--limit", "2"), ("--order-by", "price"), ("--cursor", "YWJj"), ("--verify", "2"),
        ("--explain",),
    ],
)  # fmt: skip
def test_a_sample_has_no_order_and_no_pages(shell: Any, fleet: Any, other: tuple[str, ...]) -> None:
    message, hint = shell.refused("find", "--sample", "2", *other)
    assert message == "--sample goes with --strict alone"
    assert hint == "leave out what orders or pages"
    assert not fleet.asked


@pytest.mark.parametrize("k", ["0", "-1", "257", "many"])
def test_a_sample_has_a_size(shell: Any, fleet: Any, k: str) -> None:
    shell.refused("find", "--sample", k)
    assert not fleet.asked


def test_an_answer_out_of_the_own_group_says_so(shell: Any, fleet: Any) -> None:
    fleet.coverage = fleet.coverage | {"asked": 0, "rtt": 0}
    fleet.machines = fleet.machines[:1]
    shell.run("find")
    assert shell.err == "1 machine; complete; known without asking; oldest record 12s\n"


def test_errors_of_the_fleet_reach_the_user(shell: Any, fleet: Any) -> None:
    fleet.error = PredicateError("unknown attribute 'coers' at column 1", column=1, hint="cores")
    assert shell.refused("find", "coers >= 8") == (
        "unknown attribute 'coers' at column 1",
        "did you mean cores?",
    )
    fleet.error = NoPeers("no seed answered: 10.0.0.9:7400")
    message, _ = shell.refused("count", "--seed", "10.0.0.9:7400")
    assert message == "no seed answered: 10.0.0.9:7400"


def test_whom_to_ask_is_passed_on(shell: Any, fleet: Any) -> None:
    shell.run("count", "--seed", "10.0.0.1:7400", "--seed", "10.0.0.2:7400")
    config, seeded = fleet.configs[-1]
    assert config.seeds == ("10.0.0.1:7400", "10.0.0.2:7400")
    assert seeded
    shell.run("count", "--control", "x.sock")
    config, seeded = fleet.configs[-1]
    assert config.control_path == Path("x.sock")
    assert not seeded


def test_seeds_of_the_environment_belong_to_the_daemon(
    shell: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHTOS_SEEDS", "10.0.0.1:7400")
    shell.run("count")
    config, seeded = fleet.configs[-1]
    assert config.seeds == ("10.0.0.1:7400",)
    assert not seeded


# --- count, members, status ---------------------------------------------------------------------


def test_count_is_a_number(shell: Any, fleet: Any, plain: Any) -> None:
    assert shell.run("count", "cores >= 8", "--strict") == "2\n"
    assert fleet.asked == [("count", "cores >= 8", True, 1)]
    assert shell.json("count") == {"count": 2, "coverage": fleet.coverage}
    fleet.coverage = plain.GAPS
    assert shell.run("count") == "2\n"
    assert shell.err == "warning: at least so many: 75%, gaps\n"
    fleet.machines = []
    fleet.coverage = plain.COMPLETE
    assert shell.run("count") == "0\n"


def test_members_are_a_table_or_a_list(shell: Any, fleet: Any) -> None:
    lines = shell.run("members").splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["0" * 39 + "1", "10.0.0.1:7400"]
    assert [member["state"] for member in shell.json("members")] == ["alive", "alive"]


def test_status_shows_kernels_group_version_and_counters(shell: Any, fleet: Any) -> None:
    text = shell.run("status")
    rows = {tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()}
    assert ("kernels", "compiled") in rows
    assert ("group", "depth    4") in rows
    assert ("joined", "yes") in rows
    assert ("labels", "team=video") in rows
    assert ("mem", "32GiB") in rows
    assert ("peers", "4") in rows
    assert any(row[0] == "version" for row in rows)
    place = "ms           (12.0, -34.5, 0.0, 0.0, 0.0), height 1.5, relative error 0.12"
    assert place.split() == text[text.index("coordinate ms") + 11 :].split()[: len(place.split())]
    assert "warnings" not in text
    document = shell.json("status")
    assert document["group"] == {"prefix": "0110", "members": 9}
    assert document["version"]


# --- put, get -----------------------------------------------------------------------------------


def test_put_and_get_a_text(shell: Any, fleet: Any) -> None:
    assert shell.run("put", "name/db", "10.0.0.9", "--ttl", "60") == (
        "stored on 3 nodes, version 7\n"
    )
    assert fleet.asked == [("put", "name/db", "10.0.0.9", 60.0)]
    assert shell.run("get", "name/db") == "10.0.0.9\n"
    assert shell.json("get", "name/db") == {
        "key": "name/db",
        "value": "10.0.0.9",
        "seq": 7,
        "expires_s": 60.0,
    }
    document = shell.json("put", "name/db", "x")
    assert document == {"key": "name/db", "stored_on": 3, "wanted": 20, "seq": 7}


def test_a_flag_is_printed_as_it_was_written(shell: Any, fleet: Any) -> None:
    shell.run("put", "up", "TRUE", "--type", "bool")
    assert fleet.values == {"up": True}
    assert shell.run("get", "up") == "true\n"


def test_a_file_is_stored_as_bytes(shell: Any, fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"\x00\xff")
    shell.run("put", "blob", "--file", str(path))
    assert fleet.values == {"blob": b"\x00\xff"}
    assert shell.json("get", "blob")["base64"] == "AP8="


def test_a_missing_value_names_its_key(shell: Any, fleet: Any) -> None:
    message, _ = shell.refused("get", "nothing", code=3)
    assert message == "no reachable node holds a value under 'nothing'"


@pytest.mark.parametrize(
    "arguments",
    [
        ("k",),
        ("k", "v", "--file", __file__),
        ("k", "v", "--remove"),
        ("k", "--remove", "--file", __file__),
    ],
)
def test_put_takes_a_value_or_a_file(shell: Any, fleet: Any, arguments: tuple[str, ...]) -> None:
    message, hint = shell.refused("put", *arguments)
    assert message == "put takes a value, or --file, or --remove"
    assert hint == "give one of them"


def test_what_is_removed_has_no_time_to_live(shell: Any, fleet: Any) -> None:
    message, hint = shell.refused("put", "k", "--remove", "--ttl", "5")
    assert message == "--remove takes no --ttl"
    assert hint == "leave it out"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8", "str", "8"),
        ("8", "bytes", b"8"),
        ("8", "int", 8),
        ("8", "float", 8.0),
        ("False", "bool", False),
    ],
)
def test_values_are_read_in_their_type(text: str, kind: str, value: object) -> None:
    read = read_stored(text, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("kind", ["int", "float", "bool"])
def test_a_value_of_another_type_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match=f"is no {kind}"):
        read_stored("eight", kind)
