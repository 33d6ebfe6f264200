"""Counts of routing against a recount in plain Python, token by token."""

from __future__ import annotations

import pytest
import torch

from r1core.model.adapted import adapted_of
from r1core.model.adapter import add_adapter
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.routing import R1Router
from r1core.model.r1.statistics import NOBODY, RoutingCounts
from r1core.recipe.strategy import Role, Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny_r1 import model, tokens


def by_hand(made: R1ForCausalLM, rows: list[torch.Tensor], domains: list[int]) -> list[list[list[int]]]:
    """(L, D, E): each row read alone, the router's choice worked out from what its layer reads."""
    table = [[[0] * 16 for _ in range(3)] for _ in made.feed_forwards()]
    for row, domain in zip(rows, domains, strict=True):
        for layer, block in enumerate(made.feed_forwards()):
            read: list[torch.Tensor] = []
            hook = block.register_forward_pre_hook(lambda _m, inputs, read=read: read.append(inputs[0][0]))
            made(row[None])
            hook.remove()
            router = block.router
            scores = read[0] @ router.weight.T + (read[0] @ router.group_weight.T).repeat_interleave(4, -1)
            scores = scores + router.bias_steps * 1e-6
            for token in scores.tolist():
                best = sorted(range(4), key=lambda g, token=token: -max(token[4 * g : 4 * g + 4]))[:2]
                allowed = [e for e in range(16) if e // 4 in best]
                for expert in sorted(allowed, key=lambda e, token=token: -token[e])[:2]:
                    table[layer][domain][expert] += 1
    return table


@torch.no_grad()
def test_counts_are_those_of_a_recount_row_by_row_without_padding() -> None:
    made = model()
    made.feed_forwards()[1].router.bias_steps += torch.arange(16) * 30_000
    lengths, domains = [19, 7, 12, 12], [2, 0, 2, 1]
    ids = tokens(4, 19)
    rows = [line[:length] for line, length in zip(ids, lengths, strict=True)]
    counts = RoutingCounts(made, 3)
    for part in ([0, 1], [2, 3]):
        owner = torch.full((2, 19), NOBODY)
        for place, row in enumerate(part):
            owner[place, : lengths[row]] = domains[row]
        with counts.counting(owner.flatten()):
            made(ids[part])
    made(ids)  # outside: not counted
    assert counts.table.tolist() == by_hand(made, rows, domains)
    assert counts.table.sum((1, 2)).tolist() == [2 * sum(lengths)] * 2


@torch.no_grad()
def test_the_router_in_use_is_counted() -> None:
    full = Role(mode="full", learning_rate=1e-2)
    made = add_adapter(
        model(), Adapter(rank=2), seed=0, strategy=Strategy(shallow_feed_forward=full, middle_feed_forward=full)
    ).model
    for module in made.modules():
        if isinstance(module, R1Router) and module.weight.requires_grad:
            module.bias_steps[5:7] = 10**9  # the adapter sends every token there
    base = made.get_base_model()
    owner = torch.zeros(20, dtype=torch.int64)
    ours, theirs = RoutingCounts(base, 1), RoutingCounts(base, 1)
    with ours.counting(owner):
        made(tokens(1, 20))
    with adapted_of(made).off(), theirs.counting(owner):
        made(tokens(1, 20))
    assert ours.table[0, 0].tolist() == [0] * 5 + [20, 20] + [0] * 9
    assert theirs.table[0, 0].tolist() != ours.table[0, 0].tolist()


def test_tokens_without_an_owner_are_refused() -> None:
    made = model()
    with (
        pytest.raises(ValueError, match="a pass of 20 tokens, and 7 owners"),
        RoutingCounts(made, 1).counting(torch.zeros(7, dtype=torch.int64)),
    ):
        made(tokens(1, 20))
    assert not any(block.router._forward_hooks for block in made.feed_forwards())
