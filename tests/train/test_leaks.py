"""Rows that share one sequence in training do not see one another: losses and gradients, per attention and packing."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded

SHARED = 3
"""Tokens that all rows start with, which stay as they are."""


def disturbed(row: Encoded) -> Encoded:
    """The same row with other tokens behind the shared ones; as many, so that products keep their shapes and bits."""
    prompt = (*row.prompt[:SHARED], *(399 - t % 300 for t in row.prompt[SHARED:]))
    slots = tuple(replace(slot, values=(9.0,)) for slot in row.slots)
    return replace(row, prompt=prompt, response=tuple(350 - t % 300 for t in row.response), slots=slots)


def losses_and_gradients(run: Any, rows: list[Encoded], of: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Each row's summed loss, (R,), of the rows packed together, and the gradient of what the rows `of` add."""
    batch = pack_rows(rows, run.kinds, torch.float32, run.feed.layout)
    with run.layers.using(batch.features):
        losses = run.objective.loss(run.read(batch), batch)
    return losses.detach(), list(torch.autograd.grad(losses[of].sum(), run.trainable))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packing", ["shared_prefix", "best_fit"])
def test_a_row_changes_nothing_for_the_rows_beside_it(tiny: ModuleType, packing: str, attention: str) -> None:
    run = tiny.trainer(packing=packing, attention=attention)
    for parameter in run.trainable:  # away from the zero start, so that every parameter has a gradient
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 20
    rows = run.rows[:5]
    for changed in range(len(rows)):
        others = [index for index in range(len(rows)) if index != changed]
        after = [disturbed(row) if index == changed else row for index, row in enumerate(rows)]
        (one, gradient), (two, disturbed_gradient) = (losses_and_gradients(run, r, others) for r in (rows, after))
        assert torch.equal(one[others], two[others])
        assert abs(float(one[changed] - two[changed])) > 1e-3
        for before, now in zip(gradient, disturbed_gradient, strict=True):
            assert torch.equal(before, now)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packing", ["shared_prefix", "best_fit"])
def test_a_leak_would_be_seen(tiny: ModuleType, packing: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison under a plain causal mask, where later rows do see earlier ones."""
    run = tiny.trainer(packing=packing, attention=attention)
    _ = run.read

    def causal(allowed: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(allowed.shape, torch.finfo(dtype).min).triu(1)[None, None]

    monkeypatch.setattr("r1core.data.packing.additive", causal)
    rows = run.rows[:3]
    one, two = (losses_and_gradients(run, r, [2])[0] for r in (rows, [disturbed(rows[0]), *rows[1:]]))
    assert abs(float(one[2] - two[2])) > 1e-3
