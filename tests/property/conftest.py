"""Makes `queries_world` and the strategies of this folder importable for its tests.

Wherever pytest was started, tests are imported by their path, so the folder is on no path.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
