"""Which CPUs a command gets, and what its supervisor is told."""

import os

import pytest

from dhtos.node.command import Command
from dhtos.node.executor import Cpus, SubprocessExecutor

FOUR = {0, 1, 2, 3}


@pytest.fixture
def cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: FOUR)
    return Cpus()


def test_whole_cores_are_those_that_nobody_is_on(cpus):
    taken = [cpus.take(1) for _ in range(4)]
    assert sorted(map(tuple, taken)) == [(0,), (1,), (2,), (3,)]
    cpus.give_back(taken[2])
    assert cpus.take(1.0) == taken[2]


def test_a_part_of_a_core_is_on_a_whole_one_and_shares_come_last(cpus):
    assert len(cpus.take(2.5)) == 3
    assert cpus.take(0.1) == [3]
    assert cpus.take(0.1) == [0]  # all are taken: the first of the emptiest


def test_more_than_there_are_is_all_of_them(cpus):
    assert set(cpus.take(64)) == FOUR


def test_who_claims_no_cores_is_not_bound_to_any(cpus):
    assert cpus.take(None) == []
    cpus.give_back([])


class NoGroups:
    def parents(self, controller):
        return [(1, f"/{controller}")] if controller == "memory" else []


def order(resources, env=()):
    command = Command(
        argv=(b"sh", b"\xff"),
        env=dict(env),
        stdin=True,
        resources=resources,
        lease="node-7",
        token="ab" * 16,
        fence=7,
        owner="h:1",
    )
    return SubprocessExecutor(NoGroups())._order(command, [3])


def test_what_was_claimed_is_the_limit(monkeypatch):
    told = order({"cores": 1.5, "mem": 1048576.0, "gpus": 1.0})
    assert (told["memory"], told["cores"], told["cpus"]) == (1048576, 1.5, [3])
    assert told["cgroups"] == [("memory", 1, "/memory")]
    assert order({})["memory"] is None
    assert order({})["cores"] is None


def test_the_environment_is_ours_where_it_is_nobodys_secret(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PATH": "/here", "API_KEY": "secret", "HOME": "/nowhere"})
    told = order({}, {b"HOME": b"\xff", b"DHTOS_FENCE": b"99", b"X": b"y"})["env"]
    assert told == {
        "PATH": "/here", "HOME": "\xff", "X": "y",
        "DHTOS_LEASE": "node-7", "DHTOS_TOKEN": "ab" * 16, "DHTOS_FENCE": "7",
    }  # fmt: skip


def test_there_is_always_somewhere_to_look_for_programs(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert order({})["env"]["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_each_command_has_a_folder_of_its_own():
    assert order({})["folder"] != order({})["folder"]
    assert "ab" * 16 not in order({})["folder"]
