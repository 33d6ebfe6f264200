"""Numbers come back from bytes as they went in, and take the bits that they are said to take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1core.model.kv.packing import BITS, pack, unpack


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_any_numbers_come_back(bits: int, data: st.DataObject) -> None:
    rows, eights = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=rows * eights * 8, max_size=rows * eights * 8))
    codes = torch.tensor(numbers, dtype=torch.uint8).view(rows, -1)
    packed = pack(codes, bits)
    assert packed.numel() * 8 == codes.numel() * bits
    for dtype in (torch.uint8, torch.float32, torch.bfloat16):
        assert unpack(packed, bits, torch.empty(codes.shape, dtype=dtype)).flatten().tolist() == numbers


@pytest.mark.parametrize("bits", BITS)
def test_no_bit_is_shared(bits: int) -> None:
    """Every bit of every number is a bit of the bytes of its own."""
    seen = []
    for place in range(16):
        for bit in range(bits):
            codes = torch.zeros(16, dtype=torch.uint8)
            codes[place] = 1 << bit
            packed = pack(codes, bits).tolist()
            seen += [(at, byte) for at, byte in enumerate(packed) if byte]
    assert len(set(seen)) == 16 * bits == len(seen)
    assert all(byte.bit_count() == 1 for _, byte in seen)
