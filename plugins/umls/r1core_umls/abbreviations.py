"""Abbreviations that a text defines ("atrial septal defect (ASD)"), found by scispaCy's detector.

The detector (Schwartz & Hearst, 2003, "A simple algorithm for identifying abbreviation definitions in biomedical
text") runs on a blank English pipeline, so no model is downloaded. It looks at a window around each parenthesis:
over a whole text its pattern matches every pair of parentheses, which is quadratic in their number.

spaCy is imported when the first text arrives whose characters allow for a definition; that takes seconds, once.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import TYPE_CHECKING

from r1core_umls.candidates import may_define
from r1core_umls.linker import Definition

if TYPE_CHECKING:
    from spacy.language import Language

# The detector reads at most min(n + 5, 2 n) words back for a short form of n letters and at most 8 tokens inside.
LEFT = 240  # characters in front of a parenthesis
INSIDE = 120  # characters up to the closing one


@cache
def _pipeline() -> Language:
    with warnings.catch_warnings():
        # pysbd, which scispacy or spacy's registry imports, is compiled with complaints about its regular expressions.
        warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
        warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning)
        import spacy
        from scispacy.abbreviation import AbbreviationDetector  # registers the component

        pipeline = spacy.blank("en")
        detector = pipeline.add_pipe("abbreviation_detector")
    if not isinstance(detector, AbbreviationDetector):
        raise TypeError(f"expected an AbbreviationDetector, found {type(detector).__name__}")
    # Its inner matcher warns (W036) whenever it holds no pattern; this one, which no token can meet, keeps it quiet.
    detector.global_matcher.add("never", [[{"ORTH": "(", "LOWER": ")"}]])
    return pipeline


def find_definitions(text: str) -> list[Definition]:
    """Return the abbreviations that the text defines, each with every place where its short form stands as a word.

    The first definition of a short form counts. Places are matched letter for letter.
    """
    defined: dict[str, str] = {}
    for start, end in _windows(text):
        if not may_define(text[start:end]):
            continue
        document = _pipeline()(text[start:end])
        for short in document._.abbreviations:
            defined.setdefault(short.text, short._.long_form.text)
    return [Definition(short, long, _places(text, short)) for short, long in defined.items()]


def _windows(text: str) -> list[tuple[int, int]]:
    windows: list[tuple[int, int]] = []
    for opening in re.finditer(r"\(", text):
        close = text.find(")", opening.end(), opening.end() + INSIDE)
        if close >= 0:
            start = max(0, opening.start() - LEFT)
            while start > 0 and not text[start - 1].isspace():
                start -= 1
            windows.append((start, close + 1))
    return windows


def _places(text: str, short: str) -> tuple[tuple[int, int], ...]:
    word = re.compile(rf"(?<![^\W_]){re.escape(short)}(?![^\W_])")
    return tuple(match.span() for match in word.finditer(text))
