"""The cache of R1: the keys that a later token may still see, and nothing else.

Kept are the window and the global nodes before it, each with its position, so that rows of a batch with different
padding keep different tokens. From the first mask of the caller's own on (several prompts or answers in one row) all
are kept. At 204,800 tokens, a window of 4,096 and a node every 256 that is 2.4 % of all keys, and 2.5 % while up to
256 more tokens wait to be dropped together.
A cache of another kind that holds nothing yet is furnished for R1, a packed one with layers that pack
(`r1core.model.r1.packed`); one that holds something is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from r1core.model.kv.cache import PackedCache
from r1core.model.r1.config import R1Config
from r1core.model.r1.kept import Forgetting
from r1core.model.r1.packed import PackedR1Layer
from r1core.model.r1.reach import NOWHERE, Reach


class R1CacheLayer(Forgetting, DynamicLayer):
    """Keys and values (B, heads, N, D) of one layer, and their positions (B, N)."""

    def __init__(self) -> None:
        super().__init__()
        self._positions: torch.Tensor | None = None
        self.seen = 0
        self.masked = False

    @property
    def positions(self) -> torch.Tensor | None:
        """Of all that is held, (B, N); of nothing within a recorded step, which knows them itself."""
        if (still := self.stepping()) is not None:
            return still.nothing
        return self._positions

    @positions.setter
    def positions(self, positions: torch.Tensor | None) -> None:
        self._positions = positions

    def thaw(self) -> None:
        """Take it out of the memory for recorded steps."""
        fixed, self.fixed = self.fixed, None
        if fixed is not None and self.keys is not None and self.values is not None:
            self._positions = fixed.known()
            filled = self._positions.shape[1]
            self.keys, self.values = self.keys[:, :, :filled].clone(), self.values[:, :, :filled].clone()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, reach: Reach) -> Any:
        """Append the new tokens' keys and values; return all that this pass attends to, then keep what lasts.

        A recorded step gets one `r1core.model.r1.packed.Seen` twice.
        """
        if (still := self.stepping()) is not None:
            seen = still.append(self, key_states, value_states)
            return seen, seen
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = key_states, value_states
        if reach.kept and self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)
        self.seen += key_states.shape[-2]
        self.masked = self.masked or reach.allowed is not None  # it has a column for every token that there was
        lasting = None if self.masked else reach.lasting
        if lasting is None:
            self.keys, self.values, self.positions = keys, values, reach.keys
        else:
            at = lasting.clamp(min=0)
            wide = at[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[-1])
            self.keys, self.values = keys.gather(2, wide), values.gather(2, wide)
            self.positions = torch.where(lasting == NOWHERE, NOWHERE, reach.keys.gather(1, at))
        return keys, values

    def reset(self) -> None:
        """Forget everything."""
        self.thaw()
        super().reset()
        self.positions, self.seen, self.masked = None, 0, False

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        if self.positions is not None:
            super().batch_repeat_interleave(repeats)
            self.positions = self.positions.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        if self.positions is not None:
            indices = indices.to(self.positions.device)
            super().batch_select_indices(indices)
            self.positions = self.positions[indices]


def furnished(cache: Cache, layers: int) -> Cache:
    """The same cache, with R1's layers in it.

    Raises
    ------
    ValueError : for one that holds keys of another model, or that cannot hold R1's.
    """
    own = [isinstance(layer, R1CacheLayer | PackedR1Layer) for layer in cache.layers]
    if own and all(own):
        if len(own) != layers:
            raise ValueError(f"a cache of an R1 with {len(own)} layers, and this one has {layers}: start a new one")
        return cache
    if cache.get_seq_length():
        raise ValueError("past_key_values holds keys of another model, or of R1 in another form: start a new one")
    if isinstance(cache, PackedCache):
        cache.layers = [PackedR1Layer(cache.states) for _ in range(layers)]
    elif type(cache).__name__ == "DynamicCache" and not getattr(cache, "offloading", False):
        cache.layers = [R1CacheLayer() for _ in range(layers)]
    else:
        fit = "a DynamicCache, not offloaded, or a PackedCache"
        raise ValueError(f"R1 does not keep its keys in a {type(cache).__name__}: give {fit}")
    cache.layer_class_to_replicate = None
    return cache


def refuse_unlike(cache: Cache, config: R1Config, rows: int) -> None:
    """Refuse a cache that holds what another model, or another batch, has left in it.

    Raises
    ------
    ValueError : for keys of other rows, heads or widths, and for those that another window has chosen.
    """
    first = cache.layers[0] if cache.layers else None
    if isinstance(first, Forgetting):
        here = (config.sliding_window, config.global_every)
        first.chosen_by = here if not first.seen else first.chosen_by
        if first.chosen_by not in (None, here):
            raise ValueError(f"past_key_values holds what {_reach(*first.chosen_by)} keeps, and this R1 has"
                             f" {_reach(*here)}: start a new one")  # fmt: skip
        if first.fixed is not None:
            return
    if not isinstance(first, DynamicLayer) or not first.is_initialized or first.keys is None or first.keys.ndim != 4:
        return
    held, groups, _, width = first.keys.shape
    if held != rows:
        raise ValueError(f"past_key_values holds {held} rows, and {rows} are given: start a new one")
    if width != config.head_dim or config.num_key_value_heads % groups:  # a process of several holds some of the heads
        raise ValueError(f"past_key_values holds keys of another model ({groups} heads, {width} wide): start a new one")


def _reach(window: int | None, every: int | None) -> str:
    return "no window" if window is None else f"a window of {window} with a node every {every}"


def kept_positions(cache: Cache | None) -> torch.Tensor | None:
    """Positions of what a furnished cache holds, (B, N); None where it holds nothing."""
    first = cache.layers[0] if cache is not None and cache.layers else None
    return first.positions if isinstance(first, R1CacheLayer | PackedR1Layer) else None
