"""Data set `finance/direction`: whether the S&P 500 closes higher on the next day, asked by its last five changes.

It is here to be measured, not to be traded on: `benchmarks/finance_direction.py` reports the adapted model walk-forward
beside "always up", with standard errors, and the difference is what it is. `train` ends in 2006, `val` in 2010; `test`
is what came after, and one split of time is one history: the walk-forward figure is the one to read.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from r1core import api
from r1core_finance import prices

Split = Literal["train", "val", "test"]

NAME = "finance/direction"
TASK = "direction"
DAYS = 5  # changes that are shown
TEMPLATE = "S&P 500, changes of the last {days} days in percent, oldest first: {changes}\nIs the next day up or down?"
LABELS = ("up", "down")
ENDS: Mapping[str, tuple[datetime.date, datetime.date]] = MappingProxyType(
    {
        "train": (datetime.date.min, datetime.date(2007, 1, 1)),
        "val": (datetime.date(2007, 1, 1), datetime.date(2011, 1, 1)),
        "test": (datetime.date(2011, 1, 1), datetime.date.max),
    }
)
"""Days that are asked about, from and before."""


def prompt_of(changes: Sequence[float]) -> str:
    """The question for returns (fractions), oldest first."""
    return TEMPLATE.format(days=len(changes), changes=" ".join(f"{100 * change:+.2f}" for change in changes))


def label_of(change: float) -> str:
    """`up` for a return above zero; a day without a change is `down`."""
    return LABELS[0] if change > 0 else LABELS[1]


def asked(series: prices.Series) -> Iterator[tuple[datetime.date, str, str]]:
    """Day, question and answer, for every day that has `DAYS` returns before it."""
    changes = series.returns()
    for at in range(DAYS, len(changes)):
        yield series.dates[at + 1], prompt_of(changes[at - DAYS : at]), label_of(changes[at])


class Direction:
    """The data set as r1core reads it."""

    name = NAME
    tasks: Mapping[str, api.Task] = MappingProxyType(
        {TASK: api.Task(TASK, choices=LABELS, cluster="month", description="next day of the S&P 500, up or down")}
    )

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split, day by day; `as_of` is the last day whose close is shown.

        Raises
        ------
        api.UserError : when the wheel that holds the prices is absent or broken.
        """
        series = prices.long_index()
        known = dict(zip(series.dates[1:], series.dates, strict=False))
        first, end = ENDS[split]
        for day, question, answer in asked(series):
            if first <= day < end:
                yield api.Example(
                    id=day.isoformat(),
                    messages=(api.Message("user", question), api.Message("assistant", answer)),
                    task=TASK,
                    source=NAME,
                    as_of=known[day].isoformat(),
                    fields={"month": day.isoformat()[:7]},
                )

    def input_files(self) -> tuple[Path, ...]:
        """The file of prices, so that `verify` can recheck it."""
        return (prices.file_of("skfolio", "datasets/data/sp500_index.csv.gz"),)

    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes, the question and the splits."""
        digest = hashlib.sha256(self.input_files()[0].read_bytes())
        digest.update(repr((TEMPLATE, DAYS, LABELS, sorted(ENDS.items()))).encode())
        return digest.hexdigest()
