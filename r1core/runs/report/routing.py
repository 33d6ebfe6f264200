"""Where the tokens of an R1 go, from `evaluation/routing.json`, for people: shares of groups by domain, and spreads.

Every figure is of one layer: counts of several layers are never added up, since opposite imbalances would cancel.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1core.runs.report.data import Routed, RoutedLayer

_DARK = 0.8  # of the strongest cell, from which light text has more contrast than dark text
_SHOWN = 6
"""Layers up to which all are shown at once; of more, the first, the middle and the last, and others on demand."""


@dataclass(frozen=True, slots=True)
class ShareCell:
    """One group of one domain's row; `depth` of its colour in [0, 1]."""

    text: str
    depth: float
    dark: bool
    title: str


@dataclass(frozen=True, slots=True)
class LayerMap:
    """One layer's heat map; `rows` are `(domain, its tokens, cells)`."""

    number: int
    spread: str
    rows: tuple[tuple[str, int, tuple[ShareCell, ...]], ...]
    shown: bool


def routed(path: Path) -> Routed | None:
    """What evaluation counted; None where the model has no routers."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    experts, top = int(found["experts"]), int(found["experts_per_token"])
    first = found["counts"][0] if found["counts"] else []
    return Routed(
        by=found["by"],
        domains=tuple((name, sum(line) // top) for name, line in zip(found["domains"], first, strict=True)),
        tokens=int(found["tokens"]),
        rows=int(found["rows"]),
        experts=experts,
        groups=int(found["expert_groups"]),
        top=top,
        even=math.sqrt(experts / max(1, int(found["tokens"]) * top)),
        layers=tuple(_layer(table, int(found["expert_groups"])) for table in found["counts"]),
    )


def _layer(table: Sequence[Sequence[int]], groups: int) -> RoutedLayer:
    size = len(table[0]) // groups
    shares = []
    for counts in table:
        total = sum(counts)
        shares.append(tuple(sum(counts[g * size : (g + 1) * size]) / max(1, total) for g in range(groups)))
    load = [sum(column) for column in zip(*table, strict=True)]
    mean = sum(load) / len(load)
    spread = statistics.pstdev(load) / mean if mean else 0.0
    return RoutedLayer(tuple(shares), spread, max(load) / mean if mean else 0.0, load.count(0))


def maps(found: Routed) -> list[LayerMap]:
    """The heat maps, all in one scale: the darkest cell of any layer holds the largest share."""
    largest = max((share for layer in found.layers for row in layer.shares for share in row), default=0.0) or 1.0
    number = len(found.layers)
    few = set(range(number)) if number <= _SHOWN else {0, number // 2, number - 1}
    made = []
    for index, layer in enumerate(found.layers):
        rows = []
        for (name, tokens), shares in zip(found.domains, layer.shares, strict=True):
            cells = tuple(
                ShareCell(
                    f"{100 * share:.0f}",
                    share / largest,
                    share / largest >= _DARK,
                    f"layer {index}, {name}, group {group}: {100 * share:.1f} % of {tokens} tokens",
                )
                for group, share in enumerate(shares)
            )
            rows.append((name, tokens, cells))
        made.append(LayerMap(index, f"{layer.spread:.3f}", tuple(rows), index in few))
    return made
