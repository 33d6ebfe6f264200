"""Data set `finance/price_questions`: questions on tables of real closing prices, each with the program to answer it.

Train, val and test share neither a stock nor a day, so what is learned is where to look and what to reckon, not a
price. Answers are exact: a finite decimal in full, anything else to two places, half up. Wordings are those below in
every split: the figure on them says how well operands are found, not how well English is understood.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Literal

from r1core import api
from r1core_finance import prices

Split = Literal["train", "val", "test"]
Place = tuple[int, int]

NAME = "finance/price_questions"
TASK = "price_question"
DAYS, STOCKS = 6, 3  # of a table
MOST_APART = 20  # trading days between two rows
ROWS: Mapping[str, int] = MappingProxyType({"train": 6000, "val": 400, "test": 500})
ENDS: Mapping[str, tuple[datetime.date, datetime.date]] = MappingProxyType(
    {
        "train": (datetime.date.min, datetime.date(2010, 1, 1)),
        "val": (datetime.date(2010, 1, 1), datetime.date(2015, 1, 1)),
        "test": (datetime.date(2015, 1, 1), datetime.date.max),
    }
)
"""Days that stand in tables, from and before."""
SHARE: Mapping[str, tuple[int, ...]] = MappingProxyType({"train": (0, 1, 2), "val": (3,), "test": (4,)})
"""Which stocks, by their place in the alphabet modulo five: twelve, four and four."""

WORDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "difference": (
            "By how much did {a} change from {then} to {now}?",
            "What is the change in the close of {a} between {then} and {now}?",
            "How far did the price of {a} move from {then} to {now}?",
            "What does the close of {a} on {now} come to less that on {then}?",
        ),
        "percent_change": (
            "By what percentage did {a} change from {then} to {now}?",
            "What is the percentage change in the close of {a} between {then} and {now}?",
            "What return did {a} make from {then} to {now}, in percent?",
            "How many percent did {a} gain or lose between {then} and {now}?",
        ),
        "gap": (
            "How much higher did {a} close than {b} on {now}?",
            "What is the close of {a} less that of {b} on {now}?",
            "By how much did {a} exceed {b} on {now}?",
        ),
        "ratio": (
            "How many times the close of {b} was that of {a} on {now}?",
            "What is the ratio of {a} to {b} on {now}?",
            "What did {a} cost on {now} as a multiple of {b}?",
        ),
        "average": (
            "What is the average close of {a} on {days}?",
            "What did {a} close at on average, taking {days}?",
            "Give the mean of the closes of {a} on {days}.",
        ),
        "sum": (
            "What do {a} and {b} cost together on {now}?",
            "What is the sum of the closes of {a} and {b} on {now}?",
            "Add the closes of {a} and {b} on {now}.",
        ),
        "product": (
            "What do {count} of {a} cost at the close of {now}?",
            "What are {count} of {a} worth on {now}?",
            "Take {count} times the close of {a} on {now}: what does it come to?",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on a table."""

    question: str
    rows: tuple[tuple[str, ...], ...]
    program: api.JSON
    answer: str


def cells(op: str, *places: Place) -> api.JSON:
    """A program of one operation over cells of the table, row and column from 0."""
    return {"op": op, "args": [{"cell": list(place)} for place in places]}


def spelled(day: datetime.date) -> str:
    """As "March 3, 2015"."""
    return f"{day:%B} {day.day}, {day.year}"


def written(value: Fraction, mark: str = "") -> str:
    """A finite decimal in full, with commas; anything else to two places, half away from zero."""
    rest, places = value.denominator, 0
    while rest > 1 and places < 30 and (rest % 2 == 0 or rest % 5 == 0):
        rest, places = rest // (10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5), places + 1
    places = places if rest == 1 else 2
    steps = (abs(value) * 10**places * 2 + 1) // 2
    whole, behind = divmod(int(steps), 10**places)
    sign = "-" if value < 0 and steps else ""
    return f"{sign}{whole:,}" + (f".{behind:0{places}d}" if places else "") + mark


def ask(
    random: Random, kind: str, closes: Mapping[str, Mapping[datetime.date, str]], days: Sequence[datetime.date]
) -> Asked:
    """A question of one kind (a key of `WORDINGS`) on the closes of these stocks on these days, which ascend."""
    rows = (("", *closes), *((spelled(day), *(close[day] for close in closes.values())) for day in days))
    then, now = sorted(random.sample(range(1, len(rows)), 2))
    a, b = random.sample(range(1, len(closes) + 1), 2)
    count, some = random.randint(2, 900), sorted(random.sample(range(1, len(rows)), random.randint(2, 3)))
    several = [rows[row][0] for row in some]

    def close(row: int, column: int) -> Fraction:
        return Fraction(rows[row][column])

    def both() -> tuple[Fraction, Fraction]:
        return close(now, a), close(now, b)

    made: Mapping[str, Callable[[], tuple[api.JSON, Fraction]]] = {
        "difference": lambda: (cells("subtract", (now, a), (then, a)), close(now, a) - close(then, a)),
        "percent_change": lambda: (
            cells("percent_change", (now, a), (then, a)),
            100 * (close(now, a) - close(then, a)) / close(then, a),
        ),
        "gap": lambda: (cells("subtract", (now, a), (now, b)), both()[0] - both()[1]),
        "ratio": lambda: (cells("divide", (now, a), (now, b)), both()[0] / both()[1]),
        "average": lambda: (
            cells("average", *((row, a) for row in some)),
            sum((close(row, a) for row in some), Fraction()) / len(some),
        ),
        "sum": lambda: (cells("sum", (now, a), (now, b)), sum(both(), Fraction())),
        "product": lambda: (
            {"op": "multiply", "args": [{"slot": 0}, {"cell": [now, a]}]},
            count * close(now, a),
        ),
    }
    program, value = made[kind]()
    question = random.choice(WORDINGS[kind]).format(
        a=rows[0][a], b=rows[0][b], then=rows[then][0], now=rows[now][0], count=count,
        days=f"{', '.join(several[:-1])} and {several[-1]}",
    )  # fmt: skip
    return Asked(question, rows, program, written(value, "%" if kind == "percent_change" else ""))


class PriceQuestions:
    """The data set as r1core reads it."""

    name = NAME
    tasks: Mapping[str, api.Task] = MappingProxyType(
        {TASK: api.Task(TASK, cluster="kind", description="arithmetic on a table of closing prices")}
    )

    def read(self, split: Split) -> Iterator[api.Example]:
        """Yield the examples of one split; `fields` hold the table, the program and the kind of question.

        Raises
        ------
        api.UserError : when the wheel that holds the prices is absent or broken.
        """
        every = prices.stocks()
        stocks = [one for place, one in enumerate(sorted(every, key=lambda s: s.name)) if place % 5 in SHARE[split]]
        closes = {one.name: dict(zip(one.dates, one.closes, strict=True)) for one in stocks}
        first, end = ENDS[split]
        days = [day for day in stocks[0].dates if first <= day < end]
        kinds = tuple(WORDINGS)
        for number in range(ROWS[split]):
            random = Random(f"{NAME}/{split}/{number}")
            begin, shown = random.randrange(len(days) - DAYS * MOST_APART), []
            for _ in range(DAYS):
                begin += random.randint(1, MOST_APART)
                shown.append(days[begin])
            some = {name: closes[name] for name in random.sample(sorted(closes), STOCKS)}
            asked = ask(random, kinds[number % len(kinds)], some, shown)
            yield api.Example(
                id=f"{split}-{number}",
                messages=(api.Message("user", asked.question), api.Message("assistant", asked.answer)),
                task=TASK,
                source=NAME,
                as_of=shown[-1].isoformat(),
                fields={"table": asked.rows, "program": asked.program, "kind": kinds[number % len(kinds)]},
            )

    def input_files(self) -> tuple[Path, ...]:
        """The file of prices, so that `verify` can recheck it."""
        return (prices.file_of("skfolio", "datasets/data/sp500_dataset.csv.gz"),)

    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes, the wordings and the splits."""
        digest = hashlib.sha256(self.input_files()[0].read_bytes())
        told = (DAYS, STOCKS, MOST_APART, *(sorted(table.items()) for table in (ROWS, ENDS, SHARE, WORDINGS)))
        digest.update(repr(told).encode())
        return digest.hexdigest()
