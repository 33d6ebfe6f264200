"""PNG files to pixels and back (ISO/IEC 15948), so that images need no further library.

Read are still images of 8 bits a channel: grey, grey with alpha, RGB, RGBA, and palettes of 1 to 8 bits; not covered
are interlaced files and 16 bits a channel, which are refused by name. Every chunk's checksum is checked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of each colour type (section 11.2.2); 3 is a palette."""
MOST_PIXELS = 100_000_000
"""A larger image is refused before anything of it is unpacked."""


def decode(raw: bytes) -> NDArray[np.uint8]:
    """Pixels (height, width, channels) of a PNG file's bytes; a palette comes as RGB, or RGBA where it says alpha.

    Raises
    ------
    ValueError : saying what is broken or not covered.
    """
    header, data, palette, alpha = b"", b"", b"", b""
    for kind, body in _chunks(raw):
        header = body if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        palette = body if kind == b"PLTE" else palette
        alpha = body if kind == b"tRNS" else alpha
    if len(header) != 13:
        raise ValueError("no header")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in CHANNELS or interlaced or (depth != 8 and colour != 3) or depth not in (1, 2, 4, 8):
        raise ValueError(f"{depth} bits a channel, colour type {colour}{', interlaced' if interlaced else ''}")
    if not width or not height or width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels")
    channels = CHANNELS[colour]
    line = -(-width * channels * depth // 8)
    lines = _unfiltered(_inflated(data, height * (line + 1)), height, line, max(1, channels * depth // 8))
    if colour != 3:
        return lines.reshape(height, width, channels)
    return _coloured(lines, width, depth, palette, alpha)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey, grey with alpha, RGB or RGBA pixels (height, width, 1 to 4)."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(raw):
        if at + 12 > len(raw):
            raise ValueError("the file ends early")
        length, kind = struct.unpack(">I4s", raw[at : at + 8])
        body, told = raw[at + 8 : at + 8 + length], raw[at + 8 + length : at + 12 + length]
        if len(told) < 4:
            raise ValueError("the file ends early")
        if struct.unpack(">I", told)[0] != zlib.crc32(kind + body):
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} is wrong")
        if kind == b"IEND":
            return
        yield kind, body
        at += 12 + length
    raise ValueError("the file ends early")


def _inflated(data: bytes, expected: int) -> NDArray[np.uint8]:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, expected + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) != expected:
        raise ValueError(f"{len(found):,} bytes of pixels, expected {expected:,}")
    return np.frombuffer(found, np.uint8)


def _unfiltered(data: NDArray[np.uint8], height: int, line: int, step: int) -> NDArray[np.uint8]:
    """Undo the filter of each line (section 9.2); `step` bytes to the pixel on the left."""
    rows = data.reshape(height, line + 1)
    out = np.zeros((height + 1, line), np.uint8)  # line 0: what stands above the first
    for y, row in enumerate(rows, 1):
        kind, given, above = int(row[0]), row[1:], out[y - 1]
        if kind == 0:
            out[y] = given
        elif kind == 1:
            for lane in range(step):
                out[y, lane::step] = np.add.accumulate(given[lane::step], dtype=np.uint8)
        elif kind == 2:
            out[y] = given + above
        elif kind in (3, 4):
            out[y] = _by_neighbours(given.tolist(), above.tolist(), step, paeth=kind == 4)
        else:
            raise ValueError(f"line filter {kind}")
    return out[1:]


def _by_neighbours(given: list[int], above: list[int], step: int, *, paeth: bool) -> list[int]:
    out: list[int] = []
    for x, value in enumerate(given):
        left, corner = (out[x - step], above[x - step]) if x >= step else (0, 0)
        up = above[x]
        if paeth:
            near = [(abs(up - corner), 0, left), (abs(left - corner), 1, up), (abs(left + up - 2 * corner), 2, corner)]
            guess = min(near)[2]
        else:
            guess = (left + up) // 2
        out.append((value + guess) & 255)
    return out


def _coloured(lines: NDArray[np.uint8], width: int, depth: int, palette: bytes, alpha: bytes) -> NDArray[np.uint8]:
    bits = np.unpackbits(lines, axis=1).reshape(len(lines), -1, depth)[:, :width]
    places = (bits * (1 << np.arange(depth - 1, -1, -1))).sum(2)
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3) if len(palette) % 3 == 0 else np.zeros((0, 3), np.uint8)
    if places.max() >= len(colours):
        raise ValueError("a colour that its palette lacks")
    if alpha:
        opacity = np.full((len(colours), 1), 255, np.uint8)
        opacity[: len(alpha), 0] = np.frombuffer(alpha, np.uint8)[: len(colours)]
        colours = np.concatenate([colours, opacity], 1)
    return colours[places]
