"""How difficult each training row is: from a column, from a plugin, or from the base model's own loss.

The first two are functions of the prepared records and are known before a weight is loaded. The loss is measured once
and kept in `data/difficulty.json` with the digest of the training that it belongs to, so that a resumed run reads the
very numbers that it began with. Nothing here imports torch: the caller brings what measures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from r1core.api import Example, R1Error, UserError
from r1core.recipe.curriculum import Curriculum
from r1core.runs.files import write_json
from r1core.train.curriculum import Classes
from r1core.workbench import Workbench


def of_records(bench: Workbench, examples: Iterable[Example]) -> list[float] | None:
    """The difficulty of each record, by the recipe's column or plugin; None where it is the base model's loss.

    Raises
    ------
    UserError : for a column that is not there, or a value that is no finite number, naming the row and its file.
    PluginError : when the plugin's measure fails or gives no finite number.
    """
    config = bench.recipe.curriculum
    if config.difficulty == "loss":
        return None
    if bench.difficulty is not None:
        return [float(bench.difficulty(example)) for example in examples]
    return _of_column(list(examples), config.column, bench.source.name)


def _of_column(examples: Sequence[Example], column: str, source: str) -> list[float]:
    found = [_number(example.fields.get(column)) for example in examples]
    bad = [example for example, value in zip(examples, found, strict=True) if value is None]
    if bad:
        _refuse(bad, column, source, len(examples))
    return [value for value in found if value is not None]


def _refuse(bad: Sequence[Example], column: str, source: str, number: int) -> NoReturn:
    first = bad[0]
    if len(bad) == number and not any(column in example.fields for example in bad):
        raise UserError(
            f"curriculum.column: no row has a column {column!r}, only {', '.join(first.fields)}",
            fix="name one of these, or add it to every file of training rows",
        )
    said = repr(first.fields[column]) if column in first.fields else "missing"
    more = f" (and {len(bad) - 1} more of {number} rows)" if len(bad) > 1 else ""
    raise UserError(
        f"curriculum.column: {first.source or source}: row {first.id!r}: column {column!r} is {said}, "
        f"expected a finite number{more}",
        fix="mend the value, or drop the row",
    )


def _number(value: object) -> float | None:
    """A finite number, also as text, as CSV has it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def kept_or(bench: Workbench, ids: Sequence[str], digest: str, measure: Callable[[], Sequence[float]]) -> list[float]:
    """The difficulties that this very training (`digest`) wrote down, or what `measure` gives.

    Raises
    ------
    R1Error : when a measured loss is not finite, naming the row; training would not go well either.
    """
    path = bench.run.difficulty
    if path.exists():
        record = json.loads(path.read_bytes())
        if record["training"] == digest and [row["id"] for row in record["rows"]] == list(ids):
            return [float(row["difficulty"]) for row in record["rows"]]
    measured = list(measure())
    for row, value in zip(ids, measured, strict=True):
        if not math.isfinite(value):
            raise R1Error(f"curriculum: the base model's loss on row {row!r} is {value}")
    return measured


def write(bench: Workbench, ids: Sequence[str], difficulty: Sequence[float], classes: Classes, digest: str) -> None:
    """Write down each row's difficulty and class, for a resumed run and for whoever asks how the cut fell."""
    kinds = dict.fromkeys(classes.simple, "simple") | dict.fromkeys(classes.complex, "complex")
    rows = [
        {"id": row, "difficulty": value, "class": kinds[index]}
        for index, (row, value) in enumerate(zip(ids, difficulty, strict=True))
    ]
    content = {
        "training": digest,
        "measure": measure_of(bench.recipe.curriculum),
        "simple_up_to": classes.cut,
        "simple": len(classes.simple),
        "complex": len(classes.complex),
        "rows": rows,
    }
    write_json(bench.run.difficulty, content)


def measure_of(config: Curriculum) -> str:
    """What the numbers are."""
    named = {"column": f"column {config.column}", "loss": "loss of the base model, nats a token"}
    return named.get(config.difficulty, config.difficulty)
