"""Training a pool: one gradient for every layout of a batch, the same bits when resumed, frozen stays frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from r1core.data.packing import pack_rows
from r1core.data.tokens import TASK_TOKEN, Encoded
from r1core.model.adapted import adapted_of
from r1core.model.adapter import add_adapter
from r1core.model.compiled import checkpoint_blocks
from r1core.model.layers import ExtraLayers
from r1core.model.pool import PoolAdapted, Wanted
from r1core.model.scores import logits_at
from r1core.recipe.pool import Pool
from r1core.recipe.training import Adapter, Train
from r1core.testing.tiny import tiny_model
from r1core.train.base_loss import base_losses
from r1core.train.loop import Trainer
from r1core.train.objective import objective_of
from r1core.train.order import order_of

VARIANTS = (
    {"packing": "none"},
    {"packing": "shared_prefix"},
    {"packing": "best_fit"},
    {"packing": "shared_prefix", "micro_batch_tokens": 17},
    {"packing": "shared_prefix", "gradient_checkpointing": True},
)


def rows(number: int = 11, tasks: str = "abc", *, prepend: bool = True) -> list[Encoded]:
    rng, made = np.random.default_rng(0), []
    for index in range(number):
        before = (TASK_TOKEN,) if prepend else ()
        prompt = (*before, 5, 6, 7, *rng.integers(10, 399, rng.integers(2, 6)).tolist())
        response = (*rng.integers(10, 399, rng.integers(1, 4)).tolist(), 2)
        made.append(Encoded(f"row-{index}", prompt, response, (), tasks[index % len(tasks)]))
    return made


def adapted(pool: Pool, tasks: str = "abc") -> PoolAdapted:
    made = add_adapter(tiny_model().requires_grad_(False), Adapter(rank=4), 0, wanted=Wanted(pool, tuple(tasks)))
    assert isinstance(made, PoolAdapted)
    return made


def trainer(pool: Pool, save: Any = lambda *_: None, *, tasks: str = "abc", **train: Any) -> Trainer:
    made, given = adapted(pool, tasks), rows(tasks=tasks, prepend=pool.prepend)
    config = Train(objective="multitask", **{"batch_size": 4, "learning_rate": 1e-2, "epochs": 2, **train})
    return Trainer(
        made.model, ExtraLayers(made.model, [], 0), given, {}, objective_of(config), config,
        order=order_of(config, len(given), 7), seed=7, save=save, on_step=lambda *_: None,
    )  # fmt: skip


@pytest.mark.parametrize("routing", ["soft", "hard", "top_k"])
def test_every_layout_gives_the_gradient_of_rows_alone(routing: str) -> None:
    pool = Pool.model_validate({"routing": routing})
    expected: list[torch.Tensor] | None = None
    for variant in VARIANTS:
        run = trainer(pool, max_grad_norm=1e9, batch_size=7, **variant)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in run.trainable:
                parameter.add_(torch.randn_like(parameter) / 10)
        if expected is None:
            chosen = [run.rows[i] for i in run.order.rows(0)]
            tokens = sum(len(row.response) for row in chosen)
            loss = torch.zeros(())
            for row in chosen:
                logits = logits_at(run.model, pack_rows([row], {}, torch.float32))
                loss = loss + functional.cross_entropy(logits, torch.tensor(row.response), reduction="sum") / tokens
            expected = list(torch.autograd.grad(loss, run.trainable))
        if variant.get("gradient_checkpointing"):
            checkpoint_blocks(run.model)
        run.model.train()
        seen: list[torch.Tensor] = []
        run.optimizer.register_step_pre_hook(lambda *_, r=run, s=seen: s.extend(p.grad.clone() for p in r.trainable))
        run.step(0)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(seen, expected, strict=True)), variant


@pytest.mark.parametrize("routing", ["soft", "hard"])
def test_a_resumed_run_ends_on_the_same_bits(routing: str) -> None:
    pool = Pool.model_validate({"routing": routing})
    whole = trainer(pool)
    whole.run()
    saved: dict[int, Any] = {}

    class Killed(Exception):
        pass

    def save(step: int, groups: Any, state: dict[str, Any]) -> None:
        saved[step] = (groups, state)
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        trainer(pool, save, checkpoint_every=1).run()
    resumed = trainer(pool)
    resumed.resume(*saved[2])
    resumed.run()
    for group, tensors in whole.tensors().items():
        assert all(torch.equal(resumed.tensors()[group][name], value) for name, value in tensors.items())


def test_training_tells_tasks_apart_and_leaves_an_extended_pool_alone(tmp_path: Path) -> None:
    first = trainer(Pool(), steps=30, learning_rate=0.05, batch_size=11)
    first.run()
    (tmp_path / "adapter").mkdir()
    adapted_of(first.model).save(tmp_path / "adapter")
    given = pack_rows(rows(), {}, torch.float32)
    expected = logits_at(first.model, given)
    assert torch.isfinite(expected).all()
    second = trainer(Pool(extends=tmp_path), tasks="de", steps=10, learning_rate=0.05, weight_decay=0.1)
    untrained = second.tensors()["adapter"]
    second.run()
    assert torch.equal(logits_at(second.model, given), expected)
    changed = {name for name, value in second.tensors()["adapter"].items() if not torch.equal(value, untrained[name])}
    assert changed == {name for name in untrained if name.endswith(".1")}


def test_the_base_models_loss_is_that_of_rows_without_a_task() -> None:
    with_task, plain = rows(), [row.for_base() for row in rows()]
    assert plain[0].prompt[0] != TASK_TOKEN
    assert base_losses(tiny_model(), with_task, {}, together=4, processes=1) == base_losses(
        tiny_model(), plain, {}, together=4, processes=1
    )
