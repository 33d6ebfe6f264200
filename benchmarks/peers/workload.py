"""One and the same training for r1core and its peers: shapes of models, random rows, LoRA settings, what is measured.

Imports nothing of r1core, so that it runs in a peer's own environment. Weights are random (speed does not depend on
their values), rows are random tokens of full length, every token but the first is supervised.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

RANK, ALPHA, RATE = 16, 32, 2e-4
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM = 5
"""Steps before the clock starts: compiling, allocator and kernel choices."""

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "1b": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """`rows` of `length` tokens a step, `steps` timed steps after `WARM` untimed ones."""

    shape: str
    rows: int
    length: int
    steps: int
    variant: str

    @property
    def all_steps(self) -> int:
        """Steps with the untimed ones."""
        return self.steps + WARM


def work_from(arguments: Sequence[str], variants: Sequence[str]) -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--variant", choices=variants, default=variants[0])
    chosen = parser.parse_args(arguments)
    return Work(chosen.shape, chosen.rows, chosen.length, chosen.steps, chosen.variant)


def model(work: Work, attention: str = "sdpa", to: str = "") -> Any:
    """The frozen base, bf16, on the GPU if there is one, or where it is wanted."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[work.shape], max_position_embeddings=4096, attn_implementation=attention)
    made = LlamaForCausalLM(config).to(torch.bfloat16)
    return made.to(to or ("cuda" if torch.cuda.is_available() else "cpu"))


def rows(work: Work) -> list[list[int]]:
    """Token ids of all rows."""
    import numpy as np

    number = work.rows * work.all_steps
    return np.random.default_rng(0).integers(10, SHAPES[work.shape]["vocab_size"], (number, work.length)).tolist()


class Clock:
    """Starts after the warm steps, stops after the last; waits for the device at both ends only."""

    def __init__(self, work: Work) -> None:
        self.work, self.steps, self.started, self.seconds = work, 0, 0.0, 0.0

    def tick(self) -> None:
        """A step has been launched."""
        self.steps += 1
        if self.steps in (WARM, self.work.all_steps):
            wait()
            now = time.perf_counter()
            self.started, self.seconds = (now, 0.0) if self.steps == WARM else (self.started, now - self.started)


def wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measured(work: Work, system: str, train: Callable[[Clock], float]) -> None:
    """Run `train`, which ticks after each step and returns the last loss, and print one JSON line."""
    import torch

    cuda = torch.cuda.is_available()
    clock = Clock(work)
    loss = train(clock)
    tokens = work.rows * work.length * work.steps
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    line = {"system": system, "shape": work.shape, "tokens_per_second": tokens / clock.seconds, "peak_gib": peak}
    line |= {"loss": loss, "device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__}
    if os.environ.get("RANK", "0") == "0":
        print("RESULT " + json.dumps(line))
        sys.stdout.flush()
