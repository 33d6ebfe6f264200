"""The part of `check` that reads records: what would be set aside, and a few of each split through the whole chain.

Rows are counted for a limited time; the chain, the augmentations and the constraints are tried on the first records.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from r1core.api import Example, Problem, UserError
from r1core.data.files import FileSource
from r1core.data.prepare import SPLITS, Intake, Split, answer_reading, augmented, more_rows
from r1core.data.tokens import Encoded, prompt_of
from r1core.evaluate.baselines import refuse_untunable
from r1core.forecast.work import Rows, rows_of
from r1core.recipe.load import Resolved
from r1core.recipe.schema import Data, Recipe
from r1core.workbench import Workbench

SAMPLE_ROWS = 20
"""Records of each split that go through the chain."""
SPREAD_ROWS = 128
"""Records from all over the training rows whose lengths are compared with those of the first, often untypical ones."""
COUNT_SECONDS = 2.0
"""The records of a split are read for at most this long; what is left then is neither checked nor forecast."""


@dataclass
class Sample:
    """What stands for all training records: `read` of them, which gave the `records` (and the same `encoded`).

    `rows` were counted that may be trained on, `aside` that may not. `stretch` is the mean length of records from all
    over the rows that were read, over that of the first ones.
    """

    read: int = 0
    records: list[Example] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    rows: int = 0
    aside: int = 0
    all_counted: bool = False
    stretch: float = 1.0

    def used(self, most: int) -> tuple[int, bool]:
        """How many records training takes, at most `most` (0: all), and whether that is known and not a lower bound."""
        used = min(self.rows, most) if most else self.rows
        return used, self.all_counted or used == most

    def rows_like(self, recipe: Recipe) -> Rows:
        """What the training rows are like, with those replayed; a transform may make several of one record."""
        used, _ = self.used(recipe.data.max_rows)
        size = recipe.train.batch_size
        _, new = recipe.continual.split(size)
        number = used * len(self.encoded) / self.read * size / max(1, new)
        return rows_of(self.encoded, number, size, self.stretch)


@dataclass
class _Spread:
    """Every so many of the records that pass: at least `SPREAD_ROWS` of them where there are as many, at most twice."""

    records: list[Example] = field(default_factory=list)
    stride: int = 1
    seen: int = 0

    def add(self, record: Example) -> None:
        """See one more record."""
        if self.seen % self.stride == 0:
            self.records.append(record)
            if len(self.records) >= 2 * SPREAD_ROWS:
                self.records, self.stride = self.records[::2], 2 * self.stride
        self.seen += 1


def problems(bench: Workbench, sample: Sample) -> Iterator[Problem]:
    """What stands against the data; the records of train fill the sample."""
    where = bench.resolved.where("data.files" if isinstance(bench.source, FileSource) else "data.source")
    seen: set[str] = set()
    labels: dict[str, set[str]] = {name: set() for name, task in bench.tasks.items() if task.choices}
    val: Counter[str] = Counter()
    all_counted = True
    for split in SPLITS:
        intake = Intake(bench, split, seen)
        records = iter(intake)
        first = list(itertools.islice(records, SAMPLE_ROWS))
        spread = _Spread()
        counted = val if split == "val" else Counter[str]()
        whole = _read_on(records, first, labels if split == "train" else {}, counted, spread)
        all_counted = all_counted and whole
        if said := intake.too_many():
            so_far = "" if whole else f" (of those read in {COUNT_SECONDS:.0f} s)"
            fix = "mend the rows, or raise data.max_bad_fraction"
            yield Problem(where, said + so_far, "", fix, severity="error" if whole else "warning")
        if split == "train":
            sample.rows, sample.aside, sample.all_counted = intake.good, len(intake.bad), whole
            sample.stretch = _stretch(bench, first, spread.records)
        if split == "val" and all_counted and bench.recipe.evaluate.baselines:
            for name, found in ((name, found) for name, found in labels.items() if found):
                yield from _untunable(bench, found, val[name], name if len(bench.tasks) > 1 else "")
        if first or not said:
            yield from _tried(bench, split, first, whole and intake.good == len(first), where, sample)


def doubts(data: Data, resolved: Resolved) -> Iterator[Problem]:
    """What can be meant in the settings of one's own files, and hardly is."""
    if data.files is not None and data.columns.text == data.columns.answer:
        found = f"text and answer are one column, {data.columns.text!r}: the prompt holds its answer"
        where = resolved.where("data.columns.answer")
        yield Problem(where, found, "two columns", "set data.columns.answer", severity="warning")
    asked = {f"data.tasks.{i}.prompt": task.prompt for i, task in enumerate(data.tasks) if task.prompt}
    for key, prompt in {"data.prompt": data.prompt, **asked}.items():
        for name in (name for name in dict.fromkeys(re.findall(r"\{(\w+)\}", prompt)) if name != "text"):
            found = f"{key}: {{{name}}} is sent to the model as it stands; only {{text}} is filled in"
            where = resolved.where(key)
            yield Problem(where, found, "", f"remove {{{name}}}", severity="warning")


def train_sample(bench: Workbench) -> Sample:
    """A sample of the training rows for a forecast alone: nothing else is looked for."""
    intake, spread = Intake(bench, "train", set()), _Spread()
    records = iter(intake)
    first = list(itertools.islice(records, SAMPLE_ROWS))
    whole = _read_on(records, first, {}, Counter(), spread)
    rows = list(map(answer_reading(bench), bench.chain.stream(augmented(bench, first))))
    return Sample(
        read=len(first),
        records=rows,
        encoded=[bench.renderer.encode(row) for row in rows],
        rows=intake.good,
        aside=len(intake.bad),
        all_counted=whole,
        stretch=_stretch(bench, first, spread.records),
    )


def _stretch(bench: Workbench, first: list[Example], spread: list[Example]) -> float:
    """Mean tokens of the spread records over those of the first, as they are read; 1 where they are no rows yet."""
    if not first or any(not one.messages or one.messages[-1].role != "assistant" for one in [*first, *spread]):
        return 1.0  # a transform makes the rows; those of the first records stand for all

    def mean(records: list[Example]) -> float:
        bare = (replace(record, spans=()) for record in records)
        return sum(bench.renderer.encode(record).length for record in bare) / len(records)

    return mean(spread) / mean(first)


def _read_on(
    records: Iterator[Example],
    first: list[Example],
    labels: Mapping[str, set[str]],
    rows: Counter[str],
    spread: _Spread,
) -> bool:
    """Read the other records too, collecting answers and counting rows by task; whether time sufficed for all."""
    deadline = time.monotonic() + COUNT_SECONDS
    for record in itertools.chain(first, records):
        spread.add(record)
        rows[record.task] += 1
        if record.task in labels and record.messages:
            labels[record.task].add(record.messages[-1].content)
        if time.monotonic() > deadline:
            return False
    return True


def _untunable(bench: Workbench, labels: set[str], val_rows: int, task: str) -> Iterator[Problem]:
    try:
        refuse_untunable(labels, val_rows, task)
    except UserError as error:
        yield Problem(bench.resolved.where("evaluate.baselines"), str(error), "", error.fix)


def _tried(
    bench: Workbench, split: Split, first: list[Example], whole: bool, where: str, sample: Sample
) -> Iterator[Problem]:
    """What prepare makes of the first records of a split; `whole` where there are no others."""
    chosen = augmented(bench, first) if split == "train" else first
    rows = list(map(answer_reading(bench), bench.chain.stream(chosen)))
    if not rows and split != "val":
        found = f"no usable row in {split}" + ("" if whole else f": the chain leaves none of the first {len(first)}")
        fix = more_rows(bench, split) if not first else "mend the plugin that drops them"
        yield Problem(where, found, "at least one", fix, severity="error" if whole else "warning")
    encoded = [bench.renderer.encode(row) for row in rows]
    yield from _too_long(bench, split, rows, encoded)
    if split == "train":
        sample.read, sample.records, sample.encoded = len(first), rows, encoded
    if first and split == "test":
        _constrained(bench, first[0])


def _too_long(bench: Workbench, split: str, rows: list[Example], encoded: list[Encoded]) -> Iterator[Problem]:
    limit = bench.recipe.data.max_tokens
    too_long = [
        f"{row.source or bench.source.name}: row {row.id!r} has {one.length} tokens"
        for row, one in zip(rows, encoded, strict=True)
        if one.length > limit
    ]
    if too_long:
        more = f" (and {len(too_long) - 1} more of the first {len(rows)} of {split})" if len(too_long) > 1 else ""
        place = bench.resolved.where("data.max_tokens")
        expected = f"at most data.max_tokens = {limit}"
        yield Problem(place, too_long[0] + more, expected, "shorten the rows or raise data.max_tokens")


def _constrained(bench: Workbench, row: Example) -> None:
    """Start every constraint on one real request and ask for its first mask."""
    from r1core.decode.constraints import Request
    from r1core.decode.vocabulary import Vocabulary

    if bench.constraints.constraints:
        request = Request(prompt_of(row), Vocabulary.from_tokenizer(bench.encoder))
        for _, state in bench.constraints.states(request):
            state.mask()
