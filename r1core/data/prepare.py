"""The prepare stage: records in, `data/{train,val,test}.jsonl` out, with what was set aside and a data card.

A row that cannot be read is quarantined with its line and reason and the run goes on, until more than the recipe's
share is bad. A row that is too long stops the run, naming it: cutting it would change what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from r1core.api import JSON, Example, Span, UserError
from r1core.data.answers import AnswerReader
from r1core.data.codec import to_json
from r1core.data.files import FileSource
from r1core.model.resolve import context_length
from r1core.runs.files import write_atomic, write_json, write_jsonl
from r1core.words import counted
from r1core.workbench import Workbench

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def prepare(bench: Workbench, tell: Callable[[str], None]) -> dict[str, JSON]:
    """Read, check, annotate and write all splits; return counts for the manifest.

    Raises
    ------
    UserError : for an empty split, too many bad rows, a row longer than the limit, two rows of one id.
    """
    run = bench.run
    run.data.mkdir(mode=0o700, exist_ok=True)
    limit = _limit(bench)
    quarantined: list[dict[str, JSON]] = []
    seen: set[str] = set()
    read_answer = answer_reading(bench)
    card: dict[str, JSON] = {"source": bench.source.name, "task": ", ".join(bench.tasks), "splits": {}}
    card["tasks"] = {t.name: {"choices": list(t.choices), "cluster": t.cluster} for t in bench.tasks.values()}
    for split in SPLITS:
        lines, tokens, labels, spans = [], [], {name: Counter[str]() for name in bench.tasks}, 0
        intake = Intake(bench, split, seen)
        read, bad = list(intake), intake.bad
        if said := intake.too_many():
            write_jsonl(run.quarantine, bad)
            raise UserError(said, fix=f"see {run.quarantine}, mend the rows, or raise data.max_bad_fraction")
        most = bench.recipe.data.max_rows if split == "train" else bench.recipe.data.max_eval_rows
        chosen = _sample(read, most)
        if split == "train":
            chosen = augmented(bench, chosen)
        for example in map(read_answer, bench.chain.stream(chosen)):
            encoded = bench.renderer.encode(example)
            if encoded.length > limit:
                raise UserError(
                    f"{example.source or bench.source.name}: row {example.id!r} has {encoded.length} tokens, "
                    f"the limit is {limit}",
                    fix="shorten or drop the row, or raise data.max_tokens (up to the model's context)",
                )
            tokens.append(encoded.length)
            _counted(bench, labels, example)
            spans += len(example.spans)
            lines.append(to_json(example, bench.chain.kinds) + "\n")
        _refuse_empty(bench, labels, split)
        write_atomic(run.split(split), "".join(lines).encode())
        quarantined += bad
        card["splits"][split] = {
            "rows": len(lines),
            "quarantined": len(bad),
            "tokens_mean": round(sum(tokens) / max(1, len(tokens)), 2),
            "tokens_max": max(tokens, default=0),
            "spans": spans,
            **_told(bench, labels),
        }
        tell(f"  {split}: {counted(len(lines), 'row')}, {len(bad):,} set aside, {counted(spans, 'span')}")
    write_jsonl(run.quarantine, quarantined)
    write_json(run.data_card, card)
    counts = {f"rows_{s}": card["splits"][s]["rows"] for s in SPLITS}
    return {**counts, "quarantined": len(quarantined)}


def _counted(bench: Workbench, labels: Mapping[str, Counter[str]], example: Example) -> None:
    """Count a row's label under its task.

    Raises
    ------
    UserError : for a row of a task that the data set does not name.
    """
    if example.task not in labels:
        raise UserError(
            f"{bench.source.name}: row {example.id!r} is of task {example.task!r}, which the data set does not name",
            fix=f"mend the data set (its tasks: {', '.join(labels)})",
        )
    labels[example.task][str(example.fields.get("label", ""))] += 1


def _refuse_empty(bench: Workbench, labels: Mapping[str, Counter[str]], split: Split) -> None:
    """Raise a `UserError` where a task has nothing to train on, or nothing to be measured on."""
    if split == "val" or all(found.total() for found in labels.values()):
        return
    empty = next(name for name, found in labels.items() if not found.total())
    of = f" of task {empty!r}" if len(labels) > 1 else ""
    raise UserError(f"{bench.source.name}: no usable row{of} in {split}", fix=more_rows(bench, split))


def _told(bench: Workbench, labels: Mapping[str, Counter[str]]) -> dict[str, JSON]:
    """What the data card says of a split's labels: of its one task, or of each of several."""
    shown: dict[str, JSON] = {
        name: dict(sorted(found.items())) if bench.tasks[name].choices else len(found) for name, found in labels.items()
    }
    if len(labels) == 1:
        return {"labels": next(iter(shown.values()))}
    return {"tasks": {name: {"rows": found.total(), "labels": shown[name]} for name, found in labels.items()}}


def _limit(bench: Workbench) -> int:
    context = context_length(bench.base.directory())
    wanted = bench.recipe.data.max_tokens
    if context is not None and wanted > context:
        raise UserError(
            f"data.max_tokens = {wanted} is beyond the context of {bench.base.name} ({context} tokens)",
            fix=f"set data.max_tokens to at most {context}",
        )
    return wanted


class Intake:
    """The records of one split that pass reading, the gates and the id check, in the source's order.

    Parameters
    ----------
    seen : ids that are taken already; those of the passing records are added.

    Attributes
    ----------
    good : how many have passed so far.
    """

    def __init__(self, bench: Workbench, split: Split, seen: set[str]) -> None:
        self._bench, self._split, self._seen = bench, split, seen
        self._refused: list[dict[str, JSON]] = []
        self.good = 0

    def __iter__(self) -> Iterator[Example]:
        for example in self._bench.source.read(self._split):
            gates = self._bench.gates.items()
            reason = next((f"{n}: {r}" for n, gate in gates if (r := gate(example)) is not None), None)
            if example.id in self._seen:
                reason = f"duplicate id {example.id!r}"
            if reason is not None:
                self._refused.append({"split": self._split, **_place(example), "id": example.id, "reason": reason})
                continue
            self._seen.add(example.id)
            self.good += 1
            yield example

    @property
    def bad(self) -> list[dict[str, JSON]]:
        """What was set aside so far; ask before another split is read."""
        source = self._bench.source
        rejected = source.rejected if isinstance(source, FileSource) else []
        return self._refused + [
            {"split": self._split, "file": r.file, "line": r.line, "reason": r.reason, "raw": r.raw} for r in rejected
        ]

    def too_many(self) -> str:
        """What stands against the split when more than the recipe's share of its rows is bad, or ""."""
        bad = self.bad
        share = len(bad) / max(1, self.good + len(bad))
        if share <= self._bench.recipe.data.max_bad_fraction:
            return ""
        first: Mapping[str, JSON] = bad[0]
        place = f"{first['file']}:{first['line']}" if "line" in first else str(first.get("id"))
        return (
            f"{self._split}: {len(bad)} of {self.good + len(bad)} rows are bad ({share:.1%}); "
            f"the first: {place}: {first['reason']}"
        )


def more_rows(bench: Workbench, split: Split) -> str:
    """What to do about a split without a usable row."""
    files = bench.recipe.data.files
    if files is not None and split != "train" and getattr(files, split) is None:
        return f"give more rows, or a file of its own: data.files.{split}"
    return "check [data] and data.columns"


def answer_reading(bench: Workbench) -> Callable[[Example], Example]:
    """What finds the spans inside an answer; nothing at all where no kind declares itself causal."""
    if not bench.chain.causal:
        return lambda example: example
    return AnswerReader(bench.renderer, bench.chain.in_answer).annotated


def _place(example: Example) -> dict[str, JSON]:
    """Where a record stood: its file and line where its source says so."""
    file, _, line = example.source.rpartition(":")
    return {"file": file, "line": int(line)} if file and line.isdigit() else {"file": example.source}


def _sample(examples: list[Example], most: int) -> list[Example]:
    """At most `most` examples, chosen by a stable hash of their ids; 0 keeps all. The order stays the source's."""
    if not most or len(examples) <= most:
        return examples
    by_hash = sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).digest())
    chosen = {e.id for e in by_hash[:most]}
    return [e for e in examples if e.id in chosen]


def augmented(bench: Workbench, examples: list[Example]) -> list[Example]:
    """Training records, each followed by what the augmentations derive from it.

    Raises
    ------
    UserError : when a derived record takes an id that is in use.
    """
    if not bench.augments:
        return examples
    found: list[Example] = []
    for index, example in enumerate(examples):
        found.append(example)
        for augment in bench.augments:
            found += augment(example, np.random.default_rng([bench.recipe.run.seed, 0, index]))
    twice = [one for one, count in Counter(e.id for e in found).items() if count > 1]
    if twice:
        raise UserError(f"an augmentation gave the id {twice[0]!r} twice", fix="derive ids from the example's own")
    return found


def trace(bench: Workbench, example_id: str) -> Iterator[str]:
    """What each preprocessing step changes on one record, and what is found in reading its answer, in lines.

    Raises
    ------
    UserError : when no split holds that id.
    """
    for split in SPLITS:
        for example in bench.source.read(split):
            if example.id == example_id:
                prompt = example.without_answer()
                for change in bench.chain.trace(prompt):
                    added = [s for s in change.after.spans if s not in change.before.spans]
                    yield f"{change.step}: {counted(len(added), 'span')}" + (
                        "" if change.before.messages == change.after.messages else ", text changed"
                    )
                    yield from _shown(bench, change.after, added)
                    prompt = change.after
                if bench.chain.causal and example.without_answer() is not example:
                    whole = replace(prompt, messages=(*prompt.messages, example.messages[-1]))
                    found = answer_reading(bench)(whole)
                    inside = [s for s in found.spans if s.part == len(prompt.messages)]
                    yield f"the answer, token by token: {counted(len(inside), 'span')}"
                    yield from _shown(bench, found, inside)
                return
    raise UserError(f"no record has the id {example_id!r}", fix="take an id from data/*.jsonl")


def _shown(bench: Workbench, example: Example, spans: list[Span]) -> Iterator[str]:
    for span in spans:
        value = json.dumps(bench.chain.kinds[span.kind].encode(span.value), ensure_ascii=False)
        late = "" if span.since is None else f" (recognised after {span.since} characters)"
        yield f"  {span.kind} {example.messages[span.part].content[span.start : span.end]!r} -> {value}{late}"
