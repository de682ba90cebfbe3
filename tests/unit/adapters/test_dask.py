"""What Dask is told, without Dask: restrictions, resources, and clear errors."""

from types import SimpleNamespace

import pytest
from placed import NEED, gang, hit, lease, plan

from dhtos.adapters import dask
from dhtos.errors import EngineError, UsageError

FIRST, SECOND = "tcp://10.0.0.1:40331", "edge-2"


def test_only_the_candidates_may_take_it():
    found = plan(NEED, hit(1, dask_worker=FIRST), hit(2), hit(3, dask_worker=SECOND))
    assert dask.dask_kwargs(found) == {"workers": [FIRST, SECOND], "allow_other_workers": False}


def test_resources_are_those_that_workers_declare_not_those_of_the_need():
    held = lease(hit(1, dask_worker=FIRST), cores=2)
    assert "resources" not in dask.dask_kwargs(held)
    assert dask.dask_kwargs(held, {"GPU": 1}) == {
        "workers": [FIRST],
        "allow_other_workers": False,
        "resources": {"GPU": 1},
    }


def test_a_gang_is_all_of_its_machines():
    members = gang(lease(hit(1, dask_worker=FIRST)), lease(hit(2, dask_worker=SECOND)))
    assert dask.dask_kwargs(members)["workers"] == [FIRST, SECOND]


@pytest.mark.parametrize("name", ["", "two words", "é", "x" * 65, "a\n"])
def test_what_is_no_worker_is_refused(name):
    with pytest.raises(UsageError, match="the address or the name of a worker"):
        dask.ENGINE.checked(name)


async def test_a_blocking_client_is_refused():
    client = SimpleNamespace(asynchronous=False)
    with pytest.raises(UsageError, match="asynchronous=True"):
        await dask.run(None, NEED, client, None)


async def test_a_client_that_was_closed_is_an_engine_that_does_not_answer():
    client = SimpleNamespace(asynchronous=True, scheduler=None)
    with pytest.raises(EngineError, match="scheduler does not answer: start it with `dask sched"):
        await dask._workers(client)
