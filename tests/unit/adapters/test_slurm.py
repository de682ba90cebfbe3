"""What Slurm is asked, without Slurm: its commands, what their answers mean, and one clear line."""

import asyncio

import pytest
from placed import NEED, gang, hit, lease, plan

from dhtos.adapters import slurm
from dhtos.adapters.slurm import Allocation
from dhtos.errors import EngineError, UsageError

TOKEN = bytes(range(16)).hex()
RESERVATION = f"dhtos-{TOKEN}"


@pytest.fixture
def asked(monkeypatch):
    """The commands that were run; `answers` says what comes of those that start with its keys."""

    class Asked(list):
        def __init__(self):
            super().__init__()
            self.answers = {}

        async def command(self, *words, seconds=slurm.COMMAND_S):
            self.append(words)
            for start, answer in self.answers.items():
                if " ".join(words).startswith(start):
                    if isinstance(answer, list):
                        answer = answer.pop(0)
                    if isinstance(answer, BaseException):
                        raise answer
                    return answer
            return ""

    found = Asked()
    monkeypatch.setattr(slurm, "_command", found.command)
    return found


def allocation(**resources):
    return slurm._allocation(lease(hit(1, slurm_node="n1"), **resources), "n1")


# --- what is said ---------------------------------------------------------------------------------


def test_options_name_the_best_of_a_plan_and_all_of_a_gang():
    found = plan(NEED, hit(1, slurm_node="n3"), hit(2, slurm_node="n1"))
    assert slurm.slurm_options(found) == ["--nodelist=n3"]
    members = [lease(hit(n, slurm_node=f"n{n}"), cores=1) for n in (4, 2)]
    assert slurm.slurm_options(members[0]) == ["--nodelist=n4"]
    assert slurm.slurm_options(gang(*members)) == ["--nodelist=n4,n2"]


@pytest.mark.parametrize(
    "name", ["ALL", "all", "n[0-9]", "n1,n2", "/etc/hosts", "-n1", "", "1n", "n 1", "n1\n"]
)
def test_what_slurm_reads_as_more_than_a_node_is_refused(name):
    with pytest.raises(UsageError, match="the name of one node"):
        slurm.ENGINE.checked(name)


@pytest.mark.parametrize("name", ["n1", "all-1", "gpu.example.org", "a_b"])
def test_names_of_nodes(name):
    assert slurm.ENGINE.checked(name) == name


class _Node:
    def __init__(self):
        self.labels = {}

    async def label(self, labels):
        self.labels |= labels


async def test_a_machine_is_called_what_slurmd_or_the_host_says(monkeypatch):
    node = _Node()
    monkeypatch.setattr(slurm.socket, "gethostname", lambda: "edge7.example.org")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    await slurm.register(node)
    assert node.labels == {"slurm.node": "edge7"}
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    await slurm.register(node)
    assert node.labels == {"slurm.node": "n3"}
    await slurm.register(node, "n4")
    assert node.labels == {"slurm.node": "n4"}


def test_a_lease_makes_a_reservation_of_whole_cores():
    made = allocation(cores=1.5)
    assert (made.reservation, made.cores, made.name) == (RESERVATION, 2, "n1")
    assert made.options == ("--nodelist=n1", f"--reservation={RESERVATION}")
    assert allocation(cores=0.25).cores == 1
    assert allocation(mem=2**30).cores is None


# --- what is asked --------------------------------------------------------------------------------


async def test_a_command_runs_on_the_cores_that_are_ours(asked):
    asked.answers["srun"] = "out\n"
    assert await allocation(cores=2).run("echo", "--x") == "out\n"
    await allocation().run("true")
    first, second = asked
    assert first[:3] == ("srun", "--nodelist=n1", f"--reservation={RESERVATION}")
    assert "--cpus-per-task=2" in first
    assert first[-3:] == ("--", "echo", "--x")
    assert not [word for word in second if "cpus" in word]


async def test_a_reservation_names_node_cores_user_and_a_short_term(asked):
    assert await slurm._reserve(allocation(cores=2)) is None
    (words,) = asked
    assert words[:3] == ("scontrol", "create", "reservation")
    assert {f"ReservationName={RESERVATION}", "Nodes=n1", "CoreCnt=2"} <= set(words)
    assert {"StartTime=now", f"Duration={slurm.TERM_MIN}", f"Users={slurm._user()}"} <= set(words)
    await slurm._reserve(allocation())
    assert not [word for word in asked[1] if word.startswith("CoreCnt")]


async def test_a_busy_node_is_one_to_pass_over_and_a_refusal_is_an_error(asked):
    asked.answers["scontrol create"] = EngineError("Slurm: scontrol: Requested nodes are busy")
    assert await slurm._reserve(allocation(cores=2)) == "its cores are reserved"
    asked.answers["scontrol create"] = EngineError("Slurm: scontrol: Access/permission denied")
    with pytest.raises(EngineError, match="permission"):
        await slurm._reserve(allocation(cores=2))


async def test_a_reservation_that_may_have_been_made_is_taken_back(asked):
    asked.answers["scontrol create"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await slurm._reserve(allocation(cores=2))
    assert asked[-1] == ("scontrol", "delete", f"ReservationName={RESERVATION}")


@pytest.mark.parametrize(
    ("state", "fit"),
    [
        ("IDLE", True), ("MIXED", True), ("ALLOCATED", True), ("IDLE+PLANNED", True),
        ("IDLE+DRAIN", False), ("DRAINED", False), ("DOWN", False), ("DOWN*", False),
        ("IDLE*", False), ("MIXED+NOT_RESPONDING", False), ("UNKNOWN", False), ("FAILING", False),
    ],
)  # fmt: skip
async def test_which_states_of_a_node_are_fit(asked, state, fit):
    asked.answers["scontrol"] = f"NodeName=n1 State={state} CfgTRES=cpu=4 Reason=a b [root@x]"
    assert await slurm._unfit("n1") == (None if fit else f"Slurm says {state}")


async def test_what_operators_write_about_a_node_is_not_its_state(asked):
    asked.answers["scontrol"] = "NodeName=n1 State=DOWN Reason=was State=IDLE [root@x]"
    assert await slurm._unfit("n1") == "Slurm says DOWN"


async def test_a_node_that_slurm_does_not_know_is_passed_over(asked):
    asked.answers["scontrol"] = EngineError("Slurm: scontrol: Node n1 not found")
    assert await slurm._unfit("n1") == "Slurm has no such node"
    asked.answers["scontrol"] = EngineError("Slurm: scontrol: no answer")
    with pytest.raises(EngineError, match="no answer"):
        await slurm._unfit("n1")


async def test_jobs_end_before_their_reservation(asked, monkeypatch):
    real = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: real(0))
    busy = EngineError("Slurm: scontrol: delete_reservation: Requested reservation is in use")
    asked.answers["scontrol delete"] = [busy, busy, ""]
    await slurm._end(allocation(cores=1))
    assert asked[0] == ("scancel", f"--reservation={RESERVATION}")
    assert [words[1] for words in asked[1:]] == ["delete"] * 3


async def test_a_reservation_that_is_gone_needs_no_end(asked):
    asked.answers["scontrol delete"] = EngineError("Slurm: scontrol: reservation is invalid")
    await slurm._end(allocation(cores=1))
    assert len(asked) == 2


async def test_a_slurm_that_is_gone_does_not_hold_up_the_end(asked):
    asked.answers["scancel"] = EngineError("Slurm: scancel: Unable to contact slurm controller")
    await slurm._end(allocation(cores=1))
    assert len(asked) == 1


async def test_the_end_is_put_off_also_after_a_failure(asked, monkeypatch):
    real, slept = asyncio.sleep, []

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asked.answers["scontrol update"] = [EngineError("no answer"), "", asyncio.CancelledError()]
    with pytest.raises(asyncio.CancelledError):
        await slurm._keep(allocation(cores=1))
    assert slept == [slurm.RENEW_S] * 3
    assert asked[0][-1] == f"EndTime=now+{slurm.TERM_MIN}minutes"
    assert slurm.RENEW_S * 2 < slurm.TERM_MIN * 60  # one of them may be lost


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ("", "Slurm: srun: exit code 3"),
        ("a\n\n  b \n", "Slurm: srun: b"),
        ("x: Unable to contact slurm controller (connect failure)", "start slurmctld"),
        ("x\nfatal: Unable to process configuration file", "SLURM_CONF"),
        ("x: Access/permission denied", "operators"),
    ],
)
def test_a_failure_is_one_line_that_says_what_to_do(errors, told):
    line = slurm._failure("srun", 3, errors)
    assert told in line
    assert "\n" not in line


async def test_a_command_that_is_not_installed_says_what_is():
    with pytest.raises(EngineError, match="apt-get install slurm-client"):
        await slurm._command("no-such-scontrol", "ping")


async def test_a_command_that_is_left_is_ended(monkeypatch):
    monkeypatch.setattr(slurm, "STOP_S", 0.0)
    started = []
    real = asyncio.create_subprocess_exec

    async def remembered(*words, **options):
        started.append(await real(*words, **options))
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    with pytest.raises(EngineError, match="sleep did not end within 0 s"):
        await slurm._command("sleep", "999", seconds=0)
    assert started[0].returncode  # -SIGKILL, or 255 where asyncio lost the race to reap it


def test_an_allocation_is_a_value():
    one = allocation(cores=1)
    assert one == Allocation(one.lease, "n1", RESERVATION, 1)
