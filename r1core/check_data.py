"""The part of `check` that reads records: what would be set aside, and a few of each split through the whole chain.

Rows are counted for a limited time; the chain, the augmentations and the constraints are tried on the first records.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from r1core.api import Example, Problem, UserError
from r1core.data.files import FileSource
from r1core.data.prepare import SPLITS, Intake, Split, answer_reading, augmented, more_rows
from r1core.data.tokens import Encoded, prompt_of
from r1core.evaluate.baselines import refuse_untunable
from r1core.recipe.load import Resolved
from r1core.recipe.schema import Data
from r1core.workbench import Workbench

SAMPLE_ROWS = 20
"""Records of each split that go through the chain."""
COUNT_SECONDS = 2.0
"""The records of a split are read for at most this long; what is left then is neither checked nor forecast."""


@dataclass
class Sample:
    """What stands for all training records: `read` of them, which gave the `records` (and the same `encoded`).

    `rows` were counted that may be trained on, `aside` that may not.
    """

    read: int = 0
    records: list[Example] = field(default_factory=list)
    encoded: list[Encoded] = field(default_factory=list)
    rows: int = 0
    aside: int = 0
    all_counted: bool = False

    def used(self, most: int) -> tuple[int, bool]:
        """How many records training takes, at most `most` (0: all), and whether that is known and not a lower bound."""
        used = min(self.rows, most) if most else self.rows
        return used, self.all_counted or used == most


def problems(bench: Workbench, sample: Sample) -> Iterator[Problem]:
    """What stands against the data; the records of train fill the sample."""
    where = bench.resolved.where("data.files" if isinstance(bench.source, FileSource) else "data.source")
    seen: set[str] = set()
    labels: set[str] = set()
    all_counted = True
    for split in SPLITS:
        intake = Intake(bench, split, seen)
        records = iter(intake)
        first = list(itertools.islice(records, SAMPLE_ROWS))
        whole = _read_on(records, first, labels if split == "train" and bench.task.choices else None)
        all_counted = all_counted and whole
        if said := intake.too_many():
            so_far = "" if whole else f" (of those read in {COUNT_SECONDS:.0f} s)"
            fix = "mend the rows, or raise data.max_bad_fraction"
            yield Problem(where, said + so_far, "", fix, severity="error" if whole else "warning")
        if split == "train":
            sample.rows, sample.aside, sample.all_counted = intake.good, len(intake.bad), whole
        if split == "val" and all_counted and labels and bench.recipe.evaluate.baselines:
            yield from _untunable(bench, labels, intake.good)
        if first or not said:
            yield from _tried(bench, split, first, whole and intake.good == len(first), where, sample)


def doubts(data: Data, resolved: Resolved) -> Iterator[Problem]:
    """What can be meant in the settings of one's own files, and hardly is."""
    if data.files is not None and data.columns.text == data.columns.answer:
        found = f"text and answer are one column, {data.columns.text!r}: the prompt holds its answer"
        where = resolved.where("data.columns.answer")
        yield Problem(where, found, "two columns", "set data.columns.answer", severity="warning")
    for name in dict.fromkeys(re.findall(r"\{(\w+)\}", data.prompt)):
        if name != "text":
            found = f"data.prompt: {{{name}}} is sent to the model as it stands; only {{text}} is filled in"
            where = resolved.where("data.prompt")
            yield Problem(where, found, "", f"remove {{{name}}}", severity="warning")


def _read_on(records: Iterator[Example], first: list[Example], labels: set[str] | None) -> bool:
    """Read the other records too, collecting the answers where wanted; whether time sufficed for all of them."""
    deadline = time.monotonic() + COUNT_SECONDS
    for record in itertools.chain(first, records):
        if labels is not None and record.messages:
            labels.add(record.messages[-1].content)
        if time.monotonic() > deadline:
            return False
    return True


def _untunable(bench: Workbench, labels: set[str], val_rows: int) -> Iterator[Problem]:
    try:
        refuse_untunable(labels, val_rows)
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
