"""A small, seeded run of the sampling benchmark: samples are more even than the first matches."""

from collections import Counter

from bench import sampling


def test_evenness_is_zero_for_even_counts_and_one_where_half_is_never_seen():
    true = frozenset(range(64))
    even = Counter(dict.fromkeys(true, 50))
    half = Counter(dict.fromkeys(range(32), 100))
    assert sampling.deviation(even, true, 200) == 0.0
    assert 0.95 < sampling.deviation(half, true, 200) < 1.05


def test_lots_buy_evenness_with_calls():
    first, one, two, *_, four = sampling.rows(300, 24, 2, 30)
    assert first.lots == 0
    assert first.calls < one.calls < two.calls < four.calls < 4 * first.calls
    assert max(two.deviations) < min(first.deviations)
    assert "| 300, 24 | a sample by 2 |" in two.text()
    assert "the first 16" in first.text()
    assert sampling.sampling.LOTS == 2
