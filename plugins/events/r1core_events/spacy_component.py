"""The spaCy pipeline component `r1core_events`: events of a document as `doc.spans["events"]`.

Each span's label is the type, and `span._.event` the `Event` with probability and arguments. Offsets that cut a token
are widened to whole tokens. The component needs no other component; saving a pipeline keeps its settings only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spacy.language import Language
from spacy.tokens import Span, SpanGroup

from r1core_events.tagger import Tagger

if TYPE_CHECKING:
    from spacy.tokens import Doc

NAME = "r1core_events"
DEFAULTS: dict[str, object] = {"taxonomy": [], "model": None, "threshold": None, "spans_key": "events"}


class EventComponent:
    """Tags documents."""

    def __init__(self, tagger: Tagger, spans_key: str) -> None:
        self._tagger, self._spans_key = tagger, spans_key
        if not Span.has_extension("event"):
            Span.set_extension("event", default=None)

    def __call__(self, doc: Doc) -> Doc:
        """Return the document with its events, overlapping ones too."""
        found = []
        for event in self._tagger.tag(doc.text):
            span = doc.char_span(event.start, event.end, label=event.type, alignment_mode="expand")
            if span is None:
                raise ValueError(
                    f"characters {event.start} to {event.end} are outside the document"
                )  # by `expand`, never
            span._.event = event
            found.append(span)
        doc.spans[self._spans_key] = SpanGroup(doc, name=self._spans_key, spans=found)
        return doc


@Language.factory(NAME, assigns=["doc.spans", "span._.event"], default_config=DEFAULTS)
def make_component(
    nlp: Language, name: str, taxonomy: list[str], model: str | None, threshold: float | None, spans_key: str
) -> EventComponent:
    """Return the component; raises UserError for a broken taxonomy or model."""
    loaded = Tagger.load([Path(one) for one in taxonomy], None if model is None else Path(model), threshold=threshold)
    return EventComponent(loaded, spans_key)
