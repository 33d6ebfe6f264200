"""Groups of the optimiser: which weights have which rate and decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from r1core.model.adapted import Adapted
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.recipe.strategy import ROLES, Strategy
from r1core.recipe.training import Adapter, Train
from r1core.testing.tiny import tiny_model
from r1core.train.optimizer import adamw, set_rates

CONFIG = Train(learning_rate=1e-3, layer_learning_rate=3e-3, lora_plus_ratio=4.0, weight_decay=0.02)


class Extra(ExtraLayers):
    """One weight of an extra layer."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.gate = nn.Parameter(torch.zeros(3))


def groups(adapted: Adapted, config: Train = CONFIG, extra: bool = True) -> list[dict[str, Any]]:
    layers = Extra() if extra else ExtraLayers(tiny_model(), [], seed=0)
    return adamw(adapted.model, layers, config).param_groups


def adapted(kind: str = "lora", **roles: Any) -> Adapted:
    strategy = Strategy.model_validate(roles)
    return add_adapter(tiny_model(), Adapter(rank=4, kind=kind), seed=0, strategy=strategy)  # type: ignore[arg-type]


def test_without_a_strategy_they_are_the_three_of_old() -> None:
    made = adapted()
    named = [(name, p) for name, p in made.model.named_parameters() if p.requires_grad]
    down, up, layers = groups(made)
    assert [id(p) for p in down["params"]] == [id(p) for name, p in named if ".lora_A." in name]
    assert [id(p) for p in up["params"]] == [id(p) for name, p in named if ".lora_B." in name]
    assert [group["base_lr"] for group in (down, up, layers)] == [1e-3, 4e-3, 3e-3]
    assert [group["weight_decay"] for group in (down, up, layers)] == [0.02, 0.02, 0.0]
    assert len(groups(made, extra=False)) == 2


def test_each_role_has_its_own_rate_and_decay() -> None:
    made = adapted(preset="guide", untie=True, norms={"mode": "full"}, middle_attention={"weight_decay": 0.04})
    found = groups(made)
    told = {(g["role"], g["base_lr"], g["weight_decay"]) for g in found}
    assert told == {
        ("shallow_attention", 1e-5, 0.01), ("shallow_attention", 4e-5, 0.01),
        ("middle_attention", 2e-5, 0.04), ("middle_attention", 8e-5, 0.04),
        ("shallow_feed_forward", 1e-5, 0.01), ("shallow_feed_forward", 4e-5, 0.01),
        ("middle_feed_forward", 2e-5, 0.02), ("middle_feed_forward", 8e-5, 0.02),
        ("norms", 1e-3, 0.0), ("output", 5e-5, 0.05), ("layers", 3e-3, 0.0),
    }  # fmt: skip
    assert [g["role"] for g in found if g["role"] != "layers"] == sorted(
        (g["role"] for g in found if g["role"] != "layers"), key=ROLES.index
    )
    trained = {id(one.parameter): one.role for one in made.trained()}
    grouped = [id(p) for g in found for p in g["params"] if g["role"] != "layers"]
    assert sorted(grouped) == sorted(trained)
    assert all(trained[id(p)] == g["role"] for g in found for p in g["params"] if g["role"] != "layers")


def test_vectors_do_not_decay_unless_they_are_norms_that_shall() -> None:
    for group in groups(adapted("dora")) + groups(adapted("gelu_lora")):
        shapes = {p.ndim for p in group["params"]}
        assert shapes == ({2} if group["weight_decay"] else {1}) or group["role"] == "layers"
    stated = groups(adapted(norms={"mode": "full", "weight_decay": 0.03, "learning_rate": 2e-4}))
    assert [(g["base_lr"], g["weight_decay"]) for g in stated if g["role"] == "norms"] == [(2e-4, 0.03)]


@pytest.mark.parametrize("roles", [{}, {"preset": "guide", "untie": True}])
def test_groups_are_the_same_every_time_and_follow_the_schedule(roles: dict[str, Any]) -> None:
    one, two = groups(adapted(**roles)), groups(adapted(**roles))
    assert [[p.shape for p in g["params"]] for g in one] == [[p.shape for p in g["params"]] for g in two]
    optimizer = adamw(adapted(**roles).model, Extra(), CONFIG)
    set_rates(optimizer, 0.5)
    assert all(g["lr"] == 0.5 * g["base_lr"] for g in optimizer.param_groups)
