"""R1's caches in memory that stays where it is, for recorded steps (`r1core.model.recorded`).

Positions of what is held lie in fixed memory too, `NOWHERE` where there is nothing. From them the device says at the
start of a step what the new token sees, for all layers at once; so what has been dropped, what waits and what is not
filled are all told by the mask. Dropping, copying nodes and packing happen between two steps, as they do without.

B = batch, D = head width, S = slots that there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from r1core.model.kv.fixed import Fixed, Lengths, with_room
from r1core.model.kv.held import Held, merged
from r1core.model.kv.layout import BLOCK
from r1core.model.r1.cache import R1CacheLayer
from r1core.model.r1.packed import PackedR1Layer, Seen
from r1core.model.r1.reach import NOWHERE, SLACK, Reach


@dataclass(frozen=True, slots=True)
class Sighted(Seen):
    """What the new token attends to of an exact layer: `keys`, `values` (B, heads, S, D) under a mask (B, 1, 1, S)."""

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor

    def attend(self, query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of (B, A, 1, D); heads that share keys stand where queries do, so that keys are not repeated."""
        grouped = query.unflatten(1, (self.keys.shape[1], -1)).squeeze(3)
        out = scaled_dot_product_attention(grouped, self.keys, self.values, self.mask, scale=scale)
        return out.flatten(1, 2).unsqueeze(2)


@dataclass(frozen=True, slots=True)
class SightedCodes(Seen):
    """The same of a packed layer: nodes, then the window."""

    fixed: tuple[Fixed, Fixed]

    def attend(self, query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of (B, A, 1, D) from the codes."""
        return merged([part.attend_in_part(query, scale) for part in self.fixed]).to(query.dtype)


class FixedR1:
    """What the two kinds of layers have alike.

    Parameters
    ----------
    window, every, limit : of the model: its window, its nodes' distance and its longest context.
    tokens : new tokens that are expected.
    """

    rows: int
    under_way = False

    def __init__(
        self,
        layers: Sequence[R1CacheLayer] | Sequence[PackedR1Layer],
        window: int,
        every: int | None,
        limit: int,
        tokens: int,
    ) -> None:
        self.layers, self.window, self.every, self.limit = layers, window, every, limit
        self._tokens = tokens

    @property
    def stands(self) -> bool:
        """Whether every layer still is in this memory."""
        return all(layer.fixed is self for layer in self.layers)

    @property
    def length(self) -> int:
        """Tokens of each row that went through."""
        return self.layers[0].seen

    def takes(self, mask: torch.Tensor | None) -> bool:
        """Whether a step is no padding, and within the longest context."""
        return self.length < self.limit and (mask is None or bool(mask[:, -1].all()))

    def see(self, mask: torch.Tensor | None) -> None:
        """Nothing: padding was told by its positions when it was read."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count a token more on the host."""
        self.under_way = True
        try:
            yield
        finally:
            self.under_way = False
        for layer in self.layers:
            layer.seen += 1

    def release(self) -> None:
        """Take every layer out again."""
        for layer in self.layers:
            layer.thaw()

    def _sight(self, positions: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """What new tokens at `positions` (B, 1) see of keys at these (B, S): (B, 1, 1, S)."""
        return Reach(positions, keys, self.window, self.every).mask


class FixedExact(FixedR1):
    """Exact layers: keys, values and positions with room behind them."""

    layers: Sequence[R1CacheLayer]

    def __init__(self, layers: Sequence[R1CacheLayer], window: int, every: int | None, limit: int, tokens: int) -> None:
        super().__init__(layers, window, every, limit, tokens)
        self._fix()

    def _fix(self) -> None:
        known = self.layers[0].positions
        assert known is not None
        self.rows, self.filled = known.shape
        size = -(-(self.filled + max(SLACK, min(self._tokens, 2 * SLACK)) + SLACK) // BLOCK) * BLOCK
        self.keys = known.new_full((self.rows, size), NOWHERE)
        self.keys[:, : self.filled] = known
        self.slot = torch.tensor([self.filled - 1], device=known.device)
        self.mask = torch.empty(0)
        for layer in self.layers:
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys, layer.values = with_room(layer.keys, size), with_room(layer.values, size)
            layer.fixed = self

    def positions(self) -> torch.Tensor:
        """Of the next tokens, (B, 1)."""
        return self.keys.amax(-1, keepdim=True) + 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count a token more on the host."""
        with super().step():
            yield
        self.filled += 1

    def advance(self, positions: torch.Tensor) -> None:
        """Count it on the device, and say what it sees."""
        self.slot.add_(1)
        self.keys.index_copy_(1, self.slot, positions)
        self.mask = self._sight(positions, self.keys)

    @property
    def nothing(self) -> torch.Tensor:
        """Positions (B, 0)."""
        return self.keys[:, :0]

    def known(self, hidden: int = 0) -> torch.Tensor:
        """Positions (B, N) of what is held."""
        return self.keys[:, hidden : self.filled].clone()

    def append(self, layer: R1CacheLayer, keys: torch.Tensor, values: torch.Tensor) -> Sighted:
        """Put the new tokens' states (B, heads, 1, D) in their place; return what they attend to."""
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys.index_copy_(2, self.slot, keys)
        layer.values.index_copy_(2, self.slot, values)
        return Sighted((), layer.keys, layer.values, self.mask)

    def settle(self) -> bool:
        """Behind a step: where no room is left, sort out what nobody sees any more; False where all had to move."""
        size = self.keys.shape[1]
        if self.filled < size:
            return True
        lasting = Reach(self.keys[:, -1:], self.keys, self.window, self.every).lasting
        if lasting is None:
            self.release()
            self._fix()
            return False
        at, self.filled = lasting.clamp(min=0), lasting.shape[1]
        known = torch.where(lasting == NOWHERE, NOWHERE, self.keys.gather(1, at))
        self.keys.fill_(NOWHERE)
        self.keys[:, : self.filled] = known
        for layer in self.layers:
            for part in (layer.keys, layer.values):
                assert part is not None
                wide = at[:, None, :, None].expand(-1, part.shape[1], -1, part.shape[-1])
                part[:, :, : self.filled] = part.gather(2, wide)
        self.slot.fill_(self.filled - 1)
        return True


class FixedPacked(FixedR1):
    """Packed layers: the window's store as it is held elsewhere, and a copy of the nodes, which only change between."""

    layers: Sequence[PackedR1Layer]

    def __init__(
        self, layers: Sequence[PackedR1Layer], window: int, every: int | None, limit: int, tokens: int
    ) -> None:
        super().__init__(layers, window, every, limit, tokens)
        self._fix()

    def _fix(self) -> None:
        first = self.layers[0]
        held, at = first.states.held, first.at
        assert held is not None
        assert at is not None
        count, firsts = _count(held), held.first[0].shape[2]
        newest = held.newest[0]
        self.rows, self.most = len(newest), first.states.most + first.states.missing(held)
        self.room = min(count + 1 + -(-self._tokens // BLOCK), max(count + 1, self.window // BLOCK + 4))
        packed = at[0].shape[1] // BLOCK
        self.far_room = packed + 1 + (self._tokens // (BLOCK * self.every) if self.every else 0)
        device = newest.device
        self.lengths = Lengths(firsts, count, newest.shape[2], device)
        self.far_lengths = Lengths(0, packed, BLOCK, device)
        near, far = firsts + self.room * BLOCK + self.most, (self.far_room + 1) * BLOCK
        self.near_keys = at[2].new_full((self.rows, near), NOWHERE)
        self.far_keys = at[2].new_full((self.rows, far), NOWHERE)
        for lengths, keys in ((self.lengths, self.near_keys), (self.far_lengths, self.far_keys)):
            lengths.seen = torch.zeros(self.rows, 1, 1, keys.shape[1], dtype=torch.bool, device=device)
        self._place(at, held.hidden)
        self.slot = torch.empty_like(self.lengths.slot)
        self.parts: dict[int, tuple[Fixed, Fixed]] = {}
        for layer in self.layers:
            own = layer.states.held
            assert own is not None
            nodes = Fixed.of(self._nodes(layer), self.far_lengths, layer.states.bits, self.far_room, BLOCK)
            fixed = Fixed.of(own, self.lengths, layer.states.bits, self.room, self.most)
            self._hold(layer, nodes, fixed)

    def positions(self) -> torch.Tensor:
        """Of the next tokens, (B, 1)."""
        return torch.maximum(self.near_keys.amax(-1, keepdim=True), self.far_keys.amax(-1, keepdim=True)) + 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count a token more on the host."""
        with super().step(), self.lengths.step():
            yield

    def advance(self, positions: torch.Tensor) -> None:
        """Count it on the device, and say what it sees."""
        lengths, far = self.lengths, self.far_lengths
        assert lengths.seen is not None
        assert far.seen is not None
        lengths.advance()
        torch.add(lengths.slot, lengths.told[:1], alpha=BLOCK, out=self.slot)
        self.slot.add_(lengths.first)
        self.near_keys.index_copy_(1, self.slot, positions)
        lengths.seen.copy_(self._sight(positions, self.near_keys))
        far.seen.copy_(self._sight(positions, self.far_keys))

    def append(self, layer: PackedR1Layer, keys: torch.Tensor, values: torch.Tensor) -> SightedCodes:
        """Put the new tokens' states (B, heads, 1, D) in their place; return what they attend to."""
        nodes, near = self.parts[id(layer)]
        near.append(keys, values)
        return SightedCodes((), (nodes, near))

    @property
    def nothing(self) -> torch.Tensor:
        """Positions (B, 0)."""
        return self.near_keys[:, :0]

    def known(self, hidden: int = 0) -> torch.Tensor:
        """Positions (B, N) of what the window's store holds, without the oldest `hidden`."""
        return self.near_keys[:, hidden : self.lengths.total].clone()

    def settle(self) -> bool:
        """Behind a step: where a block is whole, do what a pass does then; False where all had to move."""
        if self.lengths.newest < self.most:
            return True
        one = self.parts[id(self.layers[0])][1]
        near = self.known(one.hidden)
        seen = Reach(near[:, -1:], near, self.window, self.every)
        for layer in self.layers:
            layer.thaw()
            layer.border(seen)
        held, at = self.layers[0].states.held, self.layers[0].at
        assert held is not None
        assert at is not None
        packed, count = at[0].shape[1] // BLOCK, _count(held)
        if held.first[0].shape[2] != self.lengths.first or count > self.room or packed > self.far_room:
            self._fix()
            return False
        self._count(count, held.newest[0].shape[2], packed)
        self._place(at, held.hidden)
        for layer in self.layers:
            nodes, fixed = self.parts[id(layer)]
            own = layer.states.held
            assert own is not None
            self._hold(layer, nodes.refill(self._nodes(layer)), fixed.refill(own))
        return True

    def _count(self, blocks: int, newest: int, packed: int) -> None:
        self.lengths.blocks, self.lengths.newest, self.far_lengths.blocks = blocks, newest, packed
        self.lengths.told[:1].fill_(blocks)
        self.lengths.told[1:].fill_(newest)
        self.far_lengths.told[:1].fill_(packed)

    def _place(self, at: tuple[torch.Tensor, torch.Tensor, torch.Tensor], hidden: int) -> None:
        """Positions of packed nodes, of waiting ones, of the window's store; nodes that this still has do not count."""
        near = at[2]
        oldest = torch.where(near > NOWHERE, near, torch.iinfo(near.dtype).max).amin(1, keepdim=True)
        nodes = torch.cat(at[:2], 1)
        self.near_keys.fill_(NOWHERE)
        self.near_keys[:, hidden : hidden + near.shape[1]] = near
        self.far_keys.fill_(NOWHERE)
        self.far_keys[:, : nodes.shape[1]] = torch.where(nodes < oldest, nodes, NOWHERE)

    def _nodes(self, layer: PackedR1Layer) -> Held:
        """The nodes; those that wait fill a block, with nothing where there are none."""
        held = layer.nodes.held
        assert layer.waiting is not None
        waiting = with_room(layer.waiting[0], BLOCK), with_room(layer.waiting[1], BLOCK)
        none = layer.waiting[0][:, :, :0], layer.waiting[1][:, :, :0]
        return Held(none, None if held is None else held.blocks, waiting, layer.states.room)

    def _hold(self, layer: PackedR1Layer, nodes: Fixed, fixed: Fixed) -> None:
        layer.states.fix(fixed)
        layer.fixed = self
        self.parts[id(layer)] = (nodes, fixed)


def _count(held: Held) -> int:
    return 0 if held.blocks is None else held.blocks.count


def fixed_r1(
    layers: Sequence[object], window: int, every: int | None, limit: int, tokens: int
) -> FixedExact | FixedPacked | None:
    """R1's layers in fixed memory; None where they hold nothing, or everything for a mask of the caller's own."""
    exact = [layer for layer in layers if isinstance(layer, R1CacheLayer)]
    packed = [layer for layer in layers if isinstance(layer, PackedR1Layer)]
    for layer in exact or packed:
        if layer.masked or layer.positions is None:
            return None
    if exact and len(exact) == len(layers):
        return FixedExact(exact, window, every, limit, tokens)
    if packed and len(packed) == len(layers):
        return FixedPacked(packed, window, every, limit, tokens)
    return None
