"""The two readings of a text, the automaton's and the recheck's, which share no code, held against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_clinical_rules.automaton import ForbiddenNames
from r1core_clinical_rules.characters import symbols_of
from r1core_clinical_rules.folding import fold, mentions
from r1core_clinical_rules.utf8 import decoder

from r1core.api import Reason

# All that can be a letter, a digit or nothing; of the rest (Chinese, Hangul, private use, ...) one each.
POINTS = (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000), *range(0xE0000, 0xE1000), 0x4E2D, 0x10FFFF)


def letters(text: str) -> str:
    return re.sub("[^a-z0-9]+", " ", text).strip()


def test_both_read_every_character_alike() -> None:
    differs = [hex(p) for p in POINTS if letters(symbols_of(chr(p))) != letters(fold(chr(p)).text)]
    assert differs == []
    glued = [hex(p) for p in POINTS if (symbols_of(chr(p)) == "") != (fold(chr(p)).text == "")]
    assert glued == []


def test_bytes_of_every_character_come_to_what_it_stands_for() -> None:
    utf8 = decoder()
    for point in (*POINTS, *range(0x3400, 0x11000, 17), *range(0x20000, 0x110000, 4099)):
        if 0xD800 <= point < 0xE000:
            continue
        state, read = 0, ""
        for byte in chr(point).encode():
            klass = int(utf8.klass[state, byte])
            read, state = (read + utf8.classes[klass], 0) if klass >= 0 else (read, int(utf8.target[state, byte]))
        assert (read, state) == (symbols_of(chr(point)), 0), hex(point)


NAMES = ("asa", "vioxx", "advil", "clopidogrel", "idarucizumab", "avandia", "botox", "dutasteride", "etanercept", "b12")


@lru_cache(maxsize=1)
def automaton() -> ForbiddenNames:
    return ForbiddenNames({name: [Reason("no", "", name)] for name in NAMES})


def refused(text: str) -> bool:
    """Whether the automaton stops a text somewhere, its end included."""
    state = automaton().start
    for byte in text.encode():
        state = int(automaton().row(state)[byte])
        if state < 0:
            return True
    return not automaton().may_end(state)


def found(text: str) -> bool:
    """Whether the recheck finds a name in it."""
    return any(mentions(fold(text), name) for name in NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "A\u2065SA",  # code points that are kept for format characters: a reader sees nothing
        "A\ufff0SA",
        "AS\U000e0000A",
        "A\U000e0061\U000e007fSA",  # tags
        "A\u034f\u3164SA",
        "\u202eA\u202cSA",  # direction marks
        "A\u0301\ufe0f\u20e3S\u0338A",  # marks in any order
        "\u0301ASA\u0301",
        "🆑opidogrel",
        "🆔arucizumab",
        "🇦🇩🇻🇮🇱",
        "⒜⒮⒜",
        "🅰🆂🅐",
        "Ꜹandia",
        "ɑᴅʋɪʟ",
        "𝓪𝓭𝓿𝓲𝓵",
        "𝚊𝚍𝚟𝚤𝚕",  # dotless i
        "Bᴏᴛᴏx",
        "Ⓑⓞⓣⓞⓧ",
        "ᵛⁱᵒˣˣ",
        "ⅴⅰoⅹⅹ",
        "Ðʉtasteride",
        "ĐUTASTERIDE",
        "etɐnercept",
        "ᵉᵗᵃⁿᵉʳᶜᵉᵖᵗ",
        "B❶②",
        "B١٢",
        "b\u200b1\u00ad2",
        "ẠḌṼÎḺ",
    ],
)
def test_a_disguise_is_seen_through_by_both(text: str) -> None:
    assert refused(text)
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "livda\u202elivda",  # in reverse
        "Ꭺdvil",  # Cherokee
        "աdvil",  # Armenian
        "ꓮdvil",  # Lisu
        "ⲁdvil",  # Coptic
        "⍺dvil",  # a symbol
        "ədvil",  # a Latin letter named otherwise
        "\u0363dvil",  # a combining letter counts as a mark
        "Adv1l",
        "AdviI",
        "ad1vil",
        "A<b>d</b>vil",
        "ASA81",
        "AS-A",
        "xad vil",
        "адvil",  # Cyrillic de is drawn like none
    ],
)
def test_what_is_outside_of_the_promise_passes_both(text: str) -> None:
    """The list in the plugin's page: where one of these is taken in, the page has to say so."""
    assert not refused(text)
    assert not found(text)


def pieces() -> Iterator[str]:
    """Characters by what they stand for: a few of every kind, the same in each run."""
    kinds: dict[str, list[str]] = {}
    for point in POINTS:
        kinds.setdefault(symbols_of(chr(point)), []).append(chr(point))
    for symbol, characters in kinds.items():
        if symbol in ("", "#", " ", *"advilsbox12"):
            yield from characters[:: max(1, len(characters) // 12)]


PIECES = (*pieces(), *" -", "ad", "vil", "A", "S", "bo", "tox", "vio", "xx", "b1")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_recheck_finds_exactly_what_the_automaton_refuses(text: str) -> None:
    assert refused(text) == found(text)
