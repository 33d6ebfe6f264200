"""The keys and values of one layer: the first tokens exact, whole blocks packed, the newest tokens exact.

The first few tokens stay exact because most heads rest on them ("attention sinks", Xiao et al. 2024): their keys are
outliers, which would also widen the steps of the tokens beside them. Newer tokens than `newest` are never packed.
Not covered: rows of a batch that are padded on the left have their sink behind the padding, inside of a block.
"""

# B = batch, H = key/value heads, T = tokens held, D = head width

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from r1core.errors import UserError
from r1core.model.kv.blocks import Room, quantise
from r1core.model.kv.held import Held, Pair, Still
from r1core.model.kv.layout import BLOCK
from r1core.model.kv.packing import BITS

FIRST = 4
"""Tokens at the start that stay exact."""
NEWEST = 32
"""Tokens at the end that stay exact, at least; up to `BLOCK - 1` more wait for their block to be whole."""


class PackedStates:
    """Appends keys and values of new tokens; packs a block whenever 64 tokens are older than the newest ones.

    Parameters
    ----------
    bits : 4, 5 or 6 a number, besides the steps and zeros.
    first, newest : tokens that stay exact.
    room : to unpack into; layers that work in turn share one.

    `fixed` : what is held, while it lies in memory for recorded steps (`r1core.model.kv.fixed`); else None.

    Raises
    ------
    UserError : for other bits, or a negative number of tokens.
    """

    def __init__(self, bits: int = 4, first: int = FIRST, newest: int = NEWEST, room: Room | None = None) -> None:
        if bits not in BITS:
            raise UserError(f"a key/value cache of {bits} bits", fix=f"take {', '.join(map(str, BITS))}")
        if first < 0 or newest < 0:
            raise UserError(f"{first} first and {newest} newest tokens kept exact", fix="neither is below 0")
        self.bits, self._first, self._newest = bits, first, newest
        self._sinks = first
        self.room = room or Room()
        self._held: Held | None = None
        self.fixed: Still | None = None

    @property
    def held(self) -> Held | None:
        """What is held; whoever asks for it takes it out of the memory for recorded steps."""
        if self.fixed is not None:
            self._held, self.fixed = self.fixed.held(), None
        return self._held

    @held.setter
    def held(self, held: Held | None) -> None:
        self._held, self.fixed = held, None

    @property
    def most(self) -> int:
        """Newest tokens of which 64 are packed."""
        return self._newest + BLOCK

    def missing(self, held: Held) -> int:
        """Tokens that are to stay exact at the start, and are not there or among the newest yet."""
        return self._sinks - held.first[0].shape[2] if held.blocks is None else 0

    @property
    def length(self) -> int:
        """Tokens that can be seen."""
        if self.fixed is not None:
            return self.fixed.before
        return 0 if self._held is None else self._held.length

    @property
    def nbytes(self) -> int:
        """Bytes of every storage that is held."""
        return nbytes(self.tensors())

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> Held:
        """Take the states (B, H, new, D) in; return all that can be seen now, the new ones exact."""
        if self.held is None:
            self.held = Held((keys[:, :, :0].clone(), values[:, :, :0].clone()), None, (keys, values), self.room)
        else:
            held = self.held
            self.held = Held(held.first, held.blocks, _join(held.newest, (keys, values)), held.room, held.hidden)
        seen = self.held
        self.settle()
        return seen

    def fix(self, fixed: Still) -> None:
        """Hold the same in memory for recorded steps from now on."""
        self._held, self.fixed = None, fixed

    def apart(self) -> Held | None:
        """What is held, the tokens that stay exact at the start put apart; None where they are not all there."""
        held = self.held
        if held is None:
            return None
        missing, waiting = self.missing(held), held.newest[0].shape[2]
        if missing > waiting:
            return None
        first = _join(held.first, _slice(held.newest, 0, missing)) if missing else held.first
        return replace(held, first=first, newest=_slice(held.newest, missing, waiting))

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may come more than once."""
        if self.fixed is not None and self.fixed.select(rows):
            return
        self._each(lambda held: held[rows.to(held.device)])

    def repeat(self, times: int) -> None:
        """Every row of the batch so many times, one after the other."""
        self._each(lambda held: held.repeat_interleave(times, 0))

    def crop(self, count: int) -> None:
        """Remove the newest tokens. Of a block that this cuts, the rest is unpacked, and packed again later."""
        held = self.held
        if held is None or count <= 0:
            return
        missing = count - held.newest[0].shape[2]
        if missing > 0 and held.blocks is not None:
            whole = max(0, held.blocks.count - -(-missing // BLOCK))
            cut = held.blocks.part(whole, held.blocks.count)
            dtype = held.newest[0].dtype
            newest = _join((cut.read_keys(dtype, held.room), cut.read_values(dtype, held.room)), held.newest)
            held = replace(held, blocks=held.blocks.part(0, whole) if whole else None, newest=newest)
        left = held.newest[0].shape[2] - count
        first = held.first if left >= 0 else _slice(held.first, 0, max(0, held.first[0].shape[2] + left))
        self.held = replace(held, first=first, newest=_slice(held.newest, 0, max(0, left)))
        if self.held.length <= 0:
            self.clear()

    def forget(self, count: int) -> None:
        """Remove the oldest tokens, as a window does; what stays exact at the start goes with them for good."""
        held = self.held
        if held is None or count <= 0:
            return
        self._sinks, first = 0, held.first[0].shape[2]
        count += held.hidden
        held = replace(held, first=_slice(held.first, min(first, count), first), hidden=0)
        count -= min(first, count)
        gone = min(count // BLOCK, held.blocks.count) if held.blocks is not None else 0
        if gone and held.blocks is not None:
            left = held.blocks.count - gone
            held = replace(held, blocks=held.blocks.part(gone, held.blocks.count) if left else None)
            count -= gone * BLOCK
        if held.blocks is None:
            held = replace(held, newest=_slice(held.newest, count, held.newest[0].shape[2]))
            count = 0
        self.held = replace(held, hidden=count)

    def clear(self) -> None:
        """Forget everything."""
        self.held, self._sinks = None, self._first

    def tensors(self) -> list[torch.Tensor]:
        """All that is held."""
        if self.fixed is not None:
            return self.fixed.tensors()
        if self._held is None:
            return []
        packed = [] if self._held.blocks is None else self._held.blocks.tensors()
        return [*self._held.first, *packed, *self._held.newest]

    def settle(self) -> None:
        """Pack what is older than the newest tokens, a whole block at a time."""
        assert self.held is not None
        held = self.held
        missing, waiting = self.missing(held), held.newest[0].shape[2]
        blocks = (waiting - missing - self._newest) // BLOCK
        if blocks <= 0:
            # A copy: a view would keep what the model computed it from.
            own = _slice(held.newest, 0, waiting)
            if own[0] is not held.newest[0] or own[1] is not held.newest[1]:
                self.held = replace(held, newest=own)
            return
        stop = missing + blocks * BLOCK
        keys, values = (part[:, :, missing:stop] for part in held.newest)
        packed = quantise(keys, values, self.bits)
        self.held = replace(
            held,
            first=_join(held.first, _slice(held.newest, 0, missing)),
            blocks=packed if held.blocks is None else held.blocks.then(packed),
            newest=_slice(held.newest, stop, waiting),
        )

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        held = self.held
        if held is not None:
            self.held = Held(
                (change(held.first[0]), change(held.first[1])),
                None if held.blocks is None else held.blocks.each(change),
                (change(held.newest[0]), change(held.newest[1])),
                held.room,
                held.hidden,
            )


def nbytes(held: Iterable[torch.Tensor]) -> int:
    """Bytes of every storage of these."""
    return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in held}.values())


def _join(left: Pair, right: Pair) -> Pair:
    return torch.cat([left[0], right[0]], 2), torch.cat([left[1], right[1]], 2)


def _slice(pair: Pair, start: int, stop: int) -> Pair:
    """A part of both, in memory of its own; the pair itself where that is so already."""
    return _own(pair[0], start, stop), _own(pair[1], start, stop)


def _own(held: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    whole = start == 0 and stop == held.shape[2]
    alone = held.untyped_storage().nbytes() == held.numel() * held.element_size()
    return held if whole and alone else held[:, :, start:stop].clone(memory_format=torch.contiguous_format)
