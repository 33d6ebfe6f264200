"""The chain of a continued run for people: matrices of accuracy by time and task, forgetting and transfer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from r1core.api import JSON, Table
from r1core.runs.report.data import Figure, OverTime

WITHIN_95 = 1.96
"""Standard errors on either side that hold 95 % of a normal distribution."""
SIDES = {"ours": "this run", "naive": "naive sequential tuning"}
"""What the sides are called."""
MEASURES = {"constrained": "answers limited to each task's labels", "free": "free-running answers"}
"""What an answer is."""
FIGURES = {
    "average_accuracy": "average accuracy of all tasks at the end",
    "forgetting": "forgetting (best earlier accuracy minus that at the end)",
    "backward_transfer": "backward transfer (at the end minus when it was learnt)",
    "forward_transfer": "forward transfer (before it was learnt minus the base model)",
}
"""What the figures are."""


def over_time(path: Path) -> OverTime | None:
    """The report's section from `evaluation/continual.json`; None where the run continues none."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    tables: list[tuple[str, Table]] = []
    for measure, sides in content["measures"].items():
        for side in (side for side in SIDES if side in sides):
            title = f"Accuracy by time and task: {SIDES[side]}, {MEASURES[measure]}"
            tables.append((title, _matrix(content, sides[side]["matrix"])))
        tables.append((f"Forgetting and transfer: {MEASURES[measure]}", _figures(sides)))
    runs = tuple(str(one["run"]) for one in content["tasks"])
    return OverTime(
        runs, _sentence(content), tuple(tables), len(tables) // len(content["measures"]), _headline(content)
    )


def _matrix(content: Mapping[str, JSON], matrix: Sequence[Sequence[Mapping[str, JSON]]]) -> Table:
    columns = ["after", *(f"{one['run']} ({one['rows']} rows)" for one in content["tasks"])]
    rows = [(str(time), *map(_cell, line)) for time, line in zip(content["times"], matrix, strict=True)]
    return Table(tuple(columns), tuple(rows))


def _cell(estimate: Mapping[str, JSON]) -> str:
    error = "" if estimate["se"] is None else f" ± {100 * estimate['se']:.1f}"
    return f"{100 * estimate['value']:.1f} %{error}"


def _figures(sides: Mapping[str, JSON]) -> Table:
    named = {side: label for side, label in SIDES.items() if side in sides}
    columns = ["figure", *named.values()] + (["difference"] if "difference" in sides else [])
    rows = []
    for name, label in FIGURES.items():
        cells = [_interval(sides[side]["figures"][name]) for side in named]
        if "difference" in sides:
            cells.append(_interval(sides["difference"][name]))
        rows.append((label, *cells))
    return Table(tuple(columns), tuple(rows))


def _interval(estimate: Mapping[str, JSON]) -> str:
    value = f"{100 * estimate['value']:.1f}"
    if estimate["se"] is None:
        return value
    low, high = (100 * (estimate["value"] + side * WITHIN_95 * estimate["se"]) for side in (-1, 1))
    return f"{value} ({low:.1f} to {high:.1f})"


def _sentence(content: Mapping[str, JSON]) -> str:
    names = [str(one["run"]) for one in content["tasks"]]
    sides = content["measures"][content["main"]]
    forgot = {side: 100 * sides[side]["figures"]["forgetting"]["value"] for side in SIDES if side in sides}
    said = (
        f"A chain of {len(names)} tasks: {', '.join(names)}. Of the earlier tasks it forgot {forgot['ours']:.1f} points"
    )
    return said + (f"; naive sequential tuning, {forgot['naive']:.1f} points." if "naive" in forgot else ".")


def _headline(content: Mapping[str, JSON]) -> Figure:
    sides = content["measures"][content["main"]]
    forgot = sides["ours"]["figures"]["forgetting"]
    spread = "" if forgot["se"] is None else f"± {WITHIN_95 * 100 * forgot['se']:.1f} (95 %, clustered)"
    other = f"naive tuning {100 * sides['naive']['figures']['forgetting']['value']:.1f}" if "naive" in sides else ""
    detail = ", ".join(filter(None, [spread, other]))
    return Figure("earlier tasks forgotten", f"{100 * forgot['value']:.1f} points", detail)
