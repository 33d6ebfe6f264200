"""The role that a weight plays, told by its name and the number of blocks: torch-free, on any causal language model.

Names are those of Hugging Face modules and of safetensors headers alike. A name with a number belongs to the block of
that number; `norms` are told by the last part of the name, attention by any part; what else is in a block feeds
forward (experts and their router included). Outside the blocks stand the embeddings and the output head.

Blocks fall into thirds: block i of n is shallow, middle or deep as floor(3 i / n) is 0, 1 or 2. With 30 blocks these
are 0-9, 10-19 and 20-29; with 4, 0-1, 2 and 3; a model of two blocks has no deep one.
"""

from __future__ import annotations

import re

DEPTHS = ("shallow", "middle", "deep")
_NORM = re.compile(r"norm|(?:^|_)ln(?:_|\d|$)", re.IGNORECASE)
_MIXER = re.compile(
    r"attn|attention|mixer|mamba|ssm|recurrent|temporal|time_mix|(?:^|_)short_conv|^conv$|^[qkvo]_proj$", re.IGNORECASE
)
"""Attention, or what mixes tokens in its place."""
_OUTPUT = re.compile(r"head|embed_out|project_out|^output$", re.IGNORECASE)
_ADAPTER = re.compile(r"\.(?:lora_|gelu_[AB]\b|pool_[AB]\b|base_layer\b|modules_to_save\b|original_module\b).*")


def plain_name(name: str) -> str:
    """A weight's name without what an adapter put around it and without `weight` or `bias`: its module in the base."""
    bare = _ADAPTER.sub("", name.removeprefix("base_model.model."))
    return re.sub(r"\.(?:weight|bias)$", "", bare)


def block_of(name: str) -> int | None:
    """Index of the block that a weight belongs to; None outside the blocks."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def depth_at(block: int, blocks: int) -> str:
    """`shallow`, `middle` or `deep`."""
    return DEPTHS[min(2, 3 * block // blocks)]


def role_of(name: str, blocks: int) -> str:
    """The role (see `r1core.recipe.strategy.ROLES`) of a weight or module of a model with this many blocks.

    A block beyond the last (a head that predicts further tokens) counts as deep.
    """
    bare = plain_name(name)
    *_, last = parts = bare.split(".")
    if _NORM.search(last):
        return "norms"
    block = block_of(bare)
    if block is None:
        return "output" if any(_OUTPUT.search(part) for part in parts) else "embeddings"
    inside = parts[parts.index(str(block)) + 1 :]
    return f"{depth_at(block, blocks)}_{'attention' if any(_MIXER.search(part) for part in inside) else 'feed_forward'}"
