"""All that reads bytes of strangers, by name."""

import live
import parsers
from target import Target

TARGETS: dict[str, Target] = parsers.TARGETS | live.TARGETS
