"""The experts against each expert's own small network in fp64, with an expert that gets nothing and a crowded one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from r1core.model.r1.experts import IMPLEMENTATION, R1Experts, experts_forward
from r1core.model.r1.grouped_cpu import _OneByOne, _Padded, experts_cpu
from r1core.testing.tiny_r1 import config, model, tokens

E, H, WIDE, N, K = 12, 24, 16, 37, 2


class Alone(nn.Module):
    """One expert as a network of three linear layers."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(H, WIDE, False), nn.Linear(H, WIDE, False), nn.Linear(WIDE, H, False)
        self.double()
        with torch.no_grad():
            self.gate.weight.copy_(gate_up[:WIDE])
            self.up.weight.copy_(gate_up[WIDE:])
            self.down.weight.copy_(down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def drawn(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Tokens, choice (expert 3 gets nothing, expert 5 half of all), weights, both stacks."""
    torch.manual_seed(0)
    chosen = torch.stack([torch.randperm(E)[:K] for _ in range(N)])
    chosen[chosen == 3] = 4
    chosen[::2, 0] = 5
    weights = torch.rand(N, K, dtype=dtype).requires_grad_()
    hidden = torch.randn(N, H, dtype=dtype).requires_grad_()
    stacks = [
        torch.randn(E, 2 * WIDE, H, dtype=dtype).requires_grad_(),
        torch.randn(E, H, WIDE, dtype=dtype).requires_grad_(),
    ]
    return [hidden, chosen, weights, *stacks]


def alone(hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor):
    """Token by token; the output, and gradients of tokens, weights and stacks for its sum of squares."""
    networks = [Alone(a.detach(), b.detach()) for a, b in zip(gate_up, down, strict=True)]
    x, w = hidden.detach().double().requires_grad_(), weights.detach().double().requires_grad_()
    rows = [
        sum(w[n, k] * networks[e](x[n]) for k, e in enumerate(ids) if e < E) for n, ids in enumerate(chosen.tolist())
    ]
    out = torch.stack(rows)
    out.square().sum().backward()
    zero = torch.zeros(2 * WIDE, H, dtype=torch.float64), torch.zeros(H, WIDE, dtype=torch.float64)
    ups, downs = [], []
    for one in networks:
        used = one.gate.weight.grad is not None
        ups.append(torch.cat([one.gate.weight.grad, one.up.weight.grad]) if used else zero[0])
        downs.append(one.down.weight.grad if used else zero[1])
    return out.detach(), x.grad, w.grad, torch.stack(ups), torch.stack(downs)


def ours(given: list[torch.Tensor]):
    out = experts_cpu(*given)
    return (out.detach(), *torch.autograd.grad(out.double().square().sum(), [given[0], *given[2:]]))


def close(found, right, tolerance: float) -> None:
    for mine, theirs in zip(found, right, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) <= tolerance


def test_output_and_gradients_are_those_of_networks_of_their_own() -> None:
    given = drawn()
    close(ours(given), alone(*given), 1e-12)


@pytest.mark.parametrize("ranges", [1, 3, 100])
def test_the_padded_products_are_the_same(ranges: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = drawn()
    monkeypatch.setattr("r1core.model.r1.grouped_cpu.RANGES", ranges)
    monkeypatch.setattr("r1core.model.r1.grouped_cpu._OneByOne", _Padded)
    close(ours(given), alone(*given), 1e-12)


def test_an_index_without_an_expert_adds_nothing() -> None:
    given = drawn()
    given[1] = torch.where(given[1] == 7, E, given[1])
    close(ours(given), alone(*given), 1e-12)


def test_few_tokens_go_another_way_to_the_same() -> None:
    hidden, chosen, weights, gate_up, down = drawn()
    with torch.no_grad():
        few = experts_cpu(hidden[:3], chosen[:3], weights[:3], gate_up, down)
    close([few], [alone(hidden[:3], chosen[:3], weights[:3], gate_up, down)[0]], 1e-12)


def test_a_frozen_stack_gets_no_gradient_and_changes_no_other() -> None:
    given = drawn()
    right = alone(*given)
    given[3].requires_grad_(False)
    out = experts_cpu(*given)
    out.square().sum().backward()
    assert given[3].grad is None
    close([given[0].grad, given[4].grad], [right[1], right[4]], 1e-12)


def test_bf16_stays_within_its_rounding() -> None:
    given = drawn(torch.bfloat16)
    close(ours(given), alone(*given), 3e-2)


@pytest.mark.parametrize(("ranges", "sizes"), [(1, [3, 3, 3]), (2, [2, 2, 3]), (8, [2, 1, 3])])
def test_rows_are_sorted_without_gaps_or_with_padding(
    ranges: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1core.model.r1.grouped_cpu.RANGES", ranges)
    order = torch.tensor([4, 1, 0, 2, 3])
    padded = _Padded(order, [2, 0, 3], torch.ones(5, 1))
    used = padded.shares > 0
    assert padded.token[used].tolist() == [4, 1, 0, 2, 3]
    assert [part.tolist() for part in used.split(sizes)] == [
        [n < count for n in range(size)] for count, size in zip([2, 0, 3], sizes, strict=True)
    ]
    parts = _OneByOne(order, [2, 0, 3], torch.ones(5, 1))._parts(order)
    assert [part.tolist() for part in parts] == [[4, 1], [], [0, 2, 3]]


def test_a_librarys_own_experts_can_be_computed_so() -> None:
    made = Qwen3MoeExperts(Qwen3MoeConfig(hidden_size=H, moe_intermediate_size=WIDE, num_experts=E)).double()
    for weight in made.parameters():
        nn.init.normal_(weight)
    hidden, chosen, weights = drawn()[:3]
    made.config._experts_implementation = "eager"
    right = made(hidden, chosen, weights)
    made.config._experts_implementation = IMPLEMENTATION
    assert torch.allclose(made(hidden, chosen, weights), right, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("has_bias", True, "biases"), ("is_transposed", True, "transposed"), ("act_fn", nn.GELU(), "GELU")],
)
def test_other_experts_are_refused_by_name(name: str, value: object, said: str) -> None:
    made = R1Experts(config())
    setattr(made, name, value)
    with pytest.raises(ValueError, match=said):
        experts_forward(made, torch.randn(1, 32), torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2))


def test_the_model_can_be_switched_to_the_plain_loop() -> None:
    made = model()
    ids = tokens(2, 20)
    ours = made(ids).logits
    made.set_experts_implementation("eager")
    assert made.model.layers[0].mlp.experts.config._experts_implementation == "eager"
    assert torch.allclose(made(ids).logits, ours, atol=1e-5)
