"""FlashAttention-4 as the kernel that keeps rows apart, where the distribution `flash-attn-4` is installed.

On a Hopper or Blackwell GPU it takes about half of the time of torch's own kernel (FlashAttention-2), and sums the
gradients in a fixed order, so that the same batch gives the same bits twice. Its interface is young: before it is used,
its results and gradients are compared with those of torch's kernel on the model's heads.

H = heads, T = tokens of all rows, E = width of a head, R = rows. Not covered: other GPUs, dropout, soft caps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from r1core.api import R1Error

DISTRIBUTION = "flash-attn-4"
GENERATIONS = (9, 10)  # Hopper, Blackwell: major compute capabilities that its fast kernels are written for
TOLERANCE = 2e-2  # relative difference of gradients that bf16 explains; 3e-3 is what an H100 shows


class Rows(NamedTuple):
    """Rows of one sequence.

    boundaries : (R + 1,) int32, where each begins, and the end. longest : a bound on the tokens of a row.
    scale : of the scores. window : tokens that a query sees, itself included; 0 for all before it.
    """

    boundaries: torch.Tensor
    longest: int
    scale: float
    window: int


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Rows], torch.Tensor]
"""Causal attention inside of rows: `query` (T, H, E), `key` and `value` (T, fewer H, E) -> (T, H, E)."""


def usable(device: torch.device) -> bool:
    """Whether it is installed and made for this GPU."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] not in GENERATIONS:
        return False
    return find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None


# torch's operators take plain arguments: the fields of `Rows` one by one.
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

    described = _described(Rows(boundaries, longest, scale, window))
    out, log_sum, *_ = _flash_attn_fwd(query, key, value, return_lse=True, **described)
    return out, log_sum


@torch.library.custom_op("r1core::flash4_rows_backward", mutates_args=())
def _backward(
    grad: torch.Tensor,
    saved: Sequence[torch.Tensor],
    boundaries: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value; `saved` are these three, the output and the log of sums."""
    from flash_attn.cute.interface import _flash_attn_bwd

    query, key, value, out, log_sum = saved
    described = _described(Rows(boundaries, longest, scale, window))
    by_query, by_key, by_value = _flash_attn_bwd(
        query, key, value, out, grad.contiguous(), log_sum, deterministic=True, **described
    )
    return by_query, by_key, by_value


def _described(rows: Rows) -> dict[str, Any]:
    """What both passes are told of the rows, in the kernel's words."""
    ends = {"cu_seqlens_q": rows.boundaries, "cu_seqlens_k": rows.boundaries}
    most = {"max_seqlen_q": rows.longest, "max_seqlen_k": rows.longest}
    seen = {"window_size_left": rows.window - 1, "window_size_right": 0} if rows.window else {}
    return {**ends, **most, **seen, "softmax_scale": rows.scale, "causal": True}


@_forward.register_fake
def _(query: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)


@_backward.register_fake
def _(grad: torch.Tensor, saved: Sequence[torch.Tensor], *_: object) -> tuple[torch.Tensor, ...]:
    return tuple(torch.empty_like(one) for one in saved[:3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, key, value, boundaries, *ctx.told = inputs
    ctx.save_for_backward(query, key, value, *output, boundaries)


def _gradients(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    *saved, boundaries = ctx.saved_tensors
    return (*_backward(grad, saved, boundaries, *ctx.told), None, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows) -> torch.Tensor:
    """FlashAttention-4; see `Kernel`."""
    out: torch.Tensor = _forward(query, key, value, *rows)[0]
    return out


def check(reference: Kernel, *, heads: int, fewer: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
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
        rows = Rows(boundaries, 100, width**-0.5, window)
        found, wanted = (_tried(kernel, given, grad, rows) for kernel in (attend, reference))
        apart = max(
            float((f.float() - w.float()).norm() / w.float().norm()) for f, w in zip(found, wanted, strict=True)
        )
        if not apart <= TOLERANCE:
            raise R1Error(f"{DISTRIBUTION} differs from torch's kernel by {apart:.3f} on this model; uninstall it")


def _tried(kernel: Kernel, given: list[torch.Tensor], grad: torch.Tensor, rows: Rows) -> list[torch.Tensor]:
    """What a kernel gives, and its gradients."""
    query, key, value = (one.detach().requires_grad_() for one in given)
    try:
        with torch.enable_grad():
            out = kernel(query, key, value, rows)
        return [out.detach(), *torch.autograd.grad(out, (query, key, value), grad)]
    except (ImportError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise R1Error(f"{DISTRIBUTION} does not run here ({error}); uninstall it, or install 4.0.0b36") from error
