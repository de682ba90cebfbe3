"""Build the compiled kernels of `ext/` into `dhtos._ext`; metadata is in pyproject.toml.

`DHTOS_PURE=1` builds without them; otherwise a compiler error fails the build, so that nobody
runs the slow twins by accident.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

_FLAGS = ["-O3", "-fno-math-errno"]  # without errno a square root is one instruction, on vectors

if os.environ.get("DHTOS_PURE") == "1":
    extensions = []
else:
    from Cython.Build import cythonize

    extensions = cythonize(
        [
            Extension(f"dhtos._ext.{path.stem}", [str(path)], extra_compile_args=_FLAGS)
            for path in sorted(Path("ext").glob("*.pyx"))
        ],
        build_dir="build/cython",
        compiler_directives={"language_level": "3", "autotestdict": False},
    )

setup(ext_modules=extensions)
