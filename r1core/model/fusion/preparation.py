"""What is done to an image before its tower, as the tower's `preprocessor_config.json` says: read, and torch-free.

The file is read here and not by the library's image processors, which need torchvision. Not covered: steps besides
resizing, cropping the middle, scaling and normalising, and images that keep sizes of their own; both are refused by
name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r1core.api import JSON, UserError
from r1core.model.fusion.tower_check import PREPARATION, read_object

RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which the file uses, and torch's names."""
OTHER_STEPS = ("do_pad", "do_image_splitting", "do_pan_and_scan")


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to an image.

    Parameters
    ----------
    size : height and width to resize to; one number is the shorter edge; None leaves the size.
    crop : height and width of what is cut out of the middle; None cuts nothing.
    scale : factor from 0..255; `mean`, `std` : of each channel, after scaling.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resampling: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of what comes out, the same for every image."""
        found = self.crop or self.size
        assert isinstance(found, tuple)
        return found


def preparation_of(directory: Path) -> Preparation:
    """What a tower's directory says.

    Raises
    ------
    UserError : where the file is missing, or asks for what is not covered.
    """
    file = directory / PREPARATION
    said = read_object(file)
    for step in OTHER_STEPS:
        if said.get(step):
            raise UserError(f"{file}: {step} is not covered", fix="take an encoder of one plain image")
    size = _size(file, said, "size") if said.get("do_resize", True) else None
    crop = _size(file, said, "crop_size") if said.get("do_center_crop", False) else None
    if crop is None and not isinstance(size, tuple):
        raise UserError(f"{file}: images would keep sizes of their own", fix="give height and width in size")
    if isinstance(crop, int):
        crop = (crop, crop)
    resampling = RESAMPLING.get(said.get("resample", 2))
    if resampling is None:
        raise UserError(f"{file}: resample = {said['resample']!r}", fix="0 (nearest), 2 (bilinear) or 3 (bicubic)")
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    normal = bool(said.get("do_normalize", True))
    mean, std = (
        _three(file, said, key) if normal else (plain,) * 3 for key, plain in (("image_mean", 0.0), ("image_std", 1.0))
    )
    return Preparation(size, crop, resampling, scale, mean, std)


def _size(file: Path, said: dict[str, JSON], key: str) -> tuple[int, int] | int:
    found = said.get(key)
    if isinstance(found, dict) and {"height", "width"} <= found.keys():
        found = (found["height"], found["width"])
    elif isinstance(found, dict) and "shortest_edge" in found:
        found = found["shortest_edge"]
    numbers = found if isinstance(found, tuple) else (found,)
    if not all(isinstance(n, int) and 0 < n <= 4096 for n in numbers):
        raise UserError(f"{file}: {key} = {said.get(key)!r}", fix='give {"height": 224, "width": 224}')
    return found  # type: ignore[return-value]


def _three(file: Path, said: dict[str, JSON], key: str) -> tuple[float, float, float]:
    found = said.get(key)
    if not isinstance(found, list) or len(found) != 3 or not all(isinstance(n, (int, float)) for n in found):
        raise UserError(f"{file}: {key} = {found!r}", fix="give three numbers, one a channel")
    if key == "image_std" and 0 in found:
        raise UserError(f"{file}: {key} = {found!r} divides by zero", fix="give three positive numbers")
    return float(found[0]), float(found[1]), float(found[2])
