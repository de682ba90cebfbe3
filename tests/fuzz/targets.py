"""All that reads bytes of strangers, by name."""

import live
import parsers
import values
from target import Target

TARGETS: dict[str, Target] = parsers.TARGETS | values.TARGETS | live.TARGETS
