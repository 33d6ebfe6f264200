"""Rows side by side, each a sequence of its own, filled up behind its end: for what has to keep rows apart.

No mask is needed: attention is causal, so nothing that counts sees the padding behind it.
R = rows, T = tokens of the longest, P = supervised positions, S = spans of the row that has most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import R1Error, SlotFeatures, SpanKind
from r1core.data.packing import Batch, Layout, pack_rows
from r1core.data.tokens import Encoded, Slot

if TYPE_CHECKING:
    import torch


def laid_out(rows: Sequence[Encoded], kinds: Mapping[str, SpanKind], dtype: torch.dtype, layout: Layout) -> Batch:
    """Training rows as the layout says."""
    return side_by_side(rows, kinds) if layout.apart else pack_rows(rows, kinds, dtype, layout)


def side_by_side(rows: Sequence[Encoded], kinds: Mapping[str, SpanKind]) -> Batch:
    """One sequence a row; the last response token is predicted, never read.

    Raises
    ------
    R1Error : for rows of a pool of task adapters, which routes one sequence.
    """
    import torch

    if any(row.task for row in rows):
        raise R1Error("rows of several tasks are not laid side by side")
    whole = [row.prompt + row.response[:-1] for row in rows]
    longest = max(map(len, whole))
    ids = np.zeros((len(rows), longest), np.int64)
    where: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, (row, tokens) in enumerate(zip(rows, whole, strict=True)):
        ids[index, : len(tokens)] = tokens
        first = index * longest + len(row.prompt) - 1
        where += range(first, first + len(row.response))
        targets += row.response
        owner += [index] * len(row.response)
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.arange(longest).repeat(len(rows), 1),
        mask=None,
        where=torch.tensor(where),
        targets=torch.tensor(targets),
        row=torch.tensor(owner),
        rows=len(rows),
        features={n: _slots([row.slots for row in rows], n, k) for n, k in kinds.items() if k.feature is not None},
    )


def by_length(groups: Sequence[Sequence[int]], capacity: int) -> list[list[int]]:
    """Deal groups of rows out to passes whose sequences, filled up, hold at most `capacity` tokens in all.

    Parameters
    ----------
    groups : lengths of each group's rows, which stay together; one that does not fit gets a pass of its own.
    capacity : 0 = all in one pass.

    Returns
    -------
    list : the groups of each pass, the longest first; equal lengths keep their order.
    """
    if not capacity:
        return [list(range(len(groups)))] if groups else []
    passes: list[list[int]] = []
    longest = rows = 0
    for index in sorted(range(len(groups)), key=lambda i: -max(groups[i])):
        if not passes or longest * (rows + len(groups[index])) > capacity:
            passes.append([])
            longest, rows = max(groups[index]), 0
        passes[-1].append(index)
        rows += len(groups[index])
    return passes


def _slots(rows: Sequence[Sequence[Slot]], name: str, kind: SpanKind) -> SlotFeatures:
    """The spans of one kind, (R, S); those that only fill up are masked."""
    import torch

    each = [[slot for slot in slots if slot.kind == name] for slots in rows]
    most = max(map(len, each))
    start, end = (torch.zeros(len(rows), most, dtype=torch.int64) for _ in "se")
    values, mask = torch.zeros(len(rows), most, kind.width), torch.zeros(len(rows), most, dtype=torch.bool)
    for row, slots in enumerate(each):
        for at, slot in enumerate(slots):
            start[row, at], end[row, at], mask[row, at] = slot.start, slot.end, True
            values[row, at] = torch.tensor(slot.values, dtype=torch.float32)
    return SlotFeatures(start=start, end=end, values=values, mask=mask)
