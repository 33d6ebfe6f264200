"""What a flash kernel is told of a batch, and when a model is refused. The kernels themselves run on a GPU only
(`benchmarks/gpu_checks.py`); here a plain row-by-row attention stands in their place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from r1core.api import R1Error
from r1core.model import flash4, flash_rows

ENDS = [0, 5, 5, 12]


def alone(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> torch.Tensor:
    """Each row by itself, by torch's own attention."""
    assert longest == 7
    each = []
    for start, end in zip(boundaries.tolist(), boundaries.tolist()[1:], strict=False):
        q, k, v = (one[start:end].transpose(0, 1) for one in (query, key, value))
        tokens = torch.arange(end - start)
        seen = tokens[:, None] >= tokens
        if window:
            seen &= tokens[:, None] - tokens < window
        each.append(functional.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True))
    return torch.cat(each, 1).transpose(0, 1)


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int) -> torch.Tensor:
    """(1, H, T, E) under one mask of rows, in double precision -> (1, T, H, E)."""
    tokens, owner = torch.arange(12), torch.tensor([0] * 5 + [1] * 7)
    seen = (owner[:, None] == owner) & (tokens[:, None] >= tokens) & (tokens[:, None] - tokens < (window or 99))
    key, value = (one.repeat_interleave(2, 1).double() for one in (key, value))
    scores = (query.double() @ key.mT * scale).masked_fill(~seen, -torch.inf)
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
    def reference(*given: torch.Tensor) -> torch.Tensor:
        return by_row(given[:3], given[3], given[5], given[6])

    def by_row(parts: tuple[torch.Tensor, ...], ends: torch.Tensor, scale: float, window: int) -> torch.Tensor:
        return alone(*parts, ends, 7, scale, window)

    monkeypatch.setattr(flash4, "rows", lambda *given: reference(*given) * factor)
    how = {"heads": 4, "fewer": 2, "width": 8, "device": torch.device("cpu"), "dtype": torch.float32}
    if agrees:
        flash4.check(reference, **how)
        return
    with pytest.raises(R1Error, match=r"flash-attn-4 differs from torch's kernel by 0\.300"):
        flash4.check(reference, **how)
