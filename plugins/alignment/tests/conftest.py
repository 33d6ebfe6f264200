"""Facts in a line each, and where the SEC's file lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import r1core_alignment as alignment

Table = Callable[..., pd.DataFrame]


@pytest.fixture
def table() -> Table:
    """`START..END VALUE FILED [ACCESSION [FORM]]` a line, END alone for an instant; of one concept in USD."""

    def made(text: str, **fixed: Any) -> pd.DataFrame:
        rows = []
        for number, line in enumerate(text.strip().splitlines()):
            period, value, filed, *more = line.split()
            start, _, end = period.rpartition("..")
            accession, form = [*more, *(f"a-{number:03d}", "10-Q")[len(more) :]]
            row = {
                "entity": "ACME",
                "concept": "us-gaap:Revenues",
                "unit": "USD",
                "value": value,
                "start": start or None,
            }
            rows.append({**row, "end": end, "filed": filed, "accession": accession, "form": form, **fixed})
        return pd.DataFrame(rows)

    return made


@pytest.fixture(scope="session")
def snow_path() -> Path:
    """The companyfacts of Snowflake Inc., where the shared data lies beside the repository."""
    for folder in Path(__file__).resolve().parents:
        path = folder / "shared" / "data" / "sec" / "SNOW_companyfacts.json.gz"
        if path.is_file():
            return path
    pytest.skip("no shared/data/sec/SNOW_companyfacts.json.gz beside the repository")


@pytest.fixture(scope="session")
def snow(snow_path: Path) -> alignment.Facts:
    return alignment.read_companyfacts(snow_path)
