"""Images from the record to the answer, as a user has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from r1core.data import png
from r1core.testing.tiny_tower import tiny_tower_dir

from .conftest import Desk

COLOURS = ("red", "green", "blue")
RECIPE = """\
[run]
name = "seen"

[model]
path = "tiny"
precision = "fp32"
threads = 1
processes = 1

[model.vision]
path = "tower"

[data]
max_tokens = 64

[data.files]
train = "train.jsonl"
val = "val.jsonl"
test = "test.jsonl"

[data.columns]
images = "scan"
id = "no"

[train]
batch_size = 6
steps = 48
learning_rate = 0.005
checkpoint_every = 20

[evaluate]
baselines = false
max_new_tokens = 4
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Desk:
    """A folder with images of three colours; the question is always the same."""
    folder = tmp_path_factory.mktemp("seen")
    (folder / "tiny").symlink_to(tiny)
    tiny_tower_dir(folder / "tower")
    (folder / "scans").mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    for split, number in (("train", 24), ("val", 3), ("test", 9)):
        lines = []
        for index in range(number):
            name = f"scans/{split}{index}.png"
            (folder / name).write_bytes(png.encode(painted(index, index % 3)))
            lines.append({"text": "Which colour?", "answer": COLOURS[index % 3], "scan": name, "no": f"{split}{index}"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return Desk(folder)


@pytest.fixture(scope="module")
def seen(desk: Desk) -> Desk:
    """The same folder with an adapted run."""
    desk("adapt", "--recipe", "recipe.toml")
    return desk


def painted(seed: int, channel: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 60, (20, 24, 3), dtype=np.uint8)
    pixels[..., channel] = 220
    return pixels


@pytest.mark.slow
def test_what_only_the_image_tells_is_learned(seen: Desk) -> None:
    rows = json.loads((seen.folder / "runs/seen/evaluation/summary.json").read_text())
    found = {row["system"]: row["value"] for row in rows if row["metric"] == "accuracy"}
    assert found["adapted"] == 1.0
    for index, colour in enumerate(COLOURS):
        said = seen("generate", "runs/seen", "--prompt", "Which colour?", "--image", f"scans/test{index}.png")
        assert said.out.strip() == colour


@pytest.mark.slow
def test_an_image_that_changes_is_trained_on_anew(seen: Desk) -> None:
    again = seen("adapt", "--recipe", "recipe.toml")
    assert "train: skipped" in again.out
    image = seen.folder / "scans/train0.png"
    before = image.read_bytes()
    image.write_bytes(png.encode(painted(99, 0)))
    try:
        assert "train: skipped" not in seen("train", "--recipe", "recipe.toml").out
    finally:
        image.write_bytes(before)


CASES = [
    ({"model.vision.path": '"tiny"'}, "holds 'llama', which is no image encoder"),
    ({"model.vision.path": '"nowhere"'}, "nowhere: no such directory"),
    ({"model.vision.heads": "7"}, "heads = 7 does not divide 768"),
    ({"model.vision.sites": '["block:9"]'}, "site 'block:9': the model has 2 blocks"),
    ({"model.vision.sites": '["block:0", "block:0"]'}, "names one twice"),
    ({"model.vision.mode": '"prefix"'}, "model.vision.mode"),
    ({"data.columns.images": '"photo"'}, "has no column 'photo'"),
]


@pytest.mark.parametrize(("sets", "said"), CASES)
def test_mistakes_are_told_before_a_weight_is_loaded(desk: Desk, sets: dict[str, str], said: str) -> None:
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    assert said in desk("check", "--recipe", "recipe.toml", *words, code=2).said


def test_images_and_tower_go_together(desk: Desk) -> None:
    head, _, tail = RECIPE.partition('[model.vision]\npath = "tower"\n')
    (desk.folder / "blind.toml").write_text(head + tail)
    said = desk("check", "--recipe", "blind.toml", code=2).said
    assert "blind.toml:20: data.columns.images = 'scan', and no [model.vision] to read the images" in said
    (desk.folder / "bare.toml").write_text(RECIPE.replace('images = "scan"\n', ""))
    assert "[model.vision] beside records without images" in desk("check", "--recipe", "bare.toml", code=2).said


def test_a_file_that_is_not_there_is_set_aside_with_its_line(desk: Desk) -> None:
    lines = (desk.folder / "train.jsonl").read_text().replace("scans/train5.png", "scans/lost.png")
    (desk.folder / "lost.jsonl").write_text(lines)
    said = desk("check", "--recipe", "recipe.toml", "--set", 'data.files.train="lost.jsonl"', code=2).said
    assert "lost.jsonl:6: column 'scan': " in said
    assert "scans/lost.png: no such file or directory" in said


@pytest.mark.slow
def test_what_takes_no_images_says_so(seen: Desk) -> None:
    asked = ("generate", "runs/seen", "--prompt", "?", "--image")
    assert "nowhere.png: no such image" in seen(*asked, "nowhere.png", code=2).err
    assert "the base model alone reads no images" in seen(*asked, "scans/test0.png", "--base", code=2).err
    assert "extra layers" in seen("merge", "runs/seen", "--out", "merged", code=2).err
    assert "fusion" in seen("plan", "--recipe", "recipe.toml").out


@pytest.mark.slow
def test_a_continued_run_keeps_its_eyes(seen: Desk) -> None:
    words = ("check", "--continue", "runs/seen", "--run", "runs/next", "--set")
    said = seen(*words, "model.vision.heads=6", code=2).said
    assert "model.vision = " in said
    assert '"heads": 6' in said
    assert '"heads": 12' in said
