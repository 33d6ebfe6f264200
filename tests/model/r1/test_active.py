"""Fewer experts while the model runs: what is switched off is never chosen, and a budget takes what fits."""

from __future__ import annotations

import pytest
import torch

from r1core.model.r1.active import fit_budget, use_experts, use_groups
from r1core.testing.tiny_r1 import model, tokens


def chosen(made, ids: torch.Tensor) -> list[set[int]]:
    """Experts that each layer's tokens went to."""
    found: list[set[int]] = []
    handles = [
        block.router.register_forward_hook(lambda module, given, out: found.append(set(out.experts.flatten().tolist())))
        for block in made.feed_forwards()
    ]
    made(ids)
    for handle in handles:
        handle.remove()
    return found


def test_groups_and_masks_hold_in_every_layer() -> None:
    made, ids = model(), tokens(2, 60)
    use_groups(made, [1, 3])
    assert all(experts and experts <= {4, 5, 6, 7, 12, 13, 14, 15} for experts in chosen(made, ids))
    table = torch.zeros(2, 16, dtype=torch.bool)
    table[0, :3] = table[1, 9:12] = True
    use_experts(made, table)
    first, second = chosen(made, ids)
    assert first <= {0, 1, 2}
    assert second <= {9, 10, 11}


def test_what_cannot_be_is_refused_and_nothing_changes() -> None:
    made = model()
    use_groups(made, [0, 1])
    for wrong, said in (([4], "no expert group 4: there are 0 to 3"), ([], "keep more")):
        with pytest.raises(ValueError, match=said):
            use_groups(made, wrong)
    with pytest.raises(ValueError, match="give \\(16,\\) or \\(2, 16\\)"):
        use_experts(made, torch.ones(8))
    half = torch.ones(2, 16, dtype=torch.bool)
    half[1] = False
    with pytest.raises(ValueError, match="keep more"):
        use_experts(made, half)
    assert all(block.router.active.tolist() == [True] * 8 + [False] * 8 for block in made.feed_forwards())


def test_a_budget_takes_all_that_fit_or_none() -> None:
    made, ids = model().train(), tokens(1, 8)
    assert fit_budget(made, 60_000.0, ids) == 4
    assert made.training
    assert not any(router.load.any() for router in made.routers()), "a measurement is no training"
    use_groups(made, [0])
    with pytest.raises(ValueError, match=r"1 groups take .* ms, and the budget is 1e-09: give more"):
        fit_budget(made, 1e-9, ids)
    assert all(bool(block.router.active.all()) for block in made.feed_forwards())
