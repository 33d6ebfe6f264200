"""PNG files, written here filter by filter from the standard's own formulas, and broken in every place."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.data import png


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def file_of(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes, interlaced: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    half = len(data) // 2  # in two chunks, as large files are
    return (
        png.SIGNATURE
        + header
        + b"".join(more)
        + chunk(b"IDAT", data[:half])
        + chunk(b"IDAT", data[half:])
        + chunk(b"IEND", b"")
    )


def filtered(pixels: np.ndarray, kinds: list[int]) -> bytes:
    """Section 9.2, byte by byte: each line by the filter that is named for it."""
    height, width, step = pixels.shape
    lines = pixels.reshape(height, width * step).astype(int)
    out = bytearray()
    for y, kind in enumerate(kinds):
        out.append(kind)
        for x in range(width * step):
            a = lines[y, x - step] if x >= step else 0
            b = lines[y - 1, x] if y else 0
            c = lines[y - 1, x - step] if y and x >= step else 0
            p = a + b - c
            paeth = a if abs(p - a) <= abs(p - b) and abs(p - a) <= abs(p - c) else b if abs(p - b) <= abs(p - c) else c
            out.append((lines[y, x] - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
    return bytes(out)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**32 - 1), st.data())
def test_every_filter_and_channel_count(width: int, height: int, channels: int, seed: int, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    raw = file_of(width, height, 8, colour, zlib.compress(filtered(pixels, kinds)))
    assert np.array_equal(png.decode(raw), pixels)
    assert np.array_equal(png.decode(png.encode(pixels)), pixels)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_every_depth(depth: int) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
    places = np.random.default_rng(1).integers(0, 1 << depth, (3, 5))
    lines = b""
    for row in places:
        bits = "".join(f"{place:0{depth}b}" for place in row)
        bits += "0" * (-len(bits) % 8)
        lines += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    colours = chunk(b"PLTE", palette.tobytes())
    assert np.array_equal(png.decode(file_of(5, 3, depth, 3, zlib.compress(lines), colours)), palette[places])
    clear = png.decode(file_of(5, 3, depth, 3, zlib.compress(lines), colours, chunk(b"tRNS", b"\x07")))
    assert np.array_equal(clear[..., 3], np.where(places == 0, 7, 255))


GOOD = png.encode(np.full((2, 3, 3), 9, np.uint8))


@pytest.mark.parametrize("length", range(len(png.SIGNATURE), len(GOOD) - 8))
def test_a_file_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"ends early|no header"):
        png.decode(GOOD[:length])


@pytest.mark.parametrize("place", range(len(png.SIGNATURE) + 8, len(GOOD) - 12))
def test_a_byte_that_is_wrong_is_noticed(place: int) -> None:
    broken = bytearray(GOOD)
    broken[place] ^= 0x10
    with pytest.raises(ValueError):
        png.decode(bytes(broken))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (file_of(1, 1, 16, 0, zlib.compress(bytes(3))), "16 bits a channel"),
        (file_of(1, 1, 8, 0, zlib.compress(bytes(2)), interlaced=1), "interlaced"),
        (file_of(0, 1, 8, 0, zlib.compress(b"")), "0 x 1 pixels"),
        (file_of(90_000, 90_000, 8, 0, zlib.compress(b"")), "90000 x 90000 pixels"),
        (file_of(2, 1, 8, 0, zlib.compress(bytes(9))), "bytes of pixels"),
        (file_of(1, 1, 8, 0, zlib.compress(b"\x09\x00")), "line filter 9"),
        (file_of(1, 1, 8, 0, b"junk"), "incorrect header"),
        (file_of(1, 1, 8, 3, zlib.compress(b"\0\x05"), chunk(b"PLTE", bytes(3))), "its palette lacks"),
    ],
)
def test_what_is_not_covered_is_said(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        png.decode(raw)
