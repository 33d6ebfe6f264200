"""Where on the image each of the tower's features stands, told to the text's attention anew at every site.

A tower adds places to its patches once, at its entrance; what is left of them at its end serves no relation between
things. Carion et al. 2020 (DETR, section 3.2 and table 3) found the same of objects, and lay places on the keys of
every layer. Here the code is fixed, sines and cosines of row and column (Vaswani et al. 2017, section 3.5, in two
dimensions), and each site maps it in its own way.

P = patches (features that stand nowhere count as one), W = width of the code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

CODE = 96
"""Width of the code, a quarter each for sine and cosine of row and column."""


class Grid(NamedTuple):
    """How a tower's features lie on the image, row by row: P = `ahead + rows * columns`.

    Parameters
    ----------
    ahead : features in front that stand nowhere, a class token or registers.
    """

    ahead: int
    rows: int
    columns: int


def grid_of(patches: int, size: tuple[int, int], patch_size: object) -> Grid:
    """How so many features lie on an image of `size` pixels (height, width), told by the encoder's patch size.

    Where no grid of that patch size fits, as behind an encoder that merges patches: a square, or else one row.
    """
    steps = patch_size if isinstance(patch_size, list | tuple) else (patch_size, patch_size)
    if len(steps) == 2 and all(isinstance(step, int) and step > 0 for step in steps):
        rows, columns = (side // step for side, step in zip(size, steps, strict=True))
        if 0 < rows * columns <= patches:
            return Grid(patches - rows * columns, rows, columns)
    side = math.isqrt(patches)
    return Grid(0, side, side) if side * side == patches else Grid(0, 1, patches)


def codes(grid: Grid, width: int = CODE) -> torch.Tensor:
    """The code of each place, (P, W) in [-1, 1]; zeros for what stands nowhere.

    Waves are from two cells long, which tells neighbours apart, to eight times the longer side.
    """
    longest = math.log2(4 * max(grid.rows, grid.columns))
    rates = math.pi / 2 ** torch.linspace(0, longest, width // 4)
    row, column = torch.meshgrid(torch.arange(grid.rows).float(), torch.arange(grid.columns).float(), indexing="ij")
    angles = [each.reshape(-1, 1) * rates for each in (row, column)]
    found = torch.cat([wave(each) for each in angles for wave in (torch.sin, torch.cos)], 1)
    return torch.cat([found.new_zeros(grid.ahead, found.shape[1]), found])


class Places(nn.Module):
    """A linear map of the code, what is added to the projected features: `(P, C)`."""

    code: torch.Tensor

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.register_buffer("code", codes(grid), persistent=False)
        self.map = nn.Linear(CODE, width, bias=False)

    def forward(self) -> torch.Tensor:
        """Of every place, (P, C)."""
        mapped: torch.Tensor = self.map(self.code.to(self.map.weight.dtype))
        return mapped
