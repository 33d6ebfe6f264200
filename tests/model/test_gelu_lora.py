"""GELU-LoRA against the naive formula, and its own layout on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from r1core.api import UserError
from r1core.model.adapted import Adapted
from r1core.model.adapter import adapter_tensors, add_adapter, load_adapter, set_adapter_tensors
from r1core.model.gelu_lora import GeluLinear
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 8]])


def gelu(**options: object) -> Adapted:
    return add_adapter(tiny_model(), Adapter(kind="gelu_lora", rank=4, **options), seed=3)  # type: ignore[arg-type]


@torch.no_grad()
def trained(**options: object) -> Adapted:
    adapted = gelu(**options)
    generator = torch.Generator().manual_seed(0)
    for one in adapted.trained():
        one.parameter.copy_(torch.randn(one.parameter.shape, generator=generator) / 5)
    adapted.model.eval()
    return adapted


def naive(x: torch.Tensor, layer: GeluLinear, scale: float) -> torch.Tensor:
    """The formula as it is written, with the error function spelled out."""
    low = x @ layer.gelu_A.weight.T + layer.gelu_A.bias
    low = 0.5 * low * (1 + torch.erf(low / math.sqrt(2)))
    return layer.base_layer(x) + scale * (low @ layer.gelu_B.weight.T + layer.gelu_B.bias)


@pytest.mark.parametrize("base", [nn.Linear(12, 20), nn.Linear(12, 20, bias=False), Conv1D(20, 12)])
@pytest.mark.parametrize("scale", [0.7, 1.3])
def test_outputs_and_gradients_are_the_formulas(base: nn.Module, scale: float) -> None:
    torch.manual_seed(0)
    layer = GeluLinear(base.requires_grad_(False), 3, scale)
    for parameter in (*layer.gelu_A.parameters(), *layer.gelu_B.parameters()):
        nn.init.normal_(parameter)
    results = []
    for apply in (layer, lambda x: naive(x, layer, scale)):
        x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out = apply(x)
        weights = [*layer.gelu_A.parameters(), *layer.gelu_B.parameters()]
        results.append([out, *torch.autograd.grad((out * torch.arange(20)).sum(), [x, *weights])])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-4) for a, b in zip(*results, strict=True))
    assert results[0][0].shape == (2, 5, 20)


def test_a_and_b_start_as_stated() -> None:
    torch.manual_seed(5)
    layer = GeluLinear(nn.Linear(300, 7), 64, 0.7)
    bound = math.sqrt(6 / ((1 + 5) * 300))
    largest = float(layer.gelu_A.weight.detach().abs().max())
    assert 0.95 * bound < largest <= bound
    for zero in (layer.gelu_A.bias, layer.gelu_B.weight, layer.gelu_B.bias):
        assert not zero.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_start_is_the_base_to_the_bit(dtype: torch.dtype) -> None:
    base = tiny_model().to(dtype)
    state = torch.get_rng_state()
    adapted = add_adapter(tiny_model().to(dtype), Adapter(kind="gelu_lora", rank=4), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    found = adapted.model(IDS).logits
    assert found.dtype == dtype
    assert torch.equal(found, base(IDS).logits)
    assert {one.parameter.dtype for one in adapted.trained()} == {torch.float32}
    found.float().square().mean().backward()
    ups = [one.parameter for one in adapted.trained() if one.up]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.any() for p in ups)


def test_it_goes_where_lora_goes_and_nothing_else_is_trained() -> None:
    lora = add_adapter(tiny_model(), Adapter(rank=4, first_layer=1, targets=["q_proj", "up_proj"]), seed=0)
    ours = gelu(first_layer=1, targets=["q_proj", "up_proj"])
    places = {one.name.partition(".lora_")[0].removeprefix("base_model.model.") for one in lora.trained()}
    assert {one.name.partition(".gelu_")[0] for one in ours.trained()} == places
    assert len(list(ours.trained())) == 4 * len(places)
    assert sum(one.up for one in ours.trained()) == 2 * len(places)


def test_dropout_acts_on_the_input_of_a_while_training_only() -> None:
    adapted = trained(dropout=0.5)
    calm = adapted.model(IDS).logits
    assert torch.equal(calm, trained().model(IDS).logits)
    adapted.model.train()
    torch.manual_seed(0)
    assert not torch.allclose(adapted.model(IDS).logits, calm)


def test_off_is_the_base_to_the_bit() -> None:
    adapted = trained()
    assert not torch.allclose(adapted.model(IDS).logits, tiny_model()(IDS).logits)
    with adapted.off():
        assert torch.equal(adapted.model(IDS).logits, tiny_model()(IDS).logits)
    assert not torch.allclose(adapted.model(IDS).logits, tiny_model()(IDS).logits)


def test_saved_and_loaded_it_gives_the_same_logits(tmp_path: Path) -> None:
    adapted = trained(gelu_scale=0.5, first_layer=1)
    adapted.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r1core_adapter.json", "r1core_adapter.safetensors"]
    stated = json.loads((tmp_path / "r1core_adapter.json").read_text())
    assert {k: stated[k] for k in ("format", "kind", "rank", "scale", "targets", "first_layer")} == {
        "format": 1, "kind": "gelu_lora", "rank": 4, "scale": 0.5, "targets": "all-linear", "first_layer": 1,
    }  # fmt: skip
    assert "Kaiming" in stated["init"]
    again = load_adapter(tiny_model(), tmp_path)
    assert torch.equal(again.model.eval()(IDS).logits, adapted.model(IDS).logits)
    assert list(again.trained()) == []
    assert adapter_tensors(again.model).keys() == load_file(tmp_path / "r1core_adapter.safetensors").keys()


def test_no_tool_takes_it_for_a_lora(tmp_path: Path) -> None:
    trained().save(tmp_path)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        PeftModel.from_pretrained(tiny_model(), str(tmp_path))
    assert not any("lora" in name for name in load_file(tmp_path / "r1core_adapter.safetensors"))


def test_it_says_that_it_cannot_be_merged() -> None:
    adapted = trained()
    assert "not linear" in str(adapted.unmergeable)
    with pytest.raises(UserError, match="not linear"):
        adapted.merged()


def test_tensors_travel_between_models_and_must_fit() -> None:
    source, target = trained(), gelu()
    tensors = adapter_tensors(source.model)
    set_adapter_tensors(target.model, tensors)
    assert torch.equal(target.model.eval()(IDS).logits, source.model(IDS).logits)
    first = next(iter(tensors))
    with pytest.raises(UserError, match=r"missing \['model\.layers"):
        set_adapter_tensors(target.model, {k: v for k, v in tensors.items() if k != first})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"kind": "other"}, "kind 'other'"),
        ({"modules": ["model.norm"]}, "model.norm is no linear layer"),
        ({"modules": ["nowhere"]}, "nowhere is no linear layer"),
        ({"rank": "four"}, "not an adapter's description"),
        ({"rank": 5}, "expected"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    trained().save(tmp_path)
    path = tmp_path / "r1core_adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_adapter(tiny_model(), tmp_path)


def test_weights_that_are_broken_or_missing_are_refused(tmp_path: Path) -> None:
    trained().save(tmp_path)
    path = tmp_path / "r1core_adapter.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(tiny_model(), tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_adapter(tiny_model(), tmp_path)


def test_on_the_transposed_layers_of_gpt2(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    base = GPT2LMHeadModel(config).eval()
    expected = base(IDS).logits
    adapted = add_adapter(base, Adapter(kind="gelu_lora", rank=4), seed=0)
    assert torch.equal(adapted.model(IDS).logits, expected)
    assert len(adapter_tensors(adapted.model)) == 2 * 4 * 4


def test_by_role_and_never_beside_full_training() -> None:
    only = Strategy.model_validate({"shallow_attention": {"mode": "frozen"}, "middle_attention": {"mode": "frozen"}})
    adapted = add_adapter(tiny_model(), Adapter(kind="gelu_lora", rank=4), seed=0, strategy=only)
    assert {one.role for one in adapted.trained()} == {"shallow_feed_forward", "middle_feed_forward"}
    with pytest.raises(UserError, match="gelu_lora"):
        add_adapter(
            tiny_model(),
            Adapter(kind="gelu_lora"),
            seed=0,
            strategy=Strategy.model_validate({"norms": {"mode": "full"}}),
        )
