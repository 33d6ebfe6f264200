"""What R1's exact and packed cache layers have alike: they count what went through, and forget what nobody sees."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers.cache_utils import CacheLayerMixin


class Still(Protocol):
    """Where a layer is held for recorded steps: `r1core.model.r1.fixed.FixedR1`."""

    @property
    def under_way(self) -> bool:
        """Whether a step is."""

    @property
    def nothing(self) -> torch.Tensor:
        """Positions (B, 0)."""

    def known(self, hidden: int = 0) -> torch.Tensor:
        """Positions (B, N) of what is held, without the oldest `hidden`."""

    def append(self, layer: Any, keys: torch.Tensor, values: torch.Tensor) -> Any:
        """Take the states of the step's tokens in; return what they attend to."""


class Forgetting(CacheLayerMixin):
    """A layer that keeps less than it has `seen`; rows are chosen by `batch_select_indices`.

    `fixed` : where it lies while steps are recorded, else None. `chosen_by` : the window and distance of nodes that
    said what is kept; None before a model has met it.
    """

    is_croppable = False
    seen: int
    fixed: Still | None = None
    chosen_by: tuple[int | None, int | None] | None = None

    def stepping(self) -> Still | None:
        """Where it lies, within a recorded step; before anything else it is taken out of there."""
        if self.fixed is not None and self.fixed.under_way:
            return self.fixed
        self.thaw()
        return None

    def thaw(self) -> None:
        """Take it out of the memory for recorded steps."""
        raise NotImplementedError

    def get_seq_length(self) -> int:
        """Tokens that went through, kept or not."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset as if everything were kept; R1 builds its own masks."""
        return self.seen + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: what left the window is gone.

        Raises
        ------
        NotImplementedError : always.
        """
        raise NotImplementedError(
            "R1's cache drops what leaves the window, so it cannot be cropped: generate without assistant_model and"
            " prompt_lookup_num_tokens"
        )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Follow the beams."""
        self.batch_select_indices(beam_idx)  # type: ignore[attr-defined]  # of the layer that this stands before
