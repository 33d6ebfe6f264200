"""What the training loop costs beside the model: whole steps against bare forward, backward, clipping and optimiser.

Run: python benchmarks/loop_overhead.py [--steps 40] [--folder runs/overhead]
The medical demonstration's rows, model and packing; one process, one thread, no extra layers. A whole step chooses and
packs its rows, runs, tells its figures and appends them, fsynced, to a run's metrics. The bare step takes a batch that
was packed before. Each step is run both ways, the first way alternating (A B B A), and the medians of all steps count.
CPU time is given beside wall time: it does not see waiting for the disk, nor other programs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from medical_rows import InTurn, Medical, medical
from record import write

from r1core.runs.directory import RunDirectory
from r1core.train.loop import Trainer, hash_seed

TARGET = 0.03
"""Share of a step's time that may pass outside of the model."""
WARM = 3
"""Steps that are not counted."""


def trainer_of(data: Medical, steps: int, run: RunDirectory) -> Trainer:
    """The loop on the demonstration's settings, its figures going where the train stage lets them go."""
    from r1core.model.adapter import add_adapter
    from r1core.model.fused_lora import Casts
    from r1core.model.layers import ExtraLayers
    from r1core.model.load import load_model
    from r1core.recipe.training import Adapter, Train
    from r1core.train.objective import objective_of

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        run.metrics.append({"step": step, **metrics})

    base = load_model(data.base, precision=data.precision, attention=data.attention)
    adapted = add_adapter(base, Adapter(rank=16, alpha=32, first_layer=4), seed=0)
    config = Train(batch_size=data.batch, steps=steps, learning_rate=8e-4, checkpoint_every=10**6)
    trainer = Trainer(
        adapted.model, ExtraLayers(base, [], 0), data.rows, {}, objective_of(config), config,
        order=InTurn(data.batch, steps), seed=0, save=lambda *_: None, on_step=on_step,
    )  # fmt: skip
    _ = trainer.read
    trainer.casts = Casts(adapted.model)
    trainer.model.train()
    return trainer


def bare(trainer: Trainer, step: int) -> Callable[[], None]:
    """The model's part of a step, on batches that are there already."""
    given = trainer.feed.step(step)

    def run() -> None:
        for batch in given.batches:
            losses = trainer.objective.loss(trainer.read(batch), batch)
            (losses.sum() / given.weight).backward()
        torch.nn.utils.clip_grad_norm_(trainer.trainable, 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)

    return run


def whole(trainer: Trainer, step: int) -> Callable[[], None]:
    """The step as `Trainer.run` takes it."""

    def run() -> None:
        torch.manual_seed(hash_seed(0, step))
        trainer.step(step)

    return run


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=Path("runs/overhead"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    steps = chosen.steps + WARM
    trainer = trainer_of(medical(chosen.folder, steps * 16), steps, RunDirectory(chosen.folder / "medical"))
    taken: dict[str, list[tuple[float, float]]] = {"whole": [], "bare": []}
    for step in range(steps):
        works = {"whole": whole(trainer, step), "bare": bare(trainer, step)}
        for name in sorted(works, reverse=bool(step % 2)):
            taken[name].append(timed(works[name]))
    rows: list[dict[str, object]] = []
    for column, clock in enumerate(("wall", "CPU")):
        a, b = (statistics.median(line[column] for line in taken[name][WARM:]) for name in ("whole", "bare"))
        rows.append({"figure": f"a whole step ({clock} time)", "value": round(a * 1000, 1), "unit": "ms"})
        rows.append({"figure": f"the model's part of it ({clock} time)", "value": round(b * 1000, 1), "unit": "ms"})
        share = statistics.median(
            1 - bare_line[column] / whole_line[column]
            for whole_line, bare_line in zip(taken["whole"][WARM:], taken["bare"][WARM:], strict=True)
        )
        figure = f"share of a step outside of the model ({clock} time, median of {chosen.steps} pairs)"
        rows.append({"figure": figure, "value": round(share, 4), "unit": "fraction"})
        rows[-1] |= {"target": f"<= {TARGET}", "met": share <= TARGET} if clock == "wall" else {}
    write("loop_overhead", rows)


if __name__ == "__main__":
    main()
