"""FlashAttention-4 as the kernel that keeps rows apart, where the distribution `flash-attn-4` is installed.

On a Hopper or Blackwell GPU it takes about half of the time of torch's own kernel (FlashAttention-2), and sums the
gradients in a fixed order, so that the same batch gives the same bits twice. Its interface is young: before it is used,
its results and gradients are compared with those of torch's kernel on the model's heads.

H = heads, T = tokens of all rows, E = width of a head, R = rows. Not covered: other GPUs, dropout, soft caps.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from r1core.api import R1Error

DISTRIBUTION = "flash-attn-4"
GENERATIONS = (9, 10)  # Hopper, Blackwell: major compute capabilities that its fast kernels are written for
TOLERANCE = 2e-2  # relative difference of gradients that bf16 explains; 3e-3 is what an H100 shows
Rows = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float, int], torch.Tensor]
"""Causal attention of rows: `query` (T, H, E), `key` and `value` (T, fewer H, E), boundaries (R + 1,) int32, a bound on
the tokens of a row, the scale of scores, and the tokens that a query sees (0: all before it) -> (T, H, E)."""


def usable(device: torch.device) -> bool:
    """Whether it is installed and made for this GPU."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] not in GENERATIONS:
        return False
    return find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None


@torch.library.custom_op("r1core::flash4_rows", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention, and the log of each softmax's sum (H, T) fp32."""
    from flash_attn.cute.interface import _flash_attn_fwd

    out, log_sum, *_ = _flash_attn_fwd(
        query, key, value, return_lse=True, **_described(boundaries, longest, scale, window)
    )
    return out, log_sum


@torch.library.custom_op("r1core::flash4_rows_backward", mutates_args=())
def _backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value."""
    from flash_attn.cute.interface import _flash_attn_bwd

    described = _described(boundaries, longest, scale, window)
    by_query, by_key, by_value = _flash_attn_bwd(
        query, key, value, out, grad.contiguous(), log_sum, deterministic=True, **described
    )
    return by_query, by_key, by_value


def _described(boundaries: torch.Tensor, longest: int, scale: float, window: int) -> dict[str, Any]:
    """What both passes are told of the rows, in the kernel's words."""
    rows = {"cu_seqlens_q": boundaries, "cu_seqlens_k": boundaries, "max_seqlen_q": longest, "max_seqlen_k": longest}
    seen = {"window_size_left": window - 1, "window_size_right": 0} if window else {}
    return {**rows, **seen, "softmax_scale": scale, "causal": True}


@_forward.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)


@_backward.register_fake
def _(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, boundaries, *ctx.told = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)


def _gradients(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, *ctx.told), None, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> torch.Tensor:
    """Attend; see `Rows`."""
    out: torch.Tensor = _forward(query, key, value, boundaries, longest, scale, window)[0]
    return out


def check(reference: Rows, *, heads: int, fewer: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
    """Compare with another kernel on random rows of 100, 0 and 60 tokens and a window.

    Raises
    ------
    R1Error : where results or gradients differ, or the installed version has another interface.
    """
    draw = torch.Generator(device).manual_seed(0)
    boundaries = torch.tensor([0, 100, 100, 160], dtype=torch.int32, device=device)
    shapes = [(160, number, width) for number in (heads, fewer, fewer, heads)]
    *given, grad = (torch.randn(shape, generator=draw, device=device).to(dtype) for shape in shapes)
    for window in (0, 30):
        found, wanted = (_tried(kernel, given, grad, boundaries, window) for kernel in (rows, reference))
        apart = max(
            float((f.float() - w.float()).norm() / w.float().norm()) for f, w in zip(found, wanted, strict=True)
        )
        if not apart <= TOLERANCE:
            raise R1Error(f"{DISTRIBUTION} differs from torch's kernel by {apart:.3f} on this model; uninstall it")


def _tried(
    kernel: Rows, given: list[torch.Tensor], grad: torch.Tensor, boundaries: torch.Tensor, window: int
) -> list[torch.Tensor]:
    """What a kernel gives, and its gradients."""
    query, key, value = (one.detach().requires_grad_() for one in given)
    try:
        with torch.enable_grad():
            out = kernel(query, key, value, boundaries, 100, query.shape[-1] ** -0.5, window)
        return [out.detach(), *torch.autograd.grad(out, (query, key, value), grad)]
    except (ImportError, TypeError, ValueError, AssertionError) as error:
        raise R1Error(f"{DISTRIBUTION} does not run here ({error}); uninstall it, or install 4.0.0b36") from error
