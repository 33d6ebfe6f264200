"""Memory of a training at its peak, bytes: weights, what is trained, activations kept for the backward pass, logits.

What a block keeps a token, compiled: the results of its linear layers and their distinct inputs (2 D, queries,
feed-forward width). Measured beside it (`benchmarks/training_gpu.py`, H200): 9.03 GiB on a 135M shape (16 x 1,024
tokens) and 12.73 on a 1B shape (8 x 1,024), told within 3 %. Uncompiled on a CPU it is `UNCOMPILED` times that.

Not covered: extra layers of plugins, fragmentation, what other programs hold on the GPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata

from r1core.forecast.table import Table
from r1core.forecast.work import Step
from r1core.model.limits import chunk_bytes

UNCOMPILED = 1.82
"""Values that blocks keep uncompiled over those that they keep compiled; measured on a 135M shape (AMD EPYC, fp32,
2026-11-26)."""
EAGER_SCORES = 1.6
"""Values that eager attention keeps a pair of tokens and head; measured likewise."""
DORA_COPIES = 2
"""Copies of every adapted matrix that DoRA's norms keep for the backward pass; measured likewise."""
TRAINED_BYTES = 16
"""Of a trained weight: its fp32 value, gradient and two moments."""
LIBRARY_BYTES = {"cpu": 400_000_000, "cuda": 770_000_000}
"""Of torch, transformers, PEFT and accelerate in a process that trains on a CPU, by the build of torch: 2.13 for CPUs
alone, 2.14 with CUDA's libraries, which are loaded all the same (2026-11-26)."""
CONTEXT_BYTES = 600_000_000
"""That a CUDA context and its libraries take on a GPU; usual, not measured here, and not part of torch's own count."""


def library_bytes() -> int:
    """What libraries take in a process that trains on a CPU, by the torch that is installed (not imported)."""
    try:
        needs = metadata.requires("torch") or ()
    except metadata.PackageNotFoundError:
        needs = ()
    cuda = sys.platform == "linux" and any(need.startswith(("nvidia", "cuda")) for need in needs)
    return LIBRARY_BYTES["cuda" if cuda else "cpu"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, by what holds them."""

    weights: float
    trained: float
    activations: float
    logits: float
    libraries: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.trained + self.activations + self.logits + self.libraries


def kept(table: Table, adapters: int = 1) -> float:
    """Values that a block's compiled passes keep a token, mean over blocks."""
    shape = table.shape
    results = sum(w.share * w.outputs for w in shape.matrices) / max(1, shape.blocks)
    low = adapters * table.adapter.rank * len(table.low_rank) / max(1, shape.blocks)
    return results + 2 * shape.width + shape.queries + shape.feed_forward + low


def memory_of(
    table: Table,
    step: Step,
    *,
    bytes_each: int,
    compiled: bool,
    eager: bool = False,
    checkpointed: bool = False,
    masked: bool = True,
    adapters: int = 1,
    held: float = 0.0,
) -> Memory:
    """Memory of one process, or of one GPU.

    Parameters
    ----------
    bytes_each : of a weight of the base and of an activation: 2 or 4.
    eager : attention keeps its scores.
    masked : a pass holds a mask, tokens by tokens.
    adapters : in a pool, each as large as the one of [adapter] and each trained.
    held : bytes that the process holds besides: libraries, plugins, records.
    """
    shape, passes = table.shape, max(1.0, step.passes)
    tokens, pairs = step.tokens / passes, step.pairs / passes
    blocks = shape.blocks - table.lowest
    each = kept(table, adapters) * tokens * (1.0 if compiled else UNCOMPILED)
    each += EAGER_SCORES * shape.heads * pairs if eager else 0.0
    activations = blocks * shape.width * tokens + each if checkpointed else blocks * each
    activations += pairs if masked else 0.0
    if table.adapter.kind == "dora":
        activations += DORA_COPIES * sum(w.count for w in table.low_rank)
    chunk = min(step.answered / passes * shape.vocabulary * 4, float(chunk_bytes(checkpointed)))
    whole = sum(w.count for w in table.full)
    low_rank = adapters * (table.trained - whole)
    casts = 0 if bytes_each == 4 else low_rank
    return Memory(
        weights=bytes_each * (table.base + casts),
        trained=TRAINED_BYTES * (low_rank + whole),
        activations=bytes_each * activations,
        logits=(2 if bytes_each == 2 else 3) * chunk,  # in the base's precision, in fp32, and their gradient
        libraries=held,
    )
