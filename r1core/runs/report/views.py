"""Arranging a report's data for drawing: tables by task, charts by curve, a prompt cut at its concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1core.api import JSON, Series, Table
from r1core.runs.report.data import Concept, Confusion, SystemRow
from r1core.runs.report.svg import Bar

_VALIDATION = "validation_"
_WITHIN_95 = 1.96  # standard errors on either side that hold 95 % of a normal distribution
_NONE = "\N{EN DASH}"
_WHOLE_ALONE, _WHOLE_AMONG = 32, 20  # characters of a word that stays whole: a cell of its own (an id), among others
_LONG = 120  # characters of a cell from which its column would squeeze the others
_DARK_SHARE = 0.8  # share of a row from which light text has more contrast on a heat map cell than dark text


@dataclass(frozen=True, slots=True)
class TableRow:
    """One system's row; `cells` are `(value, standard error)` texts, one a metric."""

    system: str
    cells: tuple[tuple[str, str], ...]
    strong: bool


@dataclass(frozen=True, slots=True)
class TaskTable:
    """A task's systems by metrics, and the first metric as bars."""

    title: str
    task: str
    n: int
    metrics: tuple[str, ...]
    rows: tuple[TableRow, ...]
    bars: tuple[Bar, ...]
    high: float | None
    gain: str


@dataclass(frozen=True, slots=True)
class WideTable:
    """A plugin's table; each row is `(cells, below)`, where `below` holds `(column, text)` of the columns left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves that share a plot."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the heat map; `share` of its row in [0, 1]."""

    count: int
    share: float
    title: str
    dark: bool
    diagonal: bool


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One gold label's row."""

    number: int
    label: str
    cells: tuple[Cell, ...]
    total: int
    recall: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text; `concept` where it is linked."""

    text: str
    concept: Concept | None = None


def readable(name: str) -> str:
    """`macro_f1` as `macro F1`, `top_3` as `top-3`."""
    words = {"f1": "F1", "top3": "top-3", "top_3": "top-3", "tfidf": "TF-IDF", "se": "standard error"}
    if name.lower() in words:
        return words[name.lower()]
    return " ".join(words.get(word, word) for word in name.replace("_", " ").split())


def breaking(cell: str) -> str:
    """Where a table's cell may break, as a class: a single word nowhere, text with a long word (a path) anywhere.

    Left alone, a browser breaks identifiers at their hyphens, and lets a long word take the room of other columns.
    """
    words = cell.split()
    longest = max(map(len, words), default=0)
    if len(words) <= 1:
        return "nowhere" if longest <= _WHOLE_ALONE else "anywhere"
    return "between-words" if longest <= _WHOLE_AMONG else "anywhere"


def wide(table: Table) -> WideTable:
    """A plugin's table, in which a column of long texts, such as citations, stands below its row over the whole width.

    The first column stays, since the others belong to it.
    """
    ends, given = len(table.columns), [tuple(map(str, row)) for row in table.rows]  # some plugin gives numbers
    long = {i for row in given for i, cell in enumerate(row[:ends]) if i > 0 and len(cell) > _LONG}
    rows = []
    for row in given:
        cells = tuple(cell for i, cell in enumerate(row) if i not in long)
        rows.append((cells, tuple((table.columns[i], row[i]) for i in sorted(long) if row[i:] and row[i])))
    return WideTable(tuple(name for i, name in enumerate(table.columns) if i not in long), tuple(rows))


def tables(rows: Sequence[SystemRow]) -> list[TaskTable]:
    """One table a task, systems and metrics in the order in which they first come."""
    return [_table(task, [row for row in rows if row.task == task]) for task in dict.fromkeys(row.task for row in rows)]


def _table(task: str, rows: Sequence[SystemRow]) -> TaskTable:
    metrics = tuple(dict.fromkeys(row.metric for row in rows))
    systems = tuple(dict.fromkeys(row.system for row in rows))
    by_key = {(row.system, row.metric): row for row in rows}
    lead = metrics[0]
    table_rows, bars = [], []
    for system in systems:
        strong = system.partition("+")[0] == "adapted"
        found = [by_key.get((system, metric)) for metric in metrics]
        table_rows.append(TableRow(system_name(system), tuple(_cell(row) for row in found), strong))
        first = by_key.get((system, lead))
        if first is not None and first.value >= 0:
            error = None if first.se is None else _WITHIN_95 * first.se
            bars.append(Bar(system_name(system), first.value, error, _number(first), strong))
    fraction = all(row.unit == "fraction" for row in rows if row.metric == lead)
    return TaskTable(
        title=f"{readable(lead)} by system",
        task=task,
        n=max(row.n for row in rows),
        metrics=tuple(readable(metric) for metric in metrics),
        rows=tuple(table_rows),
        bars=tuple(bars),
        high=1.0 if fraction else None,
        gain=_gain(by_key, lead),
    )


def system_name(system: str) -> str:
    """`adapted+constrained` as `adapted, constrained`; `tfidf` as `TF-IDF`."""
    return ", ".join(readable(part) for part in system.split("+"))


def _gain(by_key: Mapping[tuple[str, str], SystemRow], metric: str) -> str:
    """The change from base to adapted, both decoded alike, in words."""
    for suffix in ("", "+constrained"):
        before, after = by_key.get((f"base{suffix}", metric)), by_key.get((f"adapted{suffix}", metric))
        if before and after:
            how = "constrained to the label set" if suffix else "free-running"
            name = readable(metric)
            return f"{name[:1].upper()}{name[1:]} went from {_number(before)} to {_number(after)}, {how}."
    return ""


def _number(row: SystemRow) -> str:
    return f"{100 * row.value:.1f} %" if row.unit == "fraction" else f"{row.value:.4g}"


def _cell(row: SystemRow | None) -> tuple[str, str]:
    if row is None:
        return _NONE, ""
    if row.se is None:
        return _number(row), ""
    return _number(row), f"± {100 * row.se:.1f}" if row.unit == "fraction" else f"± {row.se:.2g}"


def charts(curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[Chart]:
    """One chart a curve; `validation_x` joins the chart of `x` where that exists."""
    made = []
    for name in curves:
        if name.startswith(_VALIDATION) and name.removeprefix(_VALIDATION) in curves:
            continue
        together = [name, *(other for other in (f"{_VALIDATION}{name}",) if other in curves)]
        labels = ("training", "validation") if len(together) == 2 else (readable(name),)
        series = tuple(_series(label, curves[one]) for label, one in zip(labels, together, strict=True))
        made.append(Chart(readable(name), series))
    return made


def _series(label: str, points: Sequence[tuple[float, float]]) -> Series:
    return Series(label, tuple(x for x, _ in points), tuple(y for _, y in points))


def confusion(found: Confusion) -> list[HeatRow]:
    """The heat map's rows, each normalised by its own total; the last column counts answers that are no label."""
    rows = []
    for index, (label, counts) in enumerate(zip(found.labels, found.matrix, strict=True)):
        answers = [*zip(found.labels, counts, strict=True)]
        if found.other:
            answers.append(("no label", found.other[index]))
        total = sum(count for _, count in answers)
        cells = tuple(
            Cell(
                count,
                share := count / total if total else 0.0,
                f"{label}, answered {answer}: {count} of {total}",
                share >= _DARK_SHARE,
                column == index,
            )
            for column, (answer, count) in enumerate(answers)
        )
        recall = f"{100 * counts[index] / total:.0f} %" if total else _NONE
        rows.append(HeatRow(index + 1, label, cells, total, recall))
    return rows


def pieces(text: str, concepts: Sequence[Concept]) -> list[Piece]:
    """Cut a text at its concepts. Where two overlap, the longer one is shown, the earlier one of equals."""
    chosen: list[Concept] = []
    for concept in sorted(concepts, key=lambda one: (one.start - one.end, one.start)):
        if all(concept.end <= other.start or concept.start >= other.end for other in chosen):
            chosen.append(concept)
    cut, at = [], 0
    for concept in sorted(chosen, key=lambda one: one.start):
        if concept.start > at:
            cut.append(Piece(text[at : concept.start]))
        cut.append(Piece(text[concept.start : concept.end], concept))
        at = concept.end
    if at < len(text):
        cut.append(Piece(text[at:]))
    return cut


def _listed(choice: JSON) -> str:
    """A probe's choice on one line: `device cpu, precision fp32`."""
    return ", ".join(f"{key} {value}" for key, value in choice.items()) if isinstance(choice, dict) else str(choice)


def manifest_lines(manifest: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """The few facts of the manifest that stand above the fold."""
    trained = (manifest.get("stages") or {}).get("train") or {}
    device = trained.get("device") or manifest.get("device") or {}
    lines = [("r1core", str(manifest.get("r1core", "")))]
    if manifest.get("seed") is not None:
        lines.append(("seed", str(manifest["seed"])))
    if device:
        memory = device.get("memory_bytes")
        size = f", {memory / 2**30:.0f} GiB" if memory else ""
        lines.append(("machine", f"{device.get('cpu', '')}, {device.get('cores', '?')} cores{size}"))
        lines.append(("accelerators", ", ".join(device.get("accelerators") or ())))
        lines.append(("python", str(device.get("python", ""))))
    plugins = manifest.get("plugins") or []
    if plugins:
        lines.append(("plugins", ", ".join(f"{one.get('name')} {one.get('version')}" for one in plugins)))
    for name, choice in (manifest.get("probes") or {}).items():
        lines.append((f"probe {readable(name)}", _listed(choice)))
    lines.append(("artefacts", f"{len(manifest.get('artefacts') or {})} files, each by SHA-256"))
    return [(name, text) for name, text in lines if text]
