"""What private training costs over plain training of the same LoRA: time of a step in turns, and peak memory.

Run: python benchmarks/private_speed.py [--rows 16] [--steps 12] [--compile on] [--engines r1core,opacus] [--shape 1b]
The medical demonstration's model and rows on one core; with `--shape`, as on a GPU, a model of that shape with random
weights and rows of 1,024 random tokens (`peers/workload.py`). Both take the same rows in the same passes
(`train.packing = "padded"`), the plain one under AdamW as ever, the private one with its ledger, clipping and noise, at
one row a unit; the draw is replaced by the rows of the step, so that both compute on the same. Steps alternate
(A B B A) and medians count; peak memory is that of a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from medical_rows import InTurn, medical
from peers import workload
from record import machine, write

PLAIN = "plain"
TIME, MEMORY = 1.15, 1.10
LENGTH = 1024  # tokens of a row, with `--shape`
WARM = 2


def trainers(chosen: argparse.Namespace, which: Sequence[str], folder: Path) -> dict[str, Any]:
    """The trainers by name, over models of their own."""
    return {name: trainer_of(chosen, name, folder) for name in which}


def trainer_of(chosen: argparse.Namespace, name: str, folder: Path) -> Any:
    """One trainer, ready to step: `plain`, or an engine of the plugin."""
    from r1core_dp.config import DpConfig
    from r1core_dp.entropy import system
    from r1core_dp.policy import Training

    from r1core.api import PrivateTask
    from r1core.data.tokens import Encoded
    from r1core.model.adapter import add_adapter
    from r1core.model.compiled import checkpoint_blocks
    from r1core.model.fused_lora import Casts
    from r1core.model.layers import ExtraLayers
    from r1core.model.load import load_model
    from r1core.model.row_gradients import RowGradients
    from r1core.recipe.training import Adapter, Train
    from r1core.train.loop import Trainer
    from r1core.train.objective import objective_of
    from r1core.train.optimizer import adamw
    from r1core.train.private import PrivateTrainer

    class Given(Training):
        """Takes the rows of the step instead of drawing."""

        def draw(self) -> Sequence[Sequence[int]]:
            super().draw()
            return [[row] for row in range((self.step - 1) * chosen.rows, self.step * chosen.rows)]

    steps = chosen.steps + WARM
    if chosen.shape:
        work = workload.Work(chosen.shape, chosen.rows, LENGTH, steps - workload.WARM, "")
        base = workload.model(work).requires_grad_(False)
        rows = [Encoded(str(n), (ids[0],), (*ids[1:], 2), ()) for n, ids in enumerate(workload.rows(work))]
    else:
        data = medical(folder, chosen.rows * steps)
        base = load_model(data.base, precision=data.precision, attention=data.attention)
        rows = [*data.rows] * -(-chosen.rows * steps // len(data.rows))
    first = 0 if chosen.shape else 4
    adapted = add_adapter(base, Adapter(rank=16, alpha=32, first_layer=first), seed=0, fused=name != "opacus")
    config = Train(
        batch_size=chosen.rows, steps=steps, packing="padded", checkpoint_every=10**6,
        gradient_checkpointing=chosen.checkpointing, compile=chosen.compile,
    )  # fmt: skip
    layers, objective = ExtraLayers(base, [], 0), objective_of(config)
    given: tuple[Any, ...] = (adapted.model, layers, rows, {}, objective, config)
    last: dict[str, Any] = {"seed": 0, "save": lambda *_: None, "on_step": lambda *_: None}
    trainer: Trainer
    if name == PLAIN:
        trainer = Trainer(*given, order=InTurn(chosen.rows, steps), **last)
    else:
        weights = [p for group in adamw(adapted.model, layers, config).param_groups for p in group["params"]]
        names = {id(p): n for n, p in adapted.model.named_parameters()}
        rule: Any = None if name == "opacus" else RowGradients(adapted.model, [(names[id(p)], p) for p in weights])
        task = PrivateTask(
            model=adapted.model, weights=weights, ids=[str(n) for n in range(10_000)],
            groups=[str(n) for n in range(10_000)], source="0" * 64, batch_size=chosen.rows, epochs=1, steps=steps,
            row_gradients=rule, run=folder / name,
        )  # fmt: skip
        settings = DpConfig(dataset_id=name, ledger=folder / f"ledgers-{name}", engine=name)  # type: ignore[arg-type]
        trainer = PrivateTrainer(*given, private=Given(settings, task, system), **last)
    if chosen.checkpointing:
        checkpoint_blocks(trainer.model)
    _ = trainer.read
    trainer.casts = Casts(adapted.model)
    trainer.model.train()
    return trainer


def timed(step: Callable[[], None]) -> float:
    """Seconds of one step: of the processor, or by the clock where a GPU is waited for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    step()
    return time.process_time() - began


def times(chosen: argparse.Namespace, names: Sequence[str], folder: Path) -> dict[str, float]:
    """Median seconds of a step of each."""
    made, taken = trainers(chosen, names, folder), {name: [] for name in names}  # type: ignore[var-annotated]
    for step in range(chosen.steps + WARM):
        for name in names if step % 2 else reversed(names):
            seconds = timed(lambda: made[name].step(step))  # noqa: B023  # called at once
            if step >= WARM:
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


def peak(chosen: argparse.Namespace, name: str, folder: Path) -> None:
    """Print the peak bytes of this process, which does nothing else than a few steps."""
    trainer = trainer_of(chosen, name, folder)
    cuda = torch.cuda.is_available()
    before = 0 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for step in range(3):
        trainer.step(step)
    after = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("PEAK " + json.dumps({"before": before, "after": after}))


def memory(chosen: argparse.Namespace, name: str, folder: Path) -> Mapping[str, float]:
    """Peak bytes of a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder), *sys.argv[1:]]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: Mapping[str, float] = json.loads(next(li for li in printed.splitlines() if li.startswith("PEAK "))[5:])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--engines", default="r1core,opacus")
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--shape", choices=sorted(workload.SHAPES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.compile == "on":  # the trainers of one process compile the same functions, and a run has but one of them
        torch._dynamo.config.recompile_limit *= 4
    if chosen.one:
        peak(chosen, chosen.one, chosen.folder)
        return
    engines = chosen.engines.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not chosen.shape:
            medical(folder, 1)  # prepared once
        peaks = {one: memory(chosen, one, folder) for one in (PLAIN, *engines)}
        seconds = times(chosen, [PLAIN, *engines], folder)
    cuda = torch.cuda.is_available()
    how = torch.cuda.get_device_name() if cuda else "one core"
    how += (
        f", {chosen.rows} rows, {'compiled' if chosen.compile == 'on' else 'eager'}"
        + ", checkpointed" * chosen.checkpointing
    )
    rows: list[dict[str, object]] = []
    for one in engines:
        target = one == "r1core"
        ratio, most = seconds[one] / seconds[PLAIN], peaks[one]["after"] / peaks[PLAIN]["after"]
        rows += [
            {"figure": f"time of a step over plain LoRA, {one}, {how}", "value": round(ratio, 3), "unit": "times",
             "target": f"<= {TIME}" if target else None, "met": ratio <= TIME if target else None,
             "peer": f"plain {seconds[PLAIN] * 1e3:.1f} ms, private {seconds[one] * 1e3:.1f} ms"},
            {"figure": f"peak memory over plain LoRA, {one}, {how}", "value": round(most, 3), "unit": "times",
             "target": f"<= {MEMORY}" if target else None, "met": most <= MEMORY if target else None,
             "peer": f"plain {peaks[PLAIN]['after'] / 1e6:.0f} MB, private {peaks[one]['after'] / 1e6:.0f} MB"},
        ]  # fmt: skip
    suffix = f"{'cuda' if cuda else 'cpu'}_{chosen.shape or 'medical'}_{chosen.rows}" + "_compiled" * (
        chosen.compile == "on"
    )
    write(f"private_speed_{suffix}" + "_checkpointed" * chosen.checkpointing, rows)
    print(machine())


if __name__ == "__main__":
    main()
