"""The values that travel: a record, its messages, and spans, what plugins say about stretches of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

JSON = Any  # a value that `json.dumps` accepts without a `default`


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `content` is the raw text, before any chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one message that a plugin says something about.

    Parameters
    ----------
    part : index of the message in `Example.messages`.
    start, end : offsets in characters of that message's raw content, `start < end`.
    kind : `plugin/name`, as registered by a `SpanKind`.
    value : anything that the kind's codec turns into JSON.
    since : set by the core, in an answer only: how many characters of it had to be read before the span was
        recognised; None where its own end was enough.
    """

    part: int
    start: int
    end: int
    kind: str
    value: Any
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One record on its way through the stages. Immutable: annotators return a changed copy.

    Parameters
    ----------
    group : the privacy unit (for instance a patient id); None where the data has none.
    as_of : ISO 8601 date at which the record's facts were known.
    facts : patient or market facts as a JSON object; None means unknown, `{}` means known to be empty.
    fields : every other column of the source (reward columns, tables, the gold `label`).
    images : paths of images, in the order in which the text refers to them.
    """

    id: str
    messages: tuple[Message, ...]
    task: str
    source: str = ""
    group: str | None = None
    as_of: str | None = None
    facts: Mapping[str, JSON] | None = None
    fields: Mapping[str, JSON] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    def with_spans(self, spans: Iterable[Span]) -> Example:
        """Return a copy that carries these spans as well, in order of position."""
        every = [*self.spans, *spans]
        merged = list(dict.fromkeys(every)) if all(_hashable(s) for s in every) else every
        return replace(self, spans=tuple(sorted(merged, key=lambda s: (s.part, s.start, s.end, s.kind))))

    def without_answer(self) -> Example:
        """Return the example as it stands at generation: no gold answer, no span in it, no field that equals it.

        A field that equals an answer behind its reasoning (`</think>`) equals it, too.
        """
        if not self.messages or self.messages[-1].role != "assistant":
            return self
        last, gold = len(self.messages) - 1, self.messages[-1].content
        behind = gold.partition("</think>")[2].lstrip("\n") or gold  # the answer, where reasoning stands before it
        return replace(
            self,
            messages=self.messages[:-1],
            spans=tuple(s for s in self.spans if s.part != last),
            fields={name: value for name, value in self.fields.items() if value not in (gold, behind)},
        )


def _hashable(span: Span) -> bool:
    try:
        hash(span)
    except TypeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SpanKind:
    """How the values of one kind of span are stored, reconciled and shown to layers.

    Parameters
    ----------
    name : `plugin/name`.
    encode, decode : value to JSON and back; `decode(encode(v)) == v` is checked by the conformance kit.
    overlap : what to do with overlapping spans of this kind: keep the `longest`, or `all`.
    width : how many numbers `feature` returns.
    feature : value to `width` numbers; what a layer receives for this span.
    causal : the kind may stand inside an answer. Its annotator is run on the answer so far after every token, in
        training and in decoding alike; a feature stands at the token at which its span was recognised.
    """

    name: str
    encode: Callable[[Any], JSON]
    decode: Callable[[JSON], Any]
    overlap: Literal["longest", "all"] = "longest"
    width: int = 0
    feature: Callable[[Any], Sequence[float]] | None = None
    causal: bool = False


def edit(example: Example, part: int, start: int, end: int, text: str) -> Example:
    """Replace characters `[start, end)` of one message and remap every span behind them.

    The only way in which a plugin changes text. Spans that overlap the edited stretch, or were recognised by it,
    are dropped, since what they say of the old text need not hold of the new.

    Raises
    ------
    ValueError : when the range is not inside the message.
    """
    content = example.messages[part].content
    if not 0 <= start <= end <= len(content):
        raise ValueError(f"edit [{start}, {end}) is outside message {part} of {len(content)} characters")
    shift = len(text) - (end - start)
    kept: list[Span] = []
    for span in example.spans:
        if span.part != part or max(span.end, span.since or 0) <= start:
            kept.append(span)
        elif span.start >= end:
            since = None if span.since is None else span.since + shift
            kept.append(replace(span, start=span.start + shift, end=span.end + shift, since=since))
    messages = list(example.messages)
    messages[part] = replace(messages[part], content=content[:start] + text + content[end:])
    return replace(example, messages=tuple(messages), spans=tuple(kept))
