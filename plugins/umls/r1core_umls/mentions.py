"""Which stretches of a text may name a concept, without a list of names: chunks of words, or a spaCy pipeline's.

The light chunker needs no model. It cuts a text at punctuation and at words that no name of a finding begins or ends
with (articles, pronouns, auxiliaries, verbs of reporting), and joins two neighbours over "of", "in", "on" and the like.
A spaCy pipeline, by the name of an installed package or as a folder, gives its entities and its noun chunks instead.

spaCy is imported where a pipeline is loaded. Not covered: mentions with words in between ("cysts of liver and kidney").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import UserError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

Stretch = tuple[int, int]  # characters [start, end)
Chunker = Callable[[str], list[Stretch]]

LONGEST = 8  # words of a chunk; names of more are rare in running text, and dictionaries find them
_WORD = re.compile(r"[^\W_]+(?:['\u2019\-\u2010\u2011/][^\W_]+)*")
_JOINING = frozenset({"of", "in", "on", "to", "at", "over", "from"})
_ARTICLES = frozenset({"the", "a", "an", "his", "her", "their", "its", "both", "all"})
_STOPPED = (
    "about above after again against also although am among an and another any anybody are around as at be became "
    "because become becomes been before began being below besides between but by can could did do does doing due "
    "during each either else even ever every few following for found further gave get gets give given gives giving "
    "had has have having he hence here hers herself him himself how however i if into is it itself just later least "
    "less like made make makes many may me might mine more most much must my myself near neither nevertheless next "
    "no none nor not now often once one ones only or other others our ours out own per prior rather really same "
    "several shall she should showed shown shows showing since so some still such take taken takes than that theirs "
    "them then there therefore these they this those though through throughout thus together too took toward under "
    "until up upon us very via was we well went were what when where whereas whether which while who whom whose why "
    "will with within without would yet you your yours additionally currently initially recently subsequently "
    "moreover thereafter two three four five six seven eight nine ten first second third appear appeared appears "
    "associated causing caused complain complained complains consistent demonstrate demonstrated demonstrates "
    "denied denies describe described describes develop developed develops diagnosed evaluated exhibit exhibited "
    "exhibits experienced include included includes including indicated investigated known noted observed present "
    "presented presenting presents report reported reports revealed reveals seen suffered suffering suggested "
    "suggestive suggesting admitted born carried characterized characterised started stated using used case cases "
    "day days examination families girl boy history hour hours individual individuals man men month months mother "
    "father parent parents patient patients person people sibling siblings sister brother son daughter week weeks "
    "woman women year years year-old old age aged male female child children infant infants "
)
_STOP = _JOINING | _ARTICLES | frozenset(_STOPPED.split())
_DETERMINERS = _ARTICLES | {"this", "that", "these", "those", "no", "any", "some", "my", "your", "our", "another"}


def light_chunks(text: str) -> list[Stretch]:
    """Return runs of words between stop words and punctuation, and pairs of them that a preposition joins."""
    words = list(_WORD.finditer(text))
    runs: list[tuple[int, int]] = []  # words [first, last)
    for place, word in enumerate(words):
        if word.group().lower() in _STOP or not any(map(str.isalpha, word.group())):
            continue
        adjoining = place > 0 and text[words[place - 1].end() : word.start()].isspace()
        if runs and runs[-1][1] == place and adjoining:
            runs[-1] = runs[-1][0], place + 1
        else:
            runs.append((place, place + 1))
    joined = [(one[0], two[1]) for one, two in pairwise(runs) if _joins(text, words[one[1] - 1 : two[0] + 1])]
    return sorted(
        (words[first].start(), words[last - 1].end()) for first, last in runs + joined if last - first <= LONGEST
    )


def _joins(text: str, words: list[re.Match[str]]) -> bool:
    """Whether between the first and the last of these words stand a preposition and at most an article."""
    inner = [word.group().lower() for word in words[1:-1]]
    unbroken = all(text[a.end() : b.start()].isspace() for a, b in pairwise(words))
    return unbroken and 1 <= len(inner) <= 2 and inner[0] in _JOINING and set(inner[1:]) <= _ARTICLES


def spacy_chunks(pipeline: str | Path) -> Chunker:
    """Return a chunker that runs a spaCy pipeline: its entities, and its noun chunks without their determiner.

    Raises
    ------
    UserError : there is no such pipeline, or it finds neither entities nor noun chunks.
    """
    nlp = _load(str(pipeline))
    if not {"ner", "parser", "entity_ruler", "span_ruler"} & set(nlp.pipe_names):
        raise UserError(
            f"{pipeline}: its components ({', '.join(nlp.pipe_names) or 'none'}) find no mentions",
            fix="name a pipeline with `ner` or `parser`, or leave `pipeline` out",
        )
    return lambda text: doc_chunks(nlp(text))


def pipeline_version(pipeline: str) -> str:
    """Return what a pipeline's answers depend on: the package's version, or a sha256 over the files of a folder.

    Raises
    ------
    UserError : it is neither.
    """
    folder = Path(pipeline)
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(str(file.relative_to(folder)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()
    try:
        return version(pipeline)
    except PackageNotFoundError as error:
        raise _no_pipeline(pipeline, "no such package, no such folder") from error


def doc_chunks(doc: Doc) -> list[Stretch]:
    """Return the entities of a spaCy document and, where it is parsed, its noun chunks without their determiner."""
    found: set[Stretch] = {(entity.start_char, entity.end_char) for entity in doc.ents}
    if doc.has_annotation("DEP"):
        for chunk in doc.noun_chunks:
            tokens = [token for token in chunk if not token.is_space]
            while tokens and (tokens[0].lower_ in _DETERMINERS or tokens[0].is_punct):
                tokens = tokens[1:]
            if tokens and len(tokens) <= LONGEST:
                found.add((tokens[0].idx, tokens[-1].idx + len(tokens[-1])))
    return sorted(found)


def _load(pipeline: str) -> Language:
    import spacy

    try:
        return spacy.load(pipeline)
    except (OSError, ValueError) as error:
        raise _no_pipeline(pipeline, str(error).partition("\n")[0]) from error


def _no_pipeline(pipeline: str, reason: str) -> UserError:
    return UserError(
        f"{pipeline}: no spaCy pipeline can be loaded under this name ({reason})",
        fix="pip install the pipeline's package, or give the folder that holds its config.cfg",
    )


def shortened(stretches: Iterable[Stretch], text: str) -> list[Stretch]:
    """Return these stretches and, of each of two words or more, what is left without its first word."""
    found = set(stretches)
    for start, end in list(found):
        words = list(_WORD.finditer(text, start, end))
        if len(words) > 1 and words[1].group().lower() not in _STOP:
            found.add((words[1].start(), end))
    return sorted(found)
