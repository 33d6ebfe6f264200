"""Fusion layers as specs, for a run with a table [model.vision]. Torch-free: the first layer opens the tower."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from r1core.api import LayerSpec
from r1core.data.images import IMAGE, ImageBook, read_image
from r1core.recipe.vision import Mode, Vision

if TYPE_CHECKING:
    import torch
    from torch import nn

    from r1core.model.fusion.sight import Sight


def fusion_specs(
    sight: Callable[[], Sight], sites: Sequence[str], mode: Mode = "fusion", heads: int = 12, *, trained: bool = False
) -> list[LayerSpec]:
    """One fusion layer a site, in order; the first holds the tower where that is trained.

    Parameters
    ----------
    sight : gives the one that all of them share.
    """

    def factory(number: int) -> Callable[[int], nn.Module]:
        def made(hidden_size: int) -> nn.Module:
            from r1core.model.fusion.fusion import Fusion

            return Fusion(hidden_size, sight(), mode, heads, owns_tower=trained and number == 0)

        return made

    return [LayerSpec(f"r1core/fusion-{n}", site, factory(n), (IMAGE.name,)) for n, site in enumerate(sites)]


def vision_specs(vision: Vision, book: ImageBook) -> list[LayerSpec]:
    """The layers that a recipe's [model.vision] asks for; every call makes a tower of its own."""

    @functools.cache
    def sight() -> Sight:
        from r1core.model.fusion.pixels import prepared
        from r1core.model.fusion.preparation import preparation_of
        from r1core.model.fusion.sight import Sight
        from r1core.model.fusion.tower import open_tower

        how = preparation_of(vision.path)

        def pixels(numbers: Sequence[int]) -> torch.Tensor:
            return prepared([read_image(book.path(number)) for number in numbers], how)

        return Sight(open_tower(vision.path, how.result), pixels, trained=vision.train_tower)

    return fusion_specs(sight, vision.sites, vision.mode, vision.heads, trained=vision.train_tower)
