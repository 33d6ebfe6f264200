"""An attacker who chooses the model's scores: no way to search, stop or end an answer gets a listed form out of it.

Greedy, drawn and beam-searched answers; stop strings and token limits that cut where a name would be complete; names
begun in the prompt; special tokens and broken bytes that the model holds most probable. Judged by the naive reference.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from r1core.decode.beams import Beams
from r1core.decode.ending import Ending, Stops
from r1core.decode.search import Draw, Search
from r1core.decode.values import Completion, Decoding, Line

from .disguises import BOUNDARIES, FAMILIES, LETTERS, NOTHING, WHITE, completions, families, signs_of, started

NAMES = ("asa", "lai", "advil", "advilas", "wildsavab", "basidala", "aaaa")
BEFORE = ("", "", "I take advi", "a s", "wil", "ASA", "x adv", "take AS", "ad v i", "wildsava", "Advil", " ")
STOPS = ("asa", " ", ".", "il", "vil", "\n", "s", "A", "ab", "la")


BROKEN = (b"\xff", b"\xe2", b"\x80")  # bytes that make no character which the reference cannot read


@lru_cache(maxsize=3)
def writable(family: str) -> list[tuple[int, str]]:
    """The tokens of letters, signs and bytes that the reference can read, each with its letters in lower case."""
    vocabulary, found = families()[family][1], []
    for token, data in enumerate(vocabulary.token_bytes):
        text = data.decode("utf-8", "replace").lower()
        known = data in BROKEN or set(text) <= {*LETTERS, *NOTHING, *BOUNDARIES, *WHITE}
        if data and token not in vocabulary.special_ids and known:
            found.append((token, text.strip("-.# \n")))
    return found


def scores(lines: Sequence[Line], goals: Sequence[str], before: str, family: str, seed: int) -> torch.Tensor:
    """(L, V) scores that pull each line towards the next letters of a name, and towards tokens that it may not use."""
    rng, vocabulary = random.Random(seed), families()[family][1]
    logits = torch.full((len(lines), vocabulary.size), -50.0)
    every = [token for token, _ in writable(family)]
    logits[:, every] = 5 * torch.rand(len(lines), len(every), generator=torch.Generator().manual_seed(seed))
    logits[:, sorted(vocabulary.never_ids)] += rng.choice((0, 60))
    logits[:, sorted(vocabulary.eos_ids)] = rng.choice((0, 4, 9))
    for i, line in enumerate(lines):
        said = (before + vocabulary.text_bytes(line.tokens()).decode("utf-8", "ignore")).lower()
        letters, name = "".join(filter(str.isalpha, said)), goals[line.row]
        at = max(k for k in range(len(name)) if letters.endswith(name[:k]))
        for token, text in writable(family):
            if text and name[at:].startswith(text):
                logits[i, token] += 8 * rng.random()
    return logits


def answers(names: Sequence[str], before: str, decoding: Decoding, family: str, rng: random.Random) -> list[Completion]:
    """Two rows, searched as `generate` does it, with the attacker in the model's place."""
    vocabulary = families()[family][1]
    state = started(list(names), family, before)
    stops = Stops(decoding.stop, vocabulary, at_start=True) if decoding.stop else None
    ending = Ending(vocabulary.eos_ids, stops)
    search: Search = (Beams if decoding.beams > 1 else Draw)(2, decoding, ending)
    lines, goals = [Line(0, state), Line(1, state)], rng.choices(names, k=2)
    for position in range(decoding.max_new_tokens):
        logits = scores(lines, goals, before, family, rng.randrange(2**32))
        lines = search.grow(lines, logits, position)
        if not lines:
            break
    return search.completions()


def check(family: str, rng: random.Random) -> None:
    tokenizer, vocabulary, _ = families()[family]
    names, before = rng.sample(NAMES, rng.randint(1, len(NAMES))), rng.choice(BEFORE)
    beams = rng.choice((1, 1, 2, 4))
    decoding = Decoding(
        max_new_tokens=rng.randint(1, 9),
        temperature=rng.choice((0.0, 1.0)) if beams == 1 else 0.0,
        seed=rng.randrange(2**16),
        beams=beams,
        stop=tuple(rng.sample(STOPS, rng.choice((0, 1, 3)))),
    )
    for done in answers(names, before, decoding, family, rng):
        event(done.finish)
        if done.tail:
            text = (vocabulary.text_bytes(done.tokens) + done.tail).decode("utf-8", "replace")
        else:
            text = tokenizer.decode(done.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        given = [*signs_of(before), *signs_of("-")] if before else []  # two messages
        held = [at for at in completions([*given, *signs_of(text)], names) if at > len(given)]
        assert done.withheld or not held, f"{text!r} behind {before!r} with {names}, {decoding}"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(rng=st.randoms(use_true_random=True))
def test_no_search_gets_a_name_out(family: str, rng: random.Random) -> None:
    check(family, rng)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=500, deadline=None)
@given(rng=st.randoms(use_true_random=True))
def test_no_long_search_gets_a_name_out(family: str, rng: random.Random) -> None:
    check(family, rng)
