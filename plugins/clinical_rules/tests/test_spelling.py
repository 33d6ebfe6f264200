"""The index of spellings against a naive search over all names, with an edit distance that shares no code."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1core_clinical_rules.spelling import SpellingIndex, Weights, distance, sound

EVEN = Weights(neighbour=1, vowel=1, doubled=1, swapped=1, first=0)
WORDS = st.text("abcde", min_size=0, max_size=7)


def naive(left: str, right: str, *, swaps: bool = True) -> int:
    """The restricted Damerau-Levenshtein distance, straight from its recursive definition."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        found = [rest(i - 1, j) + 1, rest(i, j - 1) + 1, rest(i - 1, j - 1) + (left[i - 1] != right[j - 1])]
        if swaps and i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
            found.append(rest(i - 2, j - 2) + 1)
        return min(found)

    return rest(len(left), len(right))


@given(WORDS, WORDS)
def test_with_equal_weights_it_is_the_textbook_distance(left: str, right: str) -> None:
    assert distance(left, right, EVEN) == naive(left, right)


@given(st.text("aeb", max_size=6), st.text("aeb", max_size=6))
def test_letters_twice_and_vowels_cost_what_they_should(left: str, right: str) -> None:
    weights = Weights(neighbour=1, vowel=0.7, doubled=0.5, swapped=1, first=0)

    def gap(word: str, at: int) -> float:
        return 0.5 if at and word[at] == word[at - 1] else 1.0

    @cache
    def rest(i: int, j: int) -> float:
        if not i and not j:
            return 0.0
        found = [rest(i - 1, j) + gap(left, i - 1)] if i else []
        found += [rest(i, j - 1) + gap(right, j - 1)] if j else []
        if i and j:
            a, b = left[i - 1], right[j - 1]
            found.append(rest(i - 1, j - 1) + (0 if a == b else 0.7 if {a, b} == {"a", "e"} else 1))
        if i > 1 and j > 1 and left[i - 2 : i] == right[j - 2 : j][::-1] and left[i - 1] != right[j - 1]:
            found.append(rest(i - 2, j - 2) + 1)
        return min(found)

    assert distance(left, right, weights) == pytest.approx(rest(len(left), len(right)))


@given(WORDS, WORDS, st.sampled_from((0.0, 1.0, 1.5, 2.0)))
def test_a_cut_off_changes_nothing_below_it(left: str, right: str, most: float) -> None:
    whole = distance(left, right)
    assert distance(left, right, most=most) == (whole if whole <= most else float("inf"))


@pytest.mark.parametrize(
    ("likely", "unlikely"),
    [
        (("warfarin", "warfsrin"), ("warfarin", "warfkrin")),  # a key beside it, a key far away
        (("warfarin", "warrfarin"), ("warfarin", "wartfarin")),  # a letter twice, a letter more
        (("warfarin", "wrafarin"), ("warfarin", "wbcfarin")),  # letters swapped, two others
        (("warfarin", "warfafin"), ("warfarin", "parfarin")),  # inside, at the start
    ],
)
def test_likely_slips_cost_less(likely: tuple[str, str], unlikely: tuple[str, str]) -> None:
    assert distance(*likely) < distance(*unlikely)


@pytest.mark.slow
def test_every_name_within_the_edits_promised_is_found() -> None:
    rng = random.Random(3)
    names = sorted({"".join(rng.choices("abcdefg", k=rng.randint(5, 11))) for _ in range(400)})
    index = SpellingIndex(names)
    for _ in range(300):
        letters = list(rng.choice(names))
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(len(letters))
            slip = rng.choice(("out", "in", "other", "swap"))
            if slip == "out":
                del letters[at]
            elif slip == "in":
                letters.insert(at, rng.choice("abcdefg"))
            elif slip == "other":
                letters[at] = rng.choice("abcdefg")
            elif at:
                letters[at - 1 : at + 1] = letters[at], letters[at - 1]
        word = "".join(letters)
        found = {near.name for near in index.near(word)}
        promised = {n for n in names if naive(n, word) <= (2 if len(n) >= 8 and len(word) >= 6 else 1)}
        assert promised <= found


@pytest.mark.parametrize(
    ("name", "written"), [("phenytoin", "fenitoin"), ("xanax", "zanax"), ("coumadin", "koumadin"), ("zocor", "zokor")]
)
def test_names_that_sound_alike_are_near(name: str, written: str) -> None:
    assert sound(name) == sound(written)
    (near,) = SpellingIndex([name, "metformin"]).near(written)
    assert near.name == name
    assert near.cost < 1.5


def test_short_names_and_other_characters_are_not_indexed() -> None:
    index = SpellingIndex(["asa", "b12", "col chicine", "warfarin", "warfarin"])
    assert len(index) == 1
    assert index.nbytes > 0
    assert index.near("qqqqqq") == []
