"""The models import each other as `bench.rivals`, so the repository's root must be found."""

import sys
from pathlib import Path

# Last, so that an installed `dhtos` still comes before the checkout's.
sys.path.append(str(Path(__file__).resolve().parents[2]))
