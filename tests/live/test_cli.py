"""The command line as users meet it: real processes, real sockets, real signals."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminals import READY_S, Daemon, Shell, read_line

GONE_S = 30.0


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def ids(output: str) -> set[str]:
    return {json.loads(line)["id"] for line in output.splitlines()}


# --- two terminals ------------------------------------------------------------------------------


def test_two_nodes_find_each_other_and_a_killed_one_is_soon_gone(shell: Shell) -> None:
    first = shell.daemon()
    second = shell.daemon("--seed", first.endpoint, "--set", "price=0.08", "--label", "team=video")
    both = {first.facts["id"], second.facts["id"]}
    found = shell.run("find", "cores >= 1", "--control", second.control, "--json").stdout
    assert ids(found) == both
    hits = {hit["id"]: hit for hit in map(json.loads, found.splitlines())}
    sample = hits[second.facts["id"]]
    assert sample["endpoint"] == second.endpoint
    assert sample["labels"] == {"team": "video"}
    assert sample["attributes"]["price"] == 0.08
    assert {"cores", "mem", "mem_free", "cpu_free", "arch", "os"} <= set(sample["attributes"])

    second.stop(signal.SIGKILL)
    deadline = time.monotonic() + GONE_S
    while ids(shell.run("find", "cores >= 1", "--control", first.control, "--json").stdout) == both:
        assert time.monotonic() < deadline, "a killed node is still shown"


def test_a_node_that_is_asked_to_stop_says_goodbye(shell: Shell) -> None:
    first = shell.daemon()
    second = shell.daemon("--seed", first.endpoint)
    assert Path(second.control).exists()
    assert second.stop() == 0
    assert not Path(second.control).exists()
    assert ids(shell.run("find", "--control", first.control, "--json").stdout) == {
        first.facts["id"]
    }
    assert first.stop(signal.SIGINT) == 0


def test_a_light_client_asks_through_a_seed_and_leaves_no_trace(shell: Shell) -> None:
    first = shell.daemon("--set", "site=lab")
    seed = ("--seed", first.endpoint)
    assert ids(shell.run("find", 'site == "lab"', "--json", *seed).stdout) == {first.facts["id"]}
    assert shell.run("count", *seed).stdout == "1\n"
    assert json.loads(shell.run("members", "--json", *seed).stdout)[0]["id"] == first.facts["id"]
    assert json.loads(shell.run("status", "--json", *seed).stdout)["client"] is True
    assert shell.run("put", "k", "v", *seed).stdout.startswith("stored on 1 node, version ")
    assert shell.run("get", "k", *seed).stdout == "v\n"
    assert shell.run("count", "--control", first.control).stdout == "1\n"


def test_values_go_in_and_come_out_in_their_types(shell: Shell, tmp_path: Path) -> None:
    node = shell.daemon()
    shell.daemon("--seed", node.endpoint)
    here = ("--control", node.control)
    for kind, text, value in [
        ("str", "äöü", "äöü"),
        ("int", "-8", -8),
        ("float", "0.5", 0.5),
        ("bool", "true", True),
    ]:
        shell.run("put", *here, "--type", kind, "--", kind, text)
        assert json.loads(shell.run("get", kind, "--json", *here).stdout)["value"] == value
        assert shell.run("get", kind, *here).stdout == f"{text}\n"
    path = tmp_path / "blob"
    path.write_bytes(b"\x00\xffblob")
    shell.run("put", "blob", "--file", str(path), "--ttl", "60", *here)
    stored = json.loads(shell.run("get", "blob", "--json", *here).stdout)
    assert stored["base64"] == "AP9ibG9i"
    assert 0 < stored["expires_s"] <= 60
    message, hint = shell.refused("get", "nothing", *here, code=3)
    assert "'nothing'" in message
    assert hint


def test_the_only_node_of_a_machine_is_found_without_a_word(shell: Shell) -> None:
    message, hint = shell.refused("find", "cores >= 1")
    assert message == "no node runs on this machine"
    assert "--seed HOST:PORT" in hint
    node = shell.daemon("--no-sample", "--set", "cores=4", "--set", "mem=32GiB")
    table = shell.run("find", "cores >= 1", "--columns", "cores,mem").stdout.splitlines()
    assert table[0].split() == ["id", "endpoint", "cores", "mem", "age", "rtt", "ms"]
    assert table[1].split()[:4] == [node.facts["id"], node.endpoint, "4", "32GiB"]
    status = shell.run("status").stdout
    assert "kernels" in status
    assert node.endpoint in status
    other = shell.daemon("--seed", node.endpoint)
    _, hint = shell.refused("count")
    assert other.control in hint
    other.stop(signal.SIGKILL)
    assert shell.run("count").returncode == 0


# --- pages, limits, order -----------------------------------------------------------------------


def test_a_walk_is_explained_to_people_and_to_programs(shell: Shell) -> None:
    first = shell.daemon("--no-sample", "--set", "cores=8")
    client = ("--seed", first.endpoint)
    done = shell.run("find", "cores >= 8", "--explain", *client)
    head, step = done.stdout.split("\n\n")[1].splitlines()[:2]
    assert head.split()[-2:] == ["asked", "subtree"]
    assert step.split()[-2:] == [first.endpoint, "everything"]
    lines = shell.run("find", "cores >= 8", "--explain", "--json", *client).stdout.splitlines()
    (asked,) = json.loads(lines[-1])
    assert (asked["asked"], asked["outcome"], asked["hits"]) == (first.endpoint, "answered", 1)
    (own,) = json.loads(
        shell.run("find", "--explain", "--json", "--control", first.control).stdout.splitlines()[-1]
    )
    assert (own["asked"], own["covers"], own["hits"]) == (None, "00", 1)  # of version 0
    done = shell.run("find", "cores >= 8", "--verify", "2", *client)
    assert "1 member answered for some subtree, not 2" in done.stderr


def test_pages_orders_and_limits(shell: Shell) -> None:
    first = shell.daemon("--no-sample", "--set", "price=0.3", "--set", "cores=8")
    for price in ("0.1", "0.2"):
        shell.daemon("--no-sample", "--set", f"price={price}", "--seed", first.endpoint)
    here = ("--control", first.control, "--json")

    def prices(*arguments: str) -> list[float]:
        output = shell.run("find", "price > 0", *arguments, *here).stdout
        return [json.loads(line)["attributes"]["price"] for line in output.splitlines()]

    assert sorted(prices()) == [0.1, 0.2, 0.3]
    assert prices("--order-by", "price") == [0.1, 0.2, 0.3]
    assert prices("--order-by", "-price", "--limit", "2") == [0.3, 0.2]
    page = shell.run(
        "find", "price > 0", "--limit", "2", "--order-by", "price", "--coverage", *here
    )
    end = json.loads(page.stdout.splitlines()[-1])
    assert end["matches"] == 3
    assert end["coverage"]["complete"]
    assert prices("--order-by", "price", "--cursor", end["cursor"]) == [0.3]
    assert prices("--require-complete") != []
    assert sorted(prices("--sample", "5")) == [0.1, 0.2, 0.3]
    assert len(prices("--sample", "2")) == 2
    summed = json.loads(shell.run("sum", "price", "price > 0", *here).stdout)
    assert (round(summed["sum"], 9), summed["present"]) == (0.6, 3)
    text = shell.run("histogram", "price", "--edges", "0.15,0.25", *here[:2]).stdout
    assert [line.split()[-1] for line in text.splitlines()[2:]] == ["1", "1", "1"]
    message, hint = shell.refused("sum", "arch", *here[:2])
    assert message == "arch is a text, which has no sum and no histogram"
    assert hint.startswith("use count")
    message, _ = shell.refused("find", "price > 5", *here[:2], code=3)
    assert "price > 5" in message
    message, hint = shell.refused("find", "prise > 5", *here[:2])
    assert message == "unknown attribute 'prise' at column 1"
    assert "price" in hint
    message, _ = shell.refused("find", "--cursor", "?", *here[:2])
    assert "cursor" in message


# --- how far -------------------------------------------------------------------------------------


def test_distances_by_the_daemon_and_by_a_light_client(shell: Shell, tmp_path: Path) -> None:
    first = shell.daemon("--no-sample", "--set", "cores=4", "--label", "name=first")
    second = shell.daemon(
        "--no-sample", "--set", "cores=8", "--label", "name=second", "--seed", first.endpoint
    )
    ours, client = ("--control", first.control), ("--seed", second.endpoint)
    while shell.run("count", *ours).stdout != "2\n":
        continue
    both = {first.facts["id"], second.facts["id"]}
    assert ids(shell.run("closest", "--json", *ours).stdout) == {second.facts["id"]}
    assert ids(shell.run("closest", "--json", *client).stdout) == both
    assert ids(shell.run("closest", "--within", "1s", "--json", *client).stdout) == both
    table = shell.run("closest", "cores >= 8", "--within", "1s", *ours).stdout.splitlines()
    assert table[1].split()[:3] == [second.facts["id"], "second", second.endpoint]
    assert shell.run("rtt", "second", *ours).stdout.endswith(" ms, measured\n")
    assert json.loads(shell.run("rtt", "second", "--json", *client).stdout)["rtt_s"] > 0
    digits = second.facts["id"][:12]
    assert shell.run("rtt", digits, "self", *ours).stdout.endswith(" ms, measured\n")
    far = json.loads(shell.run("rtt", "first", "second", "--json", *client).stdout)
    assert far["measured"] is False
    assert ids(shell.run("central", "first", "--json", *client).stdout) == {second.facts["id"]}
    assert ids(shell.run("central", "self", "second", "--json", *ours, code=3).stdout) == set()
    assert ids(shell.run("find", "rtt(self) < 1s", "--json", *client).stdout) == both
    message, hint = shell.refused("rtt", "third", *ours)
    assert message == "no machine is named 'third'"
    assert hint.startswith("give the label name of one")
    shell.refused("closest", "cores > 99", *ours, code=3)
    path = tmp_path / "fleet.png"
    assert shell.run("map", "-o", str(path), "--color", "cores", *ours).stdout.startswith(
        f"{path}: 2 machines"
    )
    assert path.read_bytes().startswith(b"\x89PNG")


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_busy_port_is_one_line_and_a_hint(shell: Shell) -> None:
    with taken_port() as port:
        message, hint = shell.refused("run", "--host", "127.0.0.1", "--port", str(port))
    assert str(port) in message
    assert "--port" in hint


def test_a_silent_seed_is_one_line_and_a_hint(shell: Shell) -> None:
    with taken_port() as port:
        message, _ = shell.refused("run", "--port", "0", "--seed", f"127.0.0.1:{port}")
        assert str(port) in message
        message, _ = shell.refused("find", "cores >= 1", "--seed", f"127.0.0.1:{port}")
        assert str(port) in message


def test_a_node_that_waits_for_its_seed_joins_when_the_seed_comes(shell: Shell) -> None:
    with taken_port() as port:
        pass
    process = shell.spawn(
        "run", "--host", "127.0.0.1", "--port", "0", "--wait", "--seed", f"127.0.0.1:{port}"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    shell.daemons.append(Daemon(process, {}))
    assert read_line(process.stderr, READY_S).startswith("warning: ")
    seed = shell.daemon("--port", str(port))
    assert read_line(process.stdout, READY_S).startswith("ready ")
    assert shell.run("count", "--control", seed.control).stdout == "2\n"
    assert shell.daemons[0].stop() == 0


def test_a_node_that_still_waits_can_be_stopped(shell: Shell) -> None:
    with taken_port() as port:
        process = shell.spawn("run", "--port", "0", "--wait", "--seed", f"127.0.0.1:{port}")
        daemon = Daemon(process, {})
        shell.daemons.append(daemon)
        assert process.stderr is not None
        assert read_line(process.stderr, READY_S).startswith("warning: ")
        assert daemon.stop() == 0


def test_an_identity_survives_and_corrupt_state_is_set_aside(shell: Shell) -> None:
    state = shell.home / "state"
    there = ("--state-dir", str(state))
    first = shell.daemon(*there)
    assert first.control == str(state / "control.sock")
    assert shell.run("count", *there).stdout == "1\n"
    assert first.stop() == 0
    (state / "contacts.json").write_text("{broken")
    second = shell.daemon(*there)
    assert second.facts["id"] == first.facts["id"]
    assert second.process.stderr is not None
    assert "contacts.json" in read_line(second.process.stderr, READY_S)
    assert (state / "contacts.json.corrupt-1").read_text() == "{broken"
    message, _ = shell.refused("run", "--port", "0", *there)
    assert "used by another node" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "70000"), "port must be"),
        (("--host", "example.org"), "host must be a numeric address"),
        (("--seed", "nowhere"), "seed"),
        (("--set", "prise=3"), "unknown attribute 'prise'"),
        (("--set", "price=cheap"), "price is a finite number"),
        (("--label", "team"), "--label takes key=value"),
        (("--group-size", "1"), "group_size must be"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--colour",), "no such option --colour"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(
    shell: Shell, arguments: tuple[str, ...], says: str
) -> None:
    message, hint = shell.refused("run", *arguments)
    assert says in message
    assert hint


def test_a_bad_key_in_a_file_is_named(shell: Shell) -> None:
    file = shell.home / "node.toml"
    file.write_text("prot = 7400\n")
    message, hint = shell.refused("run", "--config", str(file))
    assert "'prot'" in message
    assert "did you mean 'port'?" in hint


def test_a_reader_that_leaves_early_is_no_error(shell: Shell) -> None:
    with subprocess.Popen(
        shell.command("config", "--schema"),
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(READY_S)


def test_a_daemon_carries_nothing_that_draws(shell: Shell) -> None:
    program = (
        "import sys, dhtos.cli.main, dhtos.cli.run, dhtos.node.node, dhtos.node.control_server;"
        "print([name for name in ('rich', 'importlib.metadata', 'email', 'multiprocessing')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


# --- a gateway -----------------------------------------------------------------------------------

MACHINES = """name,vcpu,memory_gb,price,arch
ups-1,8,32,0.05,x86_64
printer,many,1,0.01,arm64
bmc-7,64,512,1.5,x86_64
short,1
"""


def test_the_daemon_lists_broken_rows_and_find_marks_the_machines(
    shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "machines.csv"
    path.write_text(MACHINES)
    daemon = shell.daemon("--gateway", str(path), "--no-sample")
    second = shell.daemon("--seed", daemon.endpoint, "--no-sample")
    found: list[dict[str, object]] = []
    while len(found) < 2:
        done = shell.spawn("find", "price < 9", "--control", second.control, "--json")
        found = [json.loads(line) for line in done.communicate()[0].splitlines()]
    assert {str(hit["labels"]) for hit in found} == {"{'name': 'ups-1'}", "{'name': 'bmc-7'}"}
    assert all(hit["gateway"] is True for hit in found)
    assert {hit["endpoint"] for hit in found} == {daemon.endpoint}
    status = json.loads(shell.run("status", "--control", daemon.control, "--json").stdout)
    assert status["gateway"] == {"file": str(path), "rows": 2, "broken": 2}
    assert status["stats"]["rows_advertised"] == 2
    assert len(status["warnings"]) == 2
    assert daemon.stop() == 0
    assert daemon.process.stderr is not None
    errors = daemon.process.stderr.read()
    assert "line 3 is left out: column 'vcpu': cores is a finite number, got 'many'" in errors
    assert "line 5 is left out: 2 cells, the header has 5" in errors
    shell.run("find", "price < 9", "--control", second.control, code=3)


def test_a_file_of_no_use_is_one_line_and_code_two(shell: Shell, tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    error, hint = shell.refused("run", "--port", "0", "--gateway", str(missing))
    assert error == f"gateway {missing} cannot be read: No such file or directory"
    assert hint == "give a CSV file"
    strange = tmp_path / "strange.csv"
    strange.write_text("colour,shape\nred,round\n")
    error, hint = shell.refused("run", "--port", "0", "--gateway", str(strange))
    assert error == f"{strange}: no column names an attribute (it has colour, shape)"
    assert hint.startswith("use some of cores, mem")


def test_a_schema_changes_and_a_forgotten_version_ends_the_node(shell: Shell) -> None:
    schema = """
name = "shop"
version = {version}
key_order = ["cores"]
[[attribute]]
name = "cores"
kind = "number"
role = "static"
scale = {{ type = "log2", low = 1, high = {high} }}
keyed_bits = 8
"""
    for name, version, high in (("old", 0, 64), ("new", 1, 4096), ("wrong", 0, 4096)):
        text = schema.format(version=version, high=high)
        (shell.home / f"{name}-schema.toml").write_text(text)
        others = 'other_schemas = ["old-schema.toml"]' if name == "new" else ""
        settings = f'schema = "{name}-schema.toml"\nsample = false\n{others}\n'
        (shell.home / f"{name}.toml").write_text(settings)

    def of(name: str) -> tuple[str, str]:
        return ("--config", str(shell.home / f"{name}.toml"))

    first = shell.daemon(*of("old"), "--set", "cores=8")
    moved = shell.daemon(*of("new"), "--set", "cores=512", "--seed", first.endpoint)
    found = shell.run(
        "find", "cores >= 4", *of("new"), "--control", moved.control, "--json", "--require-complete"
    )
    assert ids(found.stdout) == {first.facts["id"], moved.facts["id"]}
    assert shell.run("count", *of("new"), "--seed", first.endpoint).stdout == "2\n"
    status = json.loads(shell.run("status", "--control", moved.control, "--json").stdout)
    assert status["schema"].startswith("shop version 1 (tag ")
    error, hint = shell.refused(
        "run", "--host", "127.0.0.1", "--port", "0", *of("wrong"), "--seed", first.endpoint
    )
    assert error.startswith(f"schema conflict: peer {first.endpoint} runs another schema")
    assert hint == "give the changed schema the next version"
    status = json.loads(shell.run("status", "--control", first.control, "--json").stdout)
    assert "schema conflict" in status["warnings"][0]
