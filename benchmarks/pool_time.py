"""Time of a training step with ten tasks in the batch, under a pool of adapters, over that of one LoRA for all of them.

Run: python benchmarks/pool_time.py [--rows 20] [--steps 12] [--first-layer 4] [--device auto|cpu|cuda] [--shape 135m]
Forward, backward and optimiser through r1core's own trainer, on random weights of SmolLM2-135M's shape (speed does not
depend on their values). Rows are as long as the medical domain's: a question that a task's rows share, a term, a short
answer. Systems take their steps in turns (A B C A B C); a system's figure is the median of the ratios to the single
LoRA's step of the same turn, in CPU seconds of one thread, or seconds on a GPU.
Three times: with no start shared, so that all systems compute the same tokens (but for the task token), which is what
the targets are for; with a question of its own for each task, which a pool computes once a task and a single LoRA once
a row; and with one question for all tasks, which a single LoRA computes once and a pool once a task.
On a GPU nothing is compiled or recorded here, for either; a single LoRA's usual step is (docs: how a step is computed).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from record import machine, write
from transformers import LlamaConfig, LlamaForCausalLM

from r1core.data.tokens import TASK_TOKEN, Encoded
from r1core.model import flash_rows
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.pool import Wanted
from r1core.recipe.pool import Pool
from r1core.recipe.training import Adapter, Train
from r1core.train.feed import layout_of
from r1core.train.loop import Trainer
from r1core.train.objective import objective_of
from r1core.train.order import order_of

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from workload import SHAPES

TASKS = tuple(f"task-{number}" for number in range(10))
SINGLE = "one LoRA"
SYSTEMS = {
    SINGLE: None,
    "pool, hard": Pool(routing="hard"),
    "pool, hard, no token": Pool(routing="hard", prepend=False),
    "pool, soft": Pool(),
    "pool, soft, no token": Pool(prepend=False),
    "pool, top-k": Pool(routing="top_k"),
}
TARGETS = {"pool, hard": 1.3, "pool, soft": 1.7}
QUESTION, TERM, ANSWER = 9, (4, 14), (1, 3)
"""Tokens: of a question, and bounds of a term and of an answer."""
WARM = 2
KINDS = {
    "the same tokens": {"own": True, "packing": "best_fit"},
    "a question a task": {"own": True, "packing": "shared_prefix"},
    "one question for all": {"own": False, "packing": "shared_prefix"},
}


def rows(number: int, pool: Pool | None, *, own: bool, vocabulary: int) -> list[Encoded]:
    """Rows of all tasks in turn; with `own`, each task asks in its own words."""
    rng, made = np.random.default_rng(0), []
    questions = rng.integers(10, vocabulary, (len(TASKS), QUESTION))
    before = (TASK_TOKEN,) if pool is not None and pool.prepend else ()
    for index in range(number):
        task = index % len(TASKS)
        question = questions[task if own else 0].tolist()
        term = rng.integers(10, vocabulary, rng.integers(*TERM)).tolist()
        answer = rng.integers(10, vocabulary, rng.integers(*ANSWER)).tolist()
        routed = TASKS[task] if pool is not None else ""
        made.append(Encoded(f"row-{index}", (*before, *question, *term), (*answer, 2), (), routed))
    return made


def trainer(pool: Pool | None, chosen: argparse.Namespace, device: torch.device, *, own: bool, packing: str) -> Trainer:
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    config = LlamaConfig(
        **SHAPES[chosen.shape], max_position_embeddings=4096, attn_implementation="sdpa" if on_gpu else "eager"
    )
    base = LlamaForCausalLM(config).requires_grad_(False).to(device, torch.bfloat16 if on_gpu else torch.float32)
    train = Train(
        objective="sft" if pool is None else "multitask", batch_size=chosen.rows, learning_rate=1e-4,
        steps=10**6, schedule="constant", checkpoint_every=10**6, compile="off",
        packing=packing,
    )  # fmt: skip
    given = rows(chosen.rows, pool, own=own, vocabulary=config.vocab_size)
    if chosen.long:
        given = [Encoded(r.id, r.prompt, r.response[:-1] * (chosen.long // 2), (), r.task) for r in given]
    adapter = Adapter(rank=16, alpha=32, first_layer=chosen.first_layer)
    adapted = add_adapter(base, adapter, 0, wanted=None if pool is None else Wanted(pool, TASKS))
    if layout_of(train, given, device, base.dtype).flash:
        flash_rows.use(base)
    return Trainer(
        adapted.model, ExtraLayers(base, [], 0), given, {}, objective_of(train), train,
        order=order_of(train, len(given), 0), seed=0, save=lambda *_: None, on_step=lambda *_: None,
    )  # fmt: skip


def seconds(run: Trainer, step: int, device: torch.device) -> float:
    """One step: CPU seconds, or seconds until the GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        run.step(step)
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    run.step(step)
    return time.process_time() - started


def measured(chosen: argparse.Namespace, device: torch.device, kind: str) -> dict[str, list[float]]:
    """Seconds of every timed step of each system; equal places were taken in the same turn."""
    runs = {name: trainer(pool, chosen, device, **KINDS[kind]) for name, pool in SYSTEMS.items()}
    for run in runs.values():
        _ = run.read
        run.model.train()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for step in range(WARM + chosen.steps):
        for name, run in runs.items():
            taken = seconds(run, step, device)
            if step >= WARM:
                found[name].append(taken)
    for run in runs.values():
        run.feed.close()
    return found


def table(found: dict[str, list[float]], what: str, where: str, *, targets: bool) -> list[dict[str, object]]:
    """The figures of one kind of rows."""
    made: list[dict[str, object]] = []
    for name, times in found.items():
        middle = statistics.median(times)
        made.append({"figure": f"{name}: time of a step ({what})", "value": round(middle, 4), "unit": "s"})
        if name == SINGLE:
            continue
        ratio = statistics.median(ours / single for ours, single in zip(times, found[SINGLE], strict=True))
        most = TARGETS.get(name) if targets else None
        made.append({"figure": f"{name}: time over one LoRA ({what})", "value": round(ratio, 3), "unit": "times",
                     "target": f"<= {most}" if most else None, "met": ratio <= most if most else None,
                     "peer": SINGLE})  # fmt: skip
    return [{**row, "machine": where} for row in made]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--first-layer", type=int, default=4)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--long", type=int, default=0, help="tokens of an answer, for rows that fill a GPU; 0 = short")
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of: " + ", ".join(KINDS))
    chosen = parser.parse_args(arguments)
    cuda = chosen.device == "cuda" or (chosen.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(1)
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}" if cuda else f"{machine()}, one thread"
    size = f"{chosen.shape}, {chosen.rows} rows of 10 tasks, rank 16 from block {chosen.first_layer}"
    size += f", answers of {chosen.long} tokens" if chosen.long else ""
    made = []
    for kind in chosen.kinds.split(","):
        found = measured(chosen, device, kind)
        made += table(found, f"{size}, {kind}", where, targets=kind == "the same tokens")
    write("pool_time_gpu" if cuda else "pool_time", made)


if __name__ == "__main__":
    main()
