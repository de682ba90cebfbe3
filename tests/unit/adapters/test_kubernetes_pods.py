"""What pods ask for: quantities, what is reserved for a pod, and the need that comes of it."""

from fractions import Fraction

import msgspec
import pytest

from dhtos.adapters.kubernetes_pods import Pod, need_of_pod, parse_quantity, reserved
from dhtos.core.limits import PRIORITY_MAX
from dhtos.core.scale import Linear
from dhtos.core.schema import Attribute, Schema, default_schema
from dhtos.errors import UsageError
from dhtos.sched import Need

GI = 2**30


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0), ("2", 2), ("+2", 2), ("-2", -2), ("2.", 2),
        (".5", Fraction(1, 2)), ("0.1", Fraction(1, 10)), ("1n", Fraction(1, 10**9)),
        ("100m", Fraction(1, 10)), ("1500m", Fraction(3, 2)), ("250u", Fraction(1, 4000)),
        ("1k", 10**3), ("1M", 10**6), ("1G", 10**9), ("1T", 10**12), ("1P", 10**15), ("1E", 10**18),
        ("1Ki", 2**10), ("1Mi", 2**20), ("1.5Gi", 3 * 2**29), ("1Ti", 2**40),
        ("1Pi", 2**50), ("1Ei", 2**60),
        ("1e3", 1000), ("1E3", 1000), ("1.5e+2", 150), ("1e-3", Fraction(1, 1000)),
        ("129e6", 129_000_000), (5, 5), (0.5, Fraction(1, 2)),
    ],
)  # fmt: skip
def test_quantities_are_exact(text, amount):
    assert parse_quantity(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "", " 1", "1 ", "1K", "1ki", "1KiB", "1GB", "1e", "1ei", "e3", "m", ".", "-", "0x10", "1_0",
        "\u0661", "inf", "nan", "1e31", "1e999999999", "1mm", "1,5", "1" * 65, True, float("nan"),
    ],
)  # fmt: skip
def test_what_is_no_quantity_says_so(text):
    with pytest.raises(UsageError, match=r"a quantity is a number as 2, 100m, 1\.5Gi or 1e3, got"):
        parse_quantity(text)


def pod(annotations=None, **spec):
    return msgspec.convert(
        {"metadata": {"name": "p", "annotations": annotations}, "spec": spec}, Pod
    )


def container(restart=None, **requests):
    return {"resources": {"requests": requests}, "restartPolicy": restart}


def test_a_pod_reserves_what_its_containers_do_together():
    both = pod(containers=[container(cpu="1", memory="1Gi"), container(cpu="500m")])
    assert reserved(both.spec) == {"cpu": Fraction(3, 2), "memory": GI}
    assert reserved(pod().spec) == {}
    assert reserved(pod(containers=[{}]).spec) == {}


def test_a_limit_stands_for_a_request_that_is_missing():
    resources = {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}
    assert reserved(pod(containers=[{"resources": resources}]).spec) == {
        "cpu": 2, "nvidia.com/gpu": 1,
    }  # fmt: skip


def test_what_starts_first_counts_where_it_needs_more():
    first = [container(cpu="3"), container(memory="2Gi")]
    spec = pod(containers=[container(cpu="1", memory="1Gi")], initContainers=first).spec
    assert reserved(spec) == {"cpu": 3, "memory": 2 * GI}


def test_a_sidecar_counts_beside_both():
    # KEP-753: it runs beside the containers, and beside what starts after it.
    first = [container(cpu="1"), container("Always", cpu="2"), container(cpu="4")]
    assert reserved(pod(containers=[container(cpu="3")], initContainers=first).spec) == {"cpu": 6}
    first = [container(cpu="5"), container("Always", cpu="2")]
    assert reserved(pod(containers=[container(cpu="1")], initContainers=first).spec) == {"cpu": 5}
    assert reserved(pod(containers=[container(cpu="9")], initContainers=first).spec) == {"cpu": 11}


def test_overhead_comes_on_top_and_a_pod_has_the_last_word():
    spec = pod(containers=[container(cpu="1")], overhead={"cpu": "250m", "memory": "1Mi"}).spec
    assert reserved(spec) == {"cpu": Fraction(5, 4), "memory": 2**20}
    spec = pod(containers=[container(cpu="1")], resources={"requests": {"cpu": "8"}}).spec
    assert reserved(spec) == {"cpu": 8}


def test_the_need_is_in_the_words_of_the_fleet():
    asked = pod(
        {
            "dhtos.io/where": " site == 'lab' ", "dhtos.io/prefer": "cheap",
            "dhtos.io/max-price": "0.5", "other.io/where": "x",
        },
        containers=[container(**{
            "cpu": "100m", "memory": "1Gi", "ephemeral-storage": "2Gi", "nvidia.com/gpu": "2",
            "amd.com/gpu": "1", "example.com/dongle": "1", "hugepages-2Mi": "4Mi",
            "dhtos.io/unknown": "1",
        })],
        priority=7,
    )  # fmt: skip
    assert need_of_pod(asked, default_schema()) == Need(
        cores=0.1, mem=GI, disk=2 * GI, gpus=3, where="site == 'lab'", prefer="cheap",
        max_price=0.5, priority=7,
    )  # fmt: skip
    assert need_of_pod(pod(containers=[container(cpu="0")]), default_schema()) == Need()
    assert isinstance(need_of_pod(asked, default_schema()).resources["mem"], int)


def test_resources_of_a_schema_of_ones_own():
    slots = (
        Attribute("slot", "number", "static", Linear(0, 100)),
        Attribute("slot_free", "number", "dynamic", Linear(0, 100)),
    )
    schema = Schema("own", 0, slots)
    asked = pod(containers=[container(**{"dhtos.io/slot": "2", "cpu": "1"})])
    assert need_of_pod(asked, schema) == Need(slot=2)


def test_priorities_are_those_that_a_claim_can_carry():
    assert need_of_pod(pod(priority=2**40), default_schema()).priority == PRIORITY_MAX
    assert need_of_pod(pod(priority=-(2**40)), default_schema()).priority == -PRIORITY_MAX


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (pod({"dhtos.io/wher": "x"}), "annotation dhtos.io/wher; did you mean dhtos.io/where"),
        (pod({"dhtos.io/zzz": "x"}), "known are dhtos.io/where, dhtos.io/prefer, dhtos"),
        (pod({"dhtos.io/max-price": "-1"}), "max_price must be a number >= 0"),
        (pod({"dhtos.io/prefer": "x"}), "pod p: prefer is one of pack"),
        (pod(containers=[container(cpu="-1")]), "cpu: a request must be at least 0, got -1"),
        (pod(containers=[container(**{"nvidia.com/gpu": "1500m"})]), "gpus must be a share below"),
        (pod(containers=[container(cpu="one")]), "a quantity is a number"),
    ],
)  # fmt: skip
def test_what_no_need_can_be_made_of(asked, words):
    with pytest.raises(UsageError, match=words):
        need_of_pod(asked, default_schema())
