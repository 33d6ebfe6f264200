"""Which key each query of R1 attends to: the rule, and what follows from it for one forward pass.

A token sees itself and what came before it within the window; beyond the window it sees the global nodes, the last
token of each block of `every` positions (under causality that token has seen its block). Positions are those of
`position_ids`, never slots of a cache, so left padding moves nothing; tokens of another packed sequence are never seen.

B = batch, T = new tokens, N = keys (what a cache kept, then the new tokens), W = window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

NOWHERE = -1
"""Position of padding: it is seen by nobody."""
SLACK = 256
"""Keys that nobody sees any more, kept until so many are there: sorting them out copies the cache."""


@dataclass(frozen=True)
class Reach:
    """Positions and sequences of one forward pass.

    Parameters
    ----------
    queries : (B, T) positions of the new tokens, `NOWHERE` for padding.
    keys : (B, N) positions of all keys.
    sequence, key_sequence : (B, T) and (B, N) number of the packed sequence; None where a row is one.
    allowed : (B, 1, T, N) bool, what the caller's own mask allows; None = no such mask.
    window, every : as in the configuration; `every` None = nothing beyond the window.
    plain : whether every row is one sequence of T new tokens without padding, and nothing is kept from before.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    window: int
    every: int | None
    sequence: torch.Tensor | None = None
    key_sequence: torch.Tensor | None = None
    allowed: torch.Tensor | None = None
    plain: bool = False

    @property
    def kept(self) -> int:
        """Keys that are there from before."""
        return self.keys.shape[1] - self.queries.shape[1]

    @property
    def causal(self) -> bool:
        """Whether plain causal attention is the same."""
        return self.plain and self.queries.shape[1] <= self.window

    @cached_property
    def mask(self) -> torch.Tensor:
        """(B, 1, T, N) bool: who sees whom. A row of padding sees everything, so that it stays finite."""
        return self.visible(slice(None), torch.arange(self.keys.shape[1], device=self.keys.device))

    def visible(self, rows: slice, columns: torch.Tensor) -> torch.Tensor:
        """The mask for some queries and the keys at `columns` (C,): (B, 1, t, C)."""
        query, key = self.queries[:, rows, None], self.keys[:, columns][:, None]
        seen = (key <= query) & (key > NOWHERE)
        near = query - key < self.window
        if self.every is not None:
            near = near | (key % self.every == self.every - 1)
        seen = seen & near
        if self.sequence is not None and self.key_sequence is not None:
            seen = seen & (self.sequence[:, rows, None] == self.key_sequence[:, columns][:, None])
        seen = seen[:, None]
        if self.allowed is not None:
            seen = seen & self.allowed[:, :, rows][..., columns]
        return seen | (query == NOWHERE)[:, None]

    @cached_property
    def lasting(self) -> torch.Tensor | None:
        """Which keys later tokens may still see, (B, M) indices, padded with `NOWHERE`; None = all, for now."""
        if self.keys.shape[1] < self.window + SLACK:
            return None
        newest = self.keys.amax(-1, keepdim=True)
        last = (newest + 1 - self.keys < self.window) & (self.keys > NOWHERE)
        if self.every is not None:
            last = last | ((self.keys % self.every == self.every - 1) & (self.keys > NOWHERE))
        most = int(last.sum(-1).max())
        if self.keys.shape[1] - most <= SLACK:
            return None
        order = (~last).int().argsort(dim=-1, stable=True)[:, :most]
        return torch.where(last.gather(1, order), order, NOWHERE)


def reach(
    positions: torch.Tensor | None,
    mask: torch.Tensor | None,
    *,
    shape: tuple[int, int],
    device: torch.device,
    kept: torch.Tensor | None,
    window: int,
    every: int | None,
) -> tuple[Reach, torch.Tensor]:
    """The reach of `shape` (B, T) new tokens, and their `position_ids`.

    Parameters
    ----------
    positions : (B, T) or (1, T); None = they go on from what is kept, padding left out.
    mask : (B, N) with 0 for padding, or (B, 1, T, N) bool or additive; None = no padding.
    kept : (B, N - T) positions of keys from before; None = there are none.

    Raises
    ------
    ValueError : for a mask of another form.
    """
    batch, new = shape
    valid = None
    if mask is not None and mask.ndim == 2:
        valid = mask[:, -new:].bool()
        valid = None if bool(valid.all()) else valid
    elif mask is not None and mask.ndim != 4:
        raise ValueError(
            f"attention_mask has {mask.ndim} dimensions; give (batch, tokens) or (batch, 1, queries, keys)"
        )
    known = positions is None and valid is None
    if positions is None:
        start = 0 if kept is None else kept.amax(-1, keepdim=True) + 1
        count = torch.ones(shape, dtype=torch.long, device=device) if valid is None else valid.long()
        positions = (count.cumsum(-1) - 1 + start).clamp(min=0)
    positions = positions.expand(batch, new)
    queries = positions if valid is None else torch.where(valid, positions, NOWHERE)
    allowed = None
    if mask is not None and mask.ndim == 4:
        allowed = mask if mask.dtype == torch.bool else mask >= 0
        allowed = allowed[..., -(new + (0 if kept is None else kept.shape[1])) :]
    if kept is not None:
        return Reach(queries, torch.cat([kept, queries], 1), window, every, allowed=allowed), positions
    if allowed is not None:
        return Reach(queries, queries, window, every, allowed=allowed), positions
    starts = _starts(queries)
    lone = known or (valid is None and not bool(starts[:, 1:].any()))
    sequence = None if lone else starts.cumsum(-1)
    return Reach(queries, queries, window, every, sequence, sequence, plain=lone), positions


def _starts(positions: torch.Tensor) -> torch.Tensor:
    """Where a packed sequence begins: a position that does not follow the last one before it, padding left out."""
    slot = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
    last = torch.where(positions > NOWHERE, slot, NOWHERE).cummax(-1).values
    before = torch.nn.functional.pad(last[:, :-1], (1, 0), value=NOWHERE)
    previous = torch.where(before > NOWHERE, positions.gather(1, before.clamp(min=0)), NOWHERE)
    starts = (positions > NOWHERE) & (positions != previous + 1)
    starts[:, 0] = True
    return starts
