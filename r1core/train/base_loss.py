"""The base model's own loss on each row, before anything is trained: a measure of difficulty for a curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch.nn import functional

from r1core.api import SpanKind
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model.processes import spread
from r1core.model.scores import logits_at


def base_losses(
    model: torch.nn.Module, rows: Sequence[Encoded], kinds: Mapping[str, SpanKind], *, together: int, processes: int
) -> list[float]:
    """Mean cross-entropy of each row's response, the end-of-turn token included, in nats a token.

    Rows are packed and read as training does it.

    Parameters
    ----------
    model : the base model in evaluation mode, as it is before an adapter or a layer is added to it.
    together : rows that are packed into one pass; 1 = row by row.
    processes : that share the passes; how many does not change a number.
    """
    passes = [rows[start : start + together] for start in range(0, len(rows), together)]
    each = spread(processes, partial(_pass, model, kinds), passes, lambda done: None)
    return [loss for losses in each for loss in losses]


@torch.no_grad()
def _pass(model: torch.nn.Module, kinds: Mapping[str, SpanKind], rows: Sequence[Encoded]) -> list[float]:
    weight = next(model.parameters())
    batch = pack_rows([row.for_base() for row in rows], kinds, weight.dtype).to(weight.device)
    each = functional.cross_entropy(logits_at(model, batch), batch.targets, reduction="none")
    sums = torch.zeros(batch.rows, device=each.device).index_add(0, batch.row, each)
    means: list[float] = (sums / torch.bincount(batch.row, minlength=batch.rows)).tolist()
    return means
