"""What each step computes on: rows of the order, this rank's share, laid into micro-batches.

On a GPU the next step's micro-batches are packed and copied while the current one computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from r1core.api import SpanKind
from r1core.data.bins import best_fit
from r1core.data.packing import SHARED, Batch, Layout
from r1core.data.padding import by_length, laid_out
from r1core.data.tokens import Encoded
from r1core.recipe.training import Train
from r1core.train.order import Order

FLASH_MULTIPLE = 512
"""Tokens to whose multiple a flash batch is padded, so that few shapes recur: 256 of 16,384 tokens, on average."""


@dataclass(frozen=True, slots=True)
class StepRows:
    """One optimiser step of one rank.

    Parameters
    ----------
    batches : this rank's micro-batches; may be none in a short last batch.
    weight : of the whole step, of all ranks.
    shares : of each micro-batch in `weight`.
    tokens : of the whole step's rows, a shared start counted in each.
    ids : the first rows' names, for messages.
    """

    batches: Sequence[Batch]
    weight: float
    shares: Sequence[float]
    tokens: int
    ids: tuple[str, ...]


class Feed:
    """Steps by number. Where the device is a GPU, the step after the one asked for is prepared ahead.

    `even` : every rank gets equally many micro-batches; those that a rank has no rows for are idle.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        order: Order,
        weigh: Callable[[Encoded], float],
        kinds: Mapping[str, SpanKind],
        config: Train,
        *,
        device: torch.device,
        dtype: torch.dtype,
        rank: int = 0,
        world: int = 1,
        even: bool = False,
    ) -> None:
        self.rows, self.order, self.weigh, self.kinds, self.config = rows, order, weigh, kinds, config
        self.device, self.dtype, self.rank, self.world, self.even = device, dtype, rank, world, even
        self.layout = layout_of(config, rows, device, dtype)
        self._ahead: tuple[int, Future[StepRows]] | None = None
        self._pool = ThreadPoolExecutor(1, "feed") if device.type == "cuda" else None

    def step(self, step: int) -> StepRows:
        """The micro-batches of one step (0-based), on the device."""
        if self._pool is None:
            return self._made(step)
        ready = self._ahead[1].result() if self._ahead is not None and self._ahead[0] == step else self._made(step)
        more = step + 1 < self.order.total
        self._ahead = (step + 1, self._pool.submit(self._made, step + 1)) if more else None
        return ready

    def close(self) -> None:
        """End the thread that prepares ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _made(self, step: int) -> StepRows:
        chosen = [self.rows[i] for i in self.order.rows(step)]
        shares = [share(chosen, rank, self.world) for rank in range(self.world)] if self.world > 1 else [chosen]
        mine = shares[self.rank]
        micro = self._parts([row.length for row in mine])
        batches = [laid_out([mine[i] for i in part], self.kinds, self.dtype, self.layout) for part in micro]
        total = sum(map(self.weigh, chosen))
        parts = [sum(self.weigh(mine[i]) for i in part) / total for part in micro]
        if self.even:
            most = max(len(self._parts([row.length for row in one])) for one in shares)
            spare = most - len(batches)
            parts += [0.0] * spare
            batches += [idle(chosen[0], self.kinds, self.dtype, self.layout) for _ in range(spare)]
        batches = [batch.to(self.device) for batch in batches]
        ids = tuple(row.id for row in chosen[:4])
        return StepRows(batches, total, parts, sum(row.length for row in chosen), ids)

    def _parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of the rows of each micro-batch; which row comes first stays as it was."""
        if self.config.packing == "none":
            return [[i] for i in range(len(lengths))]
        capacity = self.config.micro_batch_tokens
        if self.layout.apart:
            return [sorted(part) for part in by_length([[length] for length in lengths], capacity)]
        if not capacity:
            return [list(range(len(lengths)))] if lengths else []
        return [sorted(part) for part in best_fit(lengths, capacity)]


def layout_of(config: Train, rows: Sequence[Encoded], device: torch.device, dtype: torch.dtype) -> Layout:
    """How the recipe's packing lays rows on this device: by a flash kernel where it has one, else under a mask."""
    if config.packing == "padded":
        return Layout(share=False, apart=True)
    if config.packing != "best_fit":
        return SHARED
    flash = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if not flash:
        return Layout(share=False)
    longest = max(row.length for row in rows)
    return Layout(share=False, flash=True, longest=longest, multiple=FLASH_MULTIPLE, rows=config.batch_size)


def share(batch: Sequence[Encoded], rank: int, world: int) -> list[Encoded]:
    """One rank's rows: dealt out by length, back and forth, so that no rank waits long for another."""
    order = sorted(batch, key=lambda row: row.length, reverse=True)
    return [row for i, row in enumerate(order) if (i % world if i // world % 2 == 0 else world - 1 - i % world) == rank]


def idle(row: Encoded, kinds: Mapping[str, SpanKind], dtype: torch.dtype, layout: Layout) -> Batch:
    """A pass that adds nothing to loss or gradient: every wanted position only pads."""
    made = laid_out([replace(row, slots=())], kinds, dtype, layout)
    return replace(made, row=torch.full_like(made.row, made.rows))


def valid_tokens(batch: Batch) -> torch.Tensor:
    """Which of a batch's tokens some row has, (B, T); padding, and all of an idle pass, is what no row has.

    A row's last token is one whose logits are wanted, and padding stands behind it.
    """
    sequences, length = batch.input_ids.shape
    places = torch.where(batch.row < batch.rows, batch.where % length, -1)
    last = torch.full((sequences,), -1, device=places.device, dtype=places.dtype)
    last.scatter_reduce_(0, batch.where // length, places, "amax")
    return torch.arange(length, device=places.device) <= last[:, None]
