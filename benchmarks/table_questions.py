"""Questions on tables of annual reports, made by rule for training: each with the selection of numbers that answers it.

A table is varied before it is asked about (other digits, other years, fewer rows, labels of other tables), so that what
is learned is where to look, not what stood there. Wordings are of our own writing, after the questions of training
tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from r1core_numeric.layout import lay_out
from r1core_numeric.selection import Selection
from r1core_numeric.tables import head_cells, head_rows
from r1core_numeric.values import Number

Rows = Sequence[Sequence[str]]
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")

ACROSS: Mapping[str, Sequence[str]] = {
    "difference": (
        "What {was} the change in {x} from {then} to {now}?",
        "What {was} the change in {x} between {then} and {now}?",
        "What {was} the difference in {x} between {then} and {now}?",
        "What {was} the difference between {x} in {now} and in {then}?",
        "What {was} the increase/ (decrease) in {x} from {then} to {now}?",
        "What {was} the increase / (decrease) in {x} from {now} to {then}?",
        "How much did {x} change from {then} to {now}?",
        "By how much did {x} increase or decrease in {now}?",
        "What {was} the change in {x} in {now} from {then}?",
        "What {was} the year on year change in {x} between {then} and {now}?",
        "By what amount {was} {x} in {now} different from {then}?",
        "What {was} the nominal change in {x} in {now}?",
    ),
    "percent_change": (
        "What {was} the percentage change in {x} from {then} to {now}?",
        "What {was} the percentage change in {x} between {then} and {now}?",
        "What {was} the percentage increase / (decrease) in {x} from {then} to {now}?",
        "What {was} the percentage change in {x} in {now} compared to {then}?",
        "What {was} the percentage change in {x} in {now} from {then}?",
        "What {was} the year on year percentage change in {x} between {then} and {now}?",
        "What {was} the percentage difference in {x} between {then} and {now}?",
        "By what percentage did {x} change from {then} to {now}?",
        "What {was} the percentage growth of {x} in {now}?",
        "What {was} the percentage change in {x} in {now}?",
        "What {was} the percent change in {x} from {then} to {now} year end?",
    ),
    "average": (
        "What {was} the average {x} for {then} and {now}?",
        "What {was} the average {x} in {then} and {now}?",
        "What {was} the average of {x} between {then} and {now}?",
        "What {was} the average {x} from {then} to {now}?",
        "What {was} the average value of {x} for {now} and {then}?",
        "What {was} the average annual {x} for {then} and {now}?",
        "What {was} the {now} average {x}?",
        "What {was} the mean of {x} in {now} and {then}?",
    ),
    "sum": (
        "What {was} the total {x} in {then} and {now}?",
        "What {was} the total {x} for the years {then} and {now}?",
        "What {was} the sum of {x} in {now} and {then}?",
        "What {was} the total {x} between {then} and {now}?",
        "What {was} {x} in both {then} and {now} altogether?",
        "How much {was} {x} for {then} and {now} combined?",
    ),
    "ratio": (
        "What {was} the ratio of {x} in {now} to {then}?",
        "What {was} {x} in {now} as a multiple of that in {then}?",
    ),
    "share": (
        "What {was} {x} in {now} as a percentage of {x} in {then}?",
    ),
    "difference_of_averages": (
        "What {was} the difference between the average {x} and the average {y} for {then} and {now}?",
        "What {was} the difference between {now} average {x} and {now} average {y}?",
        "What {was} the difference between average {x} and average {y} from {then} to {now}?",
    ),
}  # fmt: skip
ALL: Mapping[str, Sequence[str]] = {
    "average": (
        "What {was} the average {x}?",
        "What {was} the average {x} for {first}-{now}?",
        "What {was} the average {x} between {first} and {now}?",
        "What {was} the average {x} for the fiscal years {first} to {now}?",
        "What {was} the average {x} for {list}?",
        "What {was} the average {x} across the {count} years?",
        "What {was} the average annual {x} from {first} to {now}?",
    ),
    "sum": (
        "What {was} the total {x} for {list}?",
        "What {was} the total {x} from {first} to {now}?",
        "What {was} the total {x} between {first} to {now}?",
        "What {was} the sum of {x} over the {count} years?",
        "What {was} the sum of all {x}?",
    ),
}
DOWN: Mapping[str, Sequence[str]] = {
    "difference": (
        "What {was} the difference between {x} and {y} in {now}?",
        "What {was} the difference in {now} between {x} and {y}?",
        "What {was} the difference in amount between {x} and {y} for {now}?",
        "How much more {was} {x} than {y} in {now}?",
        "By how much did {x} exceed {y} in {now}?",
        "In {now}, what {was} {x} less {y}?",
    ),
    "sum": (
        "What {was} the sum of {x} and {y} in {now}?",
        "What {was} the total of {x} and {y} in {now}?",
        "What {was} the total {x} and {y} for {now}?",
        "In {now}, how much {was} {x} and {y} together?",
        "What {was} the total amount of {x} and {y} as of {now}?",
    ),
    "average": (
        "What {was} the average of {x} and {y} in {now}?",
        "What {was} the average amount of {x} and {y} for {now}?",
    ),
    "ratio": (
        "What {was} the ratio of {x} to {y} in {now}?",
        "What {was} the proportion of {x} over {y} in {now}?",
        "What {was} the proportion of {x} to {y} in {now}?",
        "What {was} {x} as a ratio of {y} in {now}?",
        "What {was} the {x}-to-{y} ratio in {now}?",
        "What {was} {x} divided by {y} in {now}?",
    ),
    "share": (
        "What percentage of {y} {was} {x} in {now}?",
        "What {was} {x} as a percentage of {y} in {now}?",
        "How much {was} {x} in {now} as a percentage of {y}?",
        "What {was} the proportion of {x} as a percentage of {y} in {now}?",
        "In {now}, what {was} the percentage constitution of {x} among {y}?",
        "What {was} the percentage of {x} in {y} in {now}?",
        "What {was} the ratio (in percentage) of {x} to {y} in {now}?",
        "What {was} the percentage of {x} out of {y} in {now}?",
        "What {was} {x} in {now} expressed as a percentage of {y}?",
    ),
    "percent_change": (
        "What {was} the percentage difference between {x} and {y} in {now}?",
        "By what percentage {was} {x} above {y} in {now}?",
    ),
    "product": (
        "What {was} {x} times {y} in {now}?",
        "What {was} the product of {x} and {y} in {now}?",
    ),
}
SOME: Mapping[str, Sequence[str]] = {
    "sum": (
        "What {was} the sum of {xs} in {now}?",
        "What {was} the total of {xs} for {now}?",
        "What {was} the total {xs} in {now}?",
    ),
    "average": ("What {was} the average of {xs} in {now}?",),
    "share": (
        "What {was} the sum of {xs} as a percentage of {y} in {now}?",
        "What {was} the proportion, in percentage, of {xs} over {y} in {now}?",
        "What {was} the total percentage of {xs} over {y} in {now}?",
    ),
    "ratio": ("What {was} the proportion of {xs} over {y} in {now}?",),
}
SHAPES: Sequence[tuple[Mapping[str, Sequence[str]], str, float]] = (
    (ACROSS, "difference", 20), (ACROSS, "percent_change", 20), (ACROSS, "average", 10), (ACROSS, "sum", 5),
    (ACROSS, "ratio", 1), (ACROSS, "share", 0.5), (ACROSS, "difference_of_averages", 2), (ALL, "average", 7),
    (ALL, "sum", 3), (DOWN, "difference", 8), (DOWN, "sum", 5), (DOWN, "average", 2), (DOWN, "ratio", 5),
    (DOWN, "share", 7), (DOWN, "percent_change", 1), (DOWN, "product", 0.7), (SOME, "sum", 4), (SOME, "average", 1),
    (SOME, "share", 2), (SOME, "ratio", 1),
)  # fmt: skip
"""Wordings, operation, and how often: about as training tables are asked about."""


@dataclass(frozen=True)
class Table:
    """A table with its numbers as the prompt shows them."""

    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """Every number of the table, in the order of the prompt."""
        return lay_out(self.rows, caption=self.caption).numbers

    @cached_property
    def head(self) -> int:
        """How many rows belong to the head."""
        return head_rows(self.rows)

    @cached_property
    def places(self) -> Mapping[tuple[int, int], int]:
        """Cells of the body that hold one quantity, to its place among the table's numbers."""
        found: dict[tuple[int, int], int] = {}
        several: set[tuple[int, int]] = set()
        for at, number in enumerate(self.numbers):
            assert number.cell is not None
            place = (number.cell.row, number.cell.column)
            if place[0] >= self.head and place[1] and number.kind == "quantity":
                several |= {place} & found.keys()
                found[place] = at
        return {place: at for place, at in found.items() if place not in several}

    def labels(self) -> Mapping[int, str]:
        """What each row with quantities is called, those that share a name by the section above them."""
        names: dict[int, str] = {}
        section = ""
        for row in range(self.head, len(self.rows)):
            name = " ".join(self.rows[row][0].split()) if self.rows[row] else ""
            if any(place[0] == row for place in self.places):
                names[row] = f"{name}\n{section}" if name else "Total"
            elif name:
                section = name.rstrip(":")
        plain = [name.split("\n")[0] for name in names.values()]
        return {
            row: name.split("\n")[0] if plain.count(name.split("\n")[0]) == 1 else name for row, name in names.items()
        }

    def column(self, column: int) -> str:
        """The headers over a column, in one line."""
        return " ".join(" ".join(self.rows[y][x].split()) for y, x in head_cells(self.rows, self.head, column))


def varied(table: Table, random: Random, labels: Sequence[str]) -> Table:
    """Another table of the same form: other digits, now and then other years, fewer rows and other labels."""
    shift = random.choice((0, 0, *range(-12, 5)))
    spare = random.random() < 0.35
    swap = random.random() < 0.4
    rows = []
    for at, row in enumerate(table.rows):
        if at >= table.head and spare and random.random() < 0.3:
            continue
        cells = [_later(cell, shift) for cell in row]
        if at >= table.head:
            cells = [cells[0], *(_jittered(cell, random) for cell in cells[1:])] if cells else cells
            if swap and len(cells) > 1 and any(cells[1:]) and random.random() < 0.8:
                cells[0] = random.choice(labels)
        rows.append(tuple(cells))
    return Table(tuple(rows), table.caption)


def retold(table: Table, question: str, random: Random) -> tuple[Table, str]:
    """The same question on the same table in other years, with other digits behind the second of each number."""
    short = re.search(r"\bFY ?\d\d\b|\b\d\d/\d\d\b", question)
    shift = 0 if short else random.randint(-10, 4)
    rows = [
        tuple(
            _later(cell, shift) if at < table.head or not column else _jittered(_later(cell, shift), random, kept=2)
            for column, cell in enumerate(row)
        )
        for at, row in enumerate(table.rows)
    ]
    return Table(tuple(rows), table.caption), _later(question, shift)


def _later(text: str, shift: int) -> str:
    return _YEAR.sub(lambda year: str(int(year[0]) + shift) if 1985 <= int(year[0]) <= 2040 else year[0], text)


def _jittered(cell: str, random: Random, kept: int = 0) -> str:
    """Other digits in the same form, so that a number keeps its length; the first `kept` stay, and years do."""
    if _YEAR.search(cell):
        return cell

    def other(found: re.Match[str]) -> str:
        text, seen = "", 0
        for sign in found[0]:
            seen += sign.isdigit()
            text += str(random.randint(0, 9)) if sign.isdigit() and seen > kept else sign
        return text if kept or found[0][0] == "0" else f"{random.randint(1, 9)}{text[1:]}"

    return _DIGITS.sub(other, cell)


def ask(table: Table, random: Random) -> tuple[str, Selection] | None:
    """A question on a table, and the selection over the table's numbers that answers it; None where none fits."""
    wordings, operation, _ = random.choices(SHAPES, [weight for *_, weight in SHAPES])[0]
    names, wording = table.labels(), random.choice(wordings[operation])
    if len(names) < 4 or len(table.places) < 6:
        return None
    build: Callable[..., tuple[Selection, Mapping[str, str]] | None] = {
        id(ACROSS): _across, id(ALL): _all, id(DOWN): _down, id(SOME): _some,
    }[id(wordings)]  # fmt: skip
    made = build(table, operation, names, random)
    if made is None:
        return None
    selection, said = made
    return wording.format(was=random.choice(("was", "is", "is", "were")), **said), selection


def _called(name: str, random: Random) -> str:
    """A row's label as somebody may ask for it."""
    label, _, section = name.partition("\n")
    kind = random.random()
    if kind < 0.3:
        label = label.lower()
    elif kind < 0.5 and label[:2].istitle():
        label = label[0].lower() + label[1:]
    if random.random() < 0.6:
        label = re.sub(r"\s*\(\s*[\w.,]{1,3}\s*\)", "", label)  # a footnote's mark
    if random.random() < 0.3:
        label = re.sub(r"\s*\([^)]*\)", "", label) or label
    if random.random() < 0.15:
        label = re.sub(r",? net$", "", label) or label
    label = label.rstrip(" :").strip()
    if section:
        label = random.choice((f"{label} of {section}", f"{label} in {section}", f"{section} {label}"))
    return (
        random.choice(("", "", "", "the ", "the ", "the amount of ", "total " if "otal" not in label else "")) + label
    )


def _when(header: str, random: Random) -> str:
    """A column as somebody may ask for it: by its year, or by its whole header."""
    year = _YEAR.search(header)
    if year is None or len(_YEAR.findall(header)) > 1:
        return header
    plain = year[0]
    ways = (plain, plain, plain, plain, f"fiscal {plain}", f"fiscal year {plain}", f"FY{plain[2:]}", f"FY {plain}",
            f"the year {plain}", header, header)  # fmt: skip
    return random.choice(ways)


def _years(table: Table, row: int, random: Random) -> list[tuple[int, int]]:
    """Year and column of the cells of a row that differ in their year alone, ascending; none where they do not."""
    groups: dict[str, dict[int, int]] = {}
    for column in range(1, len(table.rows[row])):
        found = _YEAR.findall(table.column(column))
        if (row, column) in table.places and len(found) == 1:
            rest = re.sub(r"[\W\d]+", " ", table.column(column)).strip()
            groups.setdefault(rest, {}).setdefault(int(found[0]), column)
    fit = [group for group in groups.values() if len(group) > 1]
    if not fit:  # a span that stands over some of the columns only
        merged = {year: column for group in groups.values() for year, column in group.items()}
        fit = [merged] if len(merged) > 1 and len(merged) == sum(map(len, groups.values())) else []
    return sorted(random.choice(fit).items()) if fit else []


def _two(table: Table, row: int, random: Random) -> tuple[int, int] | None:
    """An earlier and a later column of a row; by their headers where these name no years."""
    years = _years(table, row, random)
    if len(years) > 1:
        at = random.choice([*range(len(years) - 1)])
        later = at + 1 if random.random() < 0.8 else random.randrange(at + 1, len(years))
        return years[at][1], years[later][1]
    columns = [c for c in range(1, len(table.rows[row])) if (row, c) in table.places and table.column(c)]
    if len(columns) < 2 or random.random() < 0.5:
        return None
    one, other = random.sample(columns, 2)
    numbers = table.numbers
    larger = numbers[table.places[row, one]].fraction >= numbers[table.places[row, other]].fraction
    return (other, one) if larger else (one, other)


def _across(
    table: Table, operation: str, names: Mapping[int, str], random: Random
) -> tuple[Selection, Mapping[str, str]] | None:
    row, other = random.sample(sorted(names), 2)
    two = _two(table, row, random)
    if two is None:
        return None
    then, now = (table.places[row, column] for column in two)
    both = tuple(sorted((then, now)))
    said = {
        "x": _called(names[row], random),
        "y": _called(names[other], random),
        "then": _when(table.column(two[0]), random),
        "now": _when(table.column(two[1]), random),
    }
    if operation == "difference_of_averages":
        if any((other, column) not in table.places for column in two):
            return None
        seconds = tuple(sorted(table.places[other, column] for column in two))
        return Selection(operation, both, seconds), said
    if operation in ("average", "sum"):
        return Selection(operation, both), said
    return Selection(operation, (now,), (then,)), said


def _all(
    table: Table, operation: str, names: Mapping[int, str], random: Random
) -> tuple[Selection, Mapping[str, str]] | None:
    row = random.choice(sorted(names))
    years = _years(table, row, random)
    if len(years) < 2:
        return None
    listed = [str(year) for year, _ in years]
    said = {
        "x": _called(names[row], random),
        "first": listed[0],
        "now": listed[-1],
        "count": str(len(listed)),
        "list": f"{', '.join(listed[:-1])} and {listed[-1]}",
    }
    return Selection(operation, tuple(sorted(table.places[row, column] for _, column in years))), said


def _down(
    table: Table, operation: str, names: Mapping[int, str], random: Random
) -> tuple[Selection, Mapping[str, str]] | None:
    made = _rows(table, names, random, 2)
    if made is None:
        return None
    (x, y), column = made
    first, second = table.places[x, column], table.places[y, column]
    if operation == "share" and random.random() < 0.7:  # of a total, mostly
        totals = [row for row in names if "otal" in names[row] and row != x and (row, column) in table.places]
        if totals:
            y = min(totals, key=lambda row: (row < x, abs(row - x)))
            second = table.places[y, column]
    if operation == "difference" and table.numbers[first].fraction < table.numbers[second].fraction:
        first, second = (second, first) if random.random() < 0.5 else (first, second)
        if first == table.places[y, column]:
            x, y = y, x
    said = {"x": _called(names[x], random), "y": _called(names[y], random), "now": _when(table.column(column), random)}
    if operation in ("sum", "average", "product"):
        return Selection(operation, tuple(sorted((first, second)))), said
    return Selection(operation, (first,), (second,)), said


def _some(
    table: Table, operation: str, names: Mapping[int, str], random: Random
) -> tuple[Selection, Mapping[str, str]] | None:
    made = _rows(table, names, random, random.randint(3, 5))
    if made is None:
        return None
    (y, *chosen), column = made
    spoken = [_called(names[row], random) for row in chosen]
    said = {
        "xs": f"{', '.join(spoken[:-1])} and {spoken[-1]}",
        "y": _called(names[y], random),
        "now": _when(table.column(column), random),
    }
    first = tuple(sorted(table.places[row, column] for row in chosen))
    second = (table.places[y, column],) if operation in ("share", "ratio") else ()
    return Selection(operation, first, second), said


def _rows(table: Table, names: Mapping[int, str], random: Random, count: int) -> tuple[list[int], int] | None:
    """So many rows that all have a quantity in one column, and that column."""
    columns = sorted({column for _, column in table.places if table.column(column)})
    if not columns:
        return None
    column = random.choice(columns)
    rows = [row for row in names if (row, column) in table.places]
    return (random.sample(rows, count), column) if len(rows) >= count else None
