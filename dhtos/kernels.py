"""The one switch between the compiled kernels (`dhtos._ext`) and the plain ones (`_reference`).

Both have the same names, signatures and results. The plain ones run when the package was built
without the compiled ones (`DHTOS_PURE=1` at build: no extension file at all), or when the
environment says `DHTOS_KERNELS=reference`, which is read here, once, at import. A compiled
kernel that is present but broken raises: nobody falls back by accident.
"""

import os
from importlib.util import find_spec

_MODULES = ("_aead", "_hilbert", "_morton", "_refit", "_vivaldi", "_xor")


def _use_compiled() -> bool:
    """Whether any compiled kernel was built and the environment does not decline them."""
    wanted = os.environ.get("DHTOS_KERNELS", "")
    if wanted not in ("", "reference"):
        raise ImportError(f"DHTOS_KERNELS must be unset or 'reference', got {wanted!r}")
    return not wanted and any(find_spec(f"dhtos._ext.{name}") for name in _MODULES)


COMPILED: bool = _use_compiled()
"""Whether the compiled kernels run."""

if COMPILED:
    from dhtos._ext._aead import Aead
    from dhtos._ext._hilbert import hilbert_decode, hilbert_encode
    from dhtos._ext._morton import box_intersects, morton_decode, morton_encode, prefix_box
    from dhtos._ext._refit import batch_rtt, refit
    from dhtos._ext._vivaldi import vivaldi_update
    from dhtos._ext._xor import common_prefix_bits, k_closest
else:
    from dhtos._reference.aead import Aead  # type: ignore[assignment]  # a twin, no relative
    from dhtos._reference.hilbert import hilbert_decode, hilbert_encode
    from dhtos._reference.morton import box_intersects, morton_decode, morton_encode, prefix_box
    from dhtos._reference.refit import batch_rtt, refit
    from dhtos._reference.vivaldi import vivaldi_update
    from dhtos._reference.xor import common_prefix_bits, k_closest

__all__ = [
    "COMPILED",
    "Aead",
    "batch_rtt",
    "box_intersects",
    "common_prefix_bits",
    "hilbert_decode",
    "hilbert_encode",
    "k_closest",
    "morton_decode",
    "morton_encode",
    "prefix_box",
    "refit",
    "vivaldi_update",
]
