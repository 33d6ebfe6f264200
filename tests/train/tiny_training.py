"""A small training on the tiny model. Under `torch.distributed.run` it writes the weights that it ends with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from r1core.api import LayerSpec, SlotFeatures, SpanKind
from r1core.data.tokens import Encoded, Slot
from r1core.model.adapted import adapted_of
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.sharding import shard
from r1core.model.slices import whole
from r1core.recipe.curriculum import Curriculum
from r1core.recipe.strategy import Role, Strategy
from r1core.recipe.training import Adapter, Train
from r1core.testing.tiny import tiny_model
from r1core.train.loop import Groups, Trainer
from r1core.train.objective import SupervisedFineTuning
from r1core.train.order import OFF, order_of

KIND = SpanKind("t/k", encode=float, decode=float, width=1, feature=lambda v: (v,))
KINDS = {KIND.name: KIND}


class Marks(nn.Module):
    """Adds a learned vector at the tokens of each span, and a small learned bias everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector, self.bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width) / 10)

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        slots = features[KIND.name]
        place = torch.arange(hidden.shape[1]).view(1, -1, 1)
        covered = (place >= slots.start[:, None]) & (place < slots.end[:, None])
        return (covered * slots.values[..., 0][:, None]).sum(-1, keepdim=True) * self.vector + self.bias


def span_loss(inner: nn.Module, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
    """The layer's own loss, summed over the spans of each sequence."""
    slots = features[KIND.name]
    return (slots.values[..., 0] * inner.vector.square().sum()).sum(-1)  # type: ignore[operator, union-attr]


def rows(number: int = 11) -> list[Encoded]:
    """Rows of different lengths behind a common prefix, some with a span."""
    rng, made = np.random.default_rng(0), []
    for index in range(number):
        prompt = (5, 6, 7, *rng.integers(10, 399, rng.integers(2, 6)).tolist())
        response = (*rng.integers(10, 399, rng.integers(1, 4)).tolist(), 2)
        slots = (Slot(KIND.name, 3, 5, (1.0 + index,)),) if index % 2 else ()
        made.append(Encoded(f"row-{index}", prompt, response, slots))
    return made


def trainer(
    save: Callable[[int, Groups, dict[str, Any]], None] = lambda step, groups, state: None,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    *,
    dropout: float = 0.0,
    layer: bool = True,
    loss: bool = False,
    data: list[Encoded] | None = None,
    cut: bool = False,
    strategy: Strategy | None = None,
    curriculum: Curriculum = OFF,
    attention: str = "sdpa",
    base: PreTrainedModel | None = None,
    targets: list[str] | Literal["all-linear"] = "all-linear",
    **train: Any,
) -> Trainer:
    """A trainer over `rows()`, the longer the harder to a curriculum; further keywords are keys of `[train]`.

    `cut` : over the processes, by FSDP2. `base` : another model than the tiny one. `targets` : of its adapter.
    """
    base = (tiny_model() if base is None else base).requires_grad_(False)
    base.set_attn_implementation(attention)
    model = add_adapter(base, Adapter(rank=4, dropout=dropout, targets=targets), seed=0, strategy=strategy).model
    spec = LayerSpec("t/marks", "block:0", Marks, (KIND.name,), loss=span_loss if loss else None)
    layers = ExtraLayers(model.base_model.model, [spec] if layer else [], seed=0)
    if cut:
        shard(model, torch.device("cpu"), int(os.environ["WORLD_SIZE"]))
    config = Train(**{"batch_size": 4, "learning_rate": 1e-2, "layer_learning_rate": 1e-2, "epochs": 2, **train})
    used = rows() if data is None else data
    order = order_of(config, len(used), 7, curriculum, [float(row.length) for row in used])
    return Trainer(
        model, layers, used, KINDS, SupervisedFineTuning(), config, order=order,
        seed=7, save=save, on_step=on_step, layer_loss_weights={"t/marks": 0.3} if loss else {},
    )  # fmt: skip


def one_step(run: Trainer, step: int = 0) -> dict[str, float]:
    """Take one step and return its figures."""
    told: list[Mapping[str, float]] = []
    run.on_step = lambda number, metrics: told.append(metrics)
    run.step(step)
    run.settle()
    return dict(told[-1])


def flat(groups: Groups) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by `group/name`."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def gathered(run: Trainer) -> dict[str, torch.Tensor]:
    """The trained weights, whole, and the layers'; every process has to ask."""
    adapter = {f"adapter/{name}": whole(value).clone() for name, value in adapted_of(run.model).state().items()}
    return adapter | {f"layers/{name}": value for name, value in run.layers.tensors().items()}


def cut_run(**train: Any) -> dict[str, Any]:
    """Train cut over the processes, and again from the checkpoint of step 3."""
    kept: dict[int, tuple[Groups, dict[str, Any]]] = {}
    losses: list[float] = []
    settings: dict[str, Any] = {"data": rows(9), "cut": True, "checkpoint_every": 3, **train}
    run = trainer(
        lambda step, *saved: kept.update({step: saved}), lambda _, told: losses.append(told["loss"]), **settings
    )
    run.run()
    again = trainer(**settings)
    again.resume(*kept[3])
    again.run()
    pieces = [[] for _ in range(run.together.world)]
    torch.distributed.all_gather_object(pieces, flat(kept[3][0]))
    return {"end": gathered(run), "again": gathered(again), "losses": losses, "pieces": pieces}


def main(folder: str, *packings: str) -> None:
    """Train as one rank of several and let the first one write where it ended."""
    torch.set_num_threads(1)
    for packing in packings:
        run = trainer(data=rows(9), packing=packing)  # the last batch holds one row: a rank has none
        run.run()
        full = Strategy(norms=Role(mode="full", learning_rate=1e-2))
        made = {"ddp": {"end": gathered(run)}, "fsdp2": cut_run(packing=packing)}
        made["accumulated"] = cut_run(packing=packing, micro_batch_tokens=12, loss=True)
        made["full"] = cut_run(packing=packing, strategy=full)
        if run.together.main:
            torch.save(made, f"{folder}/{packing}.pt")
    run.together.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
