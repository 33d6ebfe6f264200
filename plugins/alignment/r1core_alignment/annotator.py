"""Gives a record what was known of its company before its day: the annotator `alignment/known`.

A record without a day is refused: there is no date that could be assumed without a look ahead. Not covered: finding the
entity in the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import JSON, Example, SpanKind, UserError, edit
from r1core_alignment.config import AlignmentConfig

if TYPE_CHECKING:
    from r1core_alignment.aligned import Aligned
    from r1core_alignment.facts import Facts
    from r1core_alignment.provenance import Provenance, Source

KEY = "alignment"
"""The fact that holds what was known: a list, empty where nothing was."""


class KnownFacts:
    """Writes `facts["alignment"]`, each value with its period and filing; with `prompt`, into the prompt as well."""

    name = "alignment/known"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = ()

    def __init__(self, config: AlignmentConfig) -> None:
        self._config = config
        self._aligned: dict[str, Aligned] = {}

    @cached_property
    def facts(self) -> Facts:
        """The concepts asked for, of all files; read when first used.

        Raises
        ------
        UserError : for a file that cannot be read, and a concept that no file has.
        """
        from r1core_alignment.reading import read
        from r1core_alignment.tidy import concat

        return concat([read(path) for path in self._config.files]).select(concepts=self._config.concepts)

    def __call__(self, example: Example) -> Example:
        """Return the example with what was filed strictly before its `as_of`.

        Raises
        ------
        UserError : for a record without an entity (unless `unnamed = "leave"`) or a day, and an entity that no file
            has.
        """
        from r1core_alignment.days import day_of

        entity = self._entity(example)
        if entity is None:
            return example
        as_of = self._said(example, "as_of", {"as_of": example.as_of}, example.facts or {})
        if as_of is None:
            raise UserError(
                f"example {example.id}: it has no as_of, so nothing can be called known",
                fix='name the column that holds its day, [data.columns] as_of = ..., or give the fact "as_of"',
            )
        known = self._known(entity, day_of(as_of, f"example {example.id}: as_of"))
        told: list[JSON] = [{**dict(zip(_HEADS, column, strict=True)), **_card(card)} for column, card in known]
        made = replace(example, facts={**(example.facts or {}), KEY: told})
        return self._prompted(made, known, as_of) if self._config.prompt else made

    def fingerprint(self) -> str:
        """Hash of the files' bytes and of the settings."""
        digest = hashlib.sha256(self._config.model_dump_json(exclude={"files"}).encode())
        for path in self._config.files:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def input_files(self) -> Sequence[Path]:
        """The files of facts, for the manifest."""
        return self._config.files

    def _entity(self, example: Example) -> str | None:
        from r1core_alignment.facts import entity_name

        key = self._config.entity
        name = self._said(example, key, example.fields, example.facts or {})
        if name is None:
            if self._config.unnamed == "leave":
                return None
            raise UserError(
                f"example {example.id}: it names no entity: neither its fields nor its facts have {key!r}",
                fix='plugins.alignment.entity names the column; unnamed = "leave" leaves such records as they are',
            )
        every = set(self.facts.series["entity"])
        entity = entity_name(self._config.names.get(name, name), every)
        if entity not in every:
            raise UserError(
                f"example {example.id}: no file has facts of the entity {entity!r} with the concepts asked for",
                fix=f"add its file to plugins.alignment.files, or its name to names; there are {_some(every)}",
            )
        return entity

    @staticmethod
    def _said(example: Example, key: str, *places: Mapping[str, JSON]) -> str | None:
        """What a record says under a key, wherever it says it; None where it does not."""
        said = {str(held[key]) for held in places if held.get(key) is not None}
        if len(said) > 1:
            told = f"example {example.id}: {key!r} is {' and '.join(sorted(said))}, in its columns and in its facts"
            raise UserError(told, fix="leave one of them out")
        return said.pop() if said else None

    def _known(self, entity: str, day: int) -> list[tuple[tuple[str, ...], Provenance]]:
        """Column and provenance of everything known of an entity on a day."""
        import numpy as np

        from r1core_alignment.aligning import align
        from r1core_alignment.days import day_of, to_datetimes

        config = self._config
        if entity not in self._aligned:
            mine = self.facts.select(entities=[entity])
            # between the days on which a filing becomes known nothing changes
            changes = to_datetimes(np.unique(mine.filed) + config.lag + 1)
            self._aligned[entity] = align(
                mine, grid=changes, measures=config.measures, lag=config.lag,
                additive=config.additive, non_additive=config.non_additive,
            )  # fmt: skip
        aligned = self._aligned[entity]
        at = int(np.searchsorted(aligned.days, day, side="right")) - 1
        if at < 0:
            return []
        cards = zip(aligned.columns, aligned.provenance.iloc[at], strict=True)
        oldest = 0 if config.max_age is None else day - config.max_age
        return [(column, card) for column, card in cards if card is not None and day_of(card.end, "end") >= oldest]

    def _prompted(self, example: Example, known: Sequence[tuple[tuple[str, ...], Provenance]], as_of: str) -> Example:
        parts = [part for part, message in enumerate(example.messages) if message.role == "user"]
        if not parts:
            raise UserError(f"example {example.id}: it has no user message to append to", fix="set prompt = false")
        lines = [_line(column, card) for column, card in known] or ["nothing"]
        text = f"\n\nKnown of {known[0][0][0]} before {as_of}:\n" if known else f"\n\nKnown before {as_of}:\n"
        end = len(example.messages[parts[-1]].content)
        return edit(example, parts[-1], end, end, text + "\n".join(f"- {line}" for line in lines))


_HEADS = ("entity", "concept", "unit", "measure")


def _line(column: tuple[str, ...], card: Provenance) -> str:
    from r1core_alignment.provenance import plain

    _, concept, unit, measure = column
    period = f"at {card.end}" if card.start is None else f"{measure}, {card.start} to {card.end}"
    derived = "" if card.rule == "reported" else f", {card.rule}"
    return (
        f"{concept}, {period}: {plain(card.value)} {unit} ({card.form} filed {card.filed}, {card.accession}{derived})"
    )


def _card(card: Provenance) -> dict[str, JSON]:
    """A provenance as JSON."""
    names = ("rule", "start", "end", "accession", "filed", "form", "first_filed")
    sources = [_source(one) for one in card.sources]
    return {"value": _json(card.value), **{name: getattr(card, name) for name in names}, "sources": sources}


def _source(source: Source) -> dict[str, JSON]:
    names = ("sign", "start", "end", "filed", "first_filed", "accession", "form")
    return {"value": _json(source.value), **{name: getattr(source, name) for name in names}}


def _json(value: int | Decimal) -> JSON:
    return value if isinstance(value, int) else float(value)


def _some(names: set[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
