"""Sentences out of the taxonomy's templates, with their types and the gold spans of their arguments.

A row follows from (seed, split, number) alone. Generated text is easier than news: whoever writes a type's train
templates knows its test templates' words, and slots are filled with clean values. Figures on it are never pooled with
figures on real text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from string import Formatter
from typing import Literal

from r1core_events.slots import FILLERS, Value
from r1core_events.taxonomy import EventType, Taxonomy
from r1core_events.values import Argument, Role

Split = Literal["train", "dev", "test"]
NEGATIVES = Path(__file__).parent / "negatives.toml"
WORDINGS = Path(__file__).parent / "wordings"
_ROLES: Mapping[str, Role] = {"company": "company", "amount": "amount", "date": "date", "period": "date"}


@dataclass(frozen=True, slots=True)
class Row:
    """A generated sentence.

    Parameters
    ----------
    types : full ids; () where the sentence reports nothing.
    template : what it was made from; rows of one template are alike and must stay in one split.
    arguments : the spans of the slots company, amount, date and period, in order.
    """

    text: str
    types: tuple[str, ...]
    template: str
    arguments: tuple[Argument, ...] = ()


@cache
def negatives() -> Mapping[str, Mapping[Split, tuple[str, ...]]]:
    """The tables `sentences`, `frames` and `joins` of `negatives.toml`."""
    content = tomllib.loads(NEGATIVES.read_text(encoding="utf-8"))
    return {name: {split: tuple(rows) for split, rows in table.items()} for name, table in content.items()}


def fill(template: str, random: Random, split: Split, types: tuple[str, ...] = ()) -> Row:
    """Fill the slots of one template. A slot that stands twice gets one company or one value."""
    text = ""
    known: dict[str, tuple[str, Value]] = {}
    found: list[Argument] = []
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal[1:] if text.endswith(".") and literal.startswith(".") else literal  # "... by Norvale Inc."
        if slot is None:
            continue
        if slot not in known:
            known[slot] = FILLERS[slot](random, split)
        spelled, value = known[slot]
        role = _ROLES.get(slot)
        if role is not None and value is not None:
            found.append(Argument(role, len(text), len(text) + len(spelled), value))
        text += spelled
    return Row(text, types, template, tuple(found))


def without_slots(template: str) -> str:
    """A template with blanks for its slots."""
    return " ".join(literal for literal, *_ in Formatter().parse(template))


def join(first: Row, second: Row, between: str) -> Row:
    """Two sentences as one, with the types of both."""
    head = first.text.rstrip(".")
    shift = len(head) + len(between)
    moved = tuple(replace(a, start=a.start + shift, end=a.end + shift) for a in second.arguments)
    types = tuple(dict.fromkeys((*first.types, *second.types)))
    return Row(head + between + second.text, types, f"{first.template} | {second.template}", first.arguments + moved)


def frame(row: Row, around: str, random: Random, split: Split) -> Row:
    """A sentence inside a frame that takes it back: it reports nothing any more."""
    head, tail = around.split("{sentence}")
    filled = fill(head, random, split)
    return Row(filled.text + row.text.rstrip(".") + tail, (), f"{around} | {row.template}")


@cache
def wordings() -> Mapping[str, tuple[str, ...]]:
    """Further templates of a type, for fitting only: `wordings/`, one file a group."""
    found: dict[str, tuple[str, ...]] = {}
    for file in wording_files():
        kinds = tomllib.loads(file.read_text(encoding="utf-8"))
        found |= {f"{file.stem}/{kind}": tuple(rows) for kind, rows in kinds.items()}
    return found


def wording_files() -> Sequence[Path]:
    """The files of `wordings/`."""
    return sorted(WORDINGS.glob("*.toml"))


def templates(kind: EventType, split: Split) -> Sequence[str]:
    """The templates of one type; for train also its examples, triggers, title and `wordings/`."""
    if split == "train":
        return (*kind.train, *kind.examples, *kind.triggers, kind.title, *wordings().get(kind.id, ()))
    return kind.dev if split == "dev" else kind.test


def generate(taxonomy: Taxonomy, split: Split, seed: int, fillings: int = 1, *, mixed: bool = True) -> Iterator[Row]:
    """Yield the rows of one split.

    Parameters
    ----------
    fillings : how often each template is filled.
    mixed : also sentences of no event, framed ones and joined ones: for every four rows of a type about one of each.
    """
    rows: list[Row] = []
    for kind in taxonomy.types:
        for template in templates(kind, split):
            for turn in range(fillings):
                random = Random(f"{seed}/{split}/{kind.id}/{template}/{turn}")
                rows.append(fill(template, random, split, (kind.id,)))
    yield from rows
    if not mixed:
        return
    others = negatives()
    plain = others["sentences"][split]
    for number in range(len(rows) // 4):
        random = Random(f"{seed}/{split}/mixed/{number}")
        yield fill(plain[number % len(plain)], random, split)
        yield frame(random.choice(rows), random.choice(others["frames"][split]), random, split)
        one, two = random.choice(rows), random.choice(rows)
        yield join(one, two, random.choice(others["joins"][split]))
