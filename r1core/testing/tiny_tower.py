"""A vision tower of a few thousand weights, built in code: it has seen no image, and is for shapes and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import ViTModel

SIZE, PATCH, WIDTH = 16, 8, 24
"""Pixels a side of an image and of a patch, and the width of the features."""


def tiny_encoder(seed: int = 0) -> ViTModel:
    """A ViT of one block, weights drawn from `seed` and not from the global generator."""
    import torch
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2 * WIDTH, image_size=SIZE,
        patch_size=PATCH, initializer_range=WIDTH**-0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTModel(config, add_pooling_layer=False).eval()


def tiny_tower_dir(path: Path, seed: int = 0) -> Path:
    """Save the encoder and what its images are prepared by as a Hugging Face directory, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    tiny_encoder(seed).save_pretrained(path)
    said = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (path / "preprocessor_config.json").write_text(json.dumps(said) + "\n", encoding="utf-8")
    return path
