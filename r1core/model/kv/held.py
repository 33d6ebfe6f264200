"""What a layer of a packed cache attends to at one moment: the first tokens, packed blocks, the newest tokens.

Attention is computed from the codes: by a kernel on a GPU, elsewhere a tile at a time. Holdings in a row (R1's nodes,
then its window) are merged by the logs of their denominators.
"""

# B = batch, H = key/value heads, A = attention heads, Q = queries of a head, T = tokens held, D = head width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from r1core.model.kv.blocks import Blocks, Room
from r1core.model.kv.layout import BLOCK

ROWS, WIDTH = 64, 256
"""Queries that share a key/value head, and head width, up to which a GPU's kernel answers them from the codes."""
_LEAST = torch.finfo(torch.float32).min

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
        """Whether a GPU's kernel attends to this."""
        return self.blocks is not None and fits(self.blocks.widths, self.newest[0].shape[1], query)

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


class Still(Protocol):
    """What a layer holds while it lies in memory for recorded steps: `r1core.model.kv.fixed.Fixed`."""

    @property
    def newest(self) -> Pair:
        """Exact keys and values at the end, and room for more."""

    @property
    def length(self) -> int:
        """Tokens that can be seen, with that of a step under way."""

    @property
    def before(self) -> int:
        """Tokens that went through."""

    @property
    def under_way(self) -> bool:
        """Whether a step is."""

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take the states of the step's token in."""

    def fits(self, query: torch.Tensor) -> bool:
        """As `Held.fits`."""

    def attend(self, query: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None) -> torch.Tensor:
        """As `Held.attend`."""

    def read_keys(self) -> torch.Tensor:
        """As `Held.read_keys`."""

    def read_values(self) -> torch.Tensor:
        """As `Held.read_values`."""

    def select(self, rows: torch.Tensor) -> bool:
        """Put these rows in place of all; False, and nothing done, where their number is another."""

    def held(self) -> Held:
        """The same in memory of its own."""

    def tensors(self) -> list[torch.Tensor]:
        """All that is held."""


def fits(widths: tuple[int, int], heads: int, query: torch.Tensor) -> bool:
    """Whether a GPU's kernel attends to so many heads of these widths; it is written for a few queries."""
    if not query.is_cuda or query.dtype == torch.float64:
        return False
    return query.shape[1] // heads * query.shape[2] <= ROWS and max(widths) <= WIDTH


def _mask(scores: torch.Tensor, mask: torch.Tensor) -> None:
    """Apply a mask (B, A, Q, T) to scores (B, H, A / H, Q, T), in place."""
    mask = mask.unsqueeze(2) if mask.shape[1] == 1 else mask.unflatten(1, (scores.shape[1], -1))
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, _LEAST)
    else:
        scores.add_(mask).clamp_(min=_LEAST)


def attend_over(parts: Sequence[Held], query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention over several holdings in a row, by `Held.attend_in_part` of each: (B, A, Q, D).

    `mask` : (1 or B, 1 or A, 1 or Q, tokens of all parts), as `Held.attend` takes it.
    """
    found, start = [], 0
    for part in parts:
        found.append(part.attend_in_part(query, mask[..., start : start + part.length], scale))
        start += part.length
    return found[0][0] if len(found) == 1 else merged(found).to(query.dtype)


def merged(found: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Attention over several holdings by what each gave, mean (B, A, Q, D) and log of its denominator (B, A, Q)."""
    shares = torch.stack([log for _, log in found]).softmax(0)[..., None]
    return (shares * torch.stack([mixed for mixed, _ in found])).sum(0)
