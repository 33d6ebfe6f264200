"""How many experts a running R1 uses: by group, by mask, or as many groups as fit a budget of time.

Nothing is reshaped: a router stops choosing what is switched off. What is saved fits memory traffic (fewer stacks are
read) and not the number of products, which stays K a token.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection

import torch

from r1core.model.r1.model import R1ForCausalLM

ROUNDS = 5
"""Passes that a time is the median of."""


def use_groups(model: R1ForCausalLM, groups: Collection[int]) -> None:
    """Use the experts of these groups only, in every layer.

    Raises
    ------
    ValueError : for a group that there is not, or too few experts for a token.
    """
    number, size = model.config.expert_groups, model.config.experts_per_group
    if unknown := sorted(set(groups) - set(range(number))):
        raise ValueError(f"no expert group {unknown[0]}: there are 0 to {number - 1}")
    use_experts(model, torch.tensor([expert // size in set(groups) for expert in range(number * size)]))


def use_experts(model: R1ForCausalLM, active: torch.Tensor) -> None:
    """Use these experts only, (E,) booleans for all layers, or (layers, E).

    Raises
    ------
    ValueError : for another shape, or too few experts for a token; no layer is changed then.
    """
    blocks, experts = model.feed_forwards(), model.config.num_experts
    if active.shape not in ((experts,), (len(blocks), experts)):
        raise ValueError(f"a mask of shape {tuple(active.shape)}: give ({experts},) or ({len(blocks)}, {experts})")
    table = active.bool().expand(len(blocks), experts)
    before = [block.router.active.clone() for block in blocks]
    try:
        for block, row in zip(blocks, table, strict=True):
            block.router.use(row.to(block.router.active.device))
    except ValueError:
        for block, row in zip(blocks, before, strict=True):
            block.router.active.copy_(row)
        raise


@torch.no_grad()
def fit_budget(model: R1ForCausalLM, milliseconds: float, input_ids: torch.Tensor) -> int:
    """Use as many groups as a pass over `input_ids` (B, T) takes no longer with than `milliseconds`; how many.

    The groups with the lowest numbers stay. Times are measured, so the number differs between machines and runs: what
    was found is told so that it can be written down and set with `use_groups`.

    Raises
    ------
    ValueError : when not even the fewest groups fit; all experts are in use then.
    """
    groups, size = model.config.expert_groups, model.config.experts_per_group
    fewest = -(-model.config.num_experts_per_tok // size)
    spent, training = 0.0, model.training
    model.eval()  # in training, passes would count in the load
    try:
        for number in range(groups, fewest - 1, -1):
            use_groups(model, range(number))
            spent = _milliseconds(model, input_ids)
            if spent <= milliseconds:
                return number
    finally:
        model.train(training)
    use_groups(model, range(groups))
    raise ValueError(f"{fewest} groups take {spent:.3g} ms, and the budget is {milliseconds:.3g}: give more")


def _milliseconds(model: R1ForCausalLM, input_ids: torch.Tensor) -> float:
    """Median time of a pass, after one that warms up."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        model(input_ids, use_cache=False, logits_to_keep=1)
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])
