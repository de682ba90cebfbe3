"""What Ray is told, without Ray: selectors, what to fall back to, bundles, and clear errors."""

import asyncio
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
from placed import NEED, gang, hit, lease, plan

from dhtos import Need
from dhtos.adapters import ray
from dhtos.errors import EngineError, UsageError

A, B, C = ("a1" * 28, "b2" * 28, "c3" * 28)


def test_options_name_the_best_first_and_the_others_to_fall_back_to():
    found = plan(NEED, hit(1, ray_node=B), hit(2, ray_node=A), hit(3), hit(4, ray_node=C))
    assert ray.ray_options(found) == {
        "label_selector": {"ray.io/node-id": B},
        "fallback_strategy": [
            {"label_selector": {"ray.io/node-id": A}},
            {"label_selector": {"ray.io/node-id": C}},
        ],
    }


def test_a_single_machine_has_nothing_to_fall_back_to():
    expected = {"label_selector": {"ray.io/node-id": A}, "fallback_strategy": None}
    assert ray.ray_options(plan(NEED, hit(1, ray_node=A))) == expected
    assert ray.ray_options(lease(hit(1, ray_node=A), cores=2)) == expected


@pytest.mark.parametrize("id_", ["f" * 56, "A1" * 28, "a1" * 27, "", A + "\n", f"in({A})"])
def test_what_is_no_raylet_is_passed_over(id_):
    """The id of all ones makes a driver abort; a selector would read operators out of others."""
    assert ray.ENGINE.name_of(hit(1)) is None
    with pytest.raises(UsageError, match=r"ray\.node must be the id of a raylet"):
        ray.ENGINE.checked(id_)
    if id_ and id_.isprintable():
        found = plan(NEED, hit(1, ray_node=id_), hit(2, ray_node=B))
        assert ray.ray_options(found)["label_selector"] == {"ray.io/node-id": B}


def test_bundles_of_a_gang_are_what_was_granted():
    members = gang(
        lease(hit(1, ray_node=B), cores=2, gpus=0.5, mem=2**30), lease(hit(2, ray_node=A), cores=1)
    )
    assert ray.ray_bundles(members) == {
        "bundles": [{"CPU": 2, "GPU": 0.5}, {"CPU": 1}],
        "bundle_label_selector": [{"ray.io/node-id": B}, {"ray.io/node-id": A}],
    }


def test_bundles_of_a_plan_are_one_a_candidate():
    found = plan(Need(cores=2), hit(1, ray_node=B), hit(2), hit(3, ray_node=A))
    told = ray.ray_bundles(found)
    assert told["bundles"] == [{"CPU": 2}, {"CPU": 2}]
    assert told["bundle_label_selector"] == [{"ray.io/node-id": B}, {"ray.io/node-id": A}]


@pytest.mark.parametrize(("need", "told"), [({"mem": 2**30}, "mem"), ({}, "nothing")])
def test_a_bundle_of_nothing_is_refused(need, told):
    with pytest.raises(UsageError, match=f"a bundle needs cores or gpus, got {told}"):
        ray.ray_bundles(lease(hit(1, ray_node=A), **need))


async def test_a_ray_that_is_not_there_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for work in (ray.register(None), ray.run(None, NEED, None)):
        with pytest.raises(EngineError, match=r"pip install 'dhtos\[ray\]'"):
            await work


async def test_a_ray_that_is_not_started_says_how(monkeypatch):
    fake = ModuleType("ray")
    fake.is_initialized = lambda: False
    monkeypatch.setitem(sys.modules, "ray", fake)
    for work in (ray.register(None), ray.run(None, NEED, None)):
        with pytest.raises(EngineError, match="Ray is not connected: start it with `ray start"):
            await work


async def test_a_task_that_is_started_after_the_end_is_cancelled():
    """`submit` runs in a thread: whoever is cancelled meanwhile has no task to cancel yet."""
    cancelled, began, go_on = [], threading.Event(), threading.Event()
    engine = SimpleNamespace(cancel=lambda ref, force: cancelled.append((ref, force)))

    def submit(there):
        began.set()
        go_on.wait()
        return "a task"

    running = asyncio.ensure_future(ray._result(engine, submit, {}))
    while not began.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert cancelled == []
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "dhtos-engine":
            thread.join()
    assert cancelled == [("a task", True)]


async def test_what_submit_raises_comes_out():
    with pytest.raises(ZeroDivisionError):
        await ray._result(None, lambda there: 1 / 0, {})
