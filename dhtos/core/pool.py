"""A pool of equal values: what many records say alike is kept in memory once.

Records come off the wire with their own copy of every text, number and tuple, although a fleet
repeats itself, and although all nodes of one process hold the same records. `sys.intern` would
do for texts alone, and some versions of Python never free what it was given.
"""

from typing import TypeVar

from dhtos.core.limits import POOL_VALUES_MAX

_T = TypeVar("_T", bound=str | bytes | int | tuple[object, ...])


class Pool:
    """Maps a value to the first equal one it was given; forgets all of them when it is full.

    Values that are equal but differ in type (1, 1.0 and True) must not be mixed by the caller.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[object, object] = {}

    def __len__(self) -> int:
        return len(self._values)

    def share(self, value: _T) -> _T:
        """A value equal to `value`: the same object for equal arguments, most of the time."""
        values = self._values
        if len(values) >= POOL_VALUES_MAX:
            values.clear()
        return values.setdefault(value, value)  # type: ignore[return-value]  # keys are values

    def check(self) -> None:
        """Assert that every value is filed under itself, and that the limit holds."""
        assert len(self._values) <= POOL_VALUES_MAX
        for key, value in self._values.items():
            assert key is value
