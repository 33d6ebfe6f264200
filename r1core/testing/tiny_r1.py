"""A small R1 in every part: two blocks, 16 experts in 4 groups, a window of 8 tokens with a node every 4."""

from __future__ import annotations

from typing import Any

import torch

from r1core.model.r1 import R1Config, R1ForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 16, "expert_groups": 4, "adaptation_rank": 4,
    "sliding_window": 8, "global_every": 4, "max_position_embeddings": 512,
}  # fmt: skip


def config(**changed: Any) -> R1Config:
    """Its configuration, some of it changed."""
    return R1Config(**{**SIZES, **changed})


def model(**changed: Any) -> R1ForCausalLM:
    """The model, the same weights every time; what starts at zero is made to count."""
    torch.manual_seed(0)
    made = R1ForCausalLM(config(**changed)).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "adaptation" in name or "group_weight" in name:
                weight.normal_(std=0.3)
    return made


def tokens(rows: int, length: int) -> torch.Tensor:
    """Token ids (rows, length)."""
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(1))
