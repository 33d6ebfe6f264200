"""The kernels of expert LoRA where no GPU is, run in plain torch; and when a compiled kernel may stand for a launch.

`plain_triton` stands in for Triton's language. What a compiler makes of these on a GPU is
compared by benchmarks/r1_expert_lora.py before it times anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.model.r1.routed import Learnt, Pair, Seen

NAMES = tuple(f"r1core.model.r1.{name}" for name in ("launch", "triton_low", "triton_lay"))


class Compiled:
    """A compiled kernel that writes down with what it is launched."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return lambda *given: self.launches.append((grid, *given))


class Jit:
    """What compiles anew for whatever is launched through it."""

    def __init__(self) -> None:
        self.compiled: list[Compiled] = []

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        def launch(*_: Any, num_warps: int) -> Compiled:
            self.compiled.append(Compiled())
            return self.compiled[-1]

        return launch


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, plain_triton: ModuleType) -> Iterator[tuple[Any, Any, Any]]:
    """The modules of launches, of products and of layouts, over a language that plain torch computes."""
    with plain_triton.imported(monkeypatch, NAMES, {"CompiledKernel": Compiled}, JITFunction=Jit) as (one, two, three):
        yield one, two, three


CASES = [
    # rows of each group, rows of none, widths in and out, rank, dtype
    ([5, 0, 70], 4, 40, 72, 16, torch.float32),
    ([0, 64, 1, 65, 0], 0, 128, 136, 4, torch.bfloat16),
    ([33], 1, 24, 200, 20, torch.bfloat16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_updates_and_their_gradients_are_those_of_a_loop_over_groups(modules: Any, case: Any) -> None:
    torch.manual_seed(0)
    counts, none, wide, out, rank, dtype = case
    size, groups, ends = sum(counts) + none, len(counts), torch.tensor(counts).cumsum(0).int()

    def draw(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * shape[-1] ** -0.5).to(dtype)

    pair = Pair(draw(groups, rank, wide), draw(groups, out, rank))
    rows, by_out, both, by_rows = draw(size, wide), draw(size, out), draw(size, out), draw(size, wide)
    found, slope = both.clone(), by_rows.clone()
    low = modules[1].update(found, rows, pair, ends, False)
    by_low = modules[1].update(slope, by_out, pair, ends, True)
    seen, other = Seen(by_low, rows, low, by_out), Seen(low, by_out, by_low, rows)
    slopes = modules[1].slopes((seen, other), ends, (1.7, 0.6), (torch.float32, dtype))
    far = 1e-5 if dtype == torch.float32 else 2e-2

    def near(one: torch.Tensor, same: torch.Tensor) -> bool:
        return torch.allclose(one.float(), same, rtol=far, atol=far)

    assert torch.equal(found[sum(counts) :], both[sum(counts) :])
    for group, part in enumerate(torch.arange(size).split([*counts, none])[:-1]):
        a, b = pair.down[group].float(), pair.up[group].float()
        x, y, inner, back = (side[part].float() for side in (rows, by_out, low, by_low))
        assert near(inner, x @ a.T)
        assert near(back, y @ b)
        assert near(found[part], both[part].float() + inner @ b.T)
        assert near(slope[part], by_rows[part].float() + back @ a)
        right = 1.7 * back.T @ x, y.T @ inner, 0.6 * inner.T @ y, x.T @ back
        assert all(near(one[group], same) for one, same in zip(slopes, right, strict=True))


@pytest.mark.parametrize(("experts", "rank", "widths"), [(5, 4, (40, 72, 36, 40)), (70, 1, (9, 5, 3, 9))])
def test_an_adapter_is_laid_out_by_expert_and_its_gradients_back(
    modules: Any, experts: int, rank: int, widths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    stacks = [
        Learnt(torch.randn(experts * rank, wide), torch.randn(out, rank * experts), scaling)
        for wide, out, scaling in ((widths[0], widths[1], 2.0), (widths[2], widths[3], 0.37))
    ]
    weights = [half for one in stacks for half in one[:2]]
    laid = modules[2].lay(weights, [one.scaling for one in stacks], experts, torch.bfloat16)
    pairs = Pair(*laid[:2]), Pair(*laid[2:])
    turned = modules[2].turn_back(tuple(pair.up.float() for pair in pairs), tuple(one.up for one in stacks))
    for pair, one, back in zip(pairs, stacks, turned, strict=True):
        for expert in range(experts):
            rows = one.down[expert * rank : (expert + 1) * rank]
            assert torch.equal(pair.down[expert], (rows * one.scaling).bfloat16())
            assert torch.equal(pair.up[expert], one.up[:, expert::experts].bfloat16())
        assert torch.equal(back, one.up.bfloat16().float())


def test_a_compiled_kernel_is_launched_again_only_for_what_it_was_compiled_for(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    source, memory = Jit(), torch.zeros(65)
    kernel = modules[0].Kernel(source, num_warps=4)
    one, same = memory[:32], torch.zeros(32)
    kernel((3, 1, 1), (one,), (32, 0.5), (8,))
    kernel((9, 1, 1), (same,), (48, 0.7), (8,))
    assert source.compiled[0].launches == [((9, 1, 1), same.data_ptr(), 48, 0.7, 8)]
    others = [
        ((memory[1:33],), (32, 0.5), (8,)),  # an address that is no multiple of 16
        ((one.bfloat16(),), (32, 0.5), (8,)),
        ((one,), (33, 0.5), (8,)),
        ((one,), (1, 0.5), (8,)),
        ((one,), (2**31, 0.5), (8,)),
        ((one,), (32, 0.5), (16,)),
    ]
    for told in others:
        kernel((3, 1, 1), *told)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    kernel((3, 1, 1), (one,), (32, 0.5), (8,))
    assert len(source.compiled) == 2 + len(others)
    assert [len(each.launches) for each in source.compiled] == [1] + [0] * (1 + len(others))
