"""What tests of several folders share: a small plugin as source text, to be written to a file and loaded from there.

Tests run in one process a core, each with one thread: threads that wait for a core by spinning make small products
many times slower.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

HEART = """
from r1core import api

WORD = api.SpanKind("heart/word", encode=str, decode=str)


class Words:
    name, after, before, span_kinds = "heart/words", (), (), (WORD,)

    def __call__(self, example):
        return example.with_spans(
            api.Span(part, start, start + 5, WORD.name, "organ")
            for part, message in enumerate(example.messages)
            for start in range(len(message.content))
            if message.content.startswith("heart", start)
        )

    def fingerprint(self):
        return "1"


@api.hookimpl
def preprocess():
    return [Words()]
"""
"""A plugin for a file `heart.py`: marks every "heart". Further hooks may follow it as functions."""

FEATURE = "width=1, feature=lambda value: (1.0,)"
"""What makes layers see the spans of `HEART`."""


def heart_plugin(kind: str, hooks: str = "") -> str:
    """The source of `HEART` with further arguments of its span kind, and with the source of further hooks."""
    return HEART.replace("decode=str)", f"decode=str, {kind})") + hooks
