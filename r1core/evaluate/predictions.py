"""One system's answers to the rows of a split: what was generated, what was chosen, and the score of every label.

Stored as JSONL, one object a row, without pickle. Scores stand in the order of `Task.choices`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core.api import JSON, Example, Task, UserError
from r1core.runs.files import write_jsonl


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer.

    Parameters
    ----------
    gold : the right answer; for a task with choices, one of them.
    cluster : what the row shares with those it resembles (standard errors are clustered by it).
    text : the free-running answer, as generated.
    constrained : the answer when only labels are allowed; None for a free-text task.
    scores : log-probability of each label, (C,), or any figure that ranks them alike; () for a free-text task.
    """

    example_id: str
    gold: str
    cluster: str
    text: str
    constrained: str | None = None
    scores: tuple[float, ...] = ()


def gold_of(example: Example, choices: Sequence[str] = ()) -> str:
    """Return the content of the last message, the gold answer; with `choices`, the label that it names.

    Raises
    ------
    UserError : when the last message is no assistant's, or names no label.
    """
    last = example.messages[-1]
    if last.role != "assistant":
        raise UserError(
            f"example {example.id!r}: the last message is the {last.role}'s, expected the assistant's gold answer",
            fix="evaluate on records that have an answer",
        )
    if not choices:
        return last.content
    label = normalise_answer(last.content, choices)
    if label is None:
        raise UserError(
            f"example {example.id!r}: gold answer {last.content!r} is not one of {len(choices)} labels",
            fix="add it to data.choices, or leave the record out",
        )
    return label


def cluster_of(example: Example, task: Task) -> str:
    """Return the field named by `task.cluster`; a row without one (or None in it) is its own cluster."""
    value = example.fields.get(task.cluster) if task.cluster else None
    return f"row {example.id}" if value is None else str(value)


def normalise_answer(text: str, choices: Sequence[str]) -> str | None:
    """Return the label that a generated answer is, or None.

    Equality after stripping white space, one trailing period and case; never fuzzy, never a substring. Labels that
    differ in no more than that are told apart by exact spelling alone.
    """
    stripped = text.strip()
    exact, folded = _lookup(tuple(choices))
    return stripped if stripped in exact else folded.get(_fold(stripped))


def _fold(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().casefold()


@lru_cache(maxsize=8)
def _lookup(choices: tuple[str, ...]) -> tuple[frozenset[str], dict[str, str]]:
    folded: dict[str, list[str]] = {}
    for label in choices:
        folded.setdefault(_fold(label), []).append(label)
    return frozenset(choices), {key: labels[0] for key, labels in folded.items() if len(labels) == 1}


def from_texts(task: Task, examples: Sequence[Example], texts: Sequence[str]) -> list[Prediction]:
    """Return predictions of a free-text task from the generated `texts`, one an example.

    Raises
    ------
    ValueError : for another number of texts.
    """
    _one_each(examples, texts)
    return [Prediction(e.id, gold_of(e), cluster_of(e, task), text) for e, text in zip(examples, texts, strict=True)]


def from_scores(
    task: Task, examples: Sequence[Example], scores: NDArray[np.floating], *, texts: Sequence[str] | None = None
) -> list[Prediction]:
    """Return predictions of a task with choices from `scores`, (N, C), columns as in `Task.choices`.

    The constrained answer is the label of the highest score, the first of equals; without `texts` it is the
    free-running answer too.

    Raises
    ------
    ValueError : for another shape, a score that is not finite, or another number of texts.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.shape != (len(examples), len(task.choices)):
        raise ValueError(f"expected scores of shape ({len(examples)}, {len(task.choices)}), found {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"scores of task {task.name!r} are not all finite")
    best = [task.choices[i] for i in table.argmax(axis=1)]
    free = best if texts is None else texts
    _one_each(examples, free)
    return [
        Prediction(e.id, gold_of(e, task.choices), cluster_of(e, task), text, label, tuple(row))
        for e, text, label, row in zip(examples, free, best, table.tolist(), strict=True)
    ]


def _one_each(examples: Sequence[Example], texts: Sequence[str]) -> None:
    if len(texts) != len(examples):
        raise ValueError(f"{len(examples)} examples, but {len(texts)} generated answers")


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write JSONL, one object a row, whole or not at all.

    Raises
    ------
    ValueError : for a score that JSON has no form for (infinite or NaN).
    """
    records: list[Mapping[str, JSON]] = [asdict(prediction) for prediction in predictions]
    write_jsonl(path, records)


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote.

    Raises
    ------
    UserError : naming file and line, when a line is not such an object.
    """
    wanted, found = {f.name for f in fields(Prediction)}, []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: broken JSON: {error.msg}", fix="evaluate the run again") from error
            if not isinstance(row, dict) or set(row) != wanted:
                raise UserError(f"{path}:{number}: expected the keys {sorted(wanted)}", fix="evaluate the run again")
            found.append(Prediction(**(row | {"scores": tuple(row["scores"])})))
    return found
