"""Makes `trust_world` importable for the tests of all rooms: wherever pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
