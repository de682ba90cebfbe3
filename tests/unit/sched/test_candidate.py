"""Candidates: what a record says of a machine, what may be taken, and why a need is refused."""

from dataclasses import FrozenInstanceError, replace

import pytest

from dhtos.core.hit import Hit
from dhtos.core.record import make_record
from dhtos.core.scale import Hashed, Log2p1
from dhtos.core.schema import Attribute, Schema
from dhtos.sched import Candidate, Need
from dhtos.sched.candidate import amount_text

GIB = 2**30
NODE = b"n" * 20


def number(name, role, unit=""):
    return Attribute(name, "number", role, Log2p1(0, 2**50), unit)


SCHEMA = Schema(
    "small",
    0,
    (
        number("cores", "static"),
        number("mem", "static", "B"),
        number("gpus", "static"),
        number("price", "static", "/h"),
        Attribute("zone", "text", "static", Hashed()),
        number("cores_free", "dynamic"),
        number("mem_free", "dynamic", "B"),
        number("gpus_free", "dynamic"),
        number("price_spot", "dynamic", "/h"),
    ),
)


def hit(**values):
    """A hit on a machine with these values, 2 s old and 30 ms away."""
    record = make_record(
        SCHEMA, values, {"rack": "r7"}, node_id=NODE, endpoint=("10.0.0.1", 7400), seq=1
    )
    return Hit(record, SCHEMA, 2.0, 0.03)


def machine(free=None, **capacity):
    return Candidate(NODE, capacity, free or {})


# --- from a hit -----------------------------------------------------------------------------------


def test_a_hit_becomes_a_candidate():
    found = Candidate.of(
        hit(cores=8, cores_free=3.5, mem=16 * GIB, mem_free=4 * GIB, price=0.5), Need(cores=1)
    )
    assert found.node_id == NODE
    assert found.capacity == {"cores": 8, "mem": 16 * GIB}
    assert found.free == {"cores": 3.5, "mem": 4 * GIB}
    assert (found.price, found.rtt_s, found.age_s) == (0.5, 0.03, 2.0)
    assert (found.devices, found.domain, found.refusals) == ((), "", 0)


def test_the_price_now_goes_before_the_list_price():
    assert Candidate.of(hit(price=0.5, price_spot=0.2), Need()).price == 0.2
    assert Candidate.of(hit(), Need()).price is None


def test_what_is_free_is_all_where_nobody_says_otherwise():
    assert Candidate.of(hit(cores=8), Need(cores=1)).free == {"cores": 8}


def test_never_more_is_free_than_there_is():
    assert Candidate.of(hit(cores=8, cores_free=80), Need(cores=1)).free == {"cores": 8}
    assert machine({"cores": -1}, cores=8).free == {"cores": 0}
    assert machine({"gpus": 3}, cores=8).free == {"cores": 8}


def test_a_resource_the_schema_does_not_know_is_not_said():
    found = Candidate.of(hit(cores=8), Need(tapes=1))
    assert found.refusal(Need(tapes=1)) == "tapes: not said, 1 needed"


def test_the_domain_is_an_attribute_or_a_label():
    need = Need(cores=1)
    assert Candidate.of(hit(zone="eu-1"), need, spread="zone").domain == "eu-1"
    assert Candidate.of(hit(cores=8), need, spread="cores").domain == "8"
    assert Candidate.of(hit(), need, spread="zone").domain == ""
    assert Candidate.of(hit(), need, spread="rack").domain == "r7"
    assert Candidate.of(hit(), need, spread="planet").domain == ""


def test_a_candidate_does_not_change():
    with pytest.raises(FrozenInstanceError):
        machine(cores=8).price = 1.0


def test_devices_decide_what_is_free_of_gpus():
    found = replace(machine({"gpus": 4}, gpus=4), devices=(1.0, 0.25, 0.1 + 0.2, 0.0))
    assert found.devices == (1.0, 0.25, 0.3, 0.0)
    assert found.free == {"gpus": 1.55}


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Need(cores=4), "cores: 2 free of 8, 4 needed"),
        (Need(cores=16), "cores: 8 in all, 16 needed"),
        (Need(mem=3 * GIB), "mem: 2 GiB free of 16 GiB, 3 GiB needed"),
        (Need(disk=GIB), "disk: not said, 1 GiB needed"),
        (Need(gpus=0.5), "gpus: 2 given out whole, 0.5 of one needed"),
        (Need(cores=1, max_price=0.1), "price: 0.25, at most 0.1 wanted"),
        (Need(cores=2, mem=2 * GIB, gpus=2, max_price=0.25), None),
        (Need(cores=2 + 1e-12), None),
        (Need(), None),
    ],
)
def test_why_a_machine_cannot(need, reason):
    found = Candidate(
        NODE,
        {"cores": 8, "mem": 16 * GIB, "gpus": 2},
        {"cores": 2, "mem": 2 * GIB},
        price=0.25,
    )
    assert found.refusal(need) == reason


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (0.5, None),
        (0.75, "gpus: 0.6 free of one of 4, 0.75 needed"),
        (1, "gpus: 0 wholly free of 4, 1 needed"),
    ],
)
def test_shares_of_a_gpu_lie_in_one_device(amount, reason):
    found = Candidate(NODE, {"gpus": 4}, {}, (0.6, 0.6, 0.6, 0.0))
    assert found.refusal(Need(gpus=amount)) == reason


@pytest.mark.parametrize("amount", [0.5, 1])
def test_devices_without_a_number_of_gpus_are_not_said(amount):
    found = Candidate(NODE, {"cores": 8}, {}, (1.0, 1.0))
    assert found.refusal(Need(gpus=amount)) == f"gpus: not said, {amount} needed"


def test_whole_gpus_are_counted():
    found = Candidate(NODE, {"gpus": 4}, {}, (1.0, 0.9, 1.0, 0.0))
    assert found.refusal(Need(gpus=2)) is None
    assert found.refusal(Need(gpus=3)) == "gpus: 2 wholly free of 4, 3 needed"


def test_a_price_that_nobody_says_is_no_bargain():
    found = machine(cores=8)
    assert found.refusal(Need(cores=1, max_price=1)) == "price: not said, at most 1 wanted"


def test_one_reason_is_enough():
    assert machine(cores=1, mem=1).refusal(Need(cores=2, mem=2)) == "cores: 1 in all, 2 needed"


def test_ten_tenths_are_one():
    found = machine({"cores": sum([0.1] * 10)}, cores=1)
    assert found.free["cores"] < 1
    assert found.refusal(Need(cores=1)) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.125, "0.125"), (96.0, "96"), (2**20, "1 MiB"), (1.5 * GIB, "1.5 GiB"), (2**41, "2 TiB")],
)
def test_amounts_as_people_write_them(amount, text):
    assert amount_text(amount) == text
