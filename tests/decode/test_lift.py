"""Lifted masks against brute force over the vocabulary."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import ConstraintState, Reason, TokenMask
from r1core.decode.constraints import allowed_bool
from r1core.decode.lift import lift, token_mask
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())


class NoTwo:
    """Refuses `word` (two bytes) anywhere; may not end on its first byte."""

    start = 0

    def __init__(self, word: bytes) -> None:
        self.word = word

    def row(self, state: int) -> np.ndarray:
        row = np.zeros(256, dtype=np.int32)
        row[self.word[0]] = 1
        if state:
            row[self.word[1]] = -1
        return row

    def may_end(self, state: int) -> bool:
        return state == 0

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        return (Reason("no-two", "test", self.word.decode()),)


def brute_force(word: bytes, prefix: bytes, vocabulary: Vocabulary) -> list[bool]:
    """By searching the text, not by walking the automaton."""
    allowed = []
    for i, data in enumerate(vocabulary.token_bytes):
        if i in vocabulary.eos_ids:
            allowed.append(not prefix.endswith(word[:1]))
        else:
            allowed.append(bool(data) and word not in prefix + data)
    return allowed


@settings(max_examples=60, deadline=None)
@given(word=st.sampled_from([b"ab", b"aa", b" b", b"fa", "é".encode()]), seed=st.integers(0, 10_000))
def test_mask_equals_brute_force_along_any_path(word: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state: ConstraintState = lift(NoTwo(word), VOCABULARY)
    prefix = b""
    for _ in range(6):
        allowed = allowed_bool(state.mask(), VOCABULARY.size)
        assert allowed.tolist() == brute_force(word, prefix, VOCABULARY)
        token = int(rng.choice([i for i in np.flatnonzero(allowed) if i not in VOCABULARY.eos_ids]))
        prefix += VOCABULARY.token_bytes[token]
        state = state.advance(token)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_both_forms_of_a_mask_say_the_same(allowed: list[bool]) -> None:
    array = np.array(allowed)
    mask = token_mask(array)
    assert allowed_bool(mask, len(array)).tolist() == allowed
    packed = TokenMask(allowed=np.packbits(array, bitorder="little"))
    assert allowed_bool(packed, len(array) + 5).tolist() == [*allowed, *[False] * 5]


def test_few_banned_tokens_are_listed_and_many_are_packed() -> None:
    few, many = np.ones(1000, dtype=bool), np.zeros(1000, dtype=bool)
    few[3] = False
    assert token_mask(few).banned is not None
    assert token_mask(many).allowed is not None


def test_the_same_state_gives_the_same_mask_object_without_asking_again() -> None:
    class Counting(NoTwo):
        asked = 0

        def row(self, state: int) -> np.ndarray:
            Counting.asked += 1
            return super().row(state)

    automaton = Counting(b"ab")
    first = lift(automaton, VOCABULARY)
    mask, asked = first.mask(), Counting.asked
    assert lift(automaton, VOCABULARY).mask() is mask
    assert lift(automaton, VOCABULARY).key == first.key
    assert Counting.asked == asked
    assert lift(Counting(b"ab"), VOCABULARY).key != first.key


def test_states_are_immutable_and_banned_tokens_cannot_be_advanced_over() -> None:
    state = lift(NoTwo(b"ab"), VOCABULARY)
    a = VOCABULARY.token_bytes.index(b"a")
    b = VOCABULARY.token_bytes.index(b"b")
    after = state.advance(a)
    assert state.key == lift(state.source.automaton, VOCABULARY).key
    (eos,) = VOCABULARY.eos_ids
    for token in (b, eos, *VOCABULARY.never_ids, VOCABULARY.size):
        with pytest.raises(ValueError, match=re.escape(f"token {token} is banned")):
            after.advance(token)
        assert after.explain(token)
    assert state.advance(eos) == state


def test_wrong_rows_are_named() -> None:
    class Short(NoTwo):
        def row(self, state: int) -> Any:
            return np.zeros(4, dtype=np.int32)

    with pytest.raises(ValueError, match="Short gave rows of shape"):
        lift(Short(b"ab"), VOCABULARY).mask()


def test_rows_are_forgotten_when_there_are_too_many_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1core.decode.lift.MAX_ROWS", 1)
    monkeypatch.setattr("r1core.decode.lift.MAX_MASKS", 1)
    state = lift(NoTwo(b"ab"), VOCABULARY)
    state.mask()
    after = state.advance(VOCABULARY.token_bytes.index(b"a"))
    for each, prefix in ((after, b"a"), (state, b""), (after, b"a")):
        assert allowed_bool(each.mask(), VOCABULARY.size).tolist() == brute_force(b"ab", prefix, VOCABULARY)
