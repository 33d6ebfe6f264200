"""Images as the records name them: files on this machine, numbered in the order in which they are first met.

An image reaches the model as a slot of the kind `r1core/image`, whose one value is its number in the run's `ImageBook`;
the pixels are read where the tower needs them. Read are PNG (`r1core.data.png`) and NumPy's `.npy`; further formats
through Pillow, where it is installed. Not covered: animations, colour profiles, rotation by EXIF.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core.api import SpanKind, UserError
from r1core.data import png

IMAGE = SpanKind("r1core/image", encode=int, decode=int, overlap="all", width=1, feature=lambda value: (float(value),))
"""What layers see of an image: its number."""

MOST_IMAGES = 1 << 24
"""Numbers up to here are exact in float32, as which they travel."""


class ImageBook:
    """Images of a run by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._paths: list[str] = []

    def number(self, path: str) -> int:
        """The number of an image; a new one where it has not been met.

        Raises
        ------
        UserError : for a file that is not there, or more images than can be numbered.
        """
        if path not in self._numbers:
            if not Path(path).is_file():
                raise UserError(f"{path}: no such image", fix="mend the path; relative ones start at the data file")
            if len(self._paths) == MOST_IMAGES:
                raise UserError(f"more than {MOST_IMAGES:,} images in one run", fix="use fewer")
            self._numbers[path] = len(self._paths)
            self._paths.append(path)
        return self._numbers[path]

    def path(self, number: int) -> str:
        """The file of an image."""
        return self._paths[number]


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image's pixels, (height, width, 3) RGB; transparent ones are laid on white.

    Raises
    ------
    UserError : for a file that is missing or no image that can be read.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}", fix="mend the path") from error
    try:
        if raw.startswith(png.SIGNATURE):
            return on_white(png.decode(raw))
        if raw.startswith(b"\x93NUMPY"):
            return on_white(_array(raw))
    except ValueError as error:
        raise UserError(f"{path}: an image that cannot be read: {error}", fix="write it again, as 8-bit PNG") from error
    return _by_pillow(path, raw)


def unreadable(path: str) -> str:
    """Why a file is no image, as its first bytes tell; "" where they tell nothing against it."""
    try:
        with Path(path).open("rb") as file:
            first = file.read(8)
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    if first.startswith((png.SIGNATURE, b"\x93NUMPY")) or importlib.util.find_spec("PIL") is not None:
        return ""
    return f"{path}: neither PNG nor .npy; other images are read by Pillow, which is not installed"


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, grey with alpha, RGB or RGBA, (height, width, 1 to 4), as RGB."""
    channels = pixels.shape[2]
    colour = pixels[..., : channels - 1 + channels % 2]
    rgb = np.repeat(colour, 3, 2) if colour.shape[2] == 1 else colour
    if channels % 2:
        return rgb
    alpha = pixels[..., -1:].astype(np.float32) / 255
    return np.rint(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)


def files_digest(paths: Sequence[str]) -> str:
    """sha256 over the contents of images, each once, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _array(raw: bytes) -> NDArray[np.uint8]:
    pixels = np.load(io.BytesIO(raw), allow_pickle=False)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or not pixels.size:
        raise ValueError(f"an array {pixels.shape} of {pixels.dtype}, expected (height, width, 1 to 4) of uint8")
    return np.asarray(pixels)


def _by_pillow(path: Path, raw: bytes) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        said = f"{path}: neither PNG nor .npy; other images are read by Pillow, which is not installed"
        raise UserError(said, fix="pip install 'r1core[vision]', or convert the images to PNG") from error
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return on_white(np.asarray(image.convert("RGBA")))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: no image that Pillow reads: {error}", fix="convert it to PNG") from error
