"""R1's attention over long prompts on a GPU, as one fused kernel (torch's FlexAttention).

The global nodes are gathered in front of the keys; where it trains, once for every `SEGMENT` queries: a block of nodes
that all later queries attend to would be one program's work in the backward pass, as long as half of all the others'
together. A copy serves its segment, and holds the nodes before it only. Blocks of queries and keys that see nothing
of one another are left out, blocks that see each other whole carry no mask.

B = batch, T = new tokens, N = keys, P = gathered keys, G = nodes, D = head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from r1core.model.r1.reach import NOWHERE, Reach

Seen = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of batch, head, query and key: whether the query sees the key."""
BLOCK = 128
"""Queries and keys of a block."""
SEGMENT = 8192
"""Queries that share a copy of the nodes: a program of it then does twice the work of one of the window."""
STATIC = 6
"""Shapes that get a kernel of their own; further ones share a slower one, since each takes seconds to compile."""
HOPPER = (9, 0)
"""Compute capability from which keys can be fetched by the tensor memory accelerator."""
FORWARD = {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 128, "fwd_num_warps": 8, "fwd_num_stages": 3}
"""Tiles of the forward kernel for heads of `FULL` bytes on such a GPU, whose shared memory they fill: a twentieth less
time than torch's own choice, measured on an H100 with 204,800 tokens."""
FULL = 256


@dataclass(frozen=True)
class Gathered:
    """The nodes in front of the keys.

    Parameters
    ----------
    nodes : (B, G) slots of the nodes, `NOWHERE` behind a row's last.
    counts : nodes of each segment's copy.
    sizes : keys that the copy takes, whole blocks.
    segment : queries that share a copy.
    """

    nodes: torch.Tensor
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    segment: int

    @property
    def total(self) -> int:
        """P, the keys in front."""
        return sum(self.sizes)

    def slots(self) -> torch.Tensor:
        """(B, P) slots that are copied, `NOWHERE` for what fills a block."""
        padded = torch.nn.functional.pad(self.nodes, (0, BLOCK), value=NOWHERE)
        parts = []
        for count, size in zip(self.counts, self.sizes, strict=True):
            part = padded[:, :size].clone()
            part[:, count:] = NOWHERE
            parts.append(part)
        return torch.cat(parts, 1) if parts else self.nodes[:, :0]

    def copy(self, device: torch.device) -> torch.Tensor:
        """(P,) number of the segment that each copied key is for."""
        sizes = torch.tensor(self.sizes, dtype=torch.long, device=device)
        return torch.repeat_interleave(torch.arange(len(self.sizes), device=device), sizes)


def gathered(reach: Reach, segment: int) -> Gathered:
    """Which nodes each segment of queries may see beyond its window."""
    keys, window, every = reach.keys, reach.window, reach.every
    if every is None:
        return Gathered(keys[:, :0], (), (), segment)
    node = (keys > NOWHERE) & (keys % every == every - 1)
    most = int(node.sum(1).max())
    order = (~node).int().argsort(dim=1, stable=True)[:, :most]
    nodes = torch.where(node.gather(1, order), order, NOWHERE)
    new = reach.queries.shape[1]
    ends = [min(start + segment, new) for start in range(0, new, segment)]
    last = torch.tensor([reach.kept + end - window for end in ends], device=keys.device)
    before = ((nodes[:, None] <= last[None, :, None] - 1) & (nodes[:, None] > NOWHERE)).sum(-1).amax(0)
    counts = tuple(before.tolist())
    return Gathered(nodes, counts, tuple(-(-count // BLOCK) * BLOCK for count in counts), segment)


class _InFront(torch.autograd.Function):
    """Keys (B, heads, N, D) with copies of their nodes in front: (B, heads, P + N, D)."""

    @staticmethod
    def forward(ctx: Any, key: torch.Tensor, found: Gathered, slots: torch.Tensor) -> torch.Tensor:
        """`slots` (B, P) as `found.slots()` gives them."""
        ctx.found = found
        out = key.new_empty(*key.shape[:2], found.total + key.shape[2], key.shape[3])
        out[:, :, found.total :] = key
        for row, at in enumerate(slots.clamp(min=0)):
            out[row, :, : found.total] = key[row].index_select(1, at)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of a node's copies are added in fp32 at least, in one order."""
        found, gradient = ctx.found, grads[0]
        back = gradient[:, :, found.total :].clone()
        nodes = found.nodes
        wide = torch.promote_types(back.dtype, torch.float32)
        total = gradient.new_zeros(*back.shape[:2], nodes.shape[1], back.shape[3], dtype=wide)
        start = 0
        for count, size in zip(found.counts, found.sizes, strict=True):
            total[:, :, :count] += gradient[:, :, start : start + count]
            start += size
        total *= (nodes > NOWHERE)[:, None, :, None]
        at = nodes.clamp(min=0)[:, None, :, None].expand(-1, back.shape[1], -1, back.shape[3])
        return back.scatter_add_(2, at, total.to(back.dtype)), None, None


@dataclass(frozen=True)
class _Blocks:
    """Least and greatest position and sequence in each block, (B, blocks), and whether a block has no padding."""

    low: torch.Tensor
    high: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    full: torch.Tensor


def _blocks(positions: torch.Tensor, sequence: torch.Tensor) -> _Blocks:
    batch, number = positions.shape
    fill = -number % BLOCK
    far = torch.iinfo(torch.int64).max
    real = torch.nn.functional.pad(positions > NOWHERE, (0, fill)).view(batch, -1, BLOCK)
    place = torch.nn.functional.pad(positions, (0, fill)).view(batch, -1, BLOCK)
    which = torch.nn.functional.pad(sequence, (0, fill)).view(batch, -1, BLOCK)
    return _Blocks(
        torch.where(real, place, far).amin(-1),
        torch.where(real, place, NOWHERE).amax(-1),
        torch.where(real, which, far).amin(-1),
        torch.where(real, which, NOWHERE).amax(-1),
        real.all(-1),
    )


def block_mask(reach: Reach, found: Gathered, slots: torch.Tensor) -> BlockMask:
    """Which blocks of queries see which blocks of keys (nodes in front), in part or whole."""
    window, device = reach.window, reach.keys.device
    nothing = torch.zeros_like(reach.keys)
    sequence = nothing[:, : reach.queries.shape[1]] if reach.sequence is None else reach.sequence
    of_keys = nothing if reach.key_sequence is None else reach.key_sequence
    at = slots.clamp(min=0)
    places = torch.cat([torch.where(slots > NOWHERE, reach.keys.gather(1, at), NOWHERE), reach.keys], 1)
    sequences = torch.cat([of_keys.gather(1, at), of_keys], 1)
    near = torch.full((reach.keys.shape[1],), NOWHERE, device=device)
    copy = torch.cat([found.copy(device), near])  # (P + N,): NOWHERE for the keys themselves
    if reach.plain:
        seen = _seen_plain(places[0].int(), found, window, reach.every)
    else:
        seen = _seen(reach.queries, places, sequence, sequences, copy, window, found.segment)
    mine = copy[: found.total : BLOCK]
    some, whole = _seeing(_blocks(reach.queries, sequence), _blocks(places, sequences), mine, found.segment, window)
    part = some & ~whole
    lengths = (reach.queries.shape[1], places.shape[1])
    forward, backward = _listed(part, whole), _listed(part.mT, whole.mT)
    return BlockMask(lengths, *forward, *backward, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=seen)


def _seen(
    queries: torch.Tensor,
    places: torch.Tensor,
    sequence: torch.Tensor,
    sequences: torch.Tensor,
    copy: torch.Tensor,
    window: int,
    segment: int,
) -> Seen:
    """The rule of `Reach` for blocks that are seen in part, by the positions of queries and keys."""

    def seen(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        apart = queries[batch, query] - places[batch, key]
        close = (copy[key] < 0) & (apart >= 0) & (apart < window)
        far = (copy[key] == query // segment) & (apart >= window)
        return (close | far) & (places[batch, key] >= 0) & (sequence[batch, query] == sequences[batch, key])

    return seen


def _seen_plain(places: torch.Tensor, found: Gathered, window: int, every: int | None) -> Seen:
    """The same where slots are as far apart as positions; other segments' copies are left out as blocks.

    One copy alone holds the nodes in order, so that which one a key is needs no look into memory.
    """
    front = found.total

    def alone(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (key > query - window)

    if not front or every is None:
        return alone
    first = places[front]
    if len(found.sizes) == 1:
        since = window + (every - 1 - first) % every  # the query that is the first to see the first node

        def in_order(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            slot = key - front
            near = (slot <= query) & (slot > query - window)
            return torch.where(slot < 0, key * every + since <= query, near)

        return in_order
    nodes = torch.where(places[:front] < 0, torch.iinfo(torch.int32).max, places[:front] - first + window)

    def seen(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        slot = key - front
        near = (slot <= query) & (slot > query - window)
        return torch.where(slot < 0, nodes[key.clamp(max=front - 1)] <= query, near)

    return seen


def _seeing(
    query: _Blocks, key: _Blocks, copy: torch.Tensor, segment: int, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a block of queries sees some of a block of keys, and whether all of it: (B, query blocks, key blocks).

    `copy` : segment of each block of nodes, which stand in front.
    """
    q_low, q_high = query.low[..., None], query.high[..., None]
    k_low, k_high = key.low[:, None], key.high[:, None]
    device = copy.device
    number = torch.arange(query.low.shape[1], device=device) * BLOCK // segment
    mine = copy[None] == number[:, None]  # (query blocks, blocks in front)
    mine = torch.nn.functional.pad(mine, (0, key.low.shape[1] - len(copy)), value=True)
    ahead = torch.arange(key.low.shape[1], device=device) < len(copy)
    real = (q_high > NOWHERE) & (k_high > NOWHERE)
    near_some = (k_low <= q_high) & (k_high.clamp(min=0) > q_low.clamp(max=1 << 40) - window)
    near_all = (k_high <= q_low) & (q_high - k_low < window)
    some = torch.where(ahead, k_low <= q_high - window, near_some) & real & mine
    some = some & (key.first[:, None] <= query.last[..., None]) & (key.last[:, None] >= query.first[..., None])
    one = (query.first == query.last)[..., None] & (key.first == key.last)[:, None]
    alike = one & (query.first[..., None] == key.first[:, None]) & query.full[..., None] & key.full[:, None]
    whole = torch.where(ahead, k_high <= q_low - window, near_all) & alike & some
    return some, whole


def _listed(part: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """How many blocks each row has, (B, 1, rows), and which, in order; in part, then whole.

    Both lists are as wide as the fullest row of either needs: the kernel walks them by one stride.
    """
    counts = [blocks.sum(-1, dtype=torch.int32) for blocks in (part, whole)]
    wide = max(1, *(int(count.max()) for count in counts))
    orders = [(~blocks).int().argsort(dim=-1, stable=True)[..., :wide].int() for blocks in (part, whole)]
    return counts[0][:, None], orders[0][:, None].contiguous(), counts[1][:, None], orders[1][:, None].contiguous()


@cache
def _compiled(own: bool) -> Callable[..., torch.Tensor]:
    """The fused kernel: for one shape each, or for any; two functions, so that each counts its own variants."""

    def one(*given: Any, **options: Any) -> torch.Tensor:
        return flex_attention(*given, **options)

    def any_of(*given: Any, **options: Any) -> torch.Tensor:
        return flex_attention(*given, **options)

    return torch.compile(one, dynamic=False) if own else torch.compile(any_of, dynamic=True)


_SHAPES: set[tuple[object, ...]] = set()
"""What has a kernel of its own in this process: compiled code is the process's, too."""


def _kernel(query: torch.Tensor, key: torch.Tensor, reach: Reach) -> Callable[..., torch.Tensor]:
    shape = (
        query.shape,
        key.shape,
        query.dtype,
        query.device,
        query.requires_grad,
        reach.plain,
        reach.window,
        reach.every,
    )
    if len(_SHAPES) < STATIC:
        _SHAPES.add(shape)
    return _compiled(shape in _SHAPES)


def in_front(key: torch.Tensor, reach: Reach) -> torch.Tensor:
    """Keys or values (B, groups, N, D) as `over_blocks` takes them: nodes in front, (B, groups, P + N, D)."""
    found, slots, _ = _prepared(reach, torch.is_grad_enabled())
    return _InFront.apply(key, found, slots)


def over_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, reach: Reach, scaling: float
) -> torch.Tensor:
    """Attention of (B, heads, T, D) over keys with nodes in front as `reach` says: (B, heads, T, D)."""
    mask = _prepared(reach, torch.is_grad_enabled())[2]
    options: dict[str, bool | int] = {}
    if torch.cuda.get_device_capability(query.device) >= HOPPER:
        options = {"fwd_USE_TMA": True, **(FORWARD if query.shape[-1] * query.element_size() == FULL else {})}
    gqa = query.shape[1] != key.shape[1]
    kernel = _kernel(query, key, reach)
    return kernel(query, key, value, block_mask=mask, scale=scaling, enable_gqa=gqa, kernel_options=options)


def _prepared(reach: Reach, grad: bool) -> tuple[Gathered, torch.Tensor, BlockMask]:
    """What all layers of a pass share, made once. Without gradients one copy of the nodes serves all queries."""
    known: dict[bool, tuple[Gathered, torch.Tensor, BlockMask]] = reach.__dict__.setdefault("_blocks", {})
    if grad not in known:
        whole = -(-reach.queries.shape[1] // BLOCK) * BLOCK
        found = gathered(reach, SEGMENT if grad else whole)
        slots = found.slots()
        known[grad] = (found, slots, block_mask(reach, found, slots))
    return known[grad]
