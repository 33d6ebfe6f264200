"""R1's keys and values in 4, 5 or 6 bits a number: one packed store for the window, one for the global nodes.

The window's store takes every token and drops whole blocks that no row's window reaches any more. A node is copied
while it is still exact, and packed with others once 64 of them are there; it counts only when its token has left the
window's store. So nothing is rounded twice. Rows that are padded differently keep different nodes; each row's stand
without gaps, so that as many slots are taken as the row with most nodes needs.

From the first mask of the caller's own on (several prompts or answers in one row) nothing more is dropped: which
columns of such a mask are still there could not be said. What had been dropped before has to be in every query's sight;
a mask that hides some of it is refused.

B = batch, T = new tokens, D = head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from r1core.errors import UserError
from r1core.model.kv.held import Held, Pair, attend_over
from r1core.model.kv.layer import FEW, PackedLayer
from r1core.model.kv.layout import BLOCK
from r1core.model.kv.states import PackedStates
from r1core.model.r1.kept import Forgetting
from r1core.model.r1.reach import NOWHERE, Reach


@dataclass(frozen=True, slots=True)
class Seen:
    """What a few new tokens attend to: nodes, then the window, in the order of `Reach.keys`."""

    parts: tuple[Held, ...]

    def attend(self, query: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of (B, A, T, D) from the codes, under a mask (B, 1, T, all that is held): (B, A, T, D)."""
        return attend_over(self.parts, query, mask, scale)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every layer does behind one pass.

    `nodes` (B, M) : which of the tokens that are no longer exact are nodes. `order` (B, G) : nodes that wait and new
    ones, without gaps. `whole` : as many of these are packed. `gone` : oldest tokens that the window's store forgets.
    `waiting`, `far`, `near` : positions of nodes that wait, of packed ones, and of the window's store, behind it.
    """

    nodes: torch.Tensor
    order: torch.Tensor
    whole: int
    gone: int
    waiting: torch.Tensor
    far: torch.Tensor
    near: torch.Tensor


class PackedR1Layer(Forgetting, PackedLayer):
    """Keys and values of one layer of R1 with a window."""

    def __init__(self, states: Callable[..., PackedStates]) -> None:
        super().__init__(states)
        self.nodes = states(first=0, newest=0)
        self.waiting: Pair | None = None
        self.at: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None  # of packed nodes, waiting, the window
        self.seen = 0
        self.masked = False

    @property
    def dropped(self) -> bool:
        """Whether the window's store has let tokens go."""
        return self.at is not None and self.at[2].shape[1] < self.seen

    @property
    def positions(self) -> torch.Tensor | None:
        """Of all that is held, (B, N); `NOWHERE` for nodes that the window's store still has.

        Of nothing within a recorded step, which knows them itself.
        """
        if (still := self.stepping()) is not None:
            return still.nothing
        if self.at is None or not self.dropped:
            return None if self.at is None else self.at[2]
        nodes, near = torch.cat(self.at[:2], 1), self.at[2]
        oldest = torch.where(near > NOWHERE, near, torch.iinfo(near.dtype).max).amin(1, keepdim=True)
        return torch.cat([torch.where(nodes < oldest, nodes, NOWHERE), near], 1)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Take the new tokens' states (B, heads, T, D) in; return what they attend to: states, or one `Seen` twice.

        Raises
        ------
        UserError : for a mask that hides what was read before masks came, where some of that has been dropped.
        """
        (reach,) = args
        assert isinstance(reach, Reach)
        if (still := self.stepping()) is not None:
            seen = still.append(self, key_states, value_states)
            return seen, seen
        self.masked = self.masked or reach.allowed is not None
        if reach.allowed is not None and self.at is not None and self.dropped:
            nodes = self.at[0].shape[1] + self.at[1].shape[1]
            mask = reach.allowed[..., :nodes]
            if not _shared(reach, "_sees", lambda: bool(mask.all())):
                raise UserError(
                    f"a mask hides what lies before R1's window of {reach.window} tokens",
                    fix="generate.kv_bits = 0, or a mask from the first pass on",
                )
        start, dropped = self.at is None, self.dropped
        skip = _shared(reach, "_skip", lambda: _beyond(reach)) if start and not self.masked else 0
        self.seen += key_states.shape[2]
        before = self._far() if dropped else None
        held = self._append(key_states[:, :, skip:], value_states[:, :, skip:])
        self._settle(reach, skip, (key_states, value_states) if start else held.newest)
        if start:
            return key_states, value_states
        parts = (held,) if before is None else (before, held)
        if key_states.shape[2] <= FEW:
            return Seen(parts), Seen(parts)
        return torch.cat([p.read_keys() for p in parts], 2), torch.cat([p.read_values() for p in parts], 2)

    def thaw(self) -> None:
        """Take it out of the memory for recorded steps."""
        fixed, self.fixed = self.fixed, None
        if fixed is not None and self.at is not None:
            held = self.states.held
            assert held is not None
            self.at = (self.at[0], self.at[1], fixed.known(held.hidden))

    def border(self, reach: Reach) -> None:
        """Do what a pass does when a block is whole, behind a recorded step: `reach` says what its token sees."""
        held = self.states.held
        assert held is not None
        assert self.at is not None
        exact = held.newest
        self.at = (self.at[0], self.at[1], self.at[2][:, :-1])
        self.states.settle()
        self._settle(reach, 0, exact)

    def reset(self) -> None:
        """Forget everything."""
        self.thaw()
        super().reset()
        self.nodes.clear()
        self.waiting, self.at, self.seen, self.masked = None, None, 0, False

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row so many times."""
        self.thaw()
        self.states.repeat(repeats)
        self.nodes.repeat(repeats)
        self._each(lambda held: held.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self.thaw()
        self.states.select(indices)
        self.nodes.select(indices)
        self._each(lambda held: held[indices.to(held.device)])

    def tensors(self) -> list[torch.Tensor]:
        """All that is held, positions too."""
        return [*self.states.tensors(), *self.nodes.tensors(), *(self.waiting or ()), *(self.at or ())]

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if self.waiting is not None and self.at is not None:
            self.waiting = (change(self.waiting[0]), change(self.waiting[1]))
            self.at = (change(self.at[0]), change(self.at[1]), change(self.at[2]))

    def _far(self) -> Held | None:
        """The nodes; None where there is none."""
        assert self.waiting is not None
        held = self.nodes.held
        if held is not None:
            return replace(held, newest=self.waiting)
        keys, values = self.waiting
        if not keys.shape[2]:
            return None
        return Held((keys[:, :, :0], values[:, :, :0]), None, self.waiting, self.states.room)

    def _settle(self, reach: Reach, skip: int, exact: Pair) -> None:
        """Copy nodes that are no longer exact, and let go what has left the window.

        `exact` : tokens that were exact in this pass, or in the first one all of them.
        """
        assert self.states.held is not None
        if self.at is None or self.waiting is None:
            none = reach.queries[:, :0]
            self.at, self.waiting = (none, none, none), (exact[0][:, :, :0].clone(), exact[1][:, :, :0].clone())
        far, waiting, near = self.at
        held = _shared(reach, "_held", lambda: torch.cat([near, reach.queries[:, skip:]], 1))
        tokens = exact[0].shape[2]
        left = tokens - self.states.held.newest[0].shape[2]
        if not left or self.masked:
            self.at = (far, waiting, held)
            return
        of = reach.queries if tokens > held.shape[1] else held[:, -tokens:]
        plan = _shared(reach, "_plan", lambda: _plan(reach, (far, waiting, held), of[:, :left], tokens - left))
        joined = [torch.cat([old, _at(new, plan.nodes)], 2) for old, new in zip(self.waiting, exact, strict=True)]
        keys, values = (_at(states, plan.order) for states in joined)
        if plan.whole:
            self.nodes.append(keys[:, :, : plan.whole], values[:, :, : plan.whole])
            keys, values = keys[:, :, plan.whole :].clone(), values[:, :, plan.whole :].clone()
        self.waiting, self.at = (keys, values), (plan.far, plan.waiting, plan.near)
        self.states.forget(plan.gone)


T = TypeVar("T")


def _shared(reach: Reach, name: str, make: Callable[[], T]) -> T:
    """What all layers of a pass share, made by the first of them."""
    known: dict[str, T] = reach.__dict__.setdefault("_packed", {})
    if name not in known:
        known[name] = make()
    return known[name]


def _at(states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """States (B, heads, N, D) at slots (B, M) of each row."""
    return states.gather(2, slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))


def _oldest(positions: torch.Tensor, window: int) -> int:
    """The oldest token, by its place in (B, N), that the next token of any row has in its window."""
    near = (positions.amax(1, keepdim=True) + 1 - positions < window) & (positions > NOWHERE)
    return int(near.any(0).int().argmax())


def _beyond(reach: Reach) -> int:
    """Tokens at the start of a first pass that no later one has in its window."""
    return _oldest(reach.queries, reach.window) if reach.queries.shape[1] > reach.window + BLOCK else 0


def _plan(reach: Reach, at: tuple[torch.Tensor, torch.Tensor, torch.Tensor], leaving: torch.Tensor, exact: int) -> Plan:
    """By the positions of what is held, of the tokens that are exact no longer, and the number of those that are."""
    far, waiting, near = at
    node = leaving > NOWHERE
    node = node & (leaving % reach.every == reach.every - 1) if reach.every is not None else node & False
    nodes, found = _packed(node, leaving)
    joined = torch.cat([waiting, found], 1)
    order, places = _packed(joined > NOWHERE, joined)
    whole = places.shape[1] // BLOCK * BLOCK
    gone = min(_oldest(near, reach.window), near.shape[1] - exact)
    far = torch.cat([far, places[:, :whole]], 1)
    return Plan(nodes, order, whole, gone, places[:, whole:], far, near[:, gone:].clone())


def _packed(there: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots (B, M) of what is there, in order and without gaps, and their positions; M is that of the fullest row.

    A row with less has its first slot again, nowhere: what it packs with others must not widen their steps.
    """
    count = there.sum(1, keepdim=True)
    most = int(count.max())
    slots = (~there).int().argsort(dim=1, stable=True)[:, :most]
    real = torch.arange(most, device=there.device) < count
    return torch.where(real, slots, slots[:, :1]), torch.where(real, positions.gather(1, slots), NOWHERE)
