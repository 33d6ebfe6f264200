"""Adapters on tiny random models of published families: what is trained, kept, merged, and told apart row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r1core.data.padding import side_by_side
from r1core.data.tokens import Encoded
from r1core.forecast.shape import read_shape
from r1core.model.adapted import adapted_of
from r1core.model.adapter import add_adapter, load_adapter
from r1core.model.load import check_packing
from r1core.model.row_gradients import RowGradients
from r1core.model.scores import logits_at
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.testing.families import FAMILIES, family_dir, family_model

IDS = torch.arange(3, 40)[None]
LINEAR = {
    "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3_moe": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "deepseek_v3": {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
    | {"gate_proj", "up_proj", "down_proj"},
}
"""Linear layers of the blocks, as the families' configurations have them; experts are stacks, routers no layers."""


@torch.no_grad()
def stirred(model: Any) -> Any:
    """Trained weights that do something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    out: torch.Tensor = model(input_ids=IDS).logits
    return out


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", ["lora", "dora", "gelu_lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_is_adapted_and_a_saved_adapter_answers_alike(
    family: str, kind: str, tmp_path: Path
) -> None:
    adapted = add_adapter(family_model(family), Adapter.model_validate({"kind": kind, "rank": 4}), 0)
    assert {part for name in adapted.state() for part in name.split(".")} >= LINEAR[family]
    trained = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
    linear = [n for n, m in family_model(family).named_modules() if type(m) is torch.nn.Linear and "layers" in n]
    assert all(any(f".{layer}." in f".{name}" for name in trained) for layer in linear)
    assert not any(".experts." in name for name in trained)
    expected = logits(stirred(adapted.model))
    adapted.save(tmp_path)
    again = load_adapter(family_model(family), tmp_path)
    again.model.eval()
    assert torch.equal(logits(again.model), expected)
    with again.off():
        assert torch.equal(logits(again.model), logits(family_model(family)))
    assert sorted(load_file(tmp_path / next(p.name for p in tmp_path.glob("*.safetensors")))) == sorted(adapted.state())
    if again.unmergeable is None:
        assert torch.allclose(logits(again.merged()), expected, atol=1e-4)


def test_dense_layers_behind_a_first_block_of_experts_are_adapted_too() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**{**family_model("qwen3_moe").config.to_dict(), "mlp_only_layers": [1]})
    model = AutoModelForCausalLM.from_config(config)
    adapted = add_adapter(model, Adapter(rank=4), 0)
    assert any(".layers.1.mlp.gate_proj." in name for name in adapted.state())


def rows() -> list[Encoded]:
    return [Encoded(str(n), tuple(range(3 + n, 15 + 3 * n)), (20 + n, 30, 2), ()) for n in range(3)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_packed_together_do_not_see_one_another(family: str) -> None:
    check_packing(family_model(family), rows()[:2], {}, "fp32")


@pytest.mark.parametrize("family", FAMILIES)
def test_row_gradients_are_those_of_each_row_alone(family: str) -> None:
    """The reference is plain autograd over one row at a time."""
    model = stirred(add_adapter(family_model(family), Adapter(rank=4), 0).model).train()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    def loss(some: list[Encoded]) -> torch.Tensor:
        batch = side_by_side(some, {})
        each = torch.nn.functional.cross_entropy(logits_at(model, batch), batch.targets, reduction="none")
        return batch.by_row(each).sum()

    source = RowGradients(model, named)
    with source.of(3):
        loss(rows()).backward()
    taken = source.take()
    for index, row in enumerate(rows()):
        expected = torch.autograd.grad(loss([row]), [p for _, p in named])
        for gradient, one, (name, _) in zip(taken, expected, named, strict=True):
            assert torch.allclose(gradient[index], one, atol=2e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forecast_counts_the_weights_of_the_model(family: str, tmp_path: Path) -> None:
    shape = read_shape(family_dir(tmp_path, family))
    model = family_model(family)
    assert shape is not None
    buffers = sum(b.numel() for name, b in model.named_buffers() if "correction" in name)
    assert shape.parameters == sum(p.numel() for p in model.parameters()) + buffers
    linear = sum(m.weight.numel() for n, m in model.named_modules() if type(m) is torch.nn.Linear and "layers" in n)
    assert sum(w.count for w in shape.matrices if w.linear) == linear
    if family == "deepseek_v3":
        assert (shape.queries, shape.keys, shape.feed_forward) == (4 * 16, 4 * 16, 16 * 3)


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_experts_can_be_trained_in_full(family: str, tmp_path: Path) -> None:
    full = Strategy.model_validate({"middle_feed_forward": {"mode": "full"}})
    adapted = adapted_of(add_adapter(family_model(family), Adapter(rank=4), 0, strategy=full).model)
    assert any(name.endswith("experts.gate_up_proj") for name in adapted.state())
    expected = logits(stirred(adapted.model))
    assert not torch.allclose(expected, logits(family_model(family)))
    adapted.save(tmp_path)
    assert torch.equal(logits(load_adapter(family_model(family), tmp_path).model.eval()), expected)
