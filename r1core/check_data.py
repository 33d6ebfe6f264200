"""The part of `check` that reads records: what would be set aside, and a few of each split through the whole chain.

Rows are counted for a limited time; the chain, the augmentations and the constraints are tried on the first records.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
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
    labels: dict[str, set[str]] = {name: set() for name, task in bench.tasks.items() if task.choices}
    val: Counter[str] = Counter()
    all_counted = True
    for split in SPLITS:
        intake = Intake(bench, split, seen)
        records = iter(intake)
        first = list(itertools.islice(records, SAMPLE_ROWS))
        whole = _read_on(records, first, labels if split == "train" else {}, val if split == "val" else Counter())
        all_counted = all_counted and whole
        if said := intake.too_many():
            so_far = "" if whole else f" (of those read in {COUNT_SECONDS:.0f} s)"
            fix = "mend the rows, or raise data.max_bad_fraction"
            yield Problem(where, said + so_far, "", fix, severity="error" if whole else "warning")
        if split == "train":
            sample.rows, sample.aside, sample.all_counted = intake.good, len(intake.bad), whole
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


def _read_on(
    records: Iterator[Example], first: list[Example], labels: Mapping[str, set[str]], rows: Counter[str]
) -> bool:
    """Read the other records too, collecting answers and counting rows by task; whether time sufficed for all."""
    deadline = time.monotonic() + COUNT_SECONDS
    for record in itertools.chain(first, records):
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
