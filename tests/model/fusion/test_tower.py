"""Towers from local directories: which are taken, and what is said of those that are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, ResNetConfig, ResNetModel

from r1core.api import UserError
from r1core.model.fusion.preparation import preparation_of
from r1core.model.fusion.tower import open_tower
from r1core.model.fusion.tower_check import require_image_encoder
from r1core.testing.tiny import tiny_model_dir
from r1core.testing.tiny_tower import SIZE, WIDTH, tiny_encoder, tiny_tower_dir

PIXELS = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_a_vit_gives_its_last_hidden_state(tmp_path: Path) -> None:
    tower = open_tower(tiny_tower_dir(tmp_path, seed=4), (SIZE, SIZE))
    assert (tower.patches, tower.width) == (5, WIDTH)  # four patches and a class token
    with torch.no_grad():
        expected = tiny_encoder(seed=4)(pixel_values=PIXELS).last_hidden_state
        assert torch.equal(tower(PIXELS), expected)


def test_of_clip_the_vision_part_is_taken(tmp_path: Path) -> None:
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = part | {"image_size": SIZE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=part | {"vocab_size": 50}, vision_config=vision, projection_dim=8)).eval()
    model.save_pretrained(tmp_path)
    tower = open_tower(tmp_path, (SIZE, SIZE))
    assert (tower.patches, tower.width) == (5, 16)
    with torch.no_grad():
        assert torch.equal(tower(PIXELS), model.vision_model(pixel_values=PIXELS).last_hidden_state)


def test_a_feature_map_is_read_place_by_place(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
    model = ResNetModel(config).eval()
    model.save_pretrained(tmp_path)
    tower = open_tower(tmp_path, (32, 32))
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        whole, found = model(pixel_values=pixels).last_hidden_state, tower(pixels)
    height, width = whole.shape[2:]
    assert found.shape == (1, height * width, 6)
    for y in range(height):
        for x in range(width):
            assert torch.equal(found[0, y * width + x], whole[0, :, y, x])


def without_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()


def without_config(path: Path) -> None:
    (path / "config.json").unlink()


def broken_config(path: Path) -> None:
    (path / "config.json").write_text("{")


def a_tensor_short(path: Path) -> None:
    tensors = load_file(path / "model.safetensors")
    del tensors["embeddings.cls_token"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def grey_only(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_channels": 1}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_weights, "cannot be loaded"),
        (without_config, "config.json is missing"),
        (broken_config, "not JSON"),
        (a_tensor_short, "lack 1 of the encoder's tensors, embeddings.cls_token first"),
        (grey_only, "takes 1 channels"),
    ],
)
def test_a_directory_that_is_not_whole_is_refused(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    tiny_tower_dir(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=said):
        open_tower(tmp_path, (SIZE, SIZE))


def test_a_text_model_is_no_tower(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 'llama', which is no image encoder"):
        require_image_encoder(tiny_model_dir(tmp_path / "tiny"))
    with pytest.raises(UserError, match="no such directory"):
        require_image_encoder(tmp_path / "nowhere")


def test_an_image_size_that_the_encoder_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gives no features of an image \(32, 32\)"):
        open_tower(tiny_tower_dir(tmp_path), (32, 32))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"size": None}, "size = None"),
        ({"size": {"height": 0, "width": 4}}, "size ="),
        ({"size": {"shortest_edge": 20}}, "sizes of their own"),
        ({"do_resize": False}, "sizes of their own"),
        ({"resample": 9}, "resample = 9"),
        ({"image_mean": [0.5]}, "image_mean = "),
        ({"image_std": [1, 0, 1]}, "divides by zero"),
        ({"do_pad": True}, "do_pad is not covered"),
    ],
)
def test_a_preparation_that_is_not_covered_is_refused(tmp_path: Path, keys: dict[str, object], said: str) -> None:
    file = tiny_tower_dir(tmp_path) / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    with pytest.raises(UserError, match=said):
        preparation_of(tmp_path)


def test_without_a_preparation_a_directory_is_refused(tmp_path: Path) -> None:
    (tiny_tower_dir(tmp_path) / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing"):
        preparation_of(tmp_path)
