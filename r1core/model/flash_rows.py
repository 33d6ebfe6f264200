"""Rows of different lengths in one sequence, kept apart by a flash attention kernel that is told their boundaries.

No mask is made or read, so the cost is that of each row alone. torch's own kernel (`torch.nn.attention.varlen`), or
FlashAttention-4 where that is installed (`flash4`), as an attention function of transformers' registry. H = heads,
T = tokens, E = width of a head.

Not covered: CPUs, fp32, attention dropout, models that do not hand the boundaries down to their attention; they are
refused, the last by `check_packing`.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from r1core.api import R1Error
from r1core.model import flash4

NAME = "r1core_flash_rows"
NAME_4 = "r1core_flash4_rows"
GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
"""Fewer heads of keys than of queries; torch before 2.12 takes them unasked."""


def use(model: PreTrainedModel) -> None:
    """Let a model attend through the fastest kernel that is installed, from now on.

    Raises
    ------
    R1Error : where FlashAttention-4 is installed and gives something else than torch's kernel.
    """
    name, kernel = NAME, by_torch
    if flash4.usable(model.device):
        name, kernel = NAME_4, flash4.attend
        text = model.config.get_text_config()
        heads = int(text.num_attention_heads)
        flash4.check(
            by_torch,
            heads=heads,
            fewer=int(getattr(text, "num_key_value_heads", None) or heads),
            width=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
            device=model.device,
            dtype=model.dtype,
        )
    ALL_ATTENTION_FUNCTIONS.register(name, partial(attend, kernel))
    model.config._attn_implementation = name  # transformers' setter refuses names that hold no flash or sdpa
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = name


def by_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: flash4.Rows) -> torch.Tensor:
    """torch's kernel; see `flash4.Kernel`."""
    ends, longest, seen = rows.boundaries, rows.longest, (rows.window - 1 if rows.window else -1, 0)
    out = varlen_attn(query, key, value, ends, ends, longest, longest, scale=rows.scale, window_size=seen, **GROUPED)
    assert isinstance(out, torch.Tensor)  # without auxiliary results
    return out


def attend(
    kernel: flash4.Kernel,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row: `query` (1, H, T, E), `key` and `value` (1, fewer H, T, E) -> (1, T, H, E).

    Raises
    ------
    R1Error : where the model keeps the boundaries back, or asks for what the kernel has not.
    """
    if cu_seq_lens_q is None:
        raise R1Error(f'{type(module).__name__} does not hand down where rows end; set train.packing = "none"')
    if dropout or softcap:
        raise R1Error('attention dropout and soft caps are not in the flash kernel; set train.packing = "none"')
    query, key, value = (one[0].transpose(0, 1).contiguous() for one in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = flash4.Rows(cu_seq_lens_q, max_length_q, scale, sliding_window or 0)
    return kernel(query, key, value, rows).unsqueeze(0), None
