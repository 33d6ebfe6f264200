"""Texts that hold names in disguise, the tokenizers to write them with, and a reference of its own.

That shares nothing with the plugin, and it folds no text: each character is written knowing what the guarantee says of
it (a letter, a boundary, white space, nothing), and names are found by going over all places one by one.
"""

from __future__ import annotations

import copy
import itertools
import random
import runpy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from r1core_clinical_rules.automaton import ForbiddenNames

from r1core import api
from r1core.decode.characters import WHOLE_CHARACTERS
from r1core.decode.constraints import Composite, Request, intersect
from r1core.decode.lift import lift
from r1core.decode.vocabulary import Vocabulary

FAMILIES = ("byte_level", "sentencepiece", "word_piece")
LETTERS = "abdilsvw"  # few, so that names overlap, repeat and begin inside of each other
ACCENTS = "\u0301\u0308\u0323\u030c"
LIKE = {  # by script: Cyrillic, Greek, small capitals, circled and squared, accented, mathematical, other forms
    "a": "аαᴀⓐ🄰áǎ𝒶ª",
    "b": "ВβьⒷḃƀ𝕓ᵇ",
    "d": "ԁᴅⒹ🄳ďḍ𝐝ⅾ",
    "i": "іιıⓘ🅸íï𝚒ⁱ",
    "l": "Ӏʟⓛ🄻łĺ𝓁ⅼ",
    "s": "ѕꜱⓢ🅂śš𝔰ſ",
    "v": "ѵνᴠⓥ🅅ṽ𝗏ⅴ",
    "w": "ԝωᴡⓦ🅆ẁ𝖜ʷ",
}
NOTHING = ("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\ufe0f", "\u0336", "\u20dd", "\U000e0061", *ACCENTS)
BOUNDARIES = ("-", "#", "_", ".", "/", "*", "'", "|", "•", "🙂", "\x00", "日", "ж", "ϡ", "—")
WHITE = (" ", " ", "\n", "\t", "\r", "\u00a0", "\u3000", "\u2028", "\u2000")


@dataclass(frozen=True)
class Sign:
    """A character, and what it is by the guarantee: a letter, "~" a boundary, " " white space, or ""."""

    text: str
    means: str


def letter(means: str, rng: random.Random) -> Sign:
    """One way to write a letter."""
    written = rng.choice((means, means.upper(), chr(0xFF41 + ord(means) - 97), rng.choice(LIKE[means])))
    return Sign(written, means)


@lru_cache(maxsize=1)
def _meanings() -> dict[str, str]:
    every = {form: means for means, forms in LIKE.items() for form in forms}
    every |= {chr(0xFF21 + i + case): chr(97 + i) for i in range(26) for case in (0, 32)}
    return every | dict.fromkeys(NOTHING, "") | dict.fromkeys((*BOUNDARIES, "\ufffd"), "~") | dict.fromkeys(WHITE, " ")


def signs_of(text: str) -> list[Sign]:
    """A text of these characters alone, of ASCII letters and digits, and of broken bytes.

    Raises
    ------
    KeyError : for any other character.
    """
    known = _meanings()
    return [Sign(c, c.lower() if c.isascii() and c.isalnum() else known[c]) for c in text]


def gap(rng: random.Random, kinds: str) -> list[Sign]:
    """What stands between two letters: kinds `0` nothing, `n` invisible, `b` a boundary, `s` white space."""
    kind = rng.choice(kinds)
    if kind == "0":
        return []
    signs = {"n": (NOTHING, ""), "b": (BOUNDARIES, "~"), "s": (WHITE, " ")}[kind]
    return [Sign(rng.choice(signs[0]), signs[1]) for _ in range(rng.choice((1, 1, 2)))]


def written(names: list[str], rng: random.Random) -> list[Sign]:
    """A text that holds names in disguise, pieces of them, and other letters."""
    signs: list[Sign] = []
    for _ in range(rng.randint(1, 4)):
        signs += gap(rng, "0nbs")
        word = rng.choice(names) if rng.random() < 0.7 else "".join(rng.choices(LETTERS, k=rng.randint(1, 4)))
        if rng.random() < 0.2:
            word = word[: rng.randint(1, len(word))]
        kinds = rng.choice(("0", "0n", "00nb", "000s", "00nbs", "bs"))
        for i, one in enumerate(word):
            signs += [*(gap(rng, kinds) if i else []), letter(one, rng)]
    return signs + gap(rng, "00nbs")


def completions(signs: list[Sign], names: list[str]) -> list[int]:
    """How many signs are there where a listed form is complete, once for each; one more where only the end shows it.

    The statement of the guarantee, word for word: eight letters and more anywhere; three and four as a whole word or
    with every letter apart; those between anywhere, but across white space only as whole words or in four pieces.
    """
    places = [at for at, sign in enumerate(signs) if sign.means not in ("", "~", " ")]
    found = []
    for name in names:
        for start in range(len(places) - len(name) + 1):
            taken = places[start : start + len(name)]
            if "".join(signs[at].means for at in taken) != name:
                continue
            between = ["".join(s.means for s in signs[a + 1 : b]) for a, b in itertools.pairwise(taken)]
            pieces = 1 + sum(1 for one in between if one)
            behind = next((at for at in range(taken[-1] + 1, len(signs)) if signs[at].means), len(signs))
            ends = behind == len(signs) or signs[behind].means in "~ "
            before = next((signs[at].means for at in range(taken[0] - 1, -1, -1) if signs[at].means), "~")
            words = ends and before in "~ "
            if len(name) >= 8 or (len(name) >= 5 and (pieces >= 4 or not any(" " in one for one in between))):
                found.append(taken[-1] + 1)
            elif words and (len(name) >= 5 or pieces in (1, len(name))):
                found.append(behind + 1)
    return found


@lru_cache(maxsize=1)
def families() -> dict[str, tuple[Any, Vocabulary, dict[bytes, list[int]]]]:
    """Each family's tokenizer with its vocabulary, and the tokens by their bytes."""
    built = runpy.run_path(str(Path(__file__).parents[3] / "tests" / "decode" / "families.py"))["FAMILIES"]
    made = {}
    for family in FAMILIES:
        tokenizer = copy.deepcopy(built[family]())  # some are shared with other tests
        pieces = ["ab", "adv", "ils", "Adv", "vil", "lv", "ＡＤ", "аd", "d-v", "a.", "\u200bd", "s."]
        if family == "word_piece":  # which writes nothing but what it knows
            every = {*LETTERS, *LETTERS.upper(), *NOTHING, *BOUNDARIES, *WHITE, *"".join(LIKE.values())}
            every |= {chr(0xFF41 + i) for i in range(26)}
            pieces = [*pieces, *(f"##{piece}" for piece in [*pieces, *sorted(every)]), *sorted(every - {" "})]
        tokenizer.add_tokens(pieces)
        vocabulary = Vocabulary.from_tokenizer(tokenizer)
        by_bytes: dict[bytes, list[int]] = {}
        for token, data in enumerate(vocabulary.token_bytes):
            if token not in vocabulary.never_ids | vocabulary.eos_ids:
                by_bytes.setdefault(data, []).append(token)
        made[family] = (tokenizer, vocabulary, by_bytes)
    return made


def tokenised(data: bytes, family: str, rng: random.Random) -> list[int] | None:
    """Tokens, drawn at random, that say these bytes; None where none can start them."""
    _, vocabulary, by_bytes = families()[family]
    tokens: list[int] = []
    while data:
        heads = [data[:n] for n in range(1, min(len(data), 16) + 1)]
        if tokens:
            fits = [token for head in heads for token in by_bytes.get(head, ())]
        else:
            fits = [t for ids in by_bytes.values() for t in ids if vocabulary.first_bytes[t] in heads]
        if not fits:
            return None
        tokens.append(rng.choice(fits))
        data = data[len(vocabulary.bytes_of(tokens[-1], len(tokens) == 1)) :]
    return tokens


def started(names: list[str], family: str, before: str) -> Composite:
    """The constraint's state in front of an answer, as `generate` has it."""
    vocabulary = families()[family][1]
    example = api.Example("test", (api.Message("user", before),), "test")
    made = ForbiddenNames({name: [api.Reason("rule", "source", name)] for name in names})
    states: list[tuple[str, api.ConstraintState]] = [("names", Request(example, vocabulary).lift(made))]
    if vocabulary.whole_characters:
        states.append(("utf-8", lift(WHOLE_CHARACTERS, vocabulary)))
    return intersect(states, vocabulary.size, vocabulary.never_ids)
