"""Images as a tower takes them: resized, cropped and normalised as its `Preparation` says.

Bicubic and bilinear resizing are torch's own with antialiasing, rounded to whole values, as the library's processors
do. H, W = height and width of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from r1core.model.fusion.preparation import Preparation


def prepared(images: Sequence[NDArray[np.uint8]], how: Preparation) -> torch.Tensor:
    """Images `(H, W, 3)` of any sizes as one `(N, 3, height, width)` float32."""
    return torch.stack([_one(image, how) for image in images])


def _one(image: NDArray[np.uint8], how: Preparation) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    if how.size is not None:
        pixels = _resized(pixels, how.size, how.resampling)
    if how.crop is not None:
        pixels = _middle(pixels, how.crop)
    mean, std = (torch.tensor(each)[:, None, None] for each in (how.mean, how.std))
    return (pixels * how.scale - mean) / std


def _resized(pixels: torch.Tensor, wanted: tuple[int, int] | int, resampling: str) -> torch.Tensor:
    height, width = pixels.shape[1:]
    if isinstance(wanted, int):
        short = min(height, width)
        wanted = (height * wanted // short, width * wanted // short)
    if wanted == (height, width):
        return pixels
    smooth = not resampling.startswith("nearest")
    resized = interpolate(
        pixels[None], wanted, mode=resampling, antialias=smooth, align_corners=False if smooth else None
    )
    return resized[0].round().clamp(0, 255)


def _middle(pixels: torch.Tensor, crop: tuple[int, int]) -> torch.Tensor:
    """The middle of an image; where it is smaller, black stands around it."""
    spare = [max(0, wanted - have) for wanted, have in zip(crop, pixels.shape[1:], strict=True)]
    if any(spare):
        top, left = spare[0] // 2, spare[1] // 2
        pixels = pad(pixels, (left, spare[1] - left, top, spare[0] - top))
    top, left = ((have - wanted) // 2 for wanted, have in zip(crop, pixels.shape[1:], strict=True))
    return pixels[:, top : top + crop[0], left : left + crop[1]]
