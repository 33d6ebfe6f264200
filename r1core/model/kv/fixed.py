"""Packed keys and values in memory that stays where it is, so that a step recorded on a GPU can be replayed.

A recorded step reads and writes the same addresses each time, and nothing of it can depend on a number of the host.
So blocks and newest tokens lie in memory with room for more, and how much of it is filled stands on the device, where
the kernels read it. A block is packed between two steps. What is computed is what `Held` computes, in the same order.

Not covered: several new tokens of a row, windows, and devices whose kernels are not Triton's (a CPU computes the same
through `Held`; that is for tests).
"""

# B = batch, H = key/value heads, D = head width, N = blocks that there is room for

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch

from r1core.errors import R1Error
from r1core.model.kv.blocks import Blocks, Room, quantise
from r1core.model.kv.held import Held, Pair, fits
from r1core.model.kv.layout import BLOCK
from r1core.model.kv.states import PackedStates


class Unanswered(R1Error):
    """A recorded step asked for more than codes answer; what asked, in a line."""


class Lengths:
    """How much of the memory of all layers is filled: on the host, and the same on the device.

    Parameters
    ----------
    first, blocks, newest : exact tokens at the start, packed blocks, exact tokens at the end.

    `told` (2,) int64 : blocks, and newest tokens with that of a step under way. `slot` (1,) int64 : where this goes.
    `seen` (B, 1, 1, tokens) bool : which tokens are no padding, beyond the filled ones nothing; None = all are seen.
    """

    def __init__(self, first: int, blocks: int, newest: int, device: torch.device) -> None:
        self.first, self.blocks, self.newest = first, blocks, newest
        self.under_way = False
        self.told = torch.tensor([blocks, newest], device=device)
        self.slot = torch.tensor([newest], device=device)
        self.seen: torch.Tensor | None = None

    @property
    def total(self) -> int:
        """Tokens that can be seen, with that of a step under way."""
        return self.first + self.blocks * BLOCK + self.newest

    @property
    def before(self) -> int:
        """Tokens that went through."""
        return self.total - self.under_way

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count one more token of each row on the host; where the step fails there is none."""
        self.newest, self.under_way = self.newest + 1, True
        try:
            yield
        except BaseException:
            self.newest -= 1
            raise
        finally:
            self.under_way = False

    def advance(self) -> None:
        """Count it on the device: the start of what is recorded."""
        self.told[1:].add_(1)
        torch.sub(self.told[1:], 1, out=self.slot)

    def pack(self) -> None:
        """Count a block more and its tokens less, on both."""
        self.blocks, self.newest = self.blocks + 1, self.newest - BLOCK
        self.told[:1].add_(1)
        self.told[1:].sub_(BLOCK)


@dataclass(frozen=True, slots=True)
class Fixed:
    """What one layer holds, as `Held`, but `blocks` and `newest` have room behind what is filled.

    `hidden` tokens count as held until it is a `Held` again: `Lengths.seen` leaves them out.
    """

    lengths: Lengths
    first: Pair
    blocks: Blocks
    newest: Pair
    room: Room
    hidden: int = 0

    @staticmethod
    def of(held: Held, lengths: Lengths, bits: int, blocks: int, newest: int) -> Fixed:
        """The same in memory for so many blocks and newest tokens, zeros where nothing is."""
        made = held.blocks
        if made is None:  # one of nothing tells the shapes
            nothing = [part.new_zeros(*part.shape[:2], BLOCK, part.shape[3]) for part in held.newest]
            made = quantise(nothing[0], nothing[1], bits).each(lambda part: part[:, :, :0])
        return Fixed(
            lengths,
            (held.first[0].contiguous(), held.first[1].contiguous()),
            made.each(lambda part: with_room(part, blocks)),
            (with_room(held.newest[0], newest), with_room(held.newest[1], newest)),
            held.room,
            held.hidden,
        )

    @property
    def length(self) -> int:
        """Tokens that can be seen."""
        return self.lengths.total

    @property
    def before(self) -> int:
        """Tokens that went through."""
        return self.lengths.before

    @property
    def under_way(self) -> bool:
        """Whether a step is."""
        return self.lengths.under_way

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put the states (B, H, 1, D) of the step's token in their place."""
        self.newest[0].index_copy_(2, self.lengths.slot, keys)
        self.newest[1].index_copy_(2, self.lengths.slot, values)

    def fits(self, query: torch.Tensor) -> bool:
        """Whether a GPU's kernel attends to this."""
        return fits(self.blocks.widths, self.newest[0].shape[1], query)

    def attend(self, query: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None) -> torch.Tensor:
        """As `Held.attend`; what is seen is known already, so there is no further mask.

        Raises
        ------
        Unanswered : for a mask.
        """
        if mask is not None:
            raise Unanswered("attention has a mask beside that of padding")
        return self.attend_in_part(query, scale)[0]

    def attend_in_part(self, query: torch.Tensor, scale: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Held.attend_in_part`."""
        seen, exact = self.lengths.seen, (*self.first, *self.newest)
        if query.is_cuda:
            from r1core.model.kv.triton_attend import attend  # Triton is there where a GPU is

            return attend(self.blocks, exact, 0, query, seen, scale, self.lengths.told)
        return self._filled().attend_in_part(query, None if seen is None else seen[..., : self.length], scale)

    def read_keys(self) -> torch.Tensor:
        """Refused: a recorded step unpacks nothing.

        Raises
        ------
        Unanswered : always.
        """
        raise Unanswered("attention asks for unpacked keys or values")

    read_values = read_keys

    def pack(self) -> None:
        """Pack the oldest 64 of the newest tokens, before `Lengths.pack` counts them."""
        at, rest = self.lengths.blocks, self.lengths.newest - BLOCK
        made = quantise(self.newest[0][:, :, :BLOCK], self.newest[1][:, :, :BLOCK], self.blocks.bits)
        for held, new in zip(self.blocks.tensors(), made.tensors(), strict=True):
            held[:, :, at : at + 1].copy_(new)
        for part in self.newest:
            part[:, :, :rest].copy_(part[:, :, BLOCK : BLOCK + rest].clone())

    def select(self, rows: torch.Tensor) -> bool:
        """Put these rows of the batch in place of all; False, and nothing done, where their number is another."""
        if len(rows) != len(self.newest[0]):
            return False
        filled = self._filled()
        packed = [] if filled.blocks is None else filled.blocks.tensors()
        for part in (*filled.first, *packed, *filled.newest):
            part.copy_(part[rows.to(part.device)])
        return True

    def refill(self, held: Held) -> Fixed:
        """Hold something else in the same memory; `lengths` are counted by who asks for it."""
        blocks = [] if held.blocks is None else held.blocks.tensors()
        for room, new in zip((*self.newest, *self.blocks.tensors()), (*held.newest, *blocks), strict=False):
            room[:, :, : new.shape[2]].copy_(new)
        return replace(self, hidden=held.hidden)

    def held(self) -> Held:
        """The same in memory of its own, without room."""
        filled = self._filled()
        blocks = None if filled.blocks is None else filled.blocks.each(torch.clone)
        return Held(self.first, blocks, (filled.newest[0].clone(), filled.newest[1].clone()), self.room, self.hidden)

    def tensors(self) -> list[torch.Tensor]:
        """All that is held."""
        return [*self.first, *self.blocks.tensors(), *self.newest]

    def _filled(self) -> Held:
        count, newest = self.lengths.blocks, self.lengths.newest
        blocks = self.blocks.each(lambda part: part[:, :, :count]) if count else None
        return Held(self.first, blocks, (self.newest[0][:, :, :newest], self.newest[1][:, :, :newest]), self.room)


class FixedCache:
    """The layers of a packed cache in fixed memory, with room for so many more tokens of each row at least.

    Whatever else is done with one of these layers takes it out again: see `PackedStates.held`, and `stands`.

    Parameters
    ----------
    padded : whether steps may come with a mask of padding.
    """

    def __init__(self, layers: Sequence[PackedStates], tokens: int, *, padded: bool) -> None:
        self.layers, self._tokens, self._padded = layers, tokens, padded
        self._fix(tokens)

    def _fix(self, tokens: int) -> None:
        """Move every layer, one after the other, into memory with room for so many more tokens."""
        one = self.layers[0].apart()
        assert one is not None
        first, newest = one.first[0].shape[2], one.newest[0]
        count = 0 if one.blocks is None else one.blocks.count
        self.rows, self.room = len(newest), count + 1 + -(-tokens // BLOCK)
        self.most = self.layers[0].most
        self.lengths = Lengths(first, count, newest.shape[2], newest.device)
        if self._padded:
            size = first + self.room * BLOCK + self.most
            self.lengths.seen = torch.zeros(self.rows, 1, 1, size, dtype=torch.bool, device=newest.device)
        self.fixed: list[Fixed] = []
        for states in self.layers:
            one = states.apart()
            assert one is not None
            self.fixed.append(Fixed.of(one, self.lengths, states.bits, self.room, self.most))
            states.fix(self.fixed[-1])

    @property
    def stands(self) -> bool:
        """Whether every layer still is in this memory."""
        return all(states.fixed is one for states, one in zip(self.layers, self.fixed, strict=True))

    @property
    def length(self) -> int:
        """Tokens of each row that went through."""
        return self.lengths.before

    def takes(self, mask: torch.Tensor | None) -> bool:
        """Whether there is a place for what a step says of padding."""
        return mask is None or self._padded

    def see(self, mask: torch.Tensor | None) -> None:
        """Take a step's mask (B, tokens), 0 for padding, or None."""
        seen = self.lengths.seen
        if seen is not None and mask is None:
            seen.fill_(True)
        elif seen is not None and mask is not None:
            seen[:, 0, 0, : mask.shape[1]].copy_(mask != 0)

    def positions(self) -> torch.Tensor | int:
        """Of the next token, where a step does not say."""
        return self.length

    def step(self) -> AbstractContextManager[None]:
        """Count a token more of each row on the host, around what is recorded."""
        return self.lengths.step()

    def advance(self, positions: torch.Tensor) -> None:
        """Count it on the device: the start of what is recorded. `positions` (B, 1) : of the new tokens."""
        self.lengths.advance()

    def settle(self) -> bool:
        """Behind a step: pack a block where one is whole; False where all had to move to larger memory for it."""
        if self.lengths.newest < self.most:
            return True
        moved = self.lengths.blocks == self.room
        if moved:
            self._fix(max(self._tokens, self.length))
        for one in self.fixed:
            one.pack()
        self.lengths.pack()
        return not moved

    def release(self) -> None:
        """Take every layer out again."""
        for states in self.layers:
            _ = states.held


def with_room(held: torch.Tensor, size: int) -> torch.Tensor:
    """The same in memory for so many blocks or tokens, along the third axis."""
    room = held.new_zeros(*held.shape[:2], size, *held.shape[3:])
    room[:, :, : held.shape[2]].copy_(held)
    return room
