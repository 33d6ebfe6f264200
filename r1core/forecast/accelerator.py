"""Time of a step on a GPU, from its data sheet: products, values that pass through memory, launches, added up.

The shares below were set by two measured runs (LoRA of rank 16, batches of 1,024-token rows, bf16, one NVIDIA H200):
299,694 tokens/s on a 135M shape and 82,734 on a 1B shape (`benchmarks/training_gpu.py`), which they meet within 10 %;
the small model is bound by memory and launches, the larger by products. `benchmarks/forecast.py` compares.

H100 runs on record (`benchmarks/results/training_gpu.json`), which set nothing, are told within 14 %.

Not covered: other GPUs were not measured, nor more than two together, nor adapters other than LoRA, nor masks on a GPU.
"""

from __future__ import annotations

from r1core.forecast.hardware import Gpu
from r1core.forecast.processor import BYTES_UPDATED
from r1core.forecast.work import Work

MULTIPLIED = 0.6
"""Share of the data sheet's peak that a training's products reach; large square ones were measured at 777 of an H100's
989 TFLOP/s, which is 0.79."""
COPIED = 0.85
"""Share of the data sheet's bandwidth that passes over memory reach."""
REPLAYED_SECONDS = 2.5e-6
"""Between two kernels of a recorded step."""
LAUNCHED_SECONDS = 10e-6
"""Of a kernel that the host launches; assumed."""
TOGETHER = 0.84
"""Share of their number that several GPUs reach, each with its part of the batch: two H200 on a 1B shape, 2026-11-26
(`benchmarks/many_gpus.py`); for more it is assumed."""


def seconds_of(work: Work, gpu: Gpu, *, recorded: bool) -> float:
    """Seconds of one GPU for one step.

    Parameters
    ----------
    recorded : the step is replayed as a CUDA graph; else the host launches each of its kernels.
    """
    products = work.flop / gpu.bf16 + work.flop_fp32 / gpu.fp32
    read = 2 * (work.moved + work.weights) + BYTES_UPDATED * work.updated
    launch = REPLAYED_SECONDS if recorded else LAUNCHED_SECONDS
    return products / MULTIPLIED + read / (COPIED * gpu.bandwidth) + launch * work.launches


def decode_seconds(weights: float, cached: float, gpu: Gpu) -> float:
    """Seconds of one decoding step of a batch: all weights and the batch's keys and values are read once, in bf16."""
    return 2 * (weights + cached) / (COPIED * gpu.bandwidth)
