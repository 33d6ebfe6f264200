"""The medical demonstration's training rows as tokens, for benchmarks that compare ways to train on them.

The rows are what `r1core prepare medical` makes; their spans are left out, because the peers have no layers that read
them. A run that is prepared already is read again.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1core.data.tokens import Encoded
from r1core.model.resolve import BaseModel


@dataclass(frozen=True)
class Medical:
    """Token rows, the model that they are for, and the recipe's batch size and attention."""

    rows: list[Encoded]
    base: BaseModel
    batch: int
    attention: str
    precision: str

    @property
    def tokens(self) -> list[int]:
        """Tokens of each row, none of them padding."""
        return [len(row.prompt) + len(row.response) for row in self.rows]


def medical(folder: Path, number: int) -> Medical:
    """The first `number` rows of the training split as it was prepared (it is not sorted), in a run in `folder`."""
    from r1core.cli.main import main
    from r1core.model.probe import choose
    from r1core.selection import Selection
    from r1core.train.stage import encoded_rows
    from r1core.workbench import open_bench

    run = folder / "medical"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            main(["prepare", "medical", "--run", str(run)])
        except SystemExit as stop:
            if stop.code:
                raise SystemExit(said.getvalue()) from stop
    bench = open_bench(Selection(domain="medical", run=run))
    rows = [replace(row, slots=()) for row in encoded_rows(bench, "train")[:number]]
    recipe = bench.recipe
    return Medical(rows, bench.base, recipe.train.batch_size, recipe.model.attention, choose(recipe.model).precision)


@dataclass(frozen=True)
class InTurn:
    """An `Order`: the rows as they stand, `batch` a step."""

    batch: int
    total: int

    def rows(self, step: int) -> Sequence[int]:
        """Indices of one step's rows."""
        return range(step * self.batch, (step + 1) * self.batch)
