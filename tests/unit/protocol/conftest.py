"""Makes `hub_world` importable for the tests of this folder, wherever pytest was started."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "hub_world", Path(__file__).with_name("hub_world.py")
)
assert _spec is not None
assert _spec.loader is not None
_hub_world = importlib.util.module_from_spec(_spec)
sys.modules["hub_world"] = _hub_world
_spec.loader.exec_module(_hub_world)
