"""The layers: value features into the embedding, and heads that choose an operation and point at its operands.

The model never writes a result. Behind its last block, each number of the prompt is given a role (no operand, first,
second) and the question an operation; the program that follows is executed exactly elsewhere. Each number is judged at
its own last token, whose hidden state has read the question and the number's headers where these stand before it; then
the numbers of a prompt are compared with one another. What is added to hidden states is the first judgement alone,
position by position.

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
from r1core_numeric.compare import Comparison

Features = Mapping[str, SlotFeatures]
INNER = 256  # width inside of the heads
RELATIONS = 2  # that two numbers may have: one row of a table, one column
NEVER = -1e4  # logit of what cannot be
ROW, COLUMN = -2, -1  # where a number's features tell its cell: 1 + row and 1 + column, as parts; 0 outside of a table


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
    """The heads. What they add to the hidden state is each number's role as it looks by itself, at its last token."""

    def __init__(self, hidden_size: int, width: int, roles: int, operations: int, number: str, asked: str) -> None:
        super().__init__()
        self._number, self._asked = number, asked
        self.norm = nn.LayerNorm(hidden_size)
        self.value = nn.Linear(width, INNER)
        self.state = nn.Linear(hidden_size, INNER)
        self.question = nn.Linear(hidden_size, INNER)
        self.alone = nn.Linear(INNER, roles)
        self.compare = Comparison(INNER, RELATIONS)
        self.role = nn.Sequential(nn.LayerNorm(INNER), nn.Linear(INNER, roles))
        self.operation = nn.Sequential(nn.LayerNorm(INNER), nn.Linear(INNER, operations))
        self.back = nn.Linear(roles, hidden_size, bias=False)
        self.no_operand: torch.Tensor
        self.register_buffer("no_operand", torch.tensor([0.0, *[NEVER] * (roles - 1)]), persistent=False)

    def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        slots = features[self._number]
        return _placed(self.back(self.alone(functional.gelu(self._seen(hidden, slots))).softmax(-1)), slots, hidden)

    def judge(self, hidden: torch.Tensor, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, S, R) of each number's role, and (B, Q, O) of the operation at each end of a question.

        Only quantities are operands: of anything else the logits say no operand.
        """
        numbers, asks = features[self._number], features[self._asked]
        seen, wanted = self._seen(hidden, numbers), self.question(self.norm(_at_ends(hidden, asks)))
        states = self.compare(torch.cat([seen, wanted], 1), *_relations(numbers, asks))
        roles = self.alone(functional.gelu(seen)) + self.role(states[:, : seen.shape[1]])
        roles = torch.where(numbers.values[..., :1] > 0, roles, self.no_operand)
        return roles, self.operation(states[:, seen.shape[1] :])

    def _seen(self, hidden: torch.Tensor, slots: SlotFeatures) -> torch.Tensor:
        values = torch.where(slots.mask[..., None], slots.values, 0.0)
        seen: torch.Tensor = self.state(self.norm(_at_ends(hidden, slots))) + self.value(values)
        return seen


def loss(module: Pointer, hidden: torch.Tensor, features: Features, *, role: str, asked: str) -> torch.Tensor:
    """Cross-entropy (B,) of the gold roles and operations; 0 where a row states none.

    Parameters
    ----------
    role : the kind that holds gold roles; its slots stand where those of the numbers stand, in the same order.
    asked : the kind that holds gold operations; a negative one is not known.
    """
    numbers, gold, asks = features[module._number], features[role], features[asked]
    total = hidden.new_zeros(hidden.shape[0])
    if not asks.mask.any():
        return total
    roles, operations = module.judge(hidden, features)
    if gold.mask.any():
        wanted = _aligned(numbers, gold)  # (B, S), -1 where nothing is stated
        wanted = torch.where(numbers.values[..., 0] > 0, wanted, -1)
        each = functional.cross_entropy(roles.transpose(1, 2), wanted, ignore_index=-1, reduction="none")
        total = total + each.sum(1)
    known = torch.where(asks.mask, asks.values[..., 0].long(), -1)
    each = functional.cross_entropy(operations.transpose(1, 2), known, ignore_index=-1, reduction="none")
    return total + each.sum(1)


def choose(module: Pointer, hidden: torch.Tensor, features: Features) -> Choice:
    """What the heads say of one row's prompt, `hidden` (1, T, D)."""
    numbers, asks = features[module._number], features[module._asked]
    judged, asked = module.judge(hidden, features)
    roles = judged.log_softmax(-1)[0][numbers.mask[0]]
    said = asked.log_softmax(-1)[0][asks.mask[0]]
    return Choice(tuple(said[-1].tolist()) if len(said) else None, tuple(map(tuple, roles.tolist())))


def _relations(numbers: SlotFeatures, asks: SlotFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Which slots stand in one prompt (B, N, N), and in one row or one column of its table (B, N, N, 2)."""
    mask = torch.cat([numbers.mask, asks.mask], 1)
    together = mask[:, :, None] & mask[:, None, :]
    if numbers.row is not None and asks.row is not None:  # several prompts are packed into one sequence
        row = torch.cat([numbers.row, asks.row], 1)
        together = together & (row[:, :, None] == row[:, None, :])
    together = together | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    cells = torch.stack([numbers.values[..., ROW], numbers.values[..., COLUMN]], -1)
    cells = functional.pad(torch.where(numbers.mask[..., None], cells, 0.0), (0, 0, 0, asks.mask.shape[1]))
    related = (cells[:, :, None] == cells[:, None, :]) & (cells[:, :, None] > 0)
    return together, related


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
