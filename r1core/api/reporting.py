"""What `report` is given and returns: a view of the run, and sections of tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1core.api.values import JSON


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report; cells are plain text and are escaped."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A line plot of a report; drawn by the core as inline SVG."""

    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section that a plugin adds to the report. `private` sections are left out by `report --redact`."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    private: bool = True


@dataclass(frozen=True, slots=True)
class RunView:
    """Read-only view of a run for `report` hooks: the directory, the manifest and the evaluation rows."""

    directory: Path
    manifest: Mapping[str, JSON]
    summary: Sequence[Mapping[str, JSON]]
