"""`Example` to one line of JSON and back; span values go through the codec that their kind registered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from r1core.api import JSON, Example, Message, Span, SpanKind, UserError

Kinds = Mapping[str, SpanKind]


def to_json(example: Example, kinds: Kinds) -> str:
    """Return the example as one line of JSON with sorted keys.

    Raises
    ------
    KeyError : for a span whose kind no plugin of the run registered.
    """
    record = {
        "id": example.id,
        "task": example.task,
        "messages": [{"role": m.role, "content": m.content} for m in example.messages],
        "source": example.source,
        "group": example.group,
        "as_of": example.as_of,
        "facts": example.facts,
        "fields": dict(example.fields),
        "images": list(example.images),
        "spans": [_span(s, kinds) for s in example.spans],
    }
    return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _span(span: Span, kinds: Kinds) -> list[JSON]:
    late = [] if span.since is None else [span.since]
    return [span.part, span.start, span.end, span.kind, kinds[span.kind].encode(span.value), *late]


def from_json(line: str, kinds: Kinds) -> Example:
    """Read back what `to_json` wrote."""
    record = json.loads(line)
    return Example(
        id=record["id"],
        task=record["task"],
        messages=tuple(Message(m["role"], m["content"]) for m in record["messages"]),
        source=record["source"],
        group=record["group"],
        as_of=record["as_of"],
        facts=record["facts"],
        fields=record["fields"],
        images=tuple(record["images"]),
        spans=tuple(Span(p, s, e, kind, kinds[kind].decode(v), *late) for p, s, e, kind, v, *late in record["spans"]),
    )


def read(path: Path, kinds: Kinds) -> Iterator[Example]:
    """Yield the examples of a prepared split.

    Raises
    ------
    UserError : when the file is absent (the stage before has not run).
    """
    if not path.exists():
        raise UserError(f"{path}: not there, the run is not prepared", fix="r1core prepare <the same arguments>")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield from_json(line, kinds)
