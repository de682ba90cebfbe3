"""Lets the tests of the engines import what they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # helpers, as `engines`, are known by this
