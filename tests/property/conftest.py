"""Makes `queries_world` and the strategies of this folder importable for its tests.

Wherever pytest was started, tests are imported by their path, so the folder is on no path. No test
is measured against a clock: a busy machine must not fail what is right.
"""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("property", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("property")
