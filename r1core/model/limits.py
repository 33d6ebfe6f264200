"""Numbers and rules that training and its forecast share; torch-free."""

from __future__ import annotations

import os

CHUNK_BYTES = 2**29
"""Bytes of fp32 logits held at a time: large enough to keep a GPU busy (2,730 positions of a vocabulary of 49,152)."""
CHUNK_BYTES_CHECKPOINTED = 2**27
"""The same beside gradient checkpointing, where blocks keep so little that the logits would be what is largest."""
WORTH_IT = 5e11
"""Parameters times tokens below which one process is done before others have started (about ten seconds of work)."""


def chunk_bytes(checkpointing: bool) -> int:
    """Bytes of fp32 logits held at a time in training."""
    return CHUNK_BYTES_CHECKPOINTED if checkpointing else CHUNK_BYTES


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def worthwhile(processes: int, asked: int, *, parameters: int, tokens: int, most: int) -> int:
    """Processes for this much work where a process can be forked (see `r1core.model.processes.how_many`).

    Parameters
    ----------
    processes : one a core, or as many as the recipe says.
    asked : `model.processes`; a number is obeyed, 0 leaves it to whether several pay.
    """
    if not asked and parameters * tokens < WORTH_IT:
        return 1
    return max(1, min(asked or processes, most))
