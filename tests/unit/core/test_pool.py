"""The pool keeps equal values once, and never grows beyond its limit."""

from dhtos.core.limits import POOL_VALUES_MAX
from dhtos.core.pool import Pool


def fresh(text):
    """A text that is equal to `text` but another object."""
    return "".join(list(text))


def test_equal_values_become_one_object():
    pool = Pool()
    first = pool.share(fresh("grenoble"))
    assert pool.share(fresh("grenoble")) is first
    assert len(pool) == 1
    pool.check()


def test_tuples_are_shared_with_what_they_hold():
    pool = Pool()
    first = pool.share((fresh("a site"), 2**40, None))
    assert pool.share((fresh("a site"), 2**40, None)) is first
    pool.check()


def test_a_full_pool_forgets_and_goes_on():
    pool = Pool()
    for number in range(POOL_VALUES_MAX + 10):
        assert pool.share(number) == number
    assert 0 < len(pool) <= POOL_VALUES_MAX
    pool.check()


def test_two_pools_share_nothing():
    first, second = Pool(), Pool()
    first.share("x")
    assert len(second) == 0
