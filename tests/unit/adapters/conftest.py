"""Lets the tests of the adapters import what they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # helpers, as `placed`, are known by this
