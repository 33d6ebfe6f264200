"""Attention of R1: a sliding window and, beyond it, gathered global nodes.

Three ways to the same result, by what a pass looks like: plain causal attention where the window hides nothing; a mask
where queries or keys are few (decoding, packing, padding); and for long prompts queries in chunks, each against its
slice of the window and the global nodes before it, so that no mask of T x T is ever made. On a GPU the long way is one
fused kernel (`r1core.model.r1.flex`).

B = batch, T = new tokens, N = keys, D = head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from r1core.model.r1.config import R1Config
from r1core.model.r1.packed import Seen
from r1core.model.r1.reach import Reach
from r1core.model.r1.rotary import turned

MASKED = 1 << 23
"""Largest mask that is made whole, in entries of a row; above, queries go in chunks."""
CHUNK = 1024
"""Queries of a chunk."""


class R1Attention(nn.Module):
    """Multi-head attention with grouped keys and rotary positions over what `Reach` says a token sees."""

    def __init__(self, config: R1Config, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        width, self.head_dim = config.hidden_size, int(config.head_dim or 0)
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        self.num_key_value_groups = heads // groups
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.q_proj = nn.Linear(width, heads * self.head_dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(width, groups * self.head_dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(width, groups * self.head_dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, width, bias=config.attention_bias)

    def forward(
        self,
        hidden: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        reach: Reach | None,
        mask: torch.Tensor | None,
        cache: Cache | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(B, T, H) -> (B, T, H). `reach` None = no window: the library's `mask` says what is seen.

        Raises
        ------
        ValueError : for attention dropout in a pass too long for a mask.
        """
        shape = (*hidden.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden).view(shape).transpose(1, 2)
        key = self.k_proj(hidden).view(shape).transpose(1, 2)
        value = self.v_proj(hidden).view(shape).transpose(1, 2)
        query, key = turned(query, key, *rotary)
        if cache is not None:
            said = () if reach is None else (reach,)
            key, value = cache.update(key, value, self.layer_idx, *said)
        if reach is not None and isinstance(key, Seen):
            out = key.attend(query, reach.mask, self.scaling).transpose(1, 2)
        elif reach is not None and not reach.causal and long(reach):
            if self.training and self.config.attention_dropout:
                raise ValueError(
                    f"attention_dropout = {self.config.attention_dropout}, and a pass of {query.shape[2]} tokens, which"
                    " is computed without it: set attention_dropout = 0, or shorten the text"
                )
            key = laid_out(key, reach)  # one after the other: what it was can go
            value = laid_out(value, reach)
            out = over_long(query, key, value, reach, self.scaling).transpose(1, 2)
        else:
            out = self._masked(query, key, value, reach, mask, **kwargs)
        return self.o_proj(out.reshape(*hidden.shape[:-1], -1))

    def _masked(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        reach: Reach | None,
        mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(B, heads, T, D) over keys (B, groups, N, D): (B, T, heads, D)."""
        way = self.config._attn_implementation
        if reach is not None and not reach.causal:
            mask = reach.mask
            if way == "eager":
                mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
            else:
                way = "sdpa"  # a kernel for packed rows would see past the window
        elif reach is not None and way == "eager":
            mask = torch.full(
                (query.shape[2],) * 2, torch.finfo(query.dtype).min, dtype=query.dtype, device=query.device
            )
            mask = mask.triu(1)[None, None]
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(way, eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        return attend(self, query, key, value, mask, dropout=dropout, scaling=self.scaling, **kwargs)[0]


def long(reach: Reach) -> bool:
    """Whether a whole mask would be too big for this pass."""
    return reach.queries.shape[1] * reach.keys.shape[1] > MASKED


def laid_out(key: torch.Tensor, reach: Reach) -> torch.Tensor:
    """Keys or values as `over_long` takes them."""
    if not _fused(key, reach):
        return key
    from r1core.model.r1.flex import in_front  # compiled where a GPU is

    return in_front(key, reach)


def _fused(key: torch.Tensor, reach: Reach) -> bool:
    return key.is_cuda and reach.allowed is None


def over_long(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, reach: Reach, scaling: float
) -> torch.Tensor:
    """Attention over what `reach` says, without a mask of T x N: (B, heads, T, D)."""
    if _fused(key, reach):
        from r1core.model.r1.flex import over_blocks  # compiled where a GPU is

        return over_blocks(query, key, value, reach, scaling)
    chunks = [slice(start, start + CHUNK) for start in range(0, query.shape[2], CHUNK)]
    return torch.cat([_chunk(query, key, value, reach, scaling, rows) for rows in chunks], 2)


def _chunk(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, reach: Reach, scaling: float, rows: slice
) -> torch.Tensor:
    """Some queries against what they can see at most: their slice of the window, and the nodes before it."""
    columns = _columns(reach, rows)
    whole = len(columns) == key.shape[2]
    keys, values = (key, value) if whole else (key.index_select(2, columns), value.index_select(2, columns))
    return functional.scaled_dot_product_attention(
        query[:, :, rows],
        keys,
        values,
        attn_mask=reach.visible(rows, columns),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _columns(reach: Reach, rows: slice) -> torch.Tensor:
    """Slots of the keys that any of these queries may see, (C,): of a row, slots lie no closer than positions."""
    kept, device = reach.kept, reach.keys.device
    end = min(rows.stop, reach.queries.shape[1]) + kept
    start = max(kept, rows.start + kept - reach.window + 1)
    near = torch.arange(start, end, device=device)
    before = torch.arange(start, device=device)
    if reach.every is None:
        return torch.cat([before[:kept], near])
    node = ((reach.keys[:, :start] % reach.every == reach.every - 1) & (reach.keys[:, :start] >= 0)).any(0)
    node[:kept] = True
    return torch.cat([before[node], near])
