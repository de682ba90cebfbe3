"""Makes `hub_world` and `foreign_world` importable for the tests of this folder.

Wherever pytest was started, tests are imported by their path, so the folder is on no path.
"""

import importlib.util
import sys
from pathlib import Path

for _name in ("hub_world", "foreign_world"):  # the second imports the first
    _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_name}.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules[_name] = _module
    _spec.loader.exec_module(_module)
