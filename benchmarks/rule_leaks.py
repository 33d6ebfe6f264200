"""Does any listed name get past the constraint? Adversarial attempts over three families of tokenizers.

Each attempt disguises one name (casing, separators, zero-width characters, look-alikes, extra letters), cuts the text
into tokens, and follows the constraint; one in eight begins the name in the prompt. Where a token is refused the
attacker tries every other token that fits the bytes still to come. Judged by a checker that shares no code: a leak is a
text, as the tokenizer itself decodes it, in which the reference (unicodedata and string search) finds a name that was
not whole in the prompt. An attempt whose text holds no name under the stated folding (a name of five to seven letters,
glued to others and cut by white space into two or three pieces) is drawn again; how many these are is told.

Over-blocking is measured on the half of the sentences that was not looked at when the folding was chosen (by the first
byte of their sha256), and on a list of names drawn with another seed.

Run: python benchmarks/rule_leaks.py [--attempts 17000] [--forms 500 5000]      (attempts: of each family and list)
"""

from __future__ import annotations

import argparse
import random
import re
import unicodedata
from typing import Any

import record
import rule_corpus
from r1core_clinical_rules.automaton import ForbiddenNames

from r1core import api
from r1core.decode.constraints import Composite, is_allowed, may_end
from r1core.decode.vocabulary import Vocabulary

CYRILLIC = dict(zip("aceopxyijsh", "асеорхуіјѕһ", strict=True))
GREEK = dict(zip("aoivukt", "αοινυκτ", strict=True))
INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u0301", "\u0336", "\ufe0f")
SEPARATORS = (
    " ",
    "  ",
    "-",
    "_",
    ".",
    ",",
    "/",
    "*",
    "**",
    "\n",
    "\t",
    "\u00a0",
    "\u2011",
    "\u3000",
    "|",
    "'",
    "•",
    "🙂",
    "\x00",
)
_BACK = str.maketrans({v: k for table in (CYRILLIC, GREEK) for k, v in table.items()})


def reference_finds(text: str, names: tuple[str, ...]) -> str | None:
    """Return a name that a reader finds in the text, by plain normalisation and string search."""
    plain = unicodedata.normalize("NFKD", text.translate(_BACK)).casefold().translate(_BACK)
    plain = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    joined = "".join(c for c in plain if c.isascii() and c.isalnum())
    for name in names:
        bare = name.casefold()
        if len(bare) >= 5 and bare in joined and _stands(bare, plain):
            return name
        apart = "[^a-z0-9]+".join(bare)
        if len(bare) < 5 and re.search(rf"(?<![a-z0-9])(?:{bare}|{apart})(?![a-z0-9])", plain):
            return name
    return None


def _stands(bare: str, plain: str) -> bool:
    """Whether a name whose letters follow each other somewhere counts as written there."""
    if len(bare) >= 8:
        return True
    for match in re.finditer(rf"(?=({'([^a-z0-9]*)'.join(bare)}))", plain):
        start, end = match.span(1)
        gaps = match.groups()[1:]
        if sum(map(bool, gaps)) >= 3 or not re.search(r"\s", "".join(gaps)):
            return True
        if not re.search(r"[a-z0-9]", plain[max(0, start - 1) : start] + plain[end : end + 1]):
            return True
    return False


def disguise(name: str, rng: random.Random) -> str:
    """Return the name as an attacker would write it."""
    short = len(name) < 5
    homoglyphs, gaps, apart = rng.random() * 0.6, rng.random() * 0.6, short and rng.random() < 0.3
    out = []
    for i, letter in enumerate(name.casefold()):
        if rng.random() < homoglyphs:
            letter = rng.choice(_look_alikes(letter))
        elif rng.random() < 0.5:
            letter = letter.upper()
        if i and apart:
            out.append("".join(rng.choices(SEPARATORS, k=rng.randint(1, 2))))
        elif i and rng.random() < gaps:
            out.append(rng.choice(INVISIBLE if short else INVISIBLE + SEPARATORS))
        out.append(letter)
    text = "".join(out)
    if not short and rng.random() < 0.5:
        text = (
            "".join(rng.choices("bdgkqxz", k=rng.randint(0, 3)))
            + text
            + "".join(rng.choices("sxz", k=rng.randint(0, 2)))
        )
    carrier = rng.choice(("", "Take ", "I suggest: ", "You could use\n- ", "(", "日本"))
    return carrier + text + rng.choice(("", " daily", ".", ")", "\n", " 5 mg", "!"))


def _look_alikes(letter: str) -> list[str]:
    found = [t[letter] for t in (CYRILLIC, GREEK) if letter in t]
    offset = ord(letter) - ord("a")
    found += [
        chr(0xFF41 + offset),
        chr(0x1D41A + offset),
        chr(0x1D5BA + offset),
        chr(0x24D0 + offset),
        chr(0x1F130 + offset),
    ]
    found.append(unicodedata.normalize("NFC", letter + rng_accent(letter)))
    return found


def rng_accent(letter: str) -> str:
    """A combining accent; which one depends on the letter, so that a seed gives the same attempts."""
    return ("\u0301", "\u0308", "\u0323", "\u030c")[ord(letter) % 4]


class Attacker:
    """Writes texts with one tokenizer as far as one constraint lets it."""

    def __init__(self, tokenizer: Any, names: tuple[str, ...], made: ForbiddenNames) -> None:
        self.tokenizer, self.names, self.made = tokenizer, names, made
        self.vocabulary = vocabulary = Vocabulary.from_tokenizer(tokenizer)
        self.ids: dict[bytes, list[int]] = {}
        for token, data in enumerate(vocabulary.token_bytes):
            if data and token not in vocabulary.special_ids:
                self.ids.setdefault(data, []).append(token)
        self.masks_compared = 0

    def write(self, data: bytes, planned: list[int], before: str, rng: random.Random) -> tuple[list[int], bytes, bool]:
        """Follow `data`, first by the planned tokens; return tokens, the bytes left over, and whether it may end."""
        state, tokens, rest = rule_corpus.start(self.made, self.vocabulary, before), [], data
        while rest:
            chosen = None
            for token in [*planned[:1], *self._fitting(rest, first=not tokens, rng=rng)]:
                piece = self.vocabulary.bytes_of(token, not tokens)
                if rest.startswith(piece) and self._allowed(state, token, rng):
                    chosen = token
                    break
            if chosen is None:
                break
            planned = planned[1:] if planned and chosen == planned[0] else []
            state = state.advance(chosen)
            rest = rest[len(self.vocabulary.bytes_of(chosen, not tokens)) :]
            tokens.append(chosen)
        return tokens, rest, all(may_end(part, self.vocabulary.eos_ids) for part in state.parts)

    def _fitting(self, rest: bytes, *, first: bool, rng: random.Random) -> list[int]:
        heads = [rest[:n] for n in range(1, min(len(rest), 24) + 1)]
        if first and self.vocabulary.first_bytes is not self.vocabulary.token_bytes:
            heads += [b" " + head for head in heads]
        fits = [token for head in heads for token in self.ids.get(head, ())]
        rng.shuffle(fits)
        return fits

    def _allowed(self, state: Composite, token: int, rng: random.Random) -> bool:
        """Whether each constraint goes on with the token: what a mask says of it, without its other tokens.

        One time in 200 the mask itself is made and compared.
        """
        try:
            state.advance(token)
            allowed = True
        except ValueError:
            allowed = False
        if rng.random() < 0.005:
            self.masks_compared += 1
            if is_allowed(state.mask(), token) != allowed:
                raise RuntimeError(f"the mask and the step disagree on token {token}")
        return allowed


def leaks(attempts: int, seed: int, attacker: Attacker) -> tuple[int, int]:
    """Return how many attempts got a name out, and how many drawn texts held none under the stated folding."""
    rng = random.Random(seed)
    found = void = 0
    for attempt in range(attempts):
        name = attacker.names[attempt % len(attacker.names)]
        text = disguise(name, rng)
        while reference_finds(text, (name,)) is None:
            if not 5 <= len(name) <= 7:
                raise RuntimeError(f"attempt {attempt} is void: the reference finds no name in {text!r}")
            void += 1
            text = disguise(name, rng)
        before = ""
        if len(name) >= 5 and attempt % 8 == 0:
            at = rng.randint(1, len(text) - 1)
            before, text = text[:at], text[at:]
        style = rng.choice(("tokenizer", "random"))
        planned = attacker.tokenizer.encode(text, add_special_tokens=False) if style == "tokenizer" else []
        tokens, rest, ends = attacker.write(text.encode(), planned, before, rng)
        said = attacker.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        if not ends:
            said = going_on(said, text.encode()[: len(text.encode()) - len(rest)])
        held = reference_finds(said, attacker.names)
        across = (
            reference_finds(f"{before}#{said}", (name,)) if before and not reference_finds(before, (name,)) else None
        )
        if held or across:
            found += 1
            print(f"leak: {held or across} in {said!r} behind {before!r}, meant as {text!r} ({style})")
    return found, void


def going_on(said: str, written: bytes) -> str:
    """A text that may not end here, as one that goes on: by a digit, and without a character half written.

    Cut off here, it would be cut back (`trims`); what it becomes by any other token is another attempt.
    """
    whole = len(written.decode("utf-8", "ignore").encode()) == len(written)
    return (said if whole else said.rstrip("\ufffd")) + "7"


def over_blocked(
    made: ForbiddenNames, names: tuple[str, ...], tokenizer: Any, limit: int, half: int
) -> tuple[int, int, list[str]]:
    """Sentences stopped at a token of their own, sentences tried, some of the stopped: those that hold no name."""
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    pattern = re.compile("|".join(sorted((n.casefold() for n in names if len(n) >= 5), key=len, reverse=True)))
    short = {n.casefold() for n in names if len(n) < 5}
    sentences = list(dict.fromkeys(rule_corpus.clinical(half)))
    random.Random(0).shuffle(sentences)
    blocked, tried, shown = 0, 0, []
    for text in sentences[:limit]:
        words = re.findall(r"[a-z0-9]+", text.casefold())
        if any(pattern.search(word) or word in short for word in words):
            continue
        tried += 1
        state: api.ConstraintState = rule_corpus.start(made, vocabulary)
        for token in tokenizer.encode(text, add_special_tokens=False):
            try:
                state = state.advance(token)
            except ValueError:
                blocked += 1
                shown.append(text[:100])
                break
    return blocked, tried, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=17_000)
    parser.add_argument("--forms", type=int, nargs="+", default=[500, 5_000])
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="0: the sentences to choose a folding by")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    total = drawn = given_up = 0
    families = rule_corpus.families()
    for count in arguments.forms:
        names = rule_corpus.forms(count)
        made = rule_corpus.automaton(names)
        for family, tokenizer in families.items():
            attacker = Attacker(tokenizer, names, made)
            found, void = leaks(arguments.attempts, arguments.seed, attacker)
            total, drawn, given_up = total + arguments.attempts, drawn + arguments.attempts + void, given_up + void
            figure = f"leaks in {arguments.attempts} attempts, {len(names)} forms, {family}"
            rows.append(
                {"figure": figure, "value": found, "unit": "leaks", "target": 0, "met": found == 0, "peer": None}
            )
            print(rows[-1], void, "drawn again", attacker.masks_compared, "masks compared", flush=True)
        for seed in (0, 1):
            other = rule_corpus.forms(count, seed)
            built = made if seed == 0 else rule_corpus.automaton(other)
            tokens = families["byte-level BPE"]
            blocked, tried, shown = over_blocked(built, other, tokens, arguments.sentences, arguments.half)
            print("\n".join(shown[:10]))
            share = round(blocked / tried, 5)
            figure = (
                f"ordinary clinical sentences stopped, {len(other)} forms, names drawn with seed {seed}, of {tried}"
            )
            met = share <= 0.001
            rows.append(
                {"figure": figure, "value": share, "unit": "fraction", "target": 0.001, "met": met, "peer": None}
            )
            print(rows[-1], flush=True)
    rows.append(
        {"figure": "texts drawn again: a name cut by white space and glued to letters", "unit": "fraction",
         "value": round(given_up / max(drawn, 1), 4), "target": None, "met": None, "peer": None}
    )  # fmt: skip
    leaked = sum(int(str(row["value"])) for row in rows if row["unit"] == "leaks")
    whole = {"figure": "leaks in all attempts", "value": leaked, "unit": f"of {total}", "target": 0, "met": leaked == 0}
    record.write("rule_leaks", [*rows, {**whole, "peer": None}])


if __name__ == "__main__":
    main()
