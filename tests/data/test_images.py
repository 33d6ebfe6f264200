"""Images of records: read, laid on white, numbered, named by a column of one's own files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from r1core.api import Example, Message, UserError
from r1core.data import png
from r1core.data.files import FileSource, Rejected
from r1core.data.images import IMAGE, ImageBook, files_digest, on_white, read_image
from r1core.data.tokens import Renderer
from r1core.recipe.schema import Columns, Data, DataFiles
from r1core.testing.tiny import tiny_tokenizer

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra [vision] is not installed."""
    monkeypatch.setitem(sys.modules, "PIL", None)


def saved(path: Path, pixels: np.ndarray = PIXELS) -> str:
    path.write_bytes(png.encode(pixels))
    return str(path)


def test_png_and_npy_give_the_same_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    assert np.array_equal(read_image(saved(tmp_path / "a.png")), PIXELS)
    assert np.array_equal(read_image(tmp_path / "a.npy"), PIXELS)


def test_grey_is_repeated_and_transparency_lies_on_white() -> None:
    grey = np.array([[[10], [200]]], np.uint8)
    assert on_white(grey).tolist() == [[[10] * 3, [200] * 3]]
    clear = np.array([[[10, 0], [10, 255], [100, 51]]], np.uint8)
    assert on_white(clear)[0, :, 0].tolist() == [255, 10, 224]  # 100 / 5 + 255 * 4 / 5
    assert on_white(np.array([[[1, 2, 3, 255], [1, 2, 3, 0]]], np.uint8)).tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.usefixtures("no_pillow")
def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"a\.jpg: neither PNG nor \.npy; other images are read by Pillow"):
        read_image(tmp_path / "a.jpg")


def test_broken_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png.encode(PIXELS)[:-20])
    with pytest.raises(UserError, match=r"a\.png: an image that cannot be read: the file ends early"):
        read_image(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", PIXELS.astype(np.float32))
    with pytest.raises(UserError, match="of float32, expected"):
        read_image(tmp_path / "a.npy")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "nowhere.png")


def test_images_are_numbered_in_the_order_in_which_they_come(tmp_path: Path) -> None:
    book, one, two = ImageBook(), saved(tmp_path / "1.png"), saved(tmp_path / "2.png")
    assert [book.number(path) for path in (two, one, two)] == [0, 1, 0]
    assert book.path(1) == one
    with pytest.raises(UserError, match="no such image"):
        book.number(str(tmp_path / "3.png"))


def test_the_digest_is_of_contents(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "1.png"), saved(tmp_path / "2.png")
    before = files_digest([one, two, one])
    assert before == files_digest([two, one])
    saved(tmp_path / "2.png", 255 - PIXELS)
    assert before != files_digest([one, two])


def example(*images: str) -> Example:
    messages = (Message("user", "What is seen?"), Message("assistant", "A rash."))
    return Example("e", messages, "t", images=images)


@pytest.mark.parametrize("task_token", [False, True])
def test_every_token_of_the_row_but_a_task_token_sees_every_image(tmp_path: Path, task_token: bool) -> None:
    renderer = Renderer(tiny_tokenizer(), {IMAGE.name: IMAGE}, task_token=task_token, images=ImageBook())
    row = renderer.encode(example(saved(tmp_path / "1.png"), saved(tmp_path / "2.png")))
    found = [(slot.kind, slot.start, slot.end, slot.values) for slot in row.slots]
    read = row.length - 1  # the last token is predicted, never read
    assert found == [(IMAGE.name, int(task_token), read, (0.0,)), (IMAGE.name, int(task_token), read, (1.0,))]
    assert [slot.start for slot in row.for_base().slots] == [0, 0]


def test_an_image_that_no_tower_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has an image, and this recipe has no \[model.vision\]"):
        Renderer(tiny_tokenizer(), {}).encode(example(saved(tmp_path / "1.png")))


def source(folder: Path, *rows: dict[str, object]) -> FileSource:
    (folder / "d.jsonl").write_text("\n".join(json.dumps({"text": "q", "answer": "a"} | row) for row in rows))
    return FileSource(Data(files=DataFiles(train=folder / "d.jsonl"), columns=Columns(images="scan")))


def test_a_column_names_images_beside_the_file(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "1.png"), saved(tmp_path / "2.png")
    given: tuple[object, ...] = ("1.png", ["1.png", two], "", None, [])
    found = list(source(tmp_path, *({"scan": each} for each in given))._examples("train"))
    every = [e for split in ("val", "test") for e in source(tmp_path, *({"scan": g} for g in given))._examples(split)]  # type: ignore[arg-type]
    by_line = {e.source.rpartition(":")[2]: e.images for e in [*found, *every]}
    assert by_line == {"1": (one,), "2": (one, two), "3": (), "4": (), "5": ()}


@pytest.mark.usefixtures("no_pillow")
def test_a_row_whose_image_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    made = source(tmp_path)
    for given, said in (
        ("nowhere.png", "no such file"),
        ("a.jpg", "neither PNG nor .npy"),
        (7, "expected a path, or a list of paths, found int"),
        ([""], "expected a path, or a list of paths, found list"),
    ):
        found = made._example(tmp_path / "d.jsonl", 3, {"text": "q", "answer": "a", "scan": given})
        assert isinstance(found, Rejected)
        assert found.reason.startswith("column 'scan': ")
        assert said in found.reason


def test_the_source_changes_with_its_images(tmp_path: Path) -> None:
    saved(tmp_path / "1.png")
    before = source(tmp_path, {"scan": "1.png"}).fingerprint()
    assert source(tmp_path, {"scan": "1.png"}).fingerprint() == before
    saved(tmp_path / "1.png", 255 - PIXELS)
    assert source(tmp_path, {"scan": "1.png"}).fingerprint() != before
