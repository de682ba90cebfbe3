"""Models of the rival designs for multi-attribute range search: `RIVALS[key](points, rng)`."""

from bench.rivals import pht
from bench.rivals.cells import Cells
from bench.rivals.central import Central
from bench.rivals.flood import Flood
from bench.rivals.mercury import Mercury
from bench.rivals.model import Build, Cost, Rival
from bench.rivals.murk import Murk
from bench.rivals.pht import PrefixHashTree
from bench.rivals.scrap import Scrap

RIVALS: dict[str, Build] = {
    "mercury": Mercury,
    "scrap": Scrap,
    "murk": Murk,
    "pht": PrefixHashTree,
    "pht-holders": pht.HOLDERS_CACHED,
    "cells": Cells,
    "flood": Flood,
    "central": Central,
}
"""How each design is laid out over the records of a network, by short name."""

__all__ = ["RIVALS", "Build", "Cost", "Rival"]
