"""Generates a Metathesaurus in Rich Release Format for tests and measurements: `python -m r1core_umls.fixture DIR`.

The names are of our own making: syllables joined into words that look medical and mean nothing. Column layout, sorting
and the proportions that cost time are those of a release; nothing in it comes from one.

Each concept gets a preferred name and, drawn unevenly, synonyms (other word order, plural, a qualifier, an acronym).
One in a hundred names is shared by two concepts. Beside `--names` English rows there are Chinese ones (LAT = CHI) for
one concept in ten, one parent a concept (two for one in five) stated in both directions, a definition for one in
twenty, and one retired identifier for one in fifty.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TextIO

import numpy as np

from r1core_umls.rrf_tables import COLUMNS

RELEASE = "FIXTURE"
ONSETS = ("b", "br", "c", "d", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "ph", "r", "s", "st", "t", "th", "tr", "v")
VOWELS = ("a", "e", "i", "o", "u", "ae", "eo", "ia", "y")
CODAS = ("", "", "", "l", "m", "n", "r", "s", "x")
ENDINGS = ("itis", "osis", "oma", "emia", "pathy", "algia", "ectomy", "ol", "ine", "ase", "ium", "al", "ic", "oid")
QUALIFIERS = ("acute", "chronic", "congenital", "left", "right", "severe", "primary", "recurrent", "partial", "mixed")
TAILS = ("of unknown cause", "with complication", "type 1", "type 2", "10 MG", "oral", "NOS", "(disorder)", "in adults")
HAN = "急慢性原发继左右上下肺肝肾心脑骨胃肠血管神经炎症瘤痛热病变损伤综合征"
VOCABULARIES = ("SNOMEDCT_US", "MSH", "ICD10CM", "RXNORM", "LNC")
TUIS = (("T047", "Fixture Disease"), ("T121", "Fixture Substance"), ("T184", "Fixture Sign"), ("T061", "Fixture Act"))
FIRST_CUI, RETIRED_CUI = 1, 9_000_000


def write_release(directory: Path, *, concepts: int, names: int, seed: int = 0) -> None:
    """Write the files of a release into a folder.

    Parameters
    ----------
    concepts : at most 8,999,999, so that identifiers keep seven digits.
    names : English rows of MRCONSO, at least one a concept.

    Raises
    ------
    ValueError : fewer names than concepts, or too many concepts.
    """
    if not 0 < concepts < RETIRED_CUI or names < concepts:
        raise ValueError(
            f"{concepts} concepts with {names} names: expected 0 < concepts <= names, concepts < 9,000,000"
        )
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    weights = generator.lognormal(0.0, 1.2, concepts)
    sizes = 1 + generator.multinomial(names - concepts, weights / weights.sum())
    with ExitStack() as stack:
        files = {name: stack.enter_context((directory / name).open("w", encoding="utf-8")) for name in COLUMNS}
        writer = _Writer(files, Random(seed), concepts)
        for number, size in enumerate(sizes.tolist(), FIRST_CUI):
            writer.concept(number, size)
        writer.retired()
    (directory / "release.dat").write_text(f"umls.release.name={RELEASE}\numls.release.date=20260101\n", "utf-8")
    described = (f"{name}|fixture|{','.join(columns)}|{len(columns)}|0|0|\n" for name, columns in COLUMNS.items())
    (directory / "MRFILES.RRF").write_text("".join(described), "utf-8")


class _Writer:
    """Writes one concept after the other, in order of the CUI, as a release is sorted."""

    def __init__(self, files: Mapping[str, TextIO], random: Random, concepts: int) -> None:
        self._files, self._random, self._concepts = files, random, concepts
        self._atoms = itertools.count(1)
        syllables = [onset + vowel + coda for onset in ONSETS for vowel in VOWELS for coda in CODAS[2:]]
        self._stems = [
            "".join(pair)
            for pair in zip(random.choices(syllables, k=60_000), random.choices(syllables, k=60_000), strict=True)
        ]
        self._shared = "shared name"

    def concept(self, number: int, size: int) -> None:
        """Write a concept with this many English names."""
        random, cui = self._random, f"C{number:07d}"
        names = self._names(size)
        conso = []
        for place, name in enumerate(names):
            flags = ("P", "PF", "Y") if place == 0 else ("S", "VO" if place % 2 else "PF", "N" if place % 3 else "Y")
            conso.append(self._atom(cui, "ENG", flags, VOCABULARIES[(number + place) % len(VOCABULARIES)], name))
        if number % 10 == 0:
            han = "".join(random.choices(HAN, k=4 + number % 4))
            conso.append(self._atom(cui, "CHI", ("P", "PF", "Y"), "MSHCHI", han))
        self._files["MRCONSO.RRF"].write("".join(conso))
        tui, label = TUIS[number % len(TUIS)]
        self._files["MRSTY.RRF"].write(f"{cui}|{tui}|A1|{label}|AT{number:08d}|256|\n")
        if number % 20 == 0:
            text = f"A fixture named {names[0]}, kind {number % 97}."
            self._files["MRDEF.RRF"].write(f"{cui}|A{number:08d}|AT{number:08d}||MSH|{text}|N|256|\n")
        for parent in self._parents(number):
            self._files["MRREL.RRF"].write(self._relation(cui, "PAR", f"C{parent:07d}", "inverse_isa"))
            self._files["MRREL.RRF"].write(self._relation(f"C{parent:07d}", "CHD", cui, "isa"))

    def retired(self) -> None:
        """Write MRCUI: merged, deleted and related identifiers, some merged twice."""
        lines = []
        for number in range(max(1, self._concepts // 50)):
            old = f"C{RETIRED_CUI + number:07d}"
            target = f"C{self._random.randint(FIRST_CUI, self._concepts):07d}"
            if number % 10 == 9:
                lines.append(f"{old}|2020AA|DEL|||||\n")
            elif number % 10 == 8:
                lines.append(f"{old}|2020AA|RB|||{target}|Y|\n")
            elif number % 10 == 7:
                lines.append(f"{old}|2019AA|SY|||C{RETIRED_CUI + number - 1:07d}|N|\n")
            else:
                lines.append(f"{old}|2020AA|SY|||{target}|Y|\n")
        self._files["MRCUI.RRF"].write("".join(lines))

    def _names(self, size: int) -> list[str]:
        random = self._random
        name = self._shared if random.random() < 0.01 else self._phrase()
        names = dict.fromkeys([name])
        variants = self._variants(name)
        while len(names) < size:
            names[next(variants)] = None
        if random.random() < 0.01:
            self._shared = name
        return list(names)

    def _phrase(self) -> str:
        words = [self._word() for _ in range(self._random.choice((1, 2, 2, 3, 3, 4)))]
        if self._random.random() < 0.4:
            words.insert(0, self._random.choice(QUALIFIERS))
        if self._random.random() < 0.3:
            words.append(self._random.choice(TAILS))
        return " ".join(words).capitalize()

    def _word(self) -> str:
        return self._random.choice(self._stems) + self._random.choice(ENDINGS)

    def _variants(self, name: str) -> Iterator[str]:
        words = name.split()
        yield f"{words[-1]}, {' '.join(words[:-1])}" if len(words) > 1 else f"{name} disease"
        yield f"{name}s"
        yield "".join(word[0] for word in words).upper() + str(self._random.randint(1, 99))
        while True:
            yield f"{self._random.choice(QUALIFIERS)} {self._word()} {words[0].lower()}"
            yield self._phrase()

    def _parents(self, number: int) -> list[int]:
        if number == FIRST_CUI:
            return []
        parents = [self._random.randint(max(FIRST_CUI, number // 8), number - 1)]
        if number % 5 == 0:
            parents.append(self._random.randint(FIRST_CUI, number - 1))
        return list(dict.fromkeys(parents))

    def _atom(self, cui: str, language: str, flags: tuple[str, str, str], vocabulary: str, text: str) -> str:
        atom, (ts, stt, preferred) = next(self._atoms), flags
        ids = f"L{atom:08d}|{stt}|S{atom:08d}|{preferred}|A{atom:08d}||M{atom}|D{atom}"
        return f"{cui}|{language}|{ts}|{ids}|{vocabulary}|PT|D{atom}|{text}|0|N|256|\n"

    def _relation(self, one: str, relation: str, two: str, attribute: str) -> str:
        number = next(self._atoms)
        return f"{one}|A{number:08d}|AUI|{relation}|{two}|A{number:08d}|AUI|{attribute}|R{number:09d}||MSH|MSH||N|N||\n"


def main() -> None:
    """Read the command line and write a release."""
    parser = argparse.ArgumentParser(prog="python -m r1core_umls.fixture", description="Generate RRF files.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--names", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        write_release(options.directory, concepts=options.concepts, names=options.names, seed=options.seed)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
