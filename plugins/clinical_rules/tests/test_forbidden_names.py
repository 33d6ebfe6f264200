"""What the automaton lets through, against a reference that normalises with unicodedata and searches strings."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_clinical_rules.automaton import ForbiddenNames
from r1core_clinical_rules.characters import spell
from r1core_clinical_rules.utf8 import decoder

from r1core.api import Reason

NAMES = ("warfarin", "Co-Trimoxazole", "Advil", "ASA", "INH")
AUTOMATON = ForbiddenNames({name: [Reason(f"no-{name}", "Handbook, p. 1", name)] for name in NAMES})


def mentioned(text: str, names: list[str], before: str = "") -> list[str]:
    """The names that a text holds, by plain search; what lies in the text `before` it does not count.

    `~` stands for what is no letter or digit, a space for white space.
    """

    def plain(part: str) -> str:
        found = []
        for character in part:
            symbols = spell(character).replace("#", "~")
            found.append(" " if symbols == "~" and character.isspace() else symbols)
        return "".join(found)

    given = plain(before) + "~" if before else ""
    whole = given + plain(text)
    return [name for name in names if any(end > len(given) for end in _ends(whole, name))]


def _ends(text: str, name: str) -> list[int]:
    """Where the names that stand in a text are complete: behind the last letter, or the boundary that shows it.

    One is past the end of the text where that end shows it.
    """
    found = []
    for start in range(len(text)):
        match = re.compile("[~ ]*".join(name)).match(text, start)
        if match is None:
            continue
        pieces = re.split("[~ ]+", match[0])
        starts = start == 0 or text[start - 1] in "~ "
        ends = match.end() == len(text) or text[match.end()] in "~ "
        sticks = len(name) >= 8 or " " not in match[0] or len(pieces) >= 4
        if len(name) < 5:
            sticks = False
            starts = starts and (len(pieces) == 1 or all(len(piece) == 1 for piece in pieces))
        if sticks:
            found.append(match.end())
        elif starts and ends:
            found.append(match.end() + 1)
    return found


def refused_at(data: bytes) -> int | None:
    """Index of the refused byte, the length for a refused end, None when the text passes."""
    state = AUTOMATON.start
    for i, byte in enumerate(data):
        state = int(AUTOMATON.row(state)[byte])
        if state < 0:
            return i
    return None if AUTOMATON.may_end(state) else len(data)


@pytest.mark.parametrize(
    "text",
    [
        "warfarin",
        "WaRfArIn",
        "take w a r-f_a.r/i\nn",
        "war\u200bfa\u00adrin",
        "wa\u0301rfarin",
        "wärfàrîn",
        "ｗａｒｆａｒｉｎ",
        "𝐰𝐚𝐫𝐟𝐚𝐫𝐢𝐧",
        "ⓦⓐⓡⓕⓐⓡⓘⓝ",
        "🆆🅰🆁🅵🅰🆁🅸🅽",
        "wаrfаrіn",  # Cyrillic a and i
        "ԝαrfαrιn",  # Cyrillic we, Greek alpha and iota
        "ᴡᴀʀꜰᴀʀɪɴ",
        "xxwarfarinol",
        "**war**farin",
        "war🙂farin",
        "cotrimoxazole",
        "CO  TRIMOXAZOLE",
        "ad vil",
        "ad vil.",
        "Ad\n- Vil",
        "a d v i l",
        "xad-vils",
        "xa d v ils",
        "bring x war farins",
        "asa",
        "take ASA.",
        "A.S.A. daily",
        "a s\ta",
        "A\u200bSA",
        "日ASA本",
        "inh",
    ],
)
def test_no_disguise_lets_a_name_through(text: str) -> None:
    assert refused_at(text.encode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "warfari",
        "war1farin",
        "as a result",
        "NASA",
        "asap",
        "as-a",
        "inhale",
        "Ⅻ ½ ㎎",
        "日本語 привет",
        "war far",
        "xad vils",
        "dread villages",
        "load, vile",
        "ad vils",
        "add v ils",
        "xad\u3000vil",
    ],
)
def test_what_is_no_name_passes(text: str) -> None:
    assert refused_at(text.encode()) is None


def test_the_byte_that_completes_the_name_is_the_one_refused() -> None:
    assert refused_at(b"warfarin") == 7
    assert refused_at("warfarｉｎ".encode()) == len("warfarｉｎ".encode()) - 1
    assert refused_at(b"ASA") == 3  # complete only at the end of the text
    assert refused_at(b"ASA x") == 3  # or at a boundary
    assert refused_at(b"ASAP") is None


def test_broken_utf8_counts_as_a_separator() -> None:
    assert refused_at(b"warf\xffarin") == 8
    assert refused_at(b"warf\xe2\x80arin") == 9
    assert refused_at(b"asa\xe2z") == 4
    assert refused_at(b"asa\xe2\x80") == 5
    assert refused_at(b"war\xc0\xaffarin") == 9


def test_explains_with_rule_citation_and_name() -> None:
    state = AUTOMATON.start
    for byte in b"warf":
        state = int(AUTOMATON.row(state)[byte])
    assert AUTOMATON.explain(state, b"arin again") == (Reason("no-warfarin", "Handbook, p. 1", "warfarin"),)
    assert AUTOMATON.explain(state, b"are") == ()
    for byte in b" asa":
        state = int(AUTOMATON.row(state)[byte])
    assert AUTOMATON.explain(state, b"")[0].rule == "no-ASA"
    assert AUTOMATON.explain(state, b"\xe2!")[0].rule == "no-ASA"


def test_one_name_under_two_rules_names_both() -> None:
    both = ForbiddenNames(
        {"Advil": [Reason("a", "", "Advil"), Reason("b", "", "Advil")], "advil": [Reason("c", "", "advil")]}
    )
    assert [r.rule for r in both.explain(both.start, b"advil")] == ["a", "b", "c"]


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="no letter"):
        ForbiddenNames({"--": []})


def test_rows_together_equal_rows_one_by_one() -> None:
    states = [AUTOMATON.start]
    for byte in "wаr é asa \U0001d41a".encode():
        states.append(int(AUTOMATON.row(states[-1])[byte]))
    together = AUTOMATON.rows(states)
    for state, row in zip(states, together, strict=True):
        assert (AUTOMATON.row(state) == row).all()


def found_by_search(text: str) -> bool:
    """The reference: ASCII letters and digits after NFKD and casefold, without marks; names by regular expressions."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Cf"))
    kept = "".join(c if c.isascii() and c.isalnum() else " " if c.isspace() else "~" for c in plain)
    words = f" {re.sub('[ ~]+', ' ', kept)} "
    short = any(f" {form} " in words for name in ("asa", "inh") for form in (name, " ".join(name)))
    long = any(name in words.replace(" ", "") for name in ("warfarin", "cotrimoxazole"))
    pieces = "".join(f"{letter}( *)" for letter in "advi") + "l"
    cut = re.finditer(f"(?={pieces})", words)
    spelled = any(sum(map(bool, match.groups())) >= 3 for match in cut)
    return short or long or "advil" in kept.replace("~", "") or bool(re.search(f" {pieces} ", words)) or spelled


PIECES = (
    "war",
    "far",
    "in",
    "w",
    "a",
    "s",
    "A",
    "S",
    "i",
    "n",
    "h",
    "ad",
    "VIL",
    " ",
    "-",
    "\u200b",
    "é",
    "ａ",
    "日",
    ".",
    "co",
    "trimox",
    "azole",
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_passes_exactly_what_the_reference_does_not_find(text: str) -> None:
    assert (refused_at(text.encode()) is not None) == found_by_search(text)


BYTES = (
    b"ad",
    b"vil",
    b"a",
    b"s",
    b"A",
    b" ",
    b"-",
    b"\xc3",
    b"\xe2\x80",
    b"\x8b",
    b"\xef\xbd",
    b"\x81",
    b"\xf0\x9d\x90",
    b"\x9a",
    b"\xff",
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(BYTES), max_size=12).map(b"".join))
def test_broken_bytes_are_what_a_decoder_shows(data: bytes) -> None:
    assert (refused_at(data) is not None) == found_by_search(data.decode("utf-8", "replace"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_a_name_is_refused_wherever_it_stands(before: str, after: str) -> None:
    assert refused_at(f"{before}warfarin{after}".encode("utf-8", "replace")) is not None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=12))
def test_bytes_decode_as_pythons_own_decoder_does(data: bytes) -> None:
    utf8, state, seen = decoder(), 0, []
    for byte in data:
        if state and utf8.target[state, byte] < 0 and utf8.klass[state, byte] < 0:
            seen.append("#")
            state = 0
        if utf8.klass[state, byte] >= 0:
            seen.append(utf8.classes[int(utf8.klass[state, byte])])
            state = 0
        else:
            state = int(utf8.target[state, byte])
    assert re.sub("[# ]+", "#", "".join(seen) + "#" * bool(state)) == spell(data.decode("utf-8", "replace"))


@pytest.mark.slow
def test_hundreds_of_random_disguises_do_not_leak() -> None:
    rng = random.Random(0)
    for _ in range(600):
        name = rng.choice(["warfarin", "cotrimoxazole", "advil"])
        text = "".join(rng.choices("bdkz ", k=3))
        for letter in name:
            text += rng.choice(
                [letter, letter.upper(), chr(0xFF41 + ord(letter) - 97), chr(0x1D41A + ord(letter) - 97)]
            )
            gap = " " if len(name) >= 8 else "/"  # glued to other letters, a shorter name is none across white space
            text += rng.choice(["", "", gap, "-", "\u200b", "\u0301", "…", "\x00"])
        text += "".join(rng.choices("xyz ", k=2))
        assert refused_at(text.encode()) is not None, text


def refused_after(before: str, text: str) -> bool:
    state = AUTOMATON.after(before)
    for byte in text.encode():
        state = int(AUTOMATON.row(state)[byte])
        if state < 0:
            return True
    return not AUTOMATON.may_end(state)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("Finish this word: warfa", "rin"),
        ("war\u200bf", "-A r1... ar warfarin"),
        ("say wаrfаr", "ІN"),  # Cyrillic on both sides
        ("spell A.S.", "A."),
        ("A", " S. A"),
        ("I take warfarin and adv", "il"),
    ],
)
def test_a_name_begun_in_the_prompt_is_not_completed(before: str, text: str) -> None:
    assert refused_after(before, text)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("May I take warfarin?", "No."),  # a name in the prompt is the user's own
        ("warfarin", ""),
        ("ASA", ""),
        ("ASA", " is what you asked about"),
        ("A.S.A.", "... no"),
        ("AS", "A"),  # two messages, two words
        ("warfarin", "arin"),
        ("", "in"),
    ],
)
def test_what_the_prompt_holds_alone_does_not_stop_the_answer(before: str, text: str) -> None:
    assert not refused_after(before, text)


def test_a_longer_name_that_begins_with_one_in_the_prompt_is_held_too() -> None:
    automaton = ForbiddenNames({"aspirin": [Reason("short", "", "")], "aspirin-dl-lysine": [Reason("long", "", "")]})
    state = automaton.after("Take aspirin")
    for byte in b" DL lysin":
        state = int(automaton.row(state)[byte])
    assert [r.rule for r in automaton.explain(state, b"e")] == ["long"]
    assert automaton.row(state)[ord("e")] == -1
    repeated = ForbiddenNames({"aaaaa": [Reason("five", "", "")]})
    assert repeated.row(repeated.after("aaaaa"))[ord("a")] == -1
    assert repeated.explain(repeated.after("aaaaa"), b"-") == ()
    assert repeated.explain(repeated.after("aaaaa"), b"-a")[0].rule == "five"


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=10).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
)
def test_behind_a_prompt_exactly_what_is_new_is_refused(before: str, text: str) -> None:
    plain = ["warfarin", "cotrimoxazole", "advil", "asa", "inh"]
    assert refused_after(before, text) == bool(mentioned(text, plain, before))
    if not before:
        assert bool(mentioned(text, plain)) == found_by_search(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_plain_search_and_automaton_agree_on_any_text(before: str, text: str) -> None:
    before, text = (t.encode("utf-8", "replace").decode() for t in (before, text))
    for names in (["warfarin"], ["asa"]):
        assert refused_after(before, text) >= bool(mentioned(text, names, before))


def test_ascii_only_refuses_every_other_byte_and_says_so() -> None:
    automaton = ForbiddenNames({"warfarin": [Reason("r", "", "")]}, ascii_only=True)
    row = automaton.row(automaton.start)
    assert (row[:0x80] >= 0).all()
    assert (row[0x80:] == -1).all()
    assert automaton.explain(automaton.start, "é".encode())[0].rule == "ascii-only"
    nothing_else = ForbiddenNames({}, ascii_only=True)
    assert (nothing_else.row(nothing_else.start) >= 0).tolist() == [True] * 0x80 + [False] * 0x80


def test_mentioned_counts_only_what_reaches_into_the_text() -> None:
    assert mentioned("rin", ["warfarin"], "warfa") == ["warfarin"]
    assert mentioned("", ["warfarin", "asa"], "warfarin ASA") == []
    assert mentioned("A", ["asa"], "a s") == ["asa"]
    assert mentioned("Advil, ASA", ["warfarin", "advil", "asa"]) == ["advil", "asa"]
