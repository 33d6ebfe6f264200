"""Images as a tower takes them, against naive loops."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from r1core.api import UserError
from r1core.data.images import read_image
from r1core.model.fusion.pixels import prepared
from r1core.model.fusion.preparation import Preparation

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_scaled_and_normalised_channel_by_channel() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.4, 0.8)
    given = image(4, 6)
    found = prepared([given], Preparation((4, 6), None, "bilinear", 1 / 255, mean, std))
    expected = (given / 255 - np.array(mean)) / np.array(std)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_nearest_takes_the_pixel_under_each_centre() -> None:
    given = image(6, 9)
    found = prepared([given], Preparation((3, 3), None, "nearest-exact", 1.0, ZERO, ONE))[0].permute(1, 2, 0)
    for y in range(3):
        for x in range(3):
            assert found[y, x].tolist() == given[int((y + 0.5) * 2), int((x + 0.5) * 3)].tolist()


def test_bilinear_made_smaller_is_the_triangle_filter() -> None:
    given = image(8, 8)
    found = prepared([given], Preparation((4, 4), None, "bilinear", 1.0, ZERO, ONE))[0].permute(1, 2, 0).numpy()

    def weights(at: int) -> np.ndarray:
        w = np.maximum(0, 1 - np.abs(np.arange(8) + 0.5 - (at + 0.5) * 2) / 2)
        return w / w.sum()

    for y in range(4):
        for x in range(4):
            exact = np.einsum("i,j,ijc->c", weights(y), weights(x), given.astype(float))
            assert np.abs(found[y, x] - exact).max() <= 0.51  # rounded to whole values


def test_the_shorter_edge_is_resized_and_the_middle_cut_out() -> None:
    given = np.zeros((10, 20, 3), np.uint8)
    given[:, 8:12] = 255
    how = Preparation(10, (6, 4), "bicubic", 1 / 255, ZERO, ONE)
    found = prepared([given, given.transpose(1, 0, 2)], how)
    assert found.shape == (2, 3, 6, 4)
    assert torch.equal(found[0], torch.ones(3, 6, 4))
    assert torch.equal(found[1, 0], torch.tensor([0.0, 1, 1, 1, 1, 0])[:, None].expand(6, 4))


def test_a_small_image_is_cut_with_black_around_it() -> None:
    found = prepared([np.full((2, 2, 3), 255, np.uint8)], Preparation(None, (4, 4), "bilinear", 1 / 255, ZERO, ONE))
    assert found[0, 0].sum() == 4
    assert torch.equal(found[0, 0, 1:3, 1:3], torch.ones(2, 2))


JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoK"
    "BggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK"
    "Cgr/wAARCAAIABADAREAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABgj/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAA"
    "AAAAAAAAAAAACQf/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCZ07JwJkoA+//Z"
)
"""8 x 16 pixels, the left half (200, 40, 60), the right half (20, 90, 180)."""


def test_a_jpeg_reaches_the_tower_as_the_colours_that_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (found,) = prepared([read_image(tmp_path / "a.jpg")], Preparation((8, 16), None, "bilinear", 1.0, ZERO, ONE))
    for half, colour in ((found[..., :8], (200, 40, 60)), (found[..., 8:], (20, 90, 180))):
        assert (half - torch.tensor(colour)[:, None, None]).abs().max() <= 2
    (tmp_path / "torn.jpg").write_bytes(JPEG[:150])
    with pytest.raises(UserError, match=r"torn\.jpg: no image that Pillow reads"):
        read_image(tmp_path / "torn.jpg")
