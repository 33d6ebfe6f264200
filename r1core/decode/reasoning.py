"""Reasoning while it is generated: free, but for its length and its end; what follows is held as any answer is.

Inside a block every token is allowed that says something, and no end of sequence. Once the budget is spent, only
`</think>` can be written. Behind it come two line breaks at most, and then the answer, under the constraints that an
answer without reasoning would have, from their first state on. Where the model may open the block itself, it can as
well answer at once, under the same constraints.

Nothing that is written inside the block is held to any constraint: `r1core.decode.session` keeps it apart from the
answer. Marks are found by their bytes, however a vocabulary cuts them.
"""

# V = tokens

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from r1core.api import ConstraintState, Reason, TokenMask
from r1core.data.thinking import CLOSE, OPEN
from r1core.decode.constraints import DeadEnd, allowed_bool, allows, may_end, parts_of
from r1core.decode.lift import token_mask
from r1core.decode.vocabulary import Vocabulary

_OPEN, _CLOSE = OPEN.encode(), CLOSE.encode()
BREAKS = 2
"""Line breaks between a block and the answer."""
_NO_END = Reason("reasoning", "", f"an answer has to follow the reasoning, behind {CLOSE}")
_SPENT = Reason("reasoning", "", f"the tokens for reasoning are spent, {CLOSE} has to follow")


@dataclass(frozen=True, slots=True)
class Free:
    """An answer without constraints; implements `api.ConstraintState`."""

    key: Hashable = "free"

    def mask(self) -> TokenMask:
        """Every token."""
        return TokenMask(banned=np.zeros(0, np.int64))

    def allows(self, token_id: int) -> bool:
        """Every token."""
        return True

    def may_end(self, data: bytes = b"") -> bool:
        """Everywhere."""
        return True

    def advance(self, token_id: int) -> Free:
        """Itself."""
        return self

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Nothing is refused."""
        return ()


class _Words:
    """What of a vocabulary a mask has to look at: (V,) whether a token says something, and the ids that touch marks."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        silent = vocabulary.never_ids | vocabulary.eos_ids
        pairs = [(i, data) for i, data in enumerate(vocabulary.token_bytes) if i not in silent]
        self.speaks = np.zeros(vocabulary.size, bool)
        self.speaks[[i for i, _ in pairs]] = True
        self.ends = [i for i, data in pairs if _CLOSE[-1:] in data]
        self.parts = [i for i, data in pairs if data in _CLOSE + b"\n" * BREAKS or data in _OPEN + b"\n"]


@dataclass(frozen=True, slots=True)
class _Around:
    """What all states of one answer share: its constraints at their start, and the budget in tokens."""

    vocabulary: Vocabulary
    answer: ConstraintState
    budget: int
    masks: dict[tuple[int, bool], TokenMask] = field(default_factory=dict)

    @property
    def words(self) -> _Words:
        """Made once for each vocabulary."""
        cache = self.vocabulary.cache
        if "reasoning" not in cache:
            cache["reasoning"] = _Words(self.vocabulary)
        return cast("_Words", cache["reasoning"])

    def data(self, token: int) -> bytes:
        """A token's bytes; b"" for one that says nothing, ends included."""
        vocabulary = self.vocabulary
        outside = token in vocabulary.never_ids or token in vocabulary.eos_ids or not 0 <= token < vocabulary.size
        return b"" if outside else vocabulary.token_bytes[token]


@dataclass(frozen=True, slots=True)
class Block:
    """Inside the block; implements `api.ConstraintState`.

    Parameters
    ----------
    matched : how many bytes of `</think>` the text ends with.
    used : tokens of the block so far.
    """

    around: _Around
    matched: int = 0
    used: int = 0
    thinks = True

    @property
    def key(self) -> Hashable:
        """The place in the block."""
        return (id(self.around), self.matched, self.used)

    def mask(self) -> TokenMask:
        """All tokens that say something; those that write the end alone, where the budget is spent.

        Raises
        ------
        DeadEnd : where the vocabulary cannot write the end.
        """
        at = (self.matched, self._spent)
        if at not in self.around.masks:
            words = self.around.words
            allowed = np.zeros_like(words.speaks) if self._spent else words.speaks.copy()
            if self._spent:
                allowed[self._closing()] = True
            else:
                allowed[[token for token in words.ends if self._after(token) is None]] = False
            if not allowed.any():
                raise DeadEnd(["reasoning"], [_SPENT])
            self.around.masks[at] = token_mask(allowed)
        return self.around.masks[at]

    def allows(self, token_id: int) -> bool:
        """Whether a token may come next."""
        return token_id in self._closing() if self._spent else self._after(token_id) is not None

    def may_end(self, data: bytes = b"") -> bool:
        """No: an answer has to follow."""
        return False

    def advance(self, token_id: int) -> ConstraintState:
        """The state behind the token.

        Raises
        ------
        ValueError : for a token that is banned.
        """
        after = self._after(token_id)
        if after is None or not self.allows(token_id):
            raise ValueError(f"token {token_id} is banned in this state; look at the mask before advancing")
        return after

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Why a token is refused."""
        if self.allows(token_id):
            return ()
        return (_SPENT,) if self._spent and self.around.data(token_id) else (_NO_END,)

    @property
    def _spent(self) -> bool:
        return self.used >= self.around.budget

    def _closing(self) -> list[int]:
        """The tokens that write the end, at once where the vocabulary has such."""
        after = {token: self._after(token) for token in self.around.words.parts}
        whole = [token for token, state in after.items() if isinstance(state, Behind)]
        return whole or [token for token, state in after.items() if state is not None]

    def _after(self, token: int) -> ConstraintState | None:
        data = self.around.data(token)
        text = _CLOSE[: self.matched] + data
        at = text.find(_CLOSE)
        ends = _CLOSE.startswith(text) or text.startswith(_CLOSE) or data.startswith(_CLOSE)
        if not data or (self._spent and not ends):
            return None
        if at >= 0:
            behind = text[at + len(_CLOSE) :]
            return Behind(self.around, len(behind)) if len(behind) <= BREAKS and not behind.strip(b"\n") else None
        matched = next(n for n in range(len(_CLOSE) - 1, -1, -1) if text.endswith(_CLOSE[:n]))
        return replace(self, matched=matched, used=self.used + 1)


@dataclass(frozen=True, slots=True)
class Behind:
    """Between the block and the answer; implements `api.ConstraintState`. `breaks` : line breaks so far."""

    around: _Around
    breaks: int
    thinks = True

    @property
    def key(self) -> Hashable:
        """The place behind the block."""
        return (id(self.around), "behind", self.breaks)

    @property
    def parts(self) -> tuple[ConstraintState, ...]:
        """The answer's constraints."""
        return parts_of(self.around.answer)

    def mask(self) -> TokenMask:
        """Line breaks, and what the answer may start with."""
        return _either(self.around, self.around.answer, self._breaks)

    def allows(self, token_id: int) -> bool:
        """Whether a token may come next."""
        return self._breaks(token_id) or allows(self.around.answer, token_id)

    def may_end(self, data: bytes = b"") -> bool:
        """Whether an answer may be empty, or as short as these bytes."""
        return may_end(self.around.answer, self.around.vocabulary.eos_ids, data)

    def advance(self, token_id: int) -> ConstraintState:
        """One line break further, or the answer's state behind its first token."""
        if self._breaks(token_id):
            return replace(self, breaks=self.breaks + len(self.around.data(token_id)))
        return self.around.answer.advance(token_id)

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Why a token is refused."""
        return () if self._breaks(token_id) else self.around.answer.explain(token_id)

    def _breaks(self, token: int) -> bool:
        data = self.around.data(token)
        return bool(data) and not data.strip(b"\n") and self.breaks + len(data) <= BREAKS


@dataclass(frozen=True, slots=True)
class Start:
    """Before anything is written, or inside `<think>` itself; implements `api.ConstraintState`.

    Parameters
    ----------
    matched : bytes of `<think>` so far.
    answer : state of the constraints, were these bytes the answer's; None where they refuse them.
    """

    around: _Around
    answer: ConstraintState | None
    matched: int = 0
    thinks = True

    @property
    def key(self) -> Hashable:
        """The place at the start."""
        return (id(self.around), "start", self.matched)

    @property
    def parts(self) -> tuple[ConstraintState, ...]:
        """The answer's constraints, where it is one."""
        return (self,) if self.answer is None else parts_of(self.answer)

    def mask(self) -> TokenMask:
        """What opens the block, and what the answer may go on with."""
        return _either(self.around, self.answer, lambda token: self._opened(token) is not None)

    def allows(self, token_id: int) -> bool:
        """Whether a token may come next."""
        return self._opened(token_id) is not None or (self.answer is not None and allows(self.answer, token_id))

    def may_end(self, data: bytes = b"") -> bool:
        """Whether the answer may end here."""
        return self.answer is not None and may_end(self.answer, self.around.vocabulary.eos_ids, data)

    def advance(self, token_id: int) -> ConstraintState:
        """Inside the block, nearer to it, or the answer's state.

        Raises
        ------
        ValueError : for a token that is banned.
        """
        after = self._opened(token_id)
        if after is None and self.answer is not None:
            return self.answer.advance(token_id)
        if after is None:
            raise ValueError(f"token {token_id} is banned in this state; look at the mask before advancing")
        return after

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Why a token is refused."""
        if self.allows(token_id):
            return ()
        return (_NO_END,) if self.answer is None else self.answer.explain(token_id)

    def _opened(self, token: int) -> ConstraintState | None:
        data = self.around.data(token)
        text = _OPEN[: self.matched] + data
        if not data or not (_OPEN.startswith(text) or text == _OPEN + b"\n"):
            return None
        if text.startswith(_OPEN):
            return Block(self.around)
        open_to = self.answer is not None and allows(self.answer, token)
        return replace(self, answer=self.answer.advance(token) if open_to and self.answer else None, matched=len(text))


def _either(around: _Around, answer: ConstraintState | None, more: Callable[[int], bool]) -> TokenMask:
    """The answer's mask, and the parts of marks and line breaks that `more` says."""
    size = around.vocabulary.size
    allowed = np.zeros(size, bool) if answer is None else allowed_bool(answer.mask(), size)
    allowed[[token for token in around.words.parts if more(token)]] = True
    return token_mask(allowed)


def reasoned(answer: ConstraintState | None, vocabulary: Vocabulary, budget: int, *, inside: bool) -> ConstraintState:
    """The first state of an answer that reasoning may come before.

    Parameters
    ----------
    answer : the first state of its constraints, behind other text; None where it has none.
    budget : tokens of reasoning.
    inside : whether the prompt has opened the block.
    """
    around = _Around(vocabulary, Free() if answer is None else answer, budget)
    return Block(around) if inside else Start(around, around.answer)
