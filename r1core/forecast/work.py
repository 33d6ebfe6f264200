"""The work of one optimiser step, counted: products, values that pass through memory, launches.

N = weights of the matrices, D = width. A frozen matrix costs 2 N operations a token forward and 2 N backward (the
gradient of its input), one that is trained 2 N more; attention costs 4 D operations a pair of tokens forward and 2.5
times that backward (its scores are computed again, arXiv:2205.14135, section 3.1).

Not covered: extra layers of plugins, replacing whole logits where a head is no plain product, span features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from r1core.data.packing import shared_prefix
from r1core.data.tokens import Encoded
from r1core.forecast.shape import Weight
from r1core.forecast.table import Table
from r1core.recipe.training import Train

BACKWARD_OF_ATTENTION = 2.5
"""Operations of attention's backward pass over those of its forward pass."""
FLASH_MULTIPLE = 512
"""Tokens to whose multiple a flash batch is padded (`r1core.train.feed`)."""
DORA_PASSES = 10
"""Times that DoRA passes over a whole matrix to find its norms; measured, 135M shape on an AMD EPYC, 2026-11-26."""
BALANCE_PASS = 1 / 3
"""Time of a balance pass over that of a step: one pass of three, without an optimiser."""
OTHER_LAUNCHES = 25
"""Launches of a block beside its products, forward and backward together: norms, rotations, attention, sums, fused."""
LOGIT_PASSES = 5
"""Times that logits pass through memory: written, read for the sum, read and written as a gradient, read."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the training rows are like, on average.

    Parameters
    ----------
    number : how many there are.
    length : tokens of a row, its answer included.
    answered : tokens of its answer.
    shared : tokens that all rows start with.
    square : mean of the squared number of tokens that are read.
    """

    number: float
    length: float
    answered: float
    shared: int = 0
    square: float = 0.0

    @property
    def read(self) -> float:
        """Tokens of a row that a pass reads: the last is only predicted."""
        return self.length - 1

    @property
    def pairs(self) -> float:
        """Mean of the squared number of tokens read; of rows alike where it was not measured."""
        return self.square or self.read**2

    def longest_of(self, number: float) -> float:
        """Tokens read of the longest of some rows, were lengths spread as a normal distribution (about)."""
        spread = math.sqrt(max(0.0, self.pairs - self.read**2))
        return self.read + spread * math.sqrt(2 * math.log(max(1.0, number)))


def rows_of(sample: Sequence[Encoded], number: float, batch: int, stretch: float = 1.0) -> Rows:
    """Rows that are like a sample of at least one.

    Parameters
    ----------
    number : of all rows.
    batch : rows of a step; the shared start is that of so many.
    stretch : mean length of all rows over that of the sample.
    """
    some = sample[:batch]
    shared = shared_prefix([row.prompt for row in some], [row.slots for row in some]) if len(some) > 1 else 0
    lengths = [row.length * stretch for row in sample]
    return Rows(
        number=number,
        length=sum(lengths) / len(lengths),
        answered=sum(len(row.response) for row in sample) / len(sample),
        shared=shared,
        square=sum((length - 1) ** 2 for length in lengths) / len(lengths),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One worker's part of an optimiser step.

    Parameters
    ----------
    passes : forward and backward passes.
    tokens, answered : read, and predicted.
    pairs : of tokens whose attention is computed, masked ones included.
    """

    passes: float
    tokens: float
    answered: float
    pairs: float


def steps_of(rows: Rows, train: Train) -> int:
    """Optimiser steps of the whole training."""
    return train.steps or train.epochs * math.ceil(rows.number / train.batch_size)


def stretch_of(train: Train, steps: int) -> float:
    """Time of the whole training over that of its steps: a balance pass behind them only goes forward."""
    return 1.0 + BALANCE_PASS * train.balance_passes / steps


def step_of(rows: Rows, train: Train, workers: int = 1, *, flash: bool = False) -> Step:
    """A worker's part of a step.

    Parameters
    ----------
    workers : processes or GPUs that share each batch.
    flash : rows stand one behind another under a kernel that is told where they end.
    """
    mine = min(float(train.batch_size), rows.number) / workers
    answered = mine * rows.answered
    if train.packing == "none":
        return Step(mine, mine * rows.read, answered, mine * rows.pairs)
    whole = mine * rows.length
    passes = float(max(1, math.ceil(whole / train.micro_batch_tokens)) if train.micro_batch_tokens else 1)
    if train.packing == "padded":
        tokens = mine * rows.longest_of(mine / passes)
        return Step(passes, tokens, answered, tokens**2 / mine)
    if flash:
        tokens = passes * FLASH_MULTIPLE * math.ceil(mine * rows.read / passes / FLASH_MULTIPLE)
        return Step(passes, tokens, answered, mine * rows.pairs / 2)
    shared = rows.shared if train.packing == "shared_prefix" and mine > 1 else 0
    tokens = passes * shared + mine * (rows.read - shared)
    return Step(passes, tokens, answered, tokens**2 / passes)


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one worker in one optimiser step.

    Parameters
    ----------
    flop : operations of products in the base's precision.
    flop_fp32 : of products with matrices that are trained in full, in fp32 over a base of any precision.
    moved : values that pass through memory beside the products' own arithmetic.
    weights : weights that are read.
    launches : operations launched one by one.
    updated : weights that the optimiser changes.
    """

    flop: float = 0.0
    flop_fp32: float = 0.0
    moved: float = 0.0
    weights: float = 0.0
    launches: float = 0.0
    updated: float = 0.0


def work_of(table: Table, step: Step, *, checkpointed: bool = False, adapters: int = 1) -> Work:
    """Count a step.

    Parameters
    ----------
    checkpointed : blocks compute their forward pass a second time.
    adapters : in a pool, all of which every token passes through; 1 = the one of [adapter].
    """
    shape, tokens = table.shape, step.tokens
    back = [w for w in shape.matrices if w.block is not None and w.block >= table.lowest]
    forward = _met(shape.matrices)
    again = _met(back) if checkpointed else 0.0
    whole = _met([w for w in table.full if w.inputs and w.block is not None])
    adapted = [w for w in table.low_rank if w.block is not None]
    rank = table.adapter.rank
    ends = float(sum(w.share * (w.inputs + w.outputs) for w in adapted) * adapters)
    reached = (shape.blocks - table.lowest) / max(1, shape.blocks)
    attention = 4 * step.pairs * shape.queries * shape.blocks
    attention *= 1.0 + BACKWARD_OF_ATTENTION * reached + (reached if checkpointed else 0.0)
    flop = tokens * (2 * (forward - whole) + 2 * (_met(back) - whole) + 2 * again + 6 * rank * ends) + attention
    moved = tokens * _moved(table, ends, checkpointed)
    weights = step.passes * (forward + _met(back) + again)
    head_flop, head_fp32, head_read = _head(table, step)
    if table.adapter.kind == "dora":
        weights += step.passes * DORA_PASSES * _met(adapted)
        flop += step.passes * 6 * rank * _met(adapted)
    blocks = shape.blocks * (1 + reached + (reached if checkpointed else 0.0)) / 2
    launches = step.passes * (blocks * OTHER_LAUNCHES + 2 * len(shape.matrices) + 7 * len(adapted) * adapters)
    return Work(
        flop=flop + head_flop,
        flop_fp32=tokens * 6 * whole + head_fp32,
        moved=moved + step.answered * shape.vocabulary * LOGIT_PASSES,
        weights=weights + head_read,
        launches=launches,
        updated=table.trained + rank * ends * (1 - 1 / adapters),
    )


def _moved(table: Table, ends: float, checkpointed: bool) -> float:
    """Values a token that pass through memory, of all blocks: each result written and read, forward and backward.

    A frozen linear layer reads its input and writes its output, forward and backward; its adapter reads both and adds
    into the output, twice as much backward. Norms and sums take 20 D, attention and what leads to it 16 times the
    width of queries, keys and values, the activation 8 times the feed-forward width.
    """
    shape = table.shape
    linear = 2 * sum(w.share * (w.inputs + w.outputs) for w in shape.matrices)
    rest = 20 * shape.width + 16 * (shape.queries + 2 * shape.keys) + 8 * shape.feed_forward
    reached = (shape.blocks - table.lowest) / max(1, shape.blocks)
    both = (linear + rest * shape.blocks) * (1 + reached + (reached if checkpointed else 0.0)) / 2
    apart = 2 if table.adapter.kind in ("dora", "gelu_lora") or table.adapter.dropout else 1  # not fused
    return both + 4 * ends * apart


def _head(table: Table, step: Step) -> tuple[float, float, float]:
    """Operations of the output head in the base's precision and in fp32, and weights read (`r1core.model.scores`)."""
    size = table.shape.head
    read = 2.0 * size * step.passes
    if any(w.role == "output" and w.inputs for w in table.full):  # its logits are computed a second time
        return 0.0, 8.0 * size * step.answered, 2 * read
    extra = sum(6.0 * table.adapter.rank * (w.inputs + w.outputs) for w in table.low_rank if w.block is None)
    return (4.0 * size + extra) * step.answered, 0.0, read


def _met(weights: Sequence[Weight]) -> float:
    """Weights that a token meets."""
    return sum(w.count * w.share for w in weights)
