"""Stopped at every save point, on disk, and continued: the bits of the run that was never stopped.

Compared are the adapter, the layers, the optimiser's moments, each step's figures, the rows each step saw, and every
later checkpoint's files byte for byte. What a process has drawn before it resumes must not matter.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.model.processes import ranks
from r1core.recipe.curriculum import Curriculum
from r1core.runs import checkpoints
from r1core.runs.directory import RunDirectory

COLUMN = Curriculum(
    difficulty="column", column="Level", unit="step",
    stages=[{"until": 2, "simple": 1.0}, {"until": 5, "simple": 0.7}, {"simple": 0.0}],
)  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "accumulation": {"micro_batch_tokens": 17, "packing": "best_fit", "dropout": 0.2},
    "curriculum": {"curriculum": COLUMN, "dropout": 0.2},
    "warm-up and cosine": {"schedule": "cosine", "warmup_fraction": 0.5, "weight_decay": 0.1, "lora_plus_ratio": 4},
    "a layer's own loss": {"loss": True, "packing": "none", "schedule": "linear"},
    "checkpointed blocks": {"gradient_checkpointing": True, "dropout": 0.2},
}
EXACT = ("loss", "learning_rate", "grad_norm", "tokens")
"""Figures of a step that do not depend on the clock."""
TOTAL = 6
"""Steps of each run: two epochs of three, the last of which is short."""


@dataclass
class Ended:
    """Where a run stands after its last step."""

    tensors: dict[str, torch.Tensor]
    figures: dict[int, list[float]] = field(default_factory=dict)
    rows: dict[int, list[int]] = field(default_factory=dict)


def trained(tiny: ModuleType, run: RunDirectory, world: int, at: int | None = None, **options: Any) -> Ended:
    """Train to the end, from checkpoint `at` on where one is given, and save each step."""
    ended = Ended({})

    def save(step: int, groups: Any, state: dict[str, Any]) -> None:
        checkpoints.save(run, step, groups, {**state, "cpu_seconds": 0.0})

    def rank() -> Any:
        made = tiny.trainer(save, checkpoint_every=1, **options)
        if at is not None:
            found = checkpoints.latest_valid(run)
            assert found is not None
            assert found.step == at
            made.resume({group: found.tensors(group) for group in found.groups}, found.state())
        return made

    with ranks(world, lambda: rank().run()):
        trainer = rank()

        def on_step(step: int, metrics: dict[str, float]) -> None:
            ended.figures[step] = [metrics[name] for name in EXACT]
            ended.rows[step] = list(trainer.order.rows(step - 1))

        trainer.on_step = on_step
        trainer.run()
        ended.tensors = tiny.flat(trainer.tensors())
    return ended


def files(run: RunDirectory) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}


CASES = [
    pytest.param(options, world, id=f"{name}-{world}", marks=[pytest.mark.slow] * (world > 1))
    for name, options in RUNS.items()
    for world in (1, 2)
]
"""Each run by one process and by two."""


@pytest.mark.parametrize(("options", "world"), CASES)
def test_a_run_resumed_at_any_save_point_ends_on_the_same_bits(
    tiny: ModuleType, options: dict[str, Any], world: int, tmp_path: Path
) -> None:
    if world > 1 and sys.platform != "linux":
        pytest.skip("processes are forked on Linux only")
    run = RunDirectory(tmp_path / "whole")
    whole = trained(tiny, run, world, **options)
    assert list(whole.figures) == list(range(1, TOTAL + 1))
    assert {name.partition("/")[0] for name in whole.tensors} == {"adapter", "layers", "optimizer"}
    kept = files(run)
    for stop in range(1, TOTAL):
        again = RunDirectory(tmp_path / f"from-{stop}")
        again.checkpoints.mkdir()
        for path in run.checkpoints.iterdir():
            if int(path.name.removeprefix("step-")) <= stop:
                (again.checkpoints / path.name).symlink_to(path)
        torch.manual_seed(1000 + stop)  # a new process stands elsewhere
        resumed = trained(tiny, again, world, stop, **options)
        assert resumed.tensors.keys() == whole.tensors.keys()
        for name, tensor in whole.tensors.items():
            assert torch.equal(tensor, resumed.tensors[name]), (stop, name)
        assert resumed.figures == {step: line for step, line in whole.figures.items() if step > stop}
        assert resumed.rows == {step: rows for step, rows in whole.rows.items() if step > stop}
        assert files(again) == {n: b for n, b in kept.items() if int(n.split("/")[1].removeprefix("step-")) > stop}


def test_what_is_drawn_matters_in_these_runs(tiny: ModuleType, tmp_path: Path) -> None:
    """The comparison above would not notice a lost state if dropout, the order or the moments changed nothing."""
    ends = [
        trained(tiny, RunDirectory(tmp_path / str(number)), 1, **options).tensors
        for number, options in enumerate([{"dropout": 0.3}, {}, {"curriculum": COLUMN}])
    ]
    name = next(name for name in ends[0] if name.startswith("adapter/"))
    assert not torch.equal(ends[0][name], ends[1][name])
    assert not torch.equal(ends[1][name], ends[2][name])
