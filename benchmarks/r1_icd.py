"""ICD-10-CM as running text whose chapter is known for every token: what R1's training benchmarks read.

One document per category (`A04`): its description and those of everything below it, with inclusion terms, "includes"
and "excludes" notes, a line each. Codes are left out, of titles and of notes, so that a chapter shows in words only.
Long categories are cut at `LONGEST` tokens, or injuries (chapter 19) would be half of everything. Categories are
split, so what is held out are codes that were never seen. Text: CDC's, by the package simple-icd-10-cm.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
LONGEST = 1024
"""Tokens of a document at most."""
PARTS = {"val": (0,), "test": (1, 2)}
"""Which tenths of the categories are held out; the others train."""
CODE = re.compile(r"\s*\((?:[A-Z]\d[0-9A-Z.\-, ]*)+\)")
CHAPTERS = 22


@dataclass(frozen=True)
class Part:
    """Documents of one part, one after the other.

    Parameters
    ----------
    ids : (T,) tokens of all documents, each ending with the end of text.
    ends : (D,) where each document ends in `ids`.
    chapters : (D,) number of the chapter, from 1.
    """

    ids: Ids
    ends: Ids
    chapters: Ids

    def order(self, seed: int, epoch: int) -> Ids:
        """Numbers of the documents in the order of an epoch."""
        return np.random.default_rng((seed, epoch)).permutation(len(self.ends))

    def stream(self, order: Ids) -> tuple[Ids, Ids]:
        """Tokens in that order, and the document of each: (T,) both."""
        starts = np.concatenate([[0], self.ends[:-1]])
        ids = np.concatenate([self.ids[starts[at] : self.ends[at]] for at in order])
        return ids, np.repeat(order, (self.ends - starts)[order])

    def rows(self, length: int, seed: int) -> tuple[Ids, Ids]:
        """The whole part once, as rows (R, length) of tokens and of their documents; a rest shorter than a row goes."""
        ids, documents = self.stream(self.order(seed, 0))
        number = len(ids) // length
        return ids[: number * length].reshape(-1, length), documents[: number * length].reshape(-1, length)

    def batches(self, rows: int, length: int, seed: int) -> Iterator[Ids]:
        """Batches (rows, length) without end, every epoch in another order."""
        rest, epoch = np.empty(0, np.int64), 0
        while True:
            while len(rest) < rows * length:
                rest = np.concatenate([rest, self.stream(self.order(seed, epoch))[0]])
                epoch += 1
            yield rest[: rows * length].reshape(rows, length)
            rest = rest[rows * length :]


def documents() -> Iterator[tuple[str, int, str]]:
    """Category, chapter and text of each document."""
    import simple_icd_10_cm as cm

    for category in cm.get_all_codes(with_dots=True):
        if not cm.is_category(category):
            continue
        lines = []
        for entry in (category, *cm.get_descendants(category)):
            if cm.is_extended_subcategory(entry):
                continue  # "initial encounter", "subsequent encounter", "sequela" of each injury
            lines.append(cm.get_description(entry))
            notes = {
                "Includes": cm.get_includes(entry),
                "Also": cm.get_inclusion_term(entry),
                "Not": cm.get_excludes1(entry),
                "Elsewhere": cm.get_excludes2(entry),
            }
            lines += [
                f"{title}: " + "; ".join(CODE.sub("", note) for note in said) for title, said in notes.items() if said
            ]
        yield category, int(cm.get_ancestors(category)[-1]), "\n".join(lines)


def part_of(category: str) -> str:
    """The part that a category belongs to, by its code alone."""
    tenth = zlib.crc32(category.encode()) % 10
    return next((name for name, tenths in PARTS.items() if tenth in tenths), "train")


def made(tokenizer: Path, end: int) -> dict[str, Part]:
    """All parts, by a `tokenizer.json` and the id of the end of text."""
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer)).encode
    found: dict[str, list[tuple[list[int], int]]] = {"train": [], "val": [], "test": []}
    for category, chapter, text in documents():
        ids = encode(text, add_special_tokens=False).ids[: LONGEST - 1]
        found[part_of(category)].append(([*ids, end], chapter))
    return {
        name: Part(
            np.concatenate([np.array(ids, np.int64) for ids, _ in rows]),
            np.cumsum([len(ids) for ids, _ in rows]),
            np.array([chapter for _, chapter in rows], np.int64),
        )
        for name, rows in found.items()
    }


def parts(file: Path, tokenizer: Path | None = None, end: int = 0) -> dict[str, Part]:
    """The parts out of an .npz file, which is made first where it is not there.

    Raises
    ------
    FileNotFoundError : where there is neither the file nor a tokenizer to make it with.
    """
    if not file.exists():
        if tokenizer is None:
            raise FileNotFoundError(f"{file} is not there, nor a tokenizer to make it with")
        file.parent.mkdir(parents=True, exist_ok=True)
        fields = ("ids", "ends", "chapters")
        made_now = made(tokenizer, end)
        arrays = {f"{name}_{field}": getattr(part, field) for name, part in made_now.items() for field in fields}
        np.savez_compressed(file, **{name: array.astype(np.int32) for name, array in arrays.items()})
    with np.load(file) as held:
        return {
            name: Part(*(held[f"{name}_{field}"].astype(np.int64) for field in ("ids", "ends", "chapters")))
            for name in ("train", *PARTS)
        }
