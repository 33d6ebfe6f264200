"""The keys and values of one layer: the first tokens exact, whole blocks packed, the newest tokens exact.

The first few tokens stay exact because most heads rest on them ("attention sinks", Xiao et al. 2024): their keys are
outliers, which would also widen the steps of the tokens beside them. Newer tokens than `newest` are never packed.
Not covered: rows of a batch that are padded on the left have their sink behind the padding, inside of a block.
"""

# B = batch, H = key/value heads, A = attention heads, Q = queries of a head, T = tokens held, D = head width

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from r1core.errors import UserError
from r1core.model.kv.blocks import Blocks, Room, quantise
from r1core.model.kv.layout import BLOCK
from r1core.model.kv.packing import BITS

_LEAST = torch.finfo(torch.float32).min
FIRST = 4
"""Tokens at the start that stay exact."""
NEWEST = 32
"""Tokens at the end that stay exact, at least; up to `BLOCK - 1` more wait for their block to be whole."""

ROWS, WIDTH = 64, 256
"""Queries that share a key/value head, and head width, up to which a GPU's kernel answers them from the codes."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values (B, H, T, D)."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a layer attends to at one moment; later appends do not change it.

    `hidden` : oldest tokens that are still in memory, because their block is, but no longer seen.
    """

    first: Pair
    blocks: Blocks | None
    newest: Pair
    room: Room
    hidden: int = 0

    @property
    def length(self) -> int:
        """Tokens that can be seen."""
        return self._total - self.hidden

    def last(self, count: int) -> Held:
        """The same, with no more than the last tokens seen."""
        return replace(self, hidden=max(self.hidden, self._total - count))

    def read_keys(self) -> torch.Tensor:
        """The keys (B, H, T, D), unpacked."""
        between = [] if self.blocks is None else [self.blocks.read_keys(self.newest[0].dtype, self.room)]
        return torch.cat([self.first[0], *between, self.newest[0]], 2)[:, :, self.hidden :]

    def read_values(self) -> torch.Tensor:
        """The values (B, H, T, D), unpacked."""
        between = [] if self.blocks is None else [self.blocks.read_values(self.newest[1].dtype, self.room)]
        return torch.cat([self.first[1], *between, self.newest[1]], 2)[:, :, self.hidden :]

    def attend(self, query: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None) -> torch.Tensor:
        """Attention from the codes: nothing of the blocks is unpacked but a tile at a time.

        Parameters
        ----------
        query : (B, A, Q, D), A a multiple of H.
        mask : (1 or B, 1 or A, 1 or Q, T): what may be seen, or what is added to the scores; None = all is seen.
        scale : of the scores; None = 1 / sqrt(D).

        Returns (B, A, Q, D) in the query's dtype.
        """
        if self.fits(query):
            return self.attend_in_part(query, mask, scale)[0]
        weights = self._masked_scores(query, mask, scale).softmax(-1)
        return self._mix(weights).reshape(*query.shape[:-1], -1).to(query.dtype)

    def attend_in_part(
        self, query: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the log of the softmax' denominator (B, A, Q), fp32.

        By it the output can be merged with attention to other keys; it is the least number where nothing is seen.
        """
        if self.blocks is not None and self.fits(query):
            from r1core.model.kv.triton_attend import attend  # Triton is there where a GPU is

            return attend(self.blocks, (*self.first, *self.newest), self.hidden, query, mask, scale)
        scores = self._masked_scores(query, mask, scale)
        denominator = scores.logsumexp(-1)
        mixed = self._mix(scores.softmax(-1)).reshape(*query.shape[:-1], -1)
        return mixed.to(query.dtype), denominator.view(query.shape[:-1])

    def fits(self, query: torch.Tensor) -> bool:
        """Whether a GPU's kernel attends to this; it is written for a few queries."""
        if self.blocks is None or not query.is_cuda or query.dtype == torch.float64:
            return False
        rows = query.shape[1] // self.newest[0].shape[1] * query.shape[2]
        return rows <= ROWS and max(self.blocks.widths) <= WIDTH

    @property
    def _total(self) -> int:
        packed = 0 if self.blocks is None else self.blocks.count * BLOCK
        return self.first[0].shape[2] + packed + self.newest[0].shape[2]

    def _masked_scores(self, query: torch.Tensor, mask: torch.Tensor | None, scale: float | None) -> torch.Tensor:
        """Scores (B, H, A / H * Q, all tokens), fp32."""
        batch, heads = self.newest[0].shape[:2]
        scaled = query.float() * (query.shape[-1] ** -0.5 if scale is None else scale)
        scores = self._scores(scaled.reshape(batch, heads, -1, query.shape[-1]))
        if mask is not None:
            _mask(scores[..., self.hidden :].unflatten(2, (-1, query.shape[2])), mask)
        if self.hidden:
            scores[..., : self.hidden] = -torch.inf
        return scores

    def _scores(self, rows: torch.Tensor) -> torch.Tensor:
        between = [] if self.blocks is None else [self.blocks.scores(rows, self.room)]
        exact = (rows @ keys.float().mT for keys in (self.first[0], self.newest[0]))
        return torch.cat([next(exact), *between, next(exact)], -1)

    def _mix(self, weights: torch.Tensor) -> torch.Tensor:
        first, newest = self.first[1], self.newest[1]
        until = weights.shape[-1] - newest.shape[2]
        mixed = weights[..., until:] @ newest.float()
        if first.shape[2]:
            mixed += weights[..., : first.shape[2]] @ first.float()
        if self.blocks is not None:
            mixed += self.blocks.mix(weights[..., first.shape[2] : until], self.room)
        return mixed


def _mask(scores: torch.Tensor, mask: torch.Tensor) -> None:
    """Apply a mask (B, A, Q, T) to scores (B, H, A / H, Q, T), in place."""
    mask = mask.unsqueeze(2) if mask.shape[1] == 1 else mask.unflatten(1, (scores.shape[1], -1))
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, _LEAST)
    else:
        scores.add_(mask).clamp_(min=_LEAST)


class PackedStates:
    """Appends keys and values of new tokens; packs a block whenever 64 tokens are older than the newest ones.

    Parameters
    ----------
    bits : 4, 5 or 6 a number, besides the steps and zeros.
    first, newest : tokens that stay exact.
    room : to unpack into; layers that work in turn share one.

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
        self.held: Held | None = None

    @property
    def length(self) -> int:
        """Tokens that can be seen."""
        return 0 if self.held is None else self.held.length

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
        self._settle()
        return seen

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may come more than once."""
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
        if self.held is None:
            return []
        packed = [] if self.held.blocks is None else self.held.blocks.tensors()
        return [*self.held.first, *packed, *self.held.newest]

    def _settle(self) -> None:
        """Pack what is older than the newest tokens, a whole block at a time."""
        assert self.held is not None
        held = self.held
        missing = self._sinks - held.first[0].shape[2] if held.blocks is None else 0
        waiting = held.newest[0].shape[2]
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


def attend_over(parts: Sequence[Held], query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention over several holdings in a row, by `Held.attend_in_part` of each: (B, A, Q, D).

    `mask` : (1 or B, 1 or A, 1 or Q, tokens of all parts), as `Held.attend` takes it.
    """
    found, start = [], 0
    for part in parts:
        found.append(part.attend_in_part(query, mask[..., start : start + part.length], scale))
        start += part.length
    if len(found) == 1:
        return found[0][0]
    shares = torch.stack([log for _, log in found]).softmax(0)[..., None]
    return (shares * torch.stack([mixed for mixed, _ in found])).sum(0).to(query.dtype)


def _join(left: Pair, right: Pair) -> Pair:
    return torch.cat([left[0], right[0]], 2), torch.cat([left[1], right[1]], 2)


def _slice(pair: Pair, start: int, stop: int) -> Pair:
    """A part of both, in memory of its own; the pair itself where that is so already."""
    return _own(pair[0], start, stop), _own(pair[1], start, stop)


def _own(held: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    whole = start == 0 and stop == held.shape[2]
    alone = held.untyped_storage().nbytes() == held.numel() * held.element_size()
    return held if whole and alone else held[:, :, start:stop].clone(memory_format=torch.contiguous_format)
