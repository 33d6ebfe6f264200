"""A vision tower: the image encoder of a local Hugging Face directory. No weights are shipped and none are fetched.

Taken are encoders that give patch features (ViT, DINOv2, SigLIP, the vision part of CLIP) and convolutional ones whose
last feature map is `(N, W, height, width)`. Not covered: encoders of several images at once, or of video.

N = images, P = patches (a class token counts as one), W = the tower's width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from r1core.api import UserError
from r1core.model.fusion.places import Grid, grid_of
from r1core.model.fusion.tower_check import require_image_encoder


class Tower(nn.Module):
    """An image encoder, `(N, 3, height, width) -> (N, P, W)` float32.

    Parameters
    ----------
    size : height and width of the images that it takes, in pixels.

    Raises
    ------
    UserError : for a model that gives no features of an image.
    """

    def __init__(self, encoder: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = encoder.float()
        self.grid, self.width = self._tried(size)

    @property
    def patches(self) -> int:
        """P."""
        return self.grid.ahead + self.grid.rows * self.grid.columns

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of each patch of each image."""
        features = self._last(pixels)
        return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features

    def _last(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(pixel_values=pixels).last_hidden_state
        return features

    @torch.no_grad()
    def _tried(self, size: tuple[int, int]) -> tuple[Grid, int]:
        """Where patches stand, and width, as an empty image shows them."""
        was, name = self.encoder.training, type(self.encoder).__name__
        fix = "give a directory whose encoder and preprocessor_config.json belong together"
        self.encoder.eval()
        try:
            found = self._last(torch.zeros(1, 3, *size))
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name} gives no features of an image {size}: {error}", fix=fix) from error
        finally:
            self.encoder.train(was)
        if found.ndim == 4:
            return Grid(0, found.shape[2], found.shape[3]), found.shape[1]
        if found.ndim != 3:
            raise UserError(f"{name} gives features of shape {tuple(found.shape)}, expected (N, P, W)", fix=fix)
        return grid_of(found.shape[1], size, getattr(self.encoder.config, "patch_size", None)), found.shape[2]


def open_tower(directory: Path, size: tuple[int, int]) -> Tower:
    """The image encoder of a directory, in evaluation mode.

    Parameters
    ----------
    size : height and width of the images that it will be given.

    Raises
    ------
    UserError : for a directory without an image encoder, or whose weights do not fill it.
    """
    require_image_encoder(directory)
    from transformers import AutoModel

    try:
        model, told = AutoModel.from_pretrained(
            directory, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0]
        fix = "give a complete Hugging Face directory: config.json, weights, preprocessor_config.json"
        raise UserError(f"{directory}: its image encoder cannot be loaded: {said}", fix=fix) from error
    encoder: Any = getattr(model, "vision_model", None) or model
    missing = [name for name in told["missing_keys"] if "pooler" not in name and _of_vision(name, encoder is model)]
    if missing:
        said = f"{directory}: its weights lack {len(missing)} of the encoder's tensors, {missing[0]} first"
        raise UserError(said, fix="give the directory of a trained encoder")
    return Tower(encoder.eval(), size)


def _of_vision(name: str, whole: bool) -> bool:
    return whole or name.startswith("vision_model.")
