"""The promise, token by token: a text is refused at the token that completes a listed form, and only there.

Names, disguises and tokenisations are random; the tokenizers are of the three families.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from r1core.decode.constraints import allowed_bool, may_end

from .disguises import FAMILIES, LETTERS, Sign, completions, families, started, tokenised, written


def check(names: list[str], family: str, rng: random.Random) -> None:
    """Write one text token by token: each is allowed up to the byte that completes a form, and none from there on."""
    tokenizer, vocabulary, _ = families()[family]
    signs = written(names, rng)
    given = rng.randint(0, len(signs)) if rng.random() < 0.3 else 0
    before, signs = signs[:given], signs[given:]
    whole = [*before, Sign("", "~"), *signs] if before else signs  # two messages
    due = [at - len(whole) + len(signs) for at in completions(whole, names)]
    first = min((at for at in due if at > 0), default=None)
    text = "".join(sign.text for sign in signs)
    tokens = tokenised(text.encode(), family, rng)
    assume(tokens is not None)
    assert tokens is not None
    said = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert said == text, "the tokens of this test do not say its text"
    event("free" if first is None else "refused")
    upto = len("".join(s.text for s in signs[:first]).encode()) + (first is None or first > len(signs))
    state, at, masked = started(names, family, "".join(sign.text for sign in before)), 0, rng.randrange(8)
    for place, token in enumerate(tokens):
        at += len(vocabulary.bytes_of(token, place == 0))
        allowed = state.allows(token)
        assert allowed == (at < upto), f"{text!r} behind {before!r} with {names}: byte {at} of {upto}"
        if place == masked:
            mask, some = allowed_bool(state.mask(), vocabulary.size), rng.sample(range(vocabulary.size), 40)
            assert [bool(mask[t]) for t in (token, *some)] == [state.allows(t) for t in (token, *some)]
        if not allowed:
            assert state.explain(token)[0].rule == "rule"
            return
        state = state.advance(token)
    assert all(may_end(part, vocabulary.eos_ids) for part in state.parts) == (first is None), text


NAMES = st.lists(st.text(LETTERS, min_size=3, max_size=10), min_size=1, max_size=4, unique=True)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(names=NAMES, rng=st.randoms(use_true_random=True))
def test_exactly_the_token_that_completes_a_form_is_refused(family: str, names: list[str], rng: random.Random) -> None:
    check(names, family, rng)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4_000, deadline=None)
@given(names=NAMES, rng=st.randoms(use_true_random=True))
def test_many_texts_are_refused_exactly_there(family: str, names: list[str], rng: random.Random) -> None:
    check(names, family, rng)
