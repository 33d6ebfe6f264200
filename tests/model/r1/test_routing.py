"""The router against a loop over tokens in plain Python, and its load, bias and switches."""

from __future__ import annotations

import math

import pytest
import torch

from r1core.model.r1.balance import balance_loss, spread, z_loss
from r1core.model.r1.routing import R1Router
from r1core.testing.tiny_r1 import config, model, tokens


def router(**changed: object) -> R1Router:
    torch.manual_seed(0)
    made = R1Router(config(**changed))
    with torch.no_grad():
        made.weight.normal_()
        made.group_weight.normal_()
        made.bias_steps.copy_(torch.randint(-(10**6), 10**6, made.bias_steps.shape))
    return made


def by_hand(made: R1Router, hidden: torch.Tensor, groups: int, tau: float, top: int) -> list[dict[int, float]]:
    """Expert to weight, of each token."""
    found = []
    for token in hidden.double():
        own = (made.weight.double() @ token).tolist()
        shared = (made.group_weight.double() @ token).tolist()
        size = len(own) // len(shared)
        logits = [(value + shared[expert // size]) / tau for expert, value in enumerate(own)]
        score = [value + float(made.bias_steps[expert]) * 1e-6 / tau for expert, value in enumerate(logits)]
        best = sorted(range(len(shared)), key=lambda g: -max(score[g * size : (g + 1) * size]))[:groups]
        allowed = [expert for expert in range(len(own)) if expert // size in best]
        chosen = sorted(allowed, key=lambda expert: -score[expert])[:top]
        total = sum(math.exp(logits[expert]) for expert in chosen)
        found.append({expert: math.exp(logits[expert]) / total for expert in chosen})
    return found


@pytest.mark.parametrize(("top", "groups", "tau"), [(2, 2, 0.5), (1, 1, 0.5), (3, 1, 2.0), (4, 4, 1.0)])
def test_experts_and_weights_are_those_of_a_plain_loop(top: int, groups: int, tau: float) -> None:
    made = router(num_experts_per_tok=top, groups_per_token=groups, router_temperature=tau)
    hidden = torch.randn(40, 32) * 0.3
    _, experts, weights = made(hidden)
    right = by_hand(made, hidden, groups, tau, top)
    for ids, shares, said in zip(experts.tolist(), weights.tolist(), right, strict=True):
        assert dict(zip(ids, shares, strict=True)) == pytest.approx(said, rel=1e-4)


def test_a_bias_moves_the_choice_and_not_the_weight() -> None:
    made = router(num_experts_per_tok=16, groups_per_token=4)
    hidden = torch.randn(5, 32)
    before = dict(zip(*(part.flatten().tolist() for part in made(hidden[:1])[1:]), strict=True))
    made.bias_steps.neg_()
    after = dict(zip(*(part.flatten().tolist() for part in made(hidden[:1])[1:]), strict=True))
    assert after == pytest.approx(before)


def test_the_bias_moves_against_the_load_and_survives_a_cast() -> None:
    made = router().train()
    made.bias_steps.zero_()
    hidden = torch.randn(100, 32)
    valid = torch.arange(100) < 60
    _, experts, _ = made(hidden, valid)
    counts = torch.bincount(experts[:60].flatten(), minlength=16)
    assert made.load.tolist() == counts.tolist()
    made.rebalance(0.5)
    mean = 120 / 16
    right = [round(1e6 * made.bias_rate * 0.5 * max(-3.0, (mean - count) / mean)) for count in counts.tolist()]
    assert made.bias_steps.tolist() == pytest.approx(right, abs=1)
    assert min(right) < 0 < max(right)
    assert not made.load.any()
    stepped = made.bias_steps.clone()
    made.bfloat16().rebalance()
    assert torch.equal(made.bias_steps, stepped)


def test_only_experts_that_are_switched_on_are_used() -> None:
    made = model()
    ids = tokens(2, 20)
    whole = made(ids).logits
    for block in made.feed_forwards():
        block.router.use(torch.arange(16) // 4 < 2)
    part = made(ids).logits
    assert not torch.equal(part, whole)
    chosen = torch.cat([block.router(torch.randn(50, 32)).experts.flatten() for block in made.feed_forwards()])
    assert int(chosen.max()) < 8
    for block in made.feed_forwards():
        block.router.use(torch.ones(16, dtype=torch.bool))
    assert torch.equal(made(ids).logits, whole)


@pytest.mark.parametrize(("kept", "per", "groups"), [([0], 2, 2), ([0, 1, 2, 3], 5, 2), ([0, 4], 2, 1)])
def test_too_few_experts_are_refused(kept: list[int], per: int, groups: int) -> None:
    made = R1Router(config(num_experts_per_tok=per, groups_per_token=max(groups, -(-per // 4)) if per > 4 else groups))
    active = torch.zeros(16, dtype=torch.bool)
    active[kept] = True
    with pytest.raises(ValueError, match="keep more"):
        made.use(active)


def test_losses_by_their_definitions() -> None:
    made = router()
    with torch.no_grad():
        routing = made(torch.randn(30, 32))
    valid = torch.arange(30) < 20
    shares = [sum(e in row for row in routing.experts[:20].tolist()) / 40 for e in range(16)]
    mean = routing.logits[:20].softmax(-1).mean(0).tolist()
    assert float(balance_loss(routing, valid)) == pytest.approx(
        16 * sum(f * p for f, p in zip(shares, mean, strict=True)), rel=1e-5
    )
    squares = [math.log(sum(math.exp(x) for x in row)) ** 2 for row in routing.logits[:20].double().tolist()]
    assert float(z_loss(routing, valid)) == pytest.approx(sum(squares) / 20, rel=1e-5)


def test_spread_is_standard_deviation_over_mean() -> None:
    assert spread(torch.tensor([1, 3, 5, 7])) == pytest.approx(math.sqrt(5) / 4)
    even = torch.randint(0, 128, (16_384 * 2,), generator=torch.Generator().manual_seed(0))
    assert spread(torch.bincount(even, minlength=128)) == pytest.approx(0.0625, abs=0.012)
