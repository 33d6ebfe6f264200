"""The GPU's kernels where no GPU is: their source run in plain torch, against plain torch that does not share it.

`plain_triton` stands in for Triton's language. What a compiler makes of the kernels on a GPU is measured by
benchmarks/kv_cache_gpu.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from r1core.model.kv.blocks import quantise_plainly
from r1core.model.kv.fixed import FixedCache
from r1core.model.kv.states import PackedStates

NAMES = ("r1core.model.kv.triton_attend", "r1core.model.kv.triton_pack")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch, plain_triton: ModuleType) -> Iterator[tuple[Any, Any]]:
    """The modules of attention and of packing."""
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    with plain_triton.imported(monkeypatch, NAMES) as (attend, pack):
        monkeypatch.setattr(attend, "_multiprocessors", lambda _: 3)
        yield attend, pack


@pytest.mark.parametrize("bits", [4, 5, 6])
@pytest.mark.parametrize("widths", [(64, 64), (128, 128), (24, 16), (80, 40)])
def test_blocks_are_packed_bit_for_bit_as_in_plain_torch(
    kernels: tuple[Any, Any], bits: int, widths: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    keys, values = (torch.randn(2, 128, 1, width).bfloat16().transpose(1, 2) for width in widths)
    keys[:, :, 64:96] = 2.0  # all of a group alike
    for mine, plain in zip(
        kernels[1].pack_blocks(keys, values, bits), quantise_plainly(keys, values, bits).tensors(), strict=True
    ):
        assert mine.dtype == plain.dtype
        assert torch.equal(mine, plain)


CASES = [
    # bits, key and value widths, dtype, queries of a key head, new tokens, tokens held, tokens seen, mask
    (4, (64, 64), torch.float32, 3, 1, 400, 401, "none"),
    (4, (128, 128), torch.bfloat16, 4, 1, 230, 231, "bool"),
    (5, (24, 16), torch.float32, 2, 2, 300, 150, "added"),
    (6, (80, 40), torch.float32, 1, 3, 300, 301, "hidden"),
    (5, (64, 64), torch.float32, 3, 1, 1000, 31, "none"),
    (4, (64, 64), torch.float32, 8, 8, 200, 201, "bool"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_from_the_codes_is_attention_to_what_is_unpacked(kernels: tuple[Any, Any], case: Any) -> None:
    bits, widths, dtype, group, new, tokens, seen, kind = case
    torch.manual_seed(1)
    states = PackedStates(bits)
    states.append(*(torch.randn(2, 1, tokens, width).to(dtype) for width in widths))
    held = states.append(*(torch.randn(2, 1, 1, width).to(dtype) for width in widths)).last(seen)
    query = torch.randn(2, group, new, widths[0]).to(dtype)
    drawn = torch.rand(2, 1, new, held.length) < 0.7
    mask = {
        "none": None, "bool": drawn, "added": torch.randn(1, group, 1, held.length).to(dtype),
        "hidden": torch.where(drawn, 0.0, -torch.inf).to(dtype),
    }[kind]  # fmt: skip
    keys, values = (part.double().expand(-1, group, -1, -1) for part in (held.read_keys(), held.read_values()))
    told = mask if mask is None or mask.dtype == torch.bool else mask.double()
    scores = query.double() @ keys.mT * 0.2
    if told is not None:
        scores = scores.masked_fill(~told, -torch.inf) if told.dtype == torch.bool else scores + told
    out, log = kernels[0].attend(held.blocks, (*held.first, *held.newest), held.hidden, query, mask, 0.2)
    right = scaled_dot_product_attention(query.double(), keys, values, told, scale=0.2)
    far = 1e-5 if dtype == torch.float32 else 1e-2
    assert float((out.double() - right).norm() / right.norm()) < far
    assert torch.allclose(log.double(), scores.logsumexp(-1), atol=1e-4)


@pytest.mark.parametrize(("tokens", "more", "padded"), [(60, 40, True), (93, 400, False), (413, 64, True)])
def test_lengths_on_the_device_give_to_the_bit_what_lengths_on_the_host_give(
    kernels: tuple[Any, Any], tokens: int, more: int, padded: bool
) -> None:
    torch.manual_seed(2)
    states, same = PackedStates(4), PackedStates(4)
    drawn = [torch.randn(2, 1, tokens, 64) for _ in range(2)]
    states.append(*drawn)
    same.append(*drawn)
    memory = FixedCache([states], more, padded=padded)
    mask = torch.rand(2, tokens + 9) < 0.7
    for step in range(9):
        new, query = [torch.randn(2, 1, 1, 64) for _ in range(2)], torch.randn(2, 3, 1, 64)
        seen = mask[:, : tokens + step + 1] if padded else None
        memory.see(seen)
        with memory.step():
            memory.advance(torch.zeros(2, 1))
            fixed = states.fixed
            assert fixed is not None
            fixed.append(*new)
            exact, lengths = (*fixed.first, *fixed.newest), memory.lengths
            found = kernels[0].attend(fixed.blocks, exact, 0, query, lengths.seen, None, lengths.told)[0]
        held = same.append(*new)
        if held.blocks is not None:
            told = None if seen is None else seen[:, None, None]
            kept = (*held.first, *held.newest)
            assert torch.equal(found, kernels[0].attend(held.blocks, kept, 0, query, told, None)[0])
        keys, values = (part.expand(-1, 3, -1, -1) for part in (held.read_keys(), held.read_values()))
        right = scaled_dot_product_attention(query, keys, values, None if seen is None else seen[:, None, None])
        assert torch.allclose(found, right, atol=1e-5)
        assert memory.settle()
