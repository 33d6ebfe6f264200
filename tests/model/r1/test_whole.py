"""Routers and experts trained whole stand in fp32 inside a model of bf16: their gradients, and what they hand on."""

from __future__ import annotations

import copy

import pytest
import torch

from r1core.model.adapter import add_adapter
from r1core.model.r1 import R1Config, R1ForCausalLM
from r1core.model.r1.routing import R1Router, Routing
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter

WHOLE = Strategy.model_validate({f"{depth}_feed_forward": {"mode": "full"} for depth in ("shallow", "middle", "deep")})
IDS = torch.randint(0, 64, (2, 40), generator=torch.Generator().manual_seed(1))


def model() -> R1ForCausalLM:
    torch.manual_seed(0)
    made = R1ForCausalLM(
        R1Config(vocab_size=64, hidden_size=32, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=6,
                 num_attention_heads=2, num_key_value_heads=2, num_experts=8, expert_groups=2, groups_per_token=2,
                 sliding_window=None, initializer_range=0.2)
    )  # fmt: skip
    for weight in made.parameters():
        weight.data = weight.data.bfloat16().float()  # so that both dtypes start from the same numbers
    return made


def trained_whole(dtype: torch.dtype) -> torch.nn.Module:
    """The model with its feed-forward parts trained whole, and LoRA on queries."""
    return add_adapter(model().to(dtype), Adapter.model_validate({"targets": ["q_proj"]}), 0, strategy=WHOLE).model


@pytest.mark.parametrize("way", ["r1core", "eager"])
def test_a_bf16_model_learns_what_one_of_fp32_learns(way: str) -> None:
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        made = trained_whole(dtype)
        made.base_model.model.set_experts_implementation(way)  # type: ignore[union-attr, operator]
        made.train()
        logits = made(IDS).logits
        assert logits.dtype == dtype
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), IDS[:, 1:].flatten()).backward()
        gradients.append(
            {name: weight.grad for name, weight in made.named_parameters() if "modules_to_save" in name
             and name.endswith(("gate_up_proj", "down_proj", "router.modules_to_save.default.weight"))}
        )  # fmt: skip
    half, exact = gradients
    assert len(half) == 18  # of six blocks
    assert {weight.dtype for weight in half.values() if weight is not None} == {torch.float32}
    likeness = torch.stack(
        [torch.nn.functional.cosine_similarity(half[n].flatten(), exact[n].flatten(), dim=0) for n in exact]  # type: ignore[union-attr]
    )
    assert likeness.median() > 0.95
    assert likeness.min() > 0.6  # rounding sends some tokens to other experts


def test_a_router_in_fp32_keeps_its_logits_and_hands_on_weights_of_the_tokens_dtype() -> None:
    made = trained_whole(torch.bfloat16)
    router = next(m for n, m in made.named_modules() if isinstance(m, R1Router) and "modules_to_save" in n)
    hidden = torch.randn(5, 32).bfloat16()
    found = router(hidden)
    assert isinstance(found, Routing)
    assert (found.logits.dtype, found.weights.dtype) == (torch.float32, torch.bfloat16)
    plain = copy.deepcopy(router)(hidden.float())
    assert torch.equal(found.logits, plain.logits)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 40])
def test_experts_in_fp32_answer_bf16_tokens(tokens: int) -> None:
    experts = model().feed_forwards()[0].experts
    hidden, chosen = torch.randn(tokens, 32).bfloat16(), torch.rand(tokens, 8).topk(2).indices
    weights = torch.rand(tokens, 2).bfloat16()
    found = experts(hidden, chosen, weights)
    experts.config._experts_implementation = "eager"
    right = experts(hidden.float(), chosen, weights.float())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), right, atol=2e-2 * float(right.abs().max()))
