"""A policy over a vector: what the core gives it, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from r1core_dp.config import DpConfig
from r1core_dp.entropy import Fill, system
from r1core_dp.policy import Training, UnitPolicy

from r1core import api


class NoRows:
    """The core's row gradients, of which these tests ask nothing."""

    @contextmanager
    def of(self, rows: int) -> Iterator[None]:
        yield

    def take(self) -> list[torch.Tensor]:
        raise AssertionError("no pass was run")


class Desk:
    """Begins trainings in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(
        self,
        groups: Sequence[str | None],
        *,
        run: str = "run",
        source: str = "a" * 64,
        entropy: Fill = system,
        shapes: Sequence[tuple[int, ...]] = ((3, 4), (5,)),
        task: dict[str, Any] | None = None,
        **config: Any,
    ) -> Training:
        settings = {"dataset_id": "ward", "ledger": self.folder / "ledgers", "delta": 1e-4, **config}
        given = {"batch_size": 8, "epochs": 1, "steps": 6, **(task or {})}
        return UnitPolicy(DpConfig(**settings), entropy).begin(
            api.PrivateTask(
                model=torch.nn.Linear(1, 1),
                weights=[torch.nn.Parameter(torch.zeros(shape)) for shape in shapes],
                ids=[f"row-{n}" for n in range(len(groups))],
                groups=groups,
                source=source,
                row_gradients=NoRows(),
                run=self.folder / run,
                **given,
            )
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
