"""Choices: what is generated is exactly one of the labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import ConstraintState, UserError
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import allowed_bool
from r1core.decode.lift import lift
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
LABELS = ["Eye", "Eye and ear", "Ear", "Bébé", "日本"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_any_allowed_walk_ends_in_a_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state: ConstraintState = lift(ChoiceAutomaton(LABELS), VOCABULARY)
    text = b""
    while True:
        allowed = np.flatnonzero(allowed_bool(state.mask(), VOCABULARY.size))
        token = int(rng.choice(allowed))
        if token in VOCABULARY.eos_ids:
            break
        text += VOCABULARY.token_bytes[token]
        state = state.advance(token)
    assert text.decode() in LABELS


@pytest.mark.parametrize("label", LABELS)
def test_every_label_can_be_generated(label: str) -> None:
    state: ConstraintState = lift(ChoiceAutomaton(LABELS), VOCABULARY)
    for token in tiny_tokenizer().encode(label, add_special_tokens=False):
        assert allowed_bool(state.mask(), VOCABULARY.size)[token]
        state = state.advance(token)
    (eos,) = VOCABULARY.eos_ids
    assert allowed_bool(state.mask(), VOCABULARY.size)[eos]


def test_explains_what_it_refuses_and_only_that() -> None:
    automaton = ChoiceAutomaton(LABELS)
    assert automaton.explain(0, b"Eye and") == ()
    assert "ends before a label" in automaton.explain(0, b"")[0].text
    assert "'Eyes'" in automaton.explain(0, b"Eyes")[0].text


@pytest.mark.parametrize(("labels", "found"), [([], "at least one"), (["a", ""], "empty"), (["a", "b", "a"], "'a'")])
def test_wrong_label_sets_are_refused(labels: list[str], found: str) -> None:
    with pytest.raises(UserError, match=found):
        ChoiceAutomaton(labels)
