"""How long training will take, told before a weight is loaded: tokens times arithmetic over this machine's speed.

Tokens are those of the sampled rows, packed as training packs them. Arithmetic is that of the model's matrices, read
from the headers of its safetensors files: two operations a weight forward, and as many backward from the lowest
trained block up. Speed is that of one short product in numpy, fp32, one thread.

Not covered: the adapter's and the extra layers' own arithmetic, attention between tokens (small on short rows), a GPU,
bf16 where it is faster, several threads or processes, and evaluation, which ends when its answers do.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r1core.data.packing import shared_prefix
from r1core.data.tokens import Encoded
from r1core.model.headers import tensor_shapes
from r1core.model.strategy import first_trained_block
from r1core.recipe.schema import Recipe
from r1core.words import counted

REACHED = 0.7
"""Share of a bare product's speed that a training step reaches. The medical recipe's batches of 74 GFLOP took 1.1 to
1.65 CPU-s where a product ran at 77 GFLOP/s, which is 0.58 to 0.87 (two cores of an AMD EPYC, Zen 3, 2026-11-25); the
rest goes into norms, softmax, the adapter and the optimiser."""
PROBE_SHAPE = (256, 576, 1536)
"""(tokens, width, feed-forward width) of the product that is timed, as in `r1core.model.probe`."""
_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, slots=True)
class Matrices:
    """Weights of a model that take part in products.

    Parameters
    ----------
    blocks : by index of the decoder block; of experts, only as many as a token meets.
    head : of the output head (or the embedding that serves as one).
    parameters : all weights of the model, experts that a token does not meet included.
    """

    blocks: dict[int, float]
    head: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Training:
    """A forecast: `tokens` and `flop` of all steps together, `speed` in FLOP/s of one thread."""

    steps: int
    tokens: float
    flop: float
    speed: float

    @property
    def seconds(self) -> float:
        """Seconds on one thread."""
        return self.flop / (REACHED * self.speed)

    def __str__(self) -> str:
        return (
            f"training about {_duration(self.seconds)} on one core of this CPU "
            f"(estimate: {counted(self.steps, 'step')}, {_thousands(self.tokens)} tokens x "
            f"{self.flop / max(1.0, self.tokens) / 1e9:.2g} GFLOP at "
            f"{REACHED:.0%} of {self.speed / 1e9:.0f} GFLOP/s in fp32)"
        )


def training(sample: Sequence[Encoded], rows: float, recipe: Recipe, model: Matrices, speed: float) -> Training:
    """Forecast the training of a recipe.

    Parameters
    ----------
    sample : rows as they will be trained on, at least one.
    rows : how many there are in all.
    speed : see `matmul_speed`.
    """
    size = recipe.train.batch_size
    steps = recipe.train.steps or recipe.train.epochs * math.ceil(rows / size)
    per_step = min(float(size), rows)  # the last batch of an epoch is smaller; a small set has no other
    shared = 0
    if recipe.train.packing == "shared_prefix" and len(sample) > 1:
        batch = sample[:size]
        shared = shared_prefix([row.prompt for row in batch], [row.slots for row in batch])
    own = sum(row.length - 1 - shared for row in sample) / len(sample)
    answered = sum(len(row.response) for row in sample) / len(sample)
    tokens = steps * (shared + per_step * own)
    lowest = first_trained_block(recipe.adapter, recipe.strategy, len(model.blocks))
    trained = sum(n for index, n in model.blocks.items() if index >= lowest)
    through_blocks = 2 * (sum(model.blocks.values()) + trained)
    through_head = 4 * model.head * steps * per_step * answered
    return Training(steps, tokens, tokens * through_blocks + through_head, speed)


def matrices(directory: Path) -> Matrices | None:
    """Read the headers of a model directory's safetensors files; None where it has none.

    Raises
    ------
    UserError : for a file that is cut short or is no safetensors.
    """
    shapes = tensor_shapes(directory)
    if not shapes:
        return None
    met = _experts_met(directory)
    blocks: dict[int, float] = {}
    others: list[int] = []
    total = 0
    for name, shape in shapes:
        count = math.prod(shape)
        total += count
        block = _BLOCK.search(name)
        if len(shape) > 1 and block is not None:
            share = met if "expert" in name and "shared" not in name else 1.0
            blocks[int(block[1])] = blocks.get(int(block[1]), 0.0) + count * share
        elif len(shape) > 1:
            others.append(count)
    return Matrices(blocks, max(others, default=0), total)


def matmul_speed(repeats: int = 15) -> float:
    """FLOP/s of one thread in fp32, the best of a few short products.

    Timed in CPU seconds of the process, so that a library which spreads the product over threads counts as one.
    """
    tokens, width, inner = PROBE_SHAPE
    left, right = np.ones((tokens, width), np.float32), np.ones((width, inner), np.float32)
    best = math.inf
    for _ in range(repeats):
        started = time.process_time()
        left @ right
        best = min(best, time.process_time() - started)
    return 2 * tokens * width * inner / best


def _experts_met(directory: Path) -> float:
    """Share of its experts that a token meets, by the configuration's usual names; 1 for a dense model."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 1.0
    experts = next(
        (config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in config), 0
    )
    met = config.get("num_experts_per_tok", experts)
    return met / experts if isinstance(experts, int) and isinstance(met, int) and experts > 0 else 1.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _thousands(count: float) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e3 else f"{count:.0f}"
