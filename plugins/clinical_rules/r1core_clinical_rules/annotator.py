"""Orders in a prompt become facts: the annotator `clinical_rules/orders`, for recipes with `read_orders = true`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import JSON, Example, Span, SpanKind
from r1core_clinical_rules.schema import Config

if TYPE_CHECKING:
    from r1core_clinical_rules.medications import Recogniser

_log = logging.getLogger(__name__)
KIND = "clinical_rules/medication"


def _same(value: JSON) -> JSON:
    return value


MEDICATION = SpanKind(KIND, _same, _same)


class OrderAnnotator:
    """Writes a span for every medication of a prompt, and what is taken or an allergy into the example's facts.

    A medication that had to be guessed ("coumadn") counts as taken and is logged. What is stopped, denied, another
    person's or only asked about is a span and no fact. A list that the facts lack is written as incomplete; one that
    they hold keeps what it says of itself.
    """

    name = "clinical_rules/orders"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = (MEDICATION,)

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def recogniser(self) -> Recogniser:
        """Built when first used."""
        from r1core_clinical_rules.medications import Recogniser, other_drugs
        from r1core_clinical_rules.reading import load

        return Recogniser(load(self._config.files), other_drugs(self._config.names))

    def __call__(self, example: Example) -> Example:
        """Return the example with its medications as spans and facts."""
        from r1core_clinical_rules.orders import read_orders

        spans: list[Span] = []
        taken: list[tuple[str, ...]] = []
        allergies: list[tuple[str, ...]] = []
        for part, message in enumerate(example.messages):
            if message.role == "assistant":
                continue
            for order in read_orders(self.recogniser, message.content):
                mention = order.mention
                spans.append(Span(part, mention.start, mention.end, KIND, order.as_dict()))
                if order.status == "current":
                    taken.append(mention.meaning.names)
                    if not mention.certain:
                        _log.warning("example %s: %s", example.id, mention)
                elif order.status == "allergy":
                    allergies.append(mention.meaning.names)
        facts = dict(example.facts or {})
        for key, found in (("medications", taken), ("allergies", allergies)):
            if found:
                facts[key] = extended(facts.get(key), found)
        others = tuple(span for span in example.spans if span.kind != KIND)
        return replace(example, spans=others, facts=facts or example.facts).with_spans(spans)

    def fingerprint(self) -> str:
        """Hash of the rule files, the lists of names and the ordinary words."""
        digest = hashlib.sha256(files("r1core_clinical_rules").joinpath("ordinary_words.txt.gz").read_bytes())
        for path in self.input_files():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def input_files(self) -> Sequence[Path]:
        """The rule files, their hierarchies and the lists of names, for the manifest."""
        from r1core_clinical_rules.reading import input_files

        return [*input_files(self._config.files), *self._config.names]


def extended(listed: JSON | None, found: Iterable[tuple[str, ...]]) -> JSON:
    """A list of the facts with further entries, each by all its names; one that is not there yet is incomplete."""
    entries: list[JSON] = [n[0] if len(n) == 1 else {"name": n[0], "names": list(n[1:])} for n in dict.fromkeys(found)]
    if listed is None:
        return {"known": entries, "complete": False}
    if isinstance(listed, Mapping) and isinstance(listed.get("known"), list | tuple):
        return {**listed, "known": [*listed["known"], *(e for e in entries if e not in listed["known"])]}
    if isinstance(listed, list | tuple):
        return [*listed, *(e for e in entries if e not in listed)]
    return listed  # in no form that can be read: the rules say so, with the fix
