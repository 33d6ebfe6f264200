"""The forecast of a recipe on the machine that it is typed on: its GPU where it has a known one, else its cores."""

from __future__ import annotations

import os
from pathlib import Path

from r1core.forecast.hardware import local
from r1core.forecast.memory import library_bytes
from r1core.forecast.methods import Forecast, on_cpu, on_gpus
from r1core.forecast.processor import probe
from r1core.forecast.table import Table
from r1core.forecast.work import Rows
from r1core.recipe.schema import Recipe


def here(table: Table, rows: Rows, recipe: Recipe, *, private: bool) -> Forecast | str:
    """The forecast, or why there is none.

    Parameters
    ----------
    private : a privacy policy has the training run in one process.
    """
    names, hardware = local()
    if hardware is not None:
        return on_gpus(table, rows, recipe.train, hardware)
    if names:
        return f"not told: no figures for this machine's {names[0]}; name the nearest by r1core plan --hardware"
    held = library_bytes() + resident_bytes()
    return on_cpu(table, rows, recipe, probe(), private=private, held=held, there=machine_bytes())


def machine_bytes() -> float:
    """Memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def resident_bytes() -> float:
    """What this process holds by now, its plugins and their knowledge included; 0 where the system does not tell."""
    place = Path("/proc/self/statm")
    return float(os.sysconf("SC_PAGE_SIZE") * int(place.read_text().split()[1])) if place.is_file() else 0.0
