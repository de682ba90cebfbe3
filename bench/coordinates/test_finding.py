"""What find finds near: a small, seeded run over the table that is shipped, and its page."""

import numpy as np
import pytest

from bench.coordinates import finding, finding_page, latencies

ROW = {
    "group_size": 256, "nodes": 490, "groups": 3, "learn_s": 300.0, "limit": 10, "questions": 300,
    "hits": 1000, "near": 0.96, "asked": 0.9, "recall": 0.5, "rpc": 1.75, "rpc_max": 4, "rtt": 1.1,
    "matches": 19.28,
}  # fmt: skip


@pytest.fixture(scope="module")
def town():
    made = finding.Town(latencies.load("planetlab-96")[:32, :32], 16, 1)
    made.learn(60.0)
    return made


def test_hits_match_and_the_asker_is_none(town):
    answers = town.ask(32)
    assert len(answers) == 32
    cores = town.fleet.columns["cores"]
    for asker, result in answers:
        hits = town.hits(asker, result)
        assert asker not in hits
        assert len(hits) <= finding.LIMIT
        assert all(cores[hit] >= finding.CORES for hit in hits)


def test_answers_are_judged_by_the_table(town, monkeypatch):
    town.cluster.check()
    near = [np.flatnonzero(row).tolist() for row in town.matching]
    askers = [asker for asker in range(town.size) if near[asker]]
    answers = [(asker, result) for asker, result in town.ask(32) if asker in askers]
    monkeypatch.setattr(town, "hits", lambda asker, _: near[asker][:10])
    right = town.judge(answers, 60.0)
    print(right)
    assert (right.near, right.asked, right.recall) == (1.0, 1.0, 1.0)
    assert right.groups > 1
    assert right.rpc >= 1
    far = [int(np.argmax(row)) for row in town.rtt_s]
    monkeypatch.setattr(town, "hits", lambda asker, _: [near[asker][0], far[asker]])
    half = town.judge(answers, 60.0)
    assert (half.near, half.asked, half.hits) == (0.5, 0.5, 2 * len(answers))
    assert half.recall < 1.0


def test_one_seed_finds_the_same():
    rtt_s = latencies.load("planetlab-96")[:20, :20]
    first, again = (finding.of_table(rtt_s, 3, (16,), (20.0, 30.0)) for _ in range(2))
    assert first == again
    assert [row["learn_s"] for row in first] == [20.0, 30.0]
    assert first[0]["questions"] == finding.QUESTIONS


def test_the_page_says_whether_targets_are_met():
    worse = {**ROW, "group_size": 64, "groups": 23, "near": 0.93, "rpc": 12.0}
    text = finding_page.text({"words": "Here.", "seed": 1, "rows": [ROW, worse]})
    assert "| 256 | share of hits beyond 25 ms | 0.05 | 0.040 | yes |" in text
    assert "| 64 | share of hits beyond 25 ms | 0.05 | 0.070 | no, +40% |" in text
    assert "| 64 | calls a question, mean | 6 | 12.0 | no, +100% |" in text
    assert "| 490 | 3 | 5 | 0.960 | 0.900 | 0.50 | 1.8 | 4 | 1.1 |" in text


def test_the_page_keeps_its_words(monkeypatch, tmp_path):
    at = tmp_path / "coordinates.md"
    at.write_text(f"before\n{finding_page.BEGIN}\nold\n{finding_page.END}\nafter\n")
    monkeypatch.setattr(finding_page, "PAGE", at)
    monkeypatch.setattr(finding_page, "RESULTS", tmp_path / "finding.json")
    finding_page.save({"words": "Here.", "seed": 1, "rows": [ROW]})
    assert at.read_text().startswith(f"before\n{finding_page.BEGIN}\nHere. Seed 1.\n")
    assert at.read_text().endswith(f"\n{finding_page.END}\nafter\n")
