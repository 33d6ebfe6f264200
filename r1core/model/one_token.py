"""One new token sees all that is held: an attention implementation of transformers' registry that makes no mask for it.

It is `sdpa` otherwise. transformers leaves such a mask out too, but some versions (5.17 among them) not where a pass is
recorded, which they take for a trace; there the mask would be in the recording, and keys would be unpacked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SDPA = "sdpa"
NAME = "r1core_sdpa_one_token"
"""transformers takes no name that holds neither flash nor sdpa."""


def masks(
    *,
    q_length: int,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor | None:
    """As transformers' `sdpa_mask`; None for one token behind what is held, where nothing else hides any of it."""
    if q_length == 1 and attention_mask is None and mask_function is causal_mask_function:
        return None
    mask: torch.Tensor | None = sdpa_mask(
        q_length=q_length, mask_function=mask_function, attention_mask=attention_mask, **options
    )
    return mask


def use(model: torch.nn.Module) -> list[Any]:
    """Let a model that attends by `sdpa` attend so; what `leave` takes."""
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, masks)
    ALL_ATTENTION_FUNCTIONS.register(NAME, ALL_ATTENTION_FUNCTIONS[SDPA])
    changed = [config for config in _configs(model) if config._attn_implementation == SDPA]
    for config in changed:
        config._attn_implementation = NAME
    return changed


def leave(changed: list[Any]) -> None:
    """Put it back."""
    for config in changed:
        config._attn_implementation = SDPA


def _configs(model: torch.nn.Module) -> list[Any]:
    """The configurations of a model's modules, each once."""
    every = {id(config): config for config in (getattr(module, "config", None) for module in model.modules())}
    return [config for config in every.values() if hasattr(config, "_attn_implementation")]
