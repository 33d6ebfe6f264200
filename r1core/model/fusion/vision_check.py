"""What of a recipe does not go together about images, told before any weight is loaded. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from r1core.api import UserError
from r1core.model.fusion.preparation import preparation_of
from r1core.model.fusion.tower_check import require_image_encoder
from r1core.model.strategy import Refusal
from r1core.recipe.schema import Recipe


def refusals(recipe: Recipe) -> Iterator[Refusal]:
    """Images without a tower, a tower without images, and a directory that holds none."""
    vision, data = recipe.model.vision, recipe.data
    if vision is None:
        if data.columns.images is not None:
            found = f"data.columns.images = {data.columns.images!r}, and no [model.vision] to read the images"
            fix = "set model.vision.path to an image encoder's directory, or leave data.columns.images out"
            yield Refusal("data.columns.images", found, "an image encoder", fix)
        return
    if data.files is not None and data.columns.images is None:
        found = "[model.vision] beside records without images"
        yield Refusal("model.vision", found, "a column of images", "set data.columns.images, or remove [model.vision]")
    for read in (require_image_encoder, preparation_of):
        try:
            read(vision.path)
        except UserError as error:
            yield Refusal("model.vision.path", str(error), "a Hugging Face image encoder", error.fix)
            return
