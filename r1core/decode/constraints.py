"""What a constraint is told, and how several constraints hold at once: by intersection, never relaxed.

A token stays allowed only where every constraint allows it, and special tokens other than the end ids nowhere: they
leave no trace in the text, so a name could be split by them. Where none stays, generation stops with `DeadEnd`, which
names the constraints and the rules; nothing is loosened to get past it.
"""

# V = tokens

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from r1core.api import ByteAutomaton, ConstraintState, Example, R1Error, Reason, TokenMask
from r1core.decode.lift import Lifted, lift, token_mask
from r1core.decode.phrases import required
from r1core.decode.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_MASKS = 4_096  # composite masks kept per generation tree
MAX_EXPLAINED = 512  # banned tokens per constraint that a dead end asks about


@dataclass(frozen=True)
class Request:
    """One generation as constraints see it; implements `api.DecodeRequest`.

    `outputs` : what extra layers computed at prefill, by layer name.
    """

    example: Example
    vocabulary: Vocabulary
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def lift(self, automaton: ByteAutomaton) -> Lifted:
        """Turn a byte automaton into a state over this model's tokens; masks are shared between requests.

        It starts behind the prompt's last message, where it offers `after`.
        """
        messages = self.example.messages
        return lift(automaton, self.vocabulary, messages[-1].content if messages else "")

    def require(self, phrases: Mapping[str, Sequence[Reason]]) -> Lifted:
        """A state that lets the answer end only once it holds every phrase; the reasons say who asks for it."""
        return lift(required(phrases, self.vocabulary.cache), self.vocabulary)


class DeadEnd(R1Error):
    """No token is left that every constraint allows.

    Attributes
    ----------
    constraints : names of the constraints that were intersected.
    reasons : the distinct reasons behind the bans.
    """

    def __init__(self, constraints: Sequence[str], reasons: Sequence[Reason]) -> None:
        self.constraints, self.reasons = tuple(constraints), tuple(reasons)
        rules = ", ".join(dict.fromkeys(r.rule for r in reasons)) or "none named"
        super().__init__(
            f"generation stopped: no token satisfies {' and '.join(constraints)} here (rules: {rules}); "
            "constraints are never relaxed"
        )


def allowed_bool(mask: TokenMask, vocab_size: int) -> NDArray[np.bool_]:
    """Return a mask as (vocab_size,) booleans, True where the token may come next.

    Ids beyond a packed mask are not allowed; ids beyond `vocab_size` are ignored.
    """
    if mask.allowed is not None:
        return np.unpackbits(mask.allowed, count=vocab_size, bitorder="little").astype(bool)
    assert mask.banned is not None
    allowed = np.ones(vocab_size, dtype=bool)
    allowed[mask.banned[mask.banned < vocab_size]] = False
    return allowed


def is_allowed(mask: TokenMask, token_id: int) -> bool:
    """Whether one token may come next."""
    if mask.allowed is not None:
        return token_id >> 3 < len(mask.allowed) and bool(mask.allowed[token_id >> 3] >> (token_id & 7) & 1)
    assert mask.banned is not None
    at = int(mask.banned.searchsorted(token_id))
    return at == len(mask.banned) or int(mask.banned[at]) != token_id


class Composite:
    """Several constraint states at once; implements `api.ConstraintState`."""

    __slots__ = ("_masks", "_never", "_states", "_vocab_size", "key")

    def __init__(
        self,
        states: tuple[tuple[str, ConstraintState], ...],
        vocab_size: int,
        never: NDArray[np.int32],
        masks: dict[Hashable, TokenMask],
    ) -> None:
        self._states, self._vocab_size, self._never, self._masks = states, vocab_size, never, masks
        self.key: Hashable = tuple((name, state.key) for name, state in states)

    @property
    def parts(self) -> tuple[ConstraintState, ...]:
        """The constraints' own states."""
        return tuple(state for _, state in self._states)

    def allows(self, token_id: int) -> bool:
        """Whether every constraint allows the token; makes no mask where they can tell without."""
        at = int(self._never.searchsorted(token_id))
        if at < len(self._never) and int(self._never[at]) == token_id:
            return False
        return all(allows(state, token_id) for _, state in self._states)

    def mask(self) -> TokenMask:
        """Return the tokens that every constraint allows.

        Raises
        ------
        DeadEnd : when there are none.
        """
        mask = self._masks.get(self.key)
        if mask is None:
            if len(self._masks) >= MAX_MASKS:
                self._masks.clear()
            mask = self._masks[self.key] = self._intersection()
        return mask

    def _intersection(self) -> TokenMask:
        each = [state.mask() for _, state in self._states]
        sparse = [m.banned for m in each if m.banned is not None]
        if len(sparse) == len(each):
            banned = np.unique(np.concatenate([*sparse, self._never])).astype(np.int64)
            if len(banned) < self._vocab_size:  # otherwise every token may be banned: look closer
                return TokenMask(banned=banned)
        allowed = np.logical_and.reduce([allowed_bool(m, self._vocab_size) for m in each])
        allowed[self._never] = False
        if not allowed.any():
            raise DeadEnd([name for name, _ in self._states], self._reasons(each))
        return token_mask(allowed)

    def _reasons(self, masks: Sequence[TokenMask]) -> list[Reason]:
        """Ask each constraint about tokens that only it stands against, or about any that it bans."""
        allowed = [allowed_bool(m, self._vocab_size) for m in masks]
        found: dict[Reason, None] = {}
        for i, (_, state) in enumerate(self._states):
            others = np.logical_and.reduce([a for j, a in enumerate(allowed) if j != i] or [np.ones_like(allowed[i])])
            alone = np.flatnonzero(others & ~allowed[i])
            for token_id in _spread(alone if len(alone) else np.flatnonzero(~allowed[i])):
                found.update(dict.fromkeys(state.explain(token_id)))
        named = [reason for reason in found if reason.rule != "special-token"]
        return named or list(found)

    def advance(self, token_id: int) -> Composite:
        """Return the state after the token, all constraints having advanced."""
        states = tuple((name, state.advance(token_id)) for name, state in self._states)
        return Composite(states, self._vocab_size, self._never, self._masks)

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Say why the token is refused, by every constraint that refuses it."""
        return tuple(dict.fromkeys(r for _, state in self._states for r in state.explain(token_id)))


def _spread(ids: NDArray[np.int64]) -> Iterable[int]:
    """At most `MAX_EXPLAINED` of the ids, evenly spread and always the first and the last."""
    if len(ids) > MAX_EXPLAINED:
        ids = ids[np.linspace(0, len(ids) - 1, MAX_EXPLAINED).astype(np.int64)]
    return [int(i) for i in ids]


def intersect(
    states: Sequence[tuple[str, ConstraintState]], vocab_size: int, never_ids: Iterable[int] = ()
) -> Composite:
    """Hold several named constraints at once.

    Parameters
    ----------
    states : (constraint name, state) pairs, at least one; names appear in `DeadEnd`.
    vocab_size : width of the model's logits.
    never_ids : tokens that none of them may allow (`Vocabulary.never_ids`).

    Raises
    ------
    ValueError : when `states` is empty; without constraints there is nothing to hold.
    """
    if not states:
        raise ValueError("intersect needs at least one constraint state")
    return Composite(tuple(states), vocab_size, np.array(sorted(never_ids), dtype=np.int32), {})


def thinks(state: ConstraintState | None) -> bool:
    """Whether the answer has not begun yet: the model reasons (`r1core.decode.reasoning`)."""
    return bool(getattr(state, "thinks", False))


def parts_of(state: ConstraintState) -> tuple[ConstraintState, ...]:
    """The states that are intersected in one; itself where it is no intersection."""
    found: tuple[ConstraintState, ...] = getattr(state, "parts", (state,))
    return found


def allows(state: ConstraintState, token_id: int) -> bool:
    """Whether one token may come next: by the state's own `allows`, or by its mask."""
    asked = getattr(state, "allows", None)
    return bool(asked(token_id)) if asked is not None else is_allowed(state.mask(), token_id)


def may_end(state: ConstraintState, eos_ids: Set[int], data: bytes = b"") -> bool:
    """Whether a constraint lets the text end behind these further bytes, which may be part of a token.

    A state that cannot be asked about bytes (it has no `may_end`) is asked for its mask, and says no to any bytes.
    """
    asked = getattr(state, "may_end", None)
    if asked is not None:
        return bool(asked(data))
    mask = state.mask()
    return not data and any(is_allowed(mask, eos) for eos in eos_ids)
