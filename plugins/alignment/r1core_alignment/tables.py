"""Writes a tidy table, and reads one back to be audited: CSV, JSON, JSON lines, or Parquet where pyarrow is installed.

CSV holds every digit. JSON holds a decimal as the nearest float64; Parquet holds float64 throughout, and refuses what
that cannot hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pandas as pd

from r1core.api import JSON, UserError
from r1core_alignment.aligned import LONG, Aligned
from r1core_alignment.provenance import plain

FORMATS = (".csv", ".csv.gz", ".json", ".jsonl", ".parquet")
_DAYS = ("date", "start", "end", "filed", "first_filed")


def check_format(path: Path) -> str:
    """The ending that says how a table is written.

    Raises
    ------
    UserError : for another one, and for Parquet without pyarrow.
    """
    from importlib.util import find_spec

    found = next((one for one in FORMATS if path.name.lower().endswith(one)), None)
    if found is None:
        raise UserError(f"{path}: no format has this ending", fix=f"one of {', '.join(FORMATS)}")
    if found == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet is written by pyarrow, which is not installed", fix="pip install pyarrow")
    return found


def write(aligned: Aligned, path: Path) -> int:
    """Write the tidy table of `aligned` and return its number of rows.

    Raises
    ------
    UserError : for an unknown ending, a folder that is not there, and what the format cannot hold.
    """
    ending = check_format(path)
    table = aligned.long(exact=ending != ".parquet")
    try:
        if ending == ".parquet":
            table.to_parquet(path, index=False)
        elif ending == ".json":
            path.write_text(as_json(table), encoding="utf-8")
        elif ending == ".jsonl":
            lines = [json.dumps(row, ensure_ascii=False) for row in records(table)]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            digits = table["value"].map(plain)
            table.assign(value=digits).to_csv(path, index=False, date_format="%Y-%m-%d")
    except OSError as error:
        raise UserError(f"{path}: it cannot be written ({error.strerror})", fix="name a folder that exists") from error
    return len(table)


def read(path: Path) -> pd.DataFrame:
    """A tidy table that `write` wrote.

    Raises
    ------
    UserError : where it cannot be read.
    """
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".csv": lambda: pd.read_csv(path, dtype=object, keep_default_na=False),
        ".json": lambda: _framed(json.loads(path.read_text("utf-8"), parse_float=Decimal)),
        ".jsonl": lambda: _framed(
            [json.loads(one, parse_float=Decimal) for one in path.read_text("utf-8").splitlines()]
        ),
        ".parquet": lambda: pd.read_parquet(path),
    }
    ending = check_format(path).removesuffix(".gz")
    try:
        return readers[ending]()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: no readable table ({error})", fix="give what `r1core align --out` wrote") from error


def records(table: pd.DataFrame) -> list[dict[str, JSON]]:
    """The rows as JSON objects; no start is null."""
    days = {name: table[name].dt.strftime("%Y-%m-%d") for name in _DAYS}
    texts = table.assign(**{name: one.astype(object).where(one.notna(), None) for name, one in days.items()})
    made: list[dict[str, JSON]] = texts.to_dict("records")
    for row in made:
        if isinstance(row["value"], Decimal):
            row["value"] = float(row["value"])
    return made


def as_json(table: pd.DataFrame) -> str:
    """The rows as a JSON array."""
    return json.dumps(records(table), indent=1, ensure_ascii=False) + "\n"


def readable(table: pd.DataFrame) -> list[str]:
    """The rows in aligned columns, a line each, under a header; the entity only where there are several."""
    short = table["concept"].str.rpartition(":")[2]
    value = [f"{one:,f}" if isinstance(one, Decimal) else f"{one:,}" for one in table["value"]]
    start, end = (table[name].dt.strftime("%Y-%m-%d") for name in ("start", "end"))
    shown = {
        "date": table["date"].dt.strftime("%Y-%m-%d"),
        "entity": table["entity"],
        "concept": short,
        "measure": table["measure"],
        "value": value,
        "unit": table["unit"],
        "period": [f"{one}..{other}" if one == one else other for one, other in zip(start, end, strict=True)],
        "filed": table["filed"].dt.strftime("%Y-%m-%d"),
        "form": table["form"],
        "accession": table["accession"],
        "rule": table["rule"],
    }
    if table["entity"].nunique() < 2:
        del shown["entity"]
    return in_columns(list(shown), list(zip(*shown.values(), strict=True)), right=("value",))


def in_columns(heads: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell; those of `right` end there."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def _framed(rows: JSON) -> pd.DataFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("found no list of rows")
    return pd.DataFrame(rows, columns=None if rows else list(LONG), dtype=object)
