"""What a flash kernel is told of a batch, and when a model is refused. The kernels themselves run on a GPU only
(`benchmarks/gpu_checks.py`); here a plain row-by-row attention stands in their place."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional

from r1core.api import R1Error
from r1core.model import flash4, flash_rows

ENDS = [0, 5, 5, 12]


def alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: flash4.Rows) -> torch.Tensor:
    """Each row by itself, by torch's own attention."""
    each = []
    for start, end in pairwise(rows.boundaries.tolist()):
        q, k, v = (one[start:end].transpose(0, 1) for one in (query, key, value))
        tokens = torch.arange(end - start)
        seen = tokens[:, None] >= tokens
        if rows.window:
            seen &= tokens[:, None] - tokens < rows.window
        each.append(functional.scaled_dot_product_attention(q, k, v, seen, scale=rows.scale, enable_gqa=True))
    return torch.cat(each, 1).transpose(0, 1)


def seen_of(window: int) -> torch.Tensor:
    """(T, T), which token each token sees: of its own row, itself and those before it."""
    tokens, owner = torch.arange(12), torch.tensor([0] * 5 + [1] * 7)
    return (owner[:, None] == owner) & (tokens[:, None] >= tokens) & (tokens[:, None] - tokens < (window or 99))


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int) -> torch.Tensor:
    """(1, H, T, E) under one mask of rows, in double precision -> (1, T, H, E)."""
    key, value = (one.repeat_interleave(2, 1).double() for one in (key, value))
    scores = (query.double() @ key.mT * scale).masked_fill(~seen_of(window), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def parts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 12, 8) for heads in (4, 2, 2))
    return query, key, value


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_rows_attend_to_themselves_only(window: int | None, scale: float | None) -> None:
    given, boundaries = parts(), torch.tensor(ENDS, dtype=torch.int32)
    out, _ = flash_rows.attend(
        alone, torch.nn.Identity(), *given, None, scaling=scale, sliding_window=window, cu_seq_lens_q=boundaries,
        max_length_q=7,
    )  # fmt: skip
    assert out.shape == (1, 12, 4, 8)
    wanted = by_hand(*given, scale=scale or 8**-0.5, window=window or 0)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_model_that_keeps_the_boundaries_back_is_refused() -> None:
    with pytest.raises(R1Error, match="does not hand down where rows end"):
        flash_rows.attend(alone, torch.nn.Identity(), *parts(), None)


@pytest.mark.parametrize("more", [{"dropout": 0.1}, {"softcap": 30.0}])
def test_what_the_kernel_has_not_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(R1Error, match=r'train.packing = "none"'):
        flash_rows.attend(
            alone, torch.nn.Identity(), *parts(), None, cu_seq_lens_q=torch.tensor(ENDS), max_length_q=7, **more
        )


def test_flash_attention_4_is_not_used_on_a_cpu() -> None:
    assert not flash4.usable(torch.device("cpu"))


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.3, False)])
def test_a_kernel_with_other_results_is_refused(factor: float, agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash4, "attend", lambda *given: alone(*given) * factor)
    how = {"heads": 4, "fewer": 2, "width": 8, "device": torch.device("cpu"), "dtype": torch.float32}
    if agrees:
        flash4.check(alone, **how)
        return
    with pytest.raises(R1Error, match=r"flash-attn-4 differs from torch's kernel by 0\.300"):
        flash4.check(alone, **how)


class StandIn(ModuleType):
    """The two functions of FlashAttention-4 that are called, by torch's own attention row by row."""

    @staticmethod
    def _flash_attn_fwd(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, return_lse: bool, **how: object
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        assert return_lse
        return alone(query, key, value, told(how)), torch.zeros(query.shape[1], len(query)), None

    @staticmethod
    def _flash_attn_bwd(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        grad: torch.Tensor,
        log_sum: torch.Tensor,
        *,
        deterministic: bool,
        **how: object,
    ) -> tuple[torch.Tensor, ...]:
        assert deterministic
        assert log_sum.shape == (query.shape[1], len(query))
        return backwards(query, key, value, grad, told(how))


def backwards(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, grad: torch.Tensor, rows: flash4.Rows
) -> tuple[torch.Tensor, ...]:
    """Attention's gradients worked out by hand; inside of an operator torch records nothing."""
    q, k, v, g = (
        one.transpose(0, 1) for one in (query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), grad)
    )
    shares = (q @ k.mT * rows.scale).masked_fill(~seen_of(rows.window), -torch.inf).softmax(-1)
    by_shares = g @ v.mT
    by_scores = shares * (by_shares - (by_shares * shares).sum(-1, keepdim=True)) * rows.scale
    by_key, by_value = (one.unflatten(0, (2, 2)).sum(1) for one in (by_scores.mT @ q, shares.mT @ g))
    return tuple(one.transpose(0, 1).contiguous() for one in (by_scores @ k, by_key, by_value))


def told(how: Mapping[str, Any]) -> flash4.Rows:
    assert how["causal"] is True
    assert torch.equal(how["cu_seqlens_q"], how["cu_seqlens_k"])
    assert how["max_seqlen_q"] == how["max_seqlen_k"]
    window = how["window_size_left"] + 1 if "window_size_left" in how else 0
    assert how.get("window_size_right", 0) == 0
    return flash4.Rows(how["cu_seqlens_q"], how["max_seqlen_q"], how["softmax_scale"], window)


@pytest.mark.parametrize("window", [0, 3])
def test_the_operators_hand_everything_on_to_flash_attention_4_and_back(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands between the model and the kernel; the kernel itself needs a GPU."""
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", ModuleType("flash_attn.cute"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", StandIn("flash_attn.cute.interface"))
    rows = flash4.Rows(torch.tensor(ENDS, dtype=torch.int32), 7, 0.4, window)
    given = [one[0].transpose(0, 1).contiguous().requires_grad_() for one in parts()]
    grad = torch.randn(12, 4, 8)
    for attend in (flash4.attend, torch.compile(flash4.attend, backend="aot_eager", fullgraph=True)):
        found, wanted = (kernel(given[0], given[1], given[2], rows) for kernel in (attend, alone))
        torch.testing.assert_close(found, wanted)
        each = (torch.autograd.grad(one, given, grad) for one in (found, wanted))
        torch.testing.assert_close(*each)
