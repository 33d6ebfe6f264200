"""Blocks of 64 tokens' keys and values as packed codes, and attention computed from the codes.

A number x is kept as a code c with x ~ zero + step * c (asymmetric round-to-nearest over the smallest and largest
number of a group). Keys share a step per channel over 32 tokens, because their outliers stand in a few channels; values
per token over at most 64 channels (Liu et al. 2024, "KIVI", section 3, has both choices). Steps and zeros are bf16.
With a query q, q . x = (q * step) . c + q . zero: a step of keys goes into the query, a zero into one product for the
whole group, so that codes only have to be unpacked. Blocks are never changed: appending gives new ones.
"""

# B = batch, H = key/value heads, N = blocks, D = head width, R = query rows, T = tokens = 64 N
# P = key groups in a block, J = value groups in a head

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch

from r1core.model.kv.layout import BLOCK, HALF, KEY_GROUPS, value_group
from r1core.model.kv.packing import pack, unpack

TILE = 1 << 19
"""Numbers that are unpacked at a time, 2 MiB of fp32; less fits a nearer cache, but then the calls cost more."""


class Room:
    """Memory that tiles are unpacked into, one after the other: fresh pages cost more than what is computed on them."""

    def __init__(self) -> None:
        self._numbers, self._codes = torch.empty(0), torch.empty(0, dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes: those of the largest tile so far."""
        return self._numbers.nbytes + self._codes.nbytes

    def of(self, shape: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Tensors of this shape, fp32 and uint8, which stand until the next ones are asked for."""
        size = math.prod(shape)
        if self._numbers.numel() < size or self._numbers.device != device:
            self._numbers = torch.empty(size, dtype=torch.float32, device=device)
            self._codes = torch.empty(size, dtype=torch.uint8, device=device)
        return self._numbers[:size].view(shape), self._codes[:size].view(shape)


@dataclass(frozen=True, slots=True)
class Blocks:
    """`keys`, `values` (B, H, N, bytes) and their steps and zeros, keys' (B, H, N, P, D), values' (B, H, N, 64, J)."""

    bits: int
    widths: tuple[int, int]
    keys: torch.Tensor
    key_steps: torch.Tensor
    key_zeros: torch.Tensor
    values: torch.Tensor
    value_steps: torch.Tensor
    value_zeros: torch.Tensor

    @property
    def count(self) -> int:
        """Blocks of each row."""
        return int(self.keys.shape[2])

    def tensors(self) -> list[torch.Tensor]:
        """All that is held."""
        return [getattr(self, name) for name in _TENSORS]

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Blocks:
        """The same with every tensor changed."""
        return Blocks(self.bits, self.widths, *map(change, self.tensors()))

    def then(self, more: Blocks) -> Blocks:
        """These and further blocks behind them."""
        pairs = zip(self.tensors(), more.tensors(), strict=True)
        return Blocks(self.bits, self.widths, *(torch.cat(pair, 2) for pair in pairs))

    def part(self, start: int, stop: int) -> Blocks:
        """Some of the blocks, in memory of their own, so that the others can be freed."""
        return self.each(lambda held: held[:, :, start:stop].clone())

    def read_keys(self, dtype: torch.dtype, room: Room) -> torch.Tensor:
        """All keys (B, H, T, D), as near to the original as the codes tell."""
        out = self._empty(self.widths[0], dtype)
        for start, stop in self._tiles():
            codes = self._codes(self.keys[:, :, start:stop], self.widths[0], room)
            codes = codes.unflatten(-1, (BLOCK // HALF, self.widths[0], HALF))
            codes.mul_(self.key_steps[:, :, start:stop, ..., None].float())
            codes.add_(self.key_zeros[:, :, start:stop, ..., None].float())
            out[:, :, start:stop].unflatten(3, (BLOCK // HALF, HALF)).copy_(codes.transpose(-1, -2))
        return out.flatten(2, 3)

    def read_values(self, dtype: torch.dtype, room: Room) -> torch.Tensor:
        """All values (B, H, T, D), likewise."""
        out = self._empty(self.widths[1], dtype)
        for start, stop in self._tiles():
            codes = self._codes(self.values[:, :, start:stop], self.widths[1], room)
            codes = codes.unflatten(-1, (BLOCK, self.value_steps.shape[-1], -1))
            codes.mul_(self.value_steps[:, :, start:stop, ..., None].float())
            codes.add_(self.value_zeros[:, :, start:stop, ..., None].float())
            out[:, :, start:stop].copy_(codes.flatten(-2))
        return out.flatten(2, 3)

    def scores(self, query: torch.Tensor, room: Room) -> torch.Tensor:
        """Products of the queries (B, H, R, D) with all keys, fp32: (B, H, R, T)."""
        rows = query.flatten(0, 1)
        batch, count, width = rows.shape
        parts, size = BLOCK // HALF, HALF
        steps, zeros = (_halves(held).flatten(0, 1).flatten(1, 2).float() for held in (self.key_steps, self.key_zeros))
        folded = rows[:, None] * steps[:, :, None]  # B H, 2 N, R, D
        offsets = torch.bmm(rows, zeros.mT)  # B H, R, 2 N
        out = rows.new_empty(batch, count, folded.shape[1], size)
        for start, stop in self._tiles():
            groups = slice(start * parts, stop * parts)
            codes = self._codes(self.keys[:, :, start:stop], width, room).view(-1, width, size)
            products = torch.bmm(folded[:, groups].reshape(-1, count, width), codes)
            out[:, :, groups] = products.view(batch, -1, count, size).transpose(1, 2)
        return out.add_(offsets[..., None]).view(*query.shape[:-1], -1)

    def mix(self, weights: torch.Tensor, room: Room) -> torch.Tensor:
        """The values' mean under weights (B, H, R, T), fp32: (B, H, R, D)."""
        rows, groups = weights.flatten(0, 1), self.value_steps.shape[-1]
        steps, zeros = (held.flatten(0, 1).flatten(1, 2).float() for held in (self.value_steps, self.value_zeros))
        mixed = rows.new_zeros(*rows.shape[:2], groups, self.widths[1] // groups)  # B H, R, J, group
        folded = [rows * step[:, None] for step in steps.unbind(-1)]
        for start, stop in self._tiles():
            codes = self._codes(self.values[:, :, start:stop], self.widths[1], room)
            codes = codes.view(rows.shape[0], -1, groups, self.widths[1] // groups)  # B H, t, J, group
            for group, weight in enumerate(folded):
                mixed[:, :, group] += torch.bmm(weight[..., start * BLOCK : stop * BLOCK], codes[:, :, group])
        return mixed.add_(torch.bmm(rows, zeros)[..., None]).view(*weights.shape[:-1], -1)

    def _empty(self, width: int, dtype: torch.dtype) -> torch.Tensor:
        batch, heads, count = self.keys.shape[:3]
        return torch.empty(batch, heads, count, BLOCK, width, dtype=dtype, device=self.keys.device)

    def _tiles(self) -> Iterator[tuple[int, int]]:
        batch, heads = self.keys.shape[:2]
        size = max(1, TILE // (batch * heads * BLOCK * max(self.widths)))
        return ((start, min(start + size, self.count)) for start in range(0, self.count, size))

    def _codes(self, packed: torch.Tensor, width: int, room: Room) -> torch.Tensor:
        """Codes (B, H, n, 64 * width), fp32, of some blocks."""
        shape = (*packed.shape[:-1], BLOCK * width)
        return unpack(packed, self.bits, *room.of(shape, packed.device))


_TENSORS = tuple(field.name for field in fields(Blocks))[2:]


def quantise(keys: torch.Tensor, values: torch.Tensor, bits: int) -> Blocks:
    """Blocks of keys and values (B, H, T, D), T a multiple of 64 above 0."""
    if keys.is_cuda:
        from r1core.model.kv.triton_pack import pack_blocks  # Triton is there where a GPU is

        return Blocks(bits, (keys.shape[-1], values.shape[-1]), *pack_blocks(keys, values, bits))
    batch, heads, tokens, width = keys.shape
    step = max(1, TILE * 8 // (batch * heads * BLOCK * width)) * BLOCK  # so that what passes by stays small
    made = None
    for start in range(0, tokens, step):
        more = quantise_plainly(keys[:, :, start : start + step], values[:, :, start : start + step], bits)
        made = more if made is None else made.then(more)
    assert made is not None
    return made


def quantise_plainly(keys: torch.Tensor, values: torch.Tensor, bits: int) -> Blocks:
    """The same in plain torch, in one go, on any device."""
    size = KEY_GROUPS[bits]
    channels = keys.unflatten(2, (-1, BLOCK // size, size)).transpose(-1, -2)  # B, H, N, P, D, size
    tokens = values.unflatten(2, (-1, BLOCK)).unflatten(-1, (-1, value_group(values.shape[-1])))
    key_codes, key_steps, key_zeros = _coded(channels.float(), bits)
    key_codes = key_codes.unflatten(-1, (-1, HALF)).movedim(-2, -3)  # B, H, N, P, size / 32, D, 32
    value_codes, value_steps, value_zeros = _coded(tokens.float(), bits)
    widths = (keys.shape[-1], values.shape[-1])
    keys, values = (pack(codes.flatten(3), bits) for codes in (key_codes, value_codes))
    return Blocks(bits, widths, keys, key_steps, key_zeros, values, value_steps, value_zeros)


def _coded(groups: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, steps and zeros of groups along the last of six axes; the three before it make a block."""
    low, high = groups.aminmax(dim=-1, keepdim=True)
    zeros = low.bfloat16()
    steps = ((high - low) / (2**bits - 1)).bfloat16()
    divisor = steps.float()
    divisor = torch.where(divisor > 0, divisor, 1.0)  # all of a group alike: code 0
    codes = ((groups - zeros.float()) / divisor).round_().clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8), steps.squeeze(-1), zeros.squeeze(-1)


def _halves(held: torch.Tensor) -> torch.Tensor:
    """Steps or zeros of keys (B, H, N, P, D) for each half of a block: (B, H, N, 2, D)."""
    return held.expand(-1, -1, -1, BLOCK // HALF, -1)
