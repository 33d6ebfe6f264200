"""Quantised GGUF tensors to bfloat16, bit for bit what `gguf.quants.dequantize` and a cast by torch give.

Runs in pieces that fit the processor's cache and without torch: bfloat16 is the upper half of a float32, rounded
to the nearest, ties to even (IEEE 754), so its bits are kept as uint16.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r1core_smollm2.header import Header, TensorInfo, damaged
from r1core_smollm2.layout import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE = 1 << 16  # values dequantised at once: 256 KiB of float32
EXPONENT = np.uint32(0x7F80_0000)  # float32; all bits set means infinite or not a number


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even; same shape.

    Raises
    ------
    ValueError : where a value is infinite or not a number.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    if bits.size and (bits & EXPONENT).max() == EXPONENT:
        raise ValueError("holds values that are not finite")
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    return rounded.astype(np.uint16)


def rotary_rows(rows: int, heads: int) -> NDArray[np.intp]:
    """Source row of each row of a query or key matrix.

    llama.cpp rotates neighbouring rows (2j, 2j+1) of a head, Hugging Face rows (j, j + W/2): row `half * W/2 + j`
    here is row `2j + half` of the same head there.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()


def dequantise(data: mmap.mmap, info: TensorInfo, target: Target) -> NDArray[np.uint16]:
    """One tensor as bfloat16 bits, in Hugging Face's shape and row order.

    Raises
    ------
    ValueError : where the shape is not the target's, the type is unknown, the file ends too early or a value is
        not finite.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    if info.shape != target.shape:
        raise ValueError(f"has shape {info.shape}, expected {target.shape}")
    kind = GGMLQuantizationType(info.type)
    block_values, block_bytes = GGML_QUANT_SIZES[kind]
    size = math.prod(info.shape)
    end = info.offset + size // block_values * block_bytes
    if info.shape[-1] % block_values or end > len(data):
        raise ValueError(f"ends at byte {end:,}, the file at {len(data):,}")
    stored = np.frombuffer(data, np.uint8, end - info.offset, info.offset)
    bits = np.empty(size, np.uint16)
    step = max(1, PIECE // block_values)
    for first in range(0, size // block_values, step):
        # Blocks are independent of the tensor's rows. One long row a call: gguf splits by 16 rows, which is slower.
        piece = stored[first * block_bytes : (first + step) * block_bytes]
        start = first * block_values
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged scale; `bfloat16_bits` refuses what it gives
            values = dequantize(piece[np.newaxis], kind).ravel()
        bits[start : start + values.size] = bfloat16_bits(values)
    bits = bits.reshape(info.shape)
    return bits[rotary_rows(len(bits), target.heads)] if target.heads else bits


def write_safetensors(path: Path, source: Path, header: Header, wanted: dict[str, Target]) -> None:
    """Dequantise every tensor of `wanted` (by GGUF name) into one safetensors file. Holds the result in memory.

    Raises
    ------
    UserError : where the GGUF file lacks a tensor, holds an unexpected one or is damaged.
    """
    from safetensors import TensorSpec, serialize_file

    if missing := wanted.keys() ^ header.tensors.keys():
        name = min(missing)
        raise damaged(source, f"tensor {name!r} is {'missing' if name in wanted else 'not expected'}")
    tensors: dict[str, NDArray[np.uint16]] = {}
    for name, target in wanted.items():
        try:
            tensors[target.name] = dequantise(header.data, header.tensors[name], target)
        except (ValueError, NotImplementedError) as error:
            raise damaged(source, f"tensor {name!r}: {error}") from error
    specs = {
        name: TensorSpec(dtype="bfloat16", shape=list(t.shape), data_ptr=t.ctypes.data, data_len=t.nbytes)
        for name, t in tensors.items()
    }
    serialize_file(specs, path, {"format": "pt"})  # `tensors` keeps the memory alive until here
