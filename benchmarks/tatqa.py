"""TAT-QA's development set (Zhu and others, ACL 2021), as the benchmarks of `numeric` read it.

The file lies beside the repository and is no part of it. Tables, with all their questions, are dealt out by a hash of
their id, so that no table stands in two splits: 64 parts of 256 are test, 40 val, the rest train.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from r1core_numeric.derivations import Derivation
from r1core_numeric.execute import Abstained, Result, attempt
from r1core_numeric.formats import rounded
from r1core_numeric.meant import selection_meant
from r1core_numeric.selection import Selection
from r1core_numeric.values import Number

Context = Mapping[str, Any]
Question = Mapping[str, Any]
SCALES = {"": 0, "thousand": 3, "million": 6, "billion": 9}
PURE = ("pure", "percent", "basis_point", "multiple")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "tatqa" / "tatqa_dataset_dev.json.gz"
_SCALE = re.compile(
    r"(?:(?:dollars?|amounts?|figures?|all amounts)\s)?(?:are\s)?(?:stated\s|expressed\s)?"
    r"in\s(?:u\.?s\.?\s)?(?:dollars\s)?(?:thousands|millions|billions)",
    re.IGNORECASE,
)


def contexts(path: Path) -> list[Context]:
    """Tables with their paragraphs and questions."""
    with gzip.open(path) as file:
        found: list[Context] = json.load(file)
    return found


def questions(data: Sequence[Context]) -> Iterator[tuple[Context, Question]]:
    """The arithmetic questions, each with its table."""
    for context in data:
        for question in context["questions"]:
            if question["answer_type"] == "arithmetic":
                yield context, question


def split_of(context: Context) -> Literal["train", "val", "test"]:
    """The split of a table, by the first byte of SHA-256 of its id."""
    byte = hashlib.sha256(context["table"]["uid"].encode()).digest()[0]
    return "test" if byte < 64 else "val" if byte < 104 else "train"


def caption_of(context: Context) -> str:
    """The words of the paragraphs that state a scale for the table; "" where none do."""
    found = (_SCALE.search(paragraph["text"]) for paragraph in context["paragraphs"])
    return next((one[0] for one in found if one), "")


def shown(done: Result, numbers: Sequence[Number], scale: str) -> Fraction:
    """A result in the scale of its question; operands without a scale of their own are in that scale already."""
    if scale == "percent":
        return done.value * 100 if done.unit.name in PURE else done.value
    own = any(number.scale for number in numbers)
    return done.value / 10 ** SCALES[scale] if own else done.value


def meant(derivation: Derivation, slots: Sequence[Number], gold: Fraction, scale: str) -> Selection | None:
    """Which of the eight operations that heads choose comes to the gold number over numbers of the prompt; or None.

    In the scale of the question, or in that of the operands: TAT-QA states scales that stand nowhere in its tables.
    """

    def comes_out(chosen: Selection) -> bool:
        done = attempt(chosen.program(), slots)
        if isinstance(done, Abstained):
            return False
        operands = [slots[at] for at in (*chosen.first, *chosen.second)]
        own = done.value / Fraction(10) ** max(number.scale for number in operands)
        values = (shown(done, operands, scale), *((own,) if scale in SCALES else ()))
        return any(rounded(value, 2, "half_up") == gold for value in values)

    right: Callable[[Selection], bool] = comes_out
    return selection_meant(derivation, slots, right, percentage=scale == "percent")
