"""What can be told of a vision tower's directory without a weight: torch-free, for `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from r1core.api import JSON, UserError

CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
_FIX = "set model.vision.path to the directory of a Hugging Face image encoder (ViT, CLIP, DINOv2, SigLIP)"


def require_image_encoder(directory: Path) -> None:
    """Refuse a directory that holds no image encoder.

    Raises
    ------
    UserError : naming what is missing or what it holds instead.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory", fix=_FIX)
    config = read_object(directory / CONFIG)
    vision = config.get("vision_config", config)
    if not isinstance(vision, dict) or ("num_channels" not in vision and "image_size" not in vision):
        kind = config.get("model_type", "an unnamed model")
        raise UserError(f"{directory}: holds {kind!r}, which is no image encoder", fix=_FIX)
    if vision.get("num_channels", 3) != 3:
        raise UserError(f"{directory}: takes {vision['num_channels']} channels, images have 3", fix=_FIX)


def read_object(file: Path) -> dict[str, JSON]:
    """A JSON object of a tower's directory.

    Raises
    ------
    UserError : when the file is missing or holds no JSON object.
    """
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file.parent}: no image encoder: {file.name} is missing", fix=_FIX) from error
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}", fix=_FIX) from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object", fix=_FIX)
    return found
