"""Which medications a text names: names and brands of the rule files, classes, other drugs, and misspellings of them.

A name is found word by word, the longest first. A word that is no name, no ordinary word and near a name is read as
that name, and says so (`Mention.certain`). Not covered: abbreviations that no file lists, and misspellings that are
themselves an ordinary word or another drug's name.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path

from r1core.api import UserError
from r1core_clinical_rules.folding import fold
from r1core_clinical_rules.rulebook import RuleBook
from r1core_clinical_rules.spelling import SpellingIndex

# The most that a misspelling may cost, by the letters of the name; chosen on development data
# (benchmarks/interaction_warnings.py). A word in the place of a drug, before a dose or behind "takes", may cost more.
LIMITS = ((10, 2.0), (8, 1.7), (7, 1.4), (5, 1.0))
IN_PLACE = 0.4
WORST = LIMITS[0][1] + IN_PLACE
MARGIN = 0.3  # two names whose costs differ by less are both meant
SHORTEST = 4  # letters of the shortest word that is read as a misspelling
REMEMBERED = 65_536  # words, about 200 bytes each

_TOKEN = re.compile(r"[a-z]+|[0-9]+(?:[.,][0-9]+)*")
_PARTS = re.compile(r" and |, |/| with | \+ ")
_BEFORE_A_DRUG = frozenset(
    (
        "take", "takes", "taking", "took", "on", "start", "starts", "started", "starting", "continue",
        "continues", "stop", "stopped", "add", "added", "give", "given", "gives", "prescribed", "prescribe",
        "of", "mg", "mcg", "uses", "using", "use", "with", "and", "plus", "or", "restart", "resume", "increase",
        "decrease", "hold", "to",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name stands for: drugs of the rule files (several in a combination), or a class of them, or neither.

    `sure` : False where the name is listed for different drugs.
    """

    name: str
    drugs: tuple[str, ...] = ()
    group: str | None = None
    sure: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """How the patient's list names it."""
        return (self.group,) if self.group else self.drugs or (self.name,)


@dataclass(frozen=True, slots=True)
class Mention:
    """A medication named in a text, at its characters `start` to `end`; `cost` is 0 for a name as listed."""

    start: int
    end: int
    text: str
    read_as: str
    meaning: Meaning
    cost: float = 0.0

    @property
    def certain(self) -> bool:
        """Whether the text holds a listed name of one meaning."""
        return self.cost == 0 and self.meaning.sure

    def __str__(self) -> str:
        meant = self.meaning.name
        shown = self.read_as if self.read_as.casefold() == meant.casefold() else f"{self.read_as} ({meant})"
        return f"{self.text!r} is {shown}" if self.certain else f"read {self.text!r} as {shown}"


@lru_cache(maxsize=1)
def ordinary_words() -> frozenset[str]:
    """English words and words of diagnoses, of four letters and more (tools/build_words.py)."""
    packed = files("r1core_clinical_rules").joinpath("ordinary_words.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("ascii").split())


def other_drugs(paths: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """Drug -> its further names, out of files with a drug a line, its names separated by tabs.

    Raises
    ------
    UserError : for a file that cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: no readable list of drug names ({error})", fix="write a drug a line, its names between tabs"
            ) from error
        for line in lines:
            name, *forms = [cell.strip() for cell in line.split("\t") if cell.strip()] or [""]
            if name and not name.startswith("#"):
                found[name] = (*found.get(name, ()), *forms)
    return found


class Recogniser:
    """Finds the medications of a rule book in texts.

    Parameters
    ----------
    others : further drugs with their names, so that none of them is taken for a drug of the book; what it lists for a
        drug of the book, or for a combination that holds one, counts as a name of that drug.
    """

    def __init__(self, book: RuleBook, others: Mapping[str, Sequence[str]] | None = None) -> None:
        self._forms: dict[str, tuple[str, Meaning]] = {}
        own = {_key(name): drug.name for drug in book.drugs for name in drug.names}
        for drug in book.drugs:
            self._add(drug.names, Meaning(drug.name, (drug.name,)))
        for group, aliases in book.class_names.items():
            plural = [f"{name}s" for name in aliases if not name.endswith("s")]
            self._add((*aliases, *plural), Meaning(aliases[0], (), group))
        for allergen in book.allergens:
            self._add(allergen.names, Meaning(allergen.name))
        for name, meaning in _others(others or {}, own):
            self._add((name,), meaning)
        self._longest: dict[str, int] = {}
        for key in self._forms:
            first, _, _ = key.partition(" ")
            self._longest[first] = max(self._longest.get(first, 0), key.count(" ") + 1)
        self._guessed: dict[tuple[str, bool], tuple[str, Meaning, float] | None] = {}

    def _add(self, names: Iterable[str], meaning: Meaning) -> None:
        for name in names:
            key = _key(name)
            if key:
                self._forms.setdefault(key, (name, meaning))
            if "-" in name:
                self._forms.setdefault(key.replace(" ", ""), (name, meaning))

    def __len__(self) -> int:
        return len(self._forms)

    @cached_property
    def _index(self) -> SpellingIndex:
        """Names of one word, and long words that only names of one meaning hold ("mefenamic")."""
        return SpellingIndex([*(key for key in self._forms if " " not in key), *self._rare])

    @cached_property
    def _rare(self) -> dict[str, tuple[str, Meaning]]:
        held: dict[str, list[tuple[str, Meaning]]] = {}
        for key, found in self._forms.items():
            if " " in key and not found[1].group:
                for word in key.split():
                    held.setdefault(word, []).append(found)
        return {
            word: found[0]
            for word, found in held.items()
            if len(word) >= 7 and word not in self._forms and word not in ordinary_words()
            if len({meaning for _, meaning in found}) == 1
        }

    def warm_up(self) -> Recogniser:
        """Build the index of spellings now instead of at the first word that needs it; returns itself."""
        len(self._index)
        return self

    def find(self, text: str) -> list[Mention]:
        """Every medication that a text names, in order of place."""
        if text.isascii():
            plain, origin = text.lower(), range(len(text))
        else:
            folded = fold(text)
            plain, origin = folded.text, folded.origin  # type: ignore[assignment]
        tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(plain)]
        words = [word for word, _, _ in tokens]
        found: list[Mention] = []
        at = 0
        while at < len(words):
            read = self._listed(words, at) or self._misspelt(words, at, plain, tokens)
            if read is None:
                at += 1
                continue
            name, meaning, cost, count = read
            start, end = origin[tokens[at][1]], origin[tokens[at + count - 1][2] - 1] + 1
            # "miconazole nitrate" is a salt, no nitrate
            salt = meaning.group and count == 1 and found and not text[found[-1].end : start].strip()
            if not salt or found[-1].meaning.group:
                found.append(Mention(start, end, text[start:end], name, meaning, cost))
            at += count
        return found

    def _listed(self, words: Sequence[str], at: int) -> tuple[str, Meaning, float, int] | None:
        for count in range(min(self._longest.get(words[at], 0), len(words) - at), 0, -1):
            found = self._forms.get(" ".join(words[at : at + count]) if count > 1 else words[at])
            if found is not None:
                return (*found, 0.0, count)
        return None

    def _misspelt(
        self, words: Sequence[str], at: int, plain: str, tokens: Sequence[tuple[str, int, int]]
    ) -> tuple[str, Meaning, float, int] | None:
        word = words[at]
        if word in ordinary_words() or not word.isalpha():
            return None
        following = words[at + 1] if at + 1 < len(words) else ""
        if len(word) > 2 and following.isalpha() and tokens[at + 1][1] - tokens[at][2] == 1:
            whole = self._forms.get(word + following)  # "war farin"
            if whole is not None and len(word + following) > SHORTEST + 2 and following not in self._longest:
                return (*whole, 0.5, 2)
        if len(word) < SHORTEST:
            return None
        in_place = following.isdigit() or (at > 0 and words[at - 1] in _BEFORE_A_DRUG)
        key = (word, in_place)
        if key not in self._guessed:
            if len(self._guessed) >= REMEMBERED:
                self._guessed.clear()
            self._guessed[key] = self._guess(word, in_place=in_place)
        guessed = self._guessed[key]
        return None if guessed is None else (*guessed, 1)

    def _guess(self, word: str, *, in_place: bool) -> tuple[str, Meaning, float] | None:
        """The name that a word is near enough to; of names equally near, one meaning with the drugs of all."""
        slack = IN_PLACE if in_place else 0.0
        near = [n for n in self._index.near(word, WORST) if n.cost <= _limit(len(n.name)) + slack]
        if len(word) <= SHORTEST and not in_place:
            return None
        if not near:
            return None
        best = [n for n in near if n.cost <= near[0].cost + MARGIN]
        listed = [self._forms.get(n.name) or self._rare[n.name] for n in best]
        meanings = list(dict.fromkeys(meaning for _, meaning in listed))
        if len(meanings) == 1:
            return (*listed[0], best[0].cost)
        drugs = tuple(dict.fromkeys(d for m in meanings for d in m.drugs))
        groups = [m.group for m in meanings if m.group]
        shown = " or ".join(dict.fromkeys(m.name for m in meanings[:3]))
        either = Meaning(shown, drugs, groups[0] if groups and not drugs else None, sure=False)
        return listed[0][0], either, best[0].cost


def _limit(letters: int) -> float:
    return next((most for least, most in LIMITS if letters >= least), 0.0)


def _key(name: str) -> str:
    """A name as its words in lower case, one space between them."""
    plain = name.lower() if name.isascii() else fold(name).text
    return " ".join(_TOKEN.findall(plain))


def _others(others: Mapping[str, Sequence[str]], own: Mapping[str, str]) -> Iterator[tuple[str, Meaning]]:
    """Each name of the other drugs with what it stands for; drugs of the book where it names them."""
    listed: dict[str, list[str]] = {}
    for drug, names in others.items():
        for name in (drug, *names):
            listed.setdefault(name, []).append(drug)
    for name, drugs in listed.items():
        parts = [[own.get(_key(part)) for part in _PARTS.split(drug)] for drug in drugs]
        meant = tuple(dict.fromkeys(part for known in parts for part in known if part))
        every = all(any(known) for known in parts)
        yield name, Meaning(" or ".join(drugs[:3]), meant, sure=not meant or (every and len(drugs) == 1))
