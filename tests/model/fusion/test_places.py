"""Where patches stand: grids of encoders as they are, and codes that tell places apart."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from r1core.model.fusion.places import Grid, Places, codes, grid_of
from r1core.model.fusion.tower import Tower

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_a_class_token_stands_in_front_of_an_image_that_is_no_square() -> None:
    encoder = ViTModel(ViTConfig(**SMALL, image_size=(16, 24), patch_size=8), add_pooling_layer=False)
    assert Tower(encoder, (16, 24)).grid == Grid(1, 2, 3)


def test_registers_stand_nowhere() -> None:
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4, num_register_tokens=4
    )
    tower = Tower(Dinov2WithRegistersModel(config), (16, 16))
    assert tower.grid == Grid(5, 4, 4)
    assert tower.patches == tower(torch.zeros(1, 3, 16, 16)).shape[1]


def test_an_encoder_that_merges_patches_leaves_a_square() -> None:
    config = SwinConfig(image_size=32, patch_size=2, embed_dim=4, depths=[1, 1], num_heads=[1, 1], window_size=4)
    assert Tower(SwinModel(config, add_pooling_layer=False), (32, 32)).grid == Grid(0, 8, 8)


def test_a_feature_map_is_its_own_grid() -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    tower = Tower(ResNetModel(config), (32, 64))
    features = tower.encoder(torch.zeros(1, 3, 32, 64)).last_hidden_state
    assert tower.grid == Grid(0, *features.shape[2:])


@pytest.mark.parametrize(
    ("patches", "size", "step", "grid"),
    [
        (5, (16, 16), (8, 8), Grid(1, 2, 2)),
        (6, (16, 24), 8, Grid(0, 2, 3)),
        (7, (16, 16), None, Grid(0, 1, 7)),
        (9, (16, 16), "8", Grid(0, 3, 3)),
    ],
)
def test_grids(patches: int, size: tuple[int, int], step: object, grid: Grid) -> None:
    assert grid_of(patches, size, step) == grid


@pytest.mark.parametrize("grid", [Grid(1, 4, 4), Grid(0, 3, 24), Grid(5, 32, 32)])
def test_codes_are_waves_over_rows_and_columns(grid: Grid) -> None:
    found = codes(grid, 16)
    assert found.shape == (grid.ahead + grid.rows * grid.columns, 16)
    assert found[: grid.ahead].abs().sum() == 0
    last = math.log2(4 * max(grid.rows, grid.columns))
    rates = [math.pi / 2 ** (last * n / 3) for n in range(4)]
    for row, column in ((0, 0), (1, 2), (grid.rows - 1, grid.columns - 1)):
        naive = [wave(place * rate) for place in (row, column) for wave in (math.sin, math.cos) for rate in rates]
        assert torch.allclose(found[grid.ahead + row * grid.columns + column], torch.tensor(naive), atol=1e-4)
    apart = torch.cdist(found[grid.ahead :], found[grid.ahead :]) + 9 * torch.eye(grid.rows * grid.columns)
    assert apart.min() > 0.5  # of any two places


def test_places_are_nothing_for_what_stands_nowhere() -> None:
    mapped = Places(Grid(1, 2, 2), 8)()
    assert mapped.shape == (5, 8)
    assert mapped[0].abs().max() == 0
    assert mapped[1:].abs().amax(1).min() > 0
