"""Lift a byte automaton to tokens: which token ids keep the automaton alive, per automaton state.

The vocabulary is a trie of bytes, stored level by level; one mask walks all of it at once, in numpy, and is then kept
per automaton state, so that a state met again costs one dictionary lookup. Nothing is approximated: a token is
allowed exactly when every one of its bytes is.
"""

# V = tokens, N = trie nodes, R = automaton rows kept

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import ByteAutomaton, Reason, TokenMask
from r1core.decode.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = 32_768  # automaton rows kept per lift; 1 KiB each, so 32 MiB
MAX_MASKS = 8_192  # masks kept per lift; at most V / 8 bytes each
MAX_STEPS = 262_144  # steps (state, token) kept per lift
MAX_LIFTS = 32  # automata kept per vocabulary (a plugin may build one per set of applicable rules)
_serial = itertools.count()
_NOTHING = Reason("special-token", "r1core: every token of constrained text says something", "")


@dataclass(frozen=True, slots=True)
class _Level:
    """The trie nodes at one depth: `parent` (n,) node index, `byte` (n,), and the index of the first node."""

    parent: NDArray[np.int64]
    byte: NDArray[np.int64]
    first: int


class TokenTrie:
    """Tokens' bytes as a trie. `node` (V,) is each token's node, -1 for ids that may never be generated."""

    def __init__(self, token_bytes: Sequence[bytes], special_ids: Set[int]) -> None:
        tokens = [b"" if i in special_ids else data for i, data in enumerate(token_bytes)]
        lengths = np.array([len(data) for data in tokens], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        buffer = np.frombuffer(b"".join(tokens), dtype=np.uint8)
        self.node = np.where(lengths > 0, 0, -1).astype(np.int64)
        self.levels: list[_Level] = []
        self.size = 1
        for depth in range(int(lengths.max(initial=0))):
            active = np.flatnonzero(lengths > depth)
            keys = self.node[active] * 256 + buffer[offsets[active] + depth]
            unique, inverse = np.unique(keys, return_inverse=True)
            self.levels.append(_Level(unique // 256, unique % 256, self.size))
            self.node[active] = self.size + inverse
            self.size += len(unique)


class Lift:
    """One automaton over one vocabulary, with the masks worked out so far. Safe to share between threads."""

    def __init__(self, automaton: ByteAutomaton, vocabulary: Vocabulary, tries: tuple[TokenTrie, TokenTrie]) -> None:
        self.automaton, self.vocabulary, self._tries = automaton, vocabulary, tries
        self.serial = next(_serial)
        self.masks: dict[tuple[int, bool], TokenMask] = {}
        self._steps: dict[tuple[int, int, bool], int] = {}
        self._lock = threading.RLock()
        self._eos = np.array(sorted(vocabulary.eos_ids), dtype=np.int64)
        self._forget_rows()

    def _forget_rows(self) -> None:
        self._rows = np.full((256, 256), -1, dtype=np.int32)  # row 0 is where refused bytes lead
        self._used = 1
        self._slot = np.full(1024, -1, dtype=np.int32)  # automaton state + 1 -> row, -1 where not asked for yet
        self._slot[0] = 0

    def _slots(self, states: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the row index of each state (-1 meaning refused), asking the automaton for rows not held yet."""
        top = int(states.max(initial=-1)) + 2
        if top > len(self._slot):
            grown = np.full(max(top, 2 * len(self._slot)), -1, dtype=np.int32)
            grown[: len(self._slot)] = self._slot
            self._slot = grown
        slots = self._slot[states + 1]
        missing = slots < 0
        if missing.any():
            self._add(np.unique(states[missing]))
            slots = self._slot[states + 1]
        return slots

    def _add(self, states: NDArray[np.int32]) -> None:
        """Ask the automaton for these states' rows, in blocks where it offers `rows(states) -> (K, 256)`."""
        automaton, block = self.automaton, 256
        for at in range(0, len(states), block):
            part = states[at : at + block]
            together = getattr(automaton, "rows", None)
            rows = together(part.tolist()) if together else np.stack([automaton.row(s) for s in part.tolist()])
            if rows.shape != (len(part), 256):
                name = type(automaton).__name__
                raise ValueError(f"{name} gave rows of shape {rows.shape}, expected ({len(part)}, 256)")
            end = self._used + len(part)
            while end > len(self._rows):
                self._rows = np.concatenate([self._rows, np.full_like(self._rows, -1)])
            self._rows[self._used : end] = rows
            self._slot[part + 1] = np.arange(self._used, end, dtype=np.int32)
            self._used = end

    def mask(self, state: int, first: bool = False) -> TokenMask:
        """Return the mask of a state; one dictionary lookup when it was asked for before.

        Parameters
        ----------
        first : whether the token would be the first of the text (`Vocabulary.first_bytes`).
        """
        mask = self.masks.get((state, first))
        if mask is None:
            with self._lock:
                if self._used > MAX_ROWS:
                    self._forget_rows()
                if len(self.masks) >= MAX_MASKS:
                    self.masks = {}
                mask = self.masks[state, first] = self._compute(state, self._tries[first])
        return mask

    def _compute(self, state: int, trie: TokenTrie) -> TokenMask:
        reached = np.empty(trie.size + 1, dtype=np.int32)
        reached[0], reached[-1] = state, -1  # the last entry serves node -1, the ids that may never be generated
        for level in trie.levels:
            slots = self._slots(reached[level.parent]).astype(np.int64)
            reached[level.first : level.first + len(level.parent)] = self._rows.ravel()[slots * 256 + level.byte]
        allowed = reached[trie.node] >= 0
        allowed[self._eos] = self.automaton.may_end(state)
        return token_mask(allowed)

    def advance(self, state: int, token: int, first: bool = False) -> int:
        """Return the state after a token, -1 when it is refused; one dictionary lookup when asked for before."""
        following = self._steps.get((state, token, first))
        if following is None:
            following = self._advance(state, token, first)
            if len(self._steps) >= MAX_STEPS:
                self._steps = {}
            self._steps[state, token, first] = following
        return following

    def _advance(self, state: int, token: int, first: bool) -> int:
        vocabulary = self.vocabulary
        if token in vocabulary.eos_ids:
            return state if self.automaton.may_end(state) else -1
        if token in vocabulary.never_ids or not 0 <= token < vocabulary.size:
            return -1
        data = vocabulary.bytes_of(token, first)
        return self.step(state, data) if data else -1  # a lone space that the start drops says nothing

    def step(self, state: int, data: bytes) -> int:
        """Return the state after these bytes, -1 when one of them is refused."""
        with self._lock:
            for byte in data:
                slot = self._slot[state + 1] if state + 1 < len(self._slot) else -1
                if slot < 0:
                    slot = self._slots(np.array([state], dtype=np.int32))[0]
                state = int(self._rows[slot, byte])
                if state < 0:
                    return -1
        return state


def token_mask(allowed: NDArray[np.bool_]) -> TokenMask:
    """Return (V,) booleans as a mask, in whichever form takes fewer bytes."""
    banned = np.flatnonzero(~allowed)
    if 32 * len(banned) <= len(allowed):  # 4 bytes an id against one bit a token
        return TokenMask(banned=banned.astype(np.int32))
    return TokenMask(allowed=np.packbits(allowed, bitorder="little"))


@dataclass(frozen=True, slots=True)
class Lifted:
    """State of a lifted automaton after a prefix of tokens; implements `api.ConstraintState`.

    `first` : the next token starts the text, in a vocabulary where that makes a difference.
    """

    source: Lift
    state: int
    first: bool = False

    @property
    def key(self) -> Hashable:
        """Equal for equal futures: the lift and the automaton's state."""
        return (self.source.serial, self.state, self.first)

    @property
    def trims(self) -> bool:
        """Whether a text that may not end here may be cut back to where it may (`api.ByteAutomaton`)."""
        return bool(getattr(self.source.automaton, "trims", False))

    def mask(self) -> TokenMask:
        """Return the tokens that may come next; shared, not to be written to."""
        return self.source.mask(self.state, self.first)

    def advance(self, token_id: int) -> Lifted:
        """Return the state after the token; an end token, where allowed, leaves the state as it is.

        Raises
        ------
        ValueError : when the mask bans the token.
        """
        following = self.source.advance(self.state, token_id, self.first)
        if following < 0:
            raise ValueError(f"token {token_id} is banned in this state; look at the mask before advancing")
        return self if token_id in self.source.vocabulary.eos_ids else Lifted(self.source, following)

    def allows(self, token_id: int) -> bool:
        """Whether the token may come next, told from its own bytes: what the mask says of it, without a mask."""
        return self.source.advance(self.state, token_id, self.first) >= 0

    def may_end(self, data: bytes = b"") -> bool:
        """Whether the text may end behind these further bytes, which may be part of a token."""
        state = self.source.step(self.state, data)
        return state >= 0 and self.source.automaton.may_end(state)

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        """Say why the token is banned; () when it is allowed. Ending is explained as appending no bytes."""
        vocabulary, automaton = self.source.vocabulary, self.source.automaton
        if token_id in vocabulary.eos_ids:
            return () if automaton.may_end(self.state) else automaton.explain(self.state, b"")
        if token_id in vocabulary.never_ids or not 0 <= token_id < vocabulary.size:
            return (Reason("special-token", "r1core: control tokens never appear in constrained text", str(token_id)),)
        data = vocabulary.bytes_of(token_id, self.first)
        return automaton.explain(self.state, data) if data else (_NOTHING,)


def lift(automaton: ByteAutomaton, vocabulary: Vocabulary, before: str = "") -> Lifted:
    """Return the automaton's first state over these tokens; the work behind it is shared by all later calls.

    Parameters
    ----------
    before : the prompt, for an automaton that offers `after(prompt)`.
    """
    shared = vocabulary.cache.setdefault("lift", _Shared(vocabulary))
    assert isinstance(shared, _Shared)
    after = getattr(automaton, "after", None) if before else None
    first = vocabulary.first_bytes is not vocabulary.token_bytes
    return Lifted(shared.get(automaton), automaton.start if after is None else after(before), first)


class _Shared:
    """The lifts of one vocabulary, the least recently used dropped first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tries: tuple[TokenTrie, TokenTrie] | None = None
        self._lifts: OrderedDict[int, Lift] = OrderedDict()  # by identity; the lift keeps its automaton alive
        self._lock = threading.Lock()

    def get(self, automaton: ByteAutomaton) -> Lift:
        with self._lock:
            if self._tries is None:
                self._tries = self._make_tries()
            found = self._lifts.get(id(automaton))
            if found is None:
                found = self._lifts[id(automaton)] = Lift(automaton, self._vocabulary, self._tries)
            self._lifts.move_to_end(id(automaton))
            while len(self._lifts) > MAX_LIFTS:
                self._lifts.popitem(last=False)
            return found

    def _make_tries(self) -> tuple[TokenTrie, TokenTrie]:
        """The trie of tokens inside a text, and that of first tokens; one and the same where these do not differ."""
        vocabulary = self._vocabulary
        inside = TokenTrie(vocabulary.token_bytes, vocabulary.special_ids)
        if vocabulary.first_bytes is vocabulary.token_bytes:
            return inside, inside
        return inside, TokenTrie(vocabulary.first_bytes, vocabulary.special_ids)
