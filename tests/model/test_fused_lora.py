"""The fused LoRA layer against PEFT's own forward and torch's own differentiation of the formula."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear

from r1core.model.adapter import add_adapter
from r1core.model.fused_lora import FusedLinear
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model


class Net(torch.nn.Module):
    """One linear layer that PEFT can target."""

    def __init__(self, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layer = torch.nn.Linear(24, 40, bias=bias)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.normal_(generator=generator)
        self.to(dtype).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., 24) -> (..., 40)."""
        return self.layer(x)


def pair(bias: bool = True, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> tuple[PeftModel, PeftModel]:
    """The same adapter, trained a little, through the fused layer and through PEFT's."""
    made = []
    for fused in (True, False):
        config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["layer"])
        if fused:
            config._register_custom_module({torch.nn.Linear: FusedLinear})
        model = get_peft_model(Net(bias, dtype), config)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn(parameter.shape, generator=generator)
        made.append(model)
    return made[0], made[1]


def layer_of(model: PeftModel) -> Linear:
    """The one LoRA layer."""
    (found,) = [m for m in model.modules() if isinstance(m, Linear)]
    return found


@pytest.mark.parametrize("freeze_a", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24)])
def test_outputs_and_gradients_are_pefts(bias: bool, shape: tuple[int, ...], freeze_a: bool) -> None:
    results = []
    for model in pair(bias):
        layer_of(model).lora_A.requires_grad_(not freeze_a)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2), requires_grad=True)
        out = model(x)
        weights = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad((out * torch.arange(40)).sum(), [x, *weights])
        assert len(gradients) == (2 if freeze_a else 3)
        results.append([out, *gradients])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-3) for a, b in zip(*results, strict=True))
    assert results[0][0].shape == (*shape[:-1], 40)


def test_the_fused_path_is_taken() -> None:
    ours, theirs = pair()
    x = torch.randn(3, 24)
    assert "LowRankSum" in type(ours(x).grad_fn).__name__
    assert "LowRankSum" not in type(theirs(x).grad_fn).__name__


def test_a_bf16_base_keeps_its_dtype_and_gives_fp32_gradients() -> None:
    ours, theirs = pair(dtype=torch.bfloat16)
    x = torch.randn(9, 24, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    out, expected = ours(x), theirs(x)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected.float(), rtol=0.03, atol=0.5)
    gradients = [torch.autograd.grad(m(x).float().sum(), [p for p in m.parameters() if p.requires_grad]) for m in
                 (ours, theirs)]  # fmt: skip
    for found, wanted in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_without_the_adapter_and_merged_it_is_pefts() -> None:
    ours, theirs = pair()
    x = torch.randn(5, 24)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(ours(x), theirs(x))
        assert torch.equal(ours(x), layer_of(ours).get_base_layer()(x))
    expected = ours(x)
    ours.merge_adapter()
    assert torch.allclose(ours(x), expected, atol=1e-4)


def test_dropout_is_left_to_peft() -> None:
    ours, theirs = pair(dropout=0.5)
    x = torch.randn(5, 24)
    results = []
    for model in (ours, theirs):
        torch.manual_seed(4)
        results.append(model.train()(x))
    assert torch.equal(*results)


def test_private_training_gets_pefts_own_layers() -> None:
    model = add_adapter(tiny_model().requires_grad_(False), Adapter(rank=4), seed=0, fused=False).model
    assert {type(m) for m in model.modules() if isinstance(m, Linear)} == {Linear}
    model = add_adapter(tiny_model().requires_grad_(False), Adapter(rank=4), seed=0).model
    assert {type(m) for m in model.modules() if isinstance(m, Linear)} == {FusedLinear}
