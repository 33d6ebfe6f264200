"""One layer's packed keys and values as a transformers cache layer: for full attention, and for a sliding window.

The first pass over a prompt attends to exact states, which are packed behind it. Later passes attend to what is held:
a few new tokens straight from the codes, anything else to states that are unpacked for that one attention.
Not for training: no gradient flows through what is packed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from r1core.errors import R1Error
from r1core.model.kv.held import Held
from r1core.model.kv.states import PackedStates
from r1core.model.kv.view import StatesView

FEW = 8
"""New tokens up to which attention is computed from the codes; beyond, unpacking once is cheaper."""

FROM_CODES = ("cpu", "cuda")
"""Devices that attend to codes; others unpack."""


class PackedLayer(CacheLayerMixin):
    """Every token's keys and values."""

    is_sliding = False
    is_croppable = True

    def __init__(self, states: Callable[[], PackedStates]) -> None:
        super().__init__()
        self.states = states()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Note dtype and device."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take new tokens' states (B, H, T, D) in; return all that they attend to."""
        fixed = self.states.fixed
        if fixed is not None and fixed.under_way:
            fixed.append(key_states, value_states)
            return StatesView(fixed, "keys"), StatesView(fixed, "values")
        return self._seen(self._append(key_states, value_states), key_states.shape[-2])

    def get_seq_length(self) -> int:
        """Tokens that went through."""
        return self.states.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what new tokens attend to."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.states.clear()
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens; the number is negative or 0, as the library has it."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): give the tokens to remove as a negative number")
        self.states.crop(-tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Follow the beams."""
        self.states.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row so many times."""
        self.states.repeat(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self.states.select(indices)

    def offload(self) -> None:
        """Refused: states that are packed stay where they are computed."""
        raise R1Error("a packed key/value cache is not offloaded")

    def tensors(self) -> list[torch.Tensor]:
        """All that is held."""
        return self.states.tensors()

    def _append(self, keys: torch.Tensor, values: torch.Tensor) -> Held:
        if keys.requires_grad:
            raise R1Error("a packed key/value cache is for inference: no gradient flows through it")
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        return self.states.append(keys, values)

    def _seen(self, held: Held, new: int) -> tuple[torch.Tensor, torch.Tensor]:
        if held.blocks is not None and new <= FEW and self.device.type in FROM_CODES:
            return StatesView(held, "keys"), StatesView(held, "values")
        return held.read_keys(), held.read_values()


class PackedSlidingLayer(PackedLayer):
    """The keys and values of a sliding window, or of an attention chunk, as the library counts it."""

    is_sliding = True

    def __init__(self, states: Callable[[], PackedStates], sliding_window: int) -> None:
        super().__init__(states)
        self.sliding_window = sliding_window
        self.cumulative_length = 0
        self.record_past = False

    def activate_past_recording(self) -> None:
        """Keep what leaves the window until `crop`, so that it can be gone back to."""
        self.record_past = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take new tokens' states in; return those and the window before them."""
        new = key_states.shape[-2]
        self.cumulative_length += new
        held = self._append(key_states, value_states).last(self.sliding_window - 1 + new)
        if not self.record_past:
            self._slide()
        return self._seen(held, new)

    def get_seq_length(self) -> int:
        """Tokens that went through, kept or not."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what new tokens attend to."""
        kept = min(self.cumulative_length, self.sliding_window - 1)
        return kept + query_length, self.cumulative_length - kept

    def get_max_length(self) -> int:
        """The window."""
        return self.sliding_window

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.cumulative_length = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens, and what has left the window."""
        if self.cumulative_length >= self.sliding_window and not self.record_past:
            raise RuntimeError("crop: what left the window is gone; call activate_past_recording before")
        super().crop(tokens_to_remove)
        self.cumulative_length += tokens_to_remove
        self._slide()

    def _slide(self) -> None:
        self.states.forget(self.states.length - (self.sliding_window - 1))
