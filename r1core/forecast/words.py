"""A forecast in words, for `check` and `plan` alike."""

from __future__ import annotations

from r1core.forecast.methods import Forecast
from r1core.words import counted


def time_line(told: Forecast) -> str:
    """`training about 8 min on 2 processes of this CPU (estimate: 525 steps, 97 k tokens of 0.43 GFLOP ...)`."""
    cpu = f", {duration(told.cpu_seconds)} of CPU time" if told.cpu_seconds and told.workers > 1 else ""
    pace = f", {told.pace}" if told.pace else ""
    return (
        f"training about {duration(told.seconds)} on {told.where} "
        f"(estimate: {counted(told.steps, 'step')}, {thousands(told.tokens)} tokens{pace}{cpu})"
    )


def memory_line(told: Forecast) -> str:
    """What is needed and what is there."""
    each = told.memory.total
    if not told.cpu_seconds:
        return f"about {gib(each)} GiB needed on each GPU, {gib(told.there)} GiB there"
    if told.workers == 1:
        return f"about {each / 1e9:.1f} GB needed, {told.there / 1e9:.1f} GB there"
    return (
        f"about {told.together / 1e9:.1f} GB needed ({told.workers} processes of {each / 1e9:.1f} GB, "
        f"the base's weights shared), {told.there / 1e9:.1f} GB there"
    )


def duration(seconds: float) -> str:
    """Two significant digits: `45 s`, `12 min`, `3.4 h`, `5.1 days`."""
    for limit, size, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def thousands(count: float) -> str:
    """`1.2 M`, `95 k`, `12`."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count / 1e3:.0f} k" if count >= 1e3 else f"{count:.0f}"


def gib(size: float) -> str:
    """Bytes in GiB, one decimal below a hundred."""
    value = size / 2**30
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
