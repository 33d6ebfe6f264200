"""The layers: value features into the embedding, and heads that choose an operation and point at its operands.

The model never writes a result. Behind its last block, each number of the prompt is given a role (no operand, first,
second) and the question an operation; the program that follows is executed exactly elsewhere. Each number is judged at
its own last token, whose hidden state has read the question and the number's headers where these stand before it, so
the heads work position by position, and a packed batch does not mix rows.

B = rows of a pass, T = tokens, S = slots, D = hidden size, V = width of the value features, R = roles, O = operations.
Not covered: programs deeper than one operation over two groups of numbers, and operands that are no number of the
prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from r1core.api import SlotFeatures

Features = Mapping[str, SlotFeatures]
INNER = 256  # width inside of the heads


class Values(nn.Module):
    """What is added to the embedding at the last token of each number: a projection of its value features."""

    def __init__(self, hidden_size: int, width: int, number: str) -> None:
        super().__init__()
        self._number = number
        self.project = nn.Sequential(nn.Linear(width, INNER), nn.GELU(), nn.Linear(INNER, hidden_size))

    def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
        """(B, T, D) to (B, T, D), zero where no number ends."""
        slots = features[self._number]
        told = self.project(torch.where(slots.mask[..., None], slots.values, 0.0))
        return _placed(told, slots, hidden)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the heads say of one prompt.

    Parameters
    ----------
    operations : log-probability of each operation, (O,); None where the prompt asks nothing.
    roles : log-probability of each role for each number of the prompt, in order of its slots, (S, R).
    """

    operations: tuple[float, ...] | None
    roles: tuple[tuple[float, ...], ...]


class Pointer(nn.Module):
    """The heads. What they add to the hidden state is the roles that they chose, at the numbers' last tokens."""

    def __init__(self, hidden_size: int, width: int, roles: int, operations: int, number: str, asked: str) -> None:
        super().__init__()
        self._number, self._asked = number, asked
        self.norm = nn.LayerNorm(hidden_size)
        self.value = nn.Linear(width, INNER)
        self.state = nn.Linear(hidden_size, INNER)
        self.role = nn.Linear(INNER, roles)
        self.operation = nn.Sequential(nn.Linear(hidden_size, INNER), nn.GELU(), nn.Linear(INNER, operations))
        self.back = nn.Linear(roles, hidden_size, bias=False)

    def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        slots = features[self._number]
        return _placed(self.back(self.roles(hidden, slots).softmax(-1)), slots, hidden)

    def roles(self, hidden: torch.Tensor, slots: SlotFeatures) -> torch.Tensor:
        """Logits (B, S, R) of each number's role."""
        values = torch.where(slots.mask[..., None], slots.values, 0.0)
        seen = self.state(self.norm(_at_ends(hidden, slots))) + self.value(values)
        logits: torch.Tensor = self.role(functional.gelu(seen))
        return logits

    def operations(self, hidden: torch.Tensor, slots: SlotFeatures) -> torch.Tensor:
        """Logits (B, S, O) of the operation asked for at each end of a question."""
        logits: torch.Tensor = self.operation(self.norm(_at_ends(hidden, slots)))
        return logits


def loss(module: Pointer, hidden: torch.Tensor, features: Features, *, role: str, asked: str) -> torch.Tensor:
    """Cross-entropy (B,) of the gold roles and operations; 0 where a row states none.

    Parameters
    ----------
    role : the kind that holds gold roles; its slots stand where those of the numbers stand, in the same order.
    asked : the kind that holds gold operations; a negative one is not known.
    """
    numbers, gold, asks = features[module._number], features[role], features[asked]
    total = hidden.new_zeros(hidden.shape[0])
    if gold.mask.any():
        wanted = _aligned(numbers, gold)  # (B, S), -1 where nothing is stated
        each = functional.cross_entropy(
            module.roles(hidden, numbers).transpose(1, 2), wanted, ignore_index=-1, reduction="none"
        )
        total = total + each.sum(1)
    if asks.mask.any():
        wanted = torch.where(asks.mask, asks.values[..., 0].long(), -1)
        each = functional.cross_entropy(
            module.operations(hidden, asks).transpose(1, 2), wanted, ignore_index=-1, reduction="none"
        )
        total = total + each.sum(1)
    return total


def choose(module: Pointer, hidden: torch.Tensor, features: Features) -> Choice:
    """What the heads say of one row's prompt, `hidden` (1, T, D)."""
    numbers, asks = features[module._number], features[module._asked]
    roles = module.roles(hidden, numbers).log_softmax(-1)[0][numbers.mask[0]]
    said = module.operations(hidden, asks).log_softmax(-1)[0][asks.mask[0]]
    return Choice(tuple(said[-1].tolist()) if len(said) else None, tuple(map(tuple, roles.tolist())))


def _at_ends(hidden: torch.Tensor, slots: SlotFeatures) -> torch.Tensor:
    """The hidden state (B, S, D) at each slot's last token; that of token 0 for padding."""
    last = torch.where(slots.mask, slots.end - 1, 0)
    return hidden.gather(1, last[..., None].expand(-1, -1, hidden.shape[-1]))


def _placed(told: torch.Tensor, slots: SlotFeatures, like: torch.Tensor) -> torch.Tensor:
    """(B, S, D) onto the slots' last tokens: (B, T, D)."""
    last = torch.where(slots.mask, slots.end - 1, 0)
    told = torch.where(slots.mask[..., None], told, 0.0)
    return torch.zeros_like(like).scatter_add(1, last[..., None].expand_as(told), told)


def _aligned(numbers: SlotFeatures, gold: SlotFeatures) -> torch.Tensor:
    """Gold role (B, S) of each number, by the token at which both end; -1 where none is stated."""
    same = (numbers.end[:, :, None] == gold.end[:, None, :]) & numbers.mask[:, :, None] & gold.mask[:, None, :]
    found, at = same.max(2)
    roles = gold.values[..., 0].long().gather(1, at)
    return torch.where(found, roles, -1)
