"""The events plugin: size of the taxonomy, time of tagging, and how well types are found in text unseen in fitting.

    python benchmarks/events.py      # needs r1core-events[fit] for the peer without triggers (about two minutes to fit)

Figures on text generated from `test` templates and on the hand-written `sentences` stand apart; neither is real news.
Nothing was fitted or chosen on either. Peers in the same run: triggers alone, and a classifier fitted without triggers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence

import record
from r1core_events import taxonomy
from r1core_events.evaluation import calibration_error, score
from r1core_events.fitting import fit
from r1core_events.generation import Row, generate
from r1core_events.model import Weights
from r1core_events.rules import Rules
from r1core_events.sentences import sentences
from r1core_events.tagger import Tagger
from r1core_events.taxonomy import Taxonomy

SEED, FILLINGS, ROUNDS = 777, 3, 9
Tag = Callable[[str], Collection[str]]


class WithoutTriggers(Rules):
    """No trigger is ever found."""

    def find(self, tokens: object) -> tuple[()]:
        """Return no hits."""
        return ()


def classifier_alone(kinds: Taxonomy) -> Tagger:
    """A tagger fitted and run without triggers."""
    tagger = Tagger(kinds, fit(kinds, triggers=False).weights)
    tagger._rules = WithoutTriggers(kinds)
    return tagger


def ms_a_sentence(tagger: Tagger, texts: Sequence[str]) -> float:
    """Median over rounds of the CPU time, milliseconds a sentence; one thread, words already cached in round 0."""
    count = sum(len(list(sentences(text))) for text in texts)
    rounds = []
    for turn in range(ROUNDS + 1):
        begin = time.process_time()
        for text in texts:
            tagger.tag(text)
        if turn:
            rounds.append((time.process_time() - begin) / count)
    return statistics.median(rounds) * 1e3


def types_of(tagger: Tagger) -> Tag:
    return lambda text: {event.type for event in tagger.tag(text)}


def arguments_f1(tagger: Tagger, rows: Sequence[Row], role: str) -> float:
    """F1 of exact spans over rows of one event that was found; for a company the gold is the slot {company} alone."""
    gold: list[set[str]] = []
    found: list[set[str]] = []
    for number, row in enumerate(rows):
        events = tagger.tag(row.text) if len(row.types) == 1 else ()
        if any(event.type in row.types for event in events):
            told = {a for event in events for a in event.arguments}
            for spans, several in ((gold, row.arguments), (found, told)):
                spans.append({f"{number}/{a.start}/{a.end}" for a in several if a.role == role})
    return score(gold, found).micro_f1


def top_event_calibration(tagger: Tagger, rows: Sequence[Row]) -> float:
    """Expected calibration error of the probabilities of all events that are told, whatever their threshold."""
    every = Tagger(tagger.taxonomy, Weights.load(taxonomy.OWN.parent / "model.npz"), threshold=0.05)
    told = [(event.probability, event.type in row.types) for row in rows for event in every.tag(row.text)]
    return calibration_error([p for p, _ in told], [right for _, right in told])


def main() -> None:
    kinds = taxonomy.load()
    tagger = Tagger.load()
    generated = list(generate(kinds, "test", SEED, FILLINGS))
    written = [(text, kind.id) for kind in kinds.types for text in kind.sentences]
    alone = classifier_alone(kinds)
    rows: list[dict[str, object]] = []

    def tell(figure: str, value: object, unit: str, target: float | None = None, met: bool | None = None,
             peer: str | None = None) -> None:  # fmt: skip
        rows.append({"figure": figure, "value": value, "unit": unit, "target": target, "met": met, "peer": peer})

    tell("event types", len(kinds.types), "types", 200, len(kinds.types) >= 200)
    least = min(len(kind.sentences) for kind in kinds.types)
    tell("hand-written test sentences of the type with the fewest", least, "sentences", 3, least >= 3)
    took = round(ms_a_sentence(tagger, [text for text, _ in written]), 3)
    tell("tagging, CPU time on one core, hand-written sentences", took, "ms a sentence", 1.0, took <= 1.0)
    for name, tag, peer in (
        ("tagger", types_of(tagger), None),
        ("triggers alone", tagger.triggers, "ours without the classifier"),
        ("classifier alone", types_of(alone), "ours without triggers"),
    ):
        found = score([row.types for row in generated], [tag(row.text) for row in generated])
        goal = (0.85, found.micro_f1 >= 0.85) if peer is None else (None, None)
        place = "generated from unseen templates"
        tell(f"{name}: micro-F1, {place}", round(found.micro_f1, 3), "fraction", *goal, peer)
        tell(f"{name}: micro precision, {place}", round(found.precision, 3), "fraction", peer=peer)
        tell(f"{name}: micro recall, {place}", round(found.recall, 3), "fraction", peer=peer)
        tell(f"{name}: macro-F1, {place}", round(found.macro_f1, 3), "fraction", peer=peer)
        hand = score([{kind} for _, kind in written], [tag(text) for text, _ in written])
        tell(f"{name}: micro-F1, hand-written sentences", round(hand.micro_f1, 3), "fraction", peer=peer)
    for part, several in (("one event", 1), ("two events", 2)):
        own = [row for row in generated if len(row.types) == several]
        found = score([row.types for row in own], [types_of(tagger)(row.text) for row in own])
        tell(f"tagger: micro-F1, generated, sentences of {part}", round(found.micro_f1, 3), "fraction")
    silent = [row for row in generated if not row.types]
    false = sum(bool(tagger.tag(row.text)) for row in silent) / len(silent)
    tell("tagger: generated sentences of no event in which one is found", round(false, 3), "fraction")
    error = top_event_calibration(tagger, generated)
    tell(
        "tagger: expected calibration error of events from probability 0.05 on, generated", round(error, 3), "fraction"
    )
    for role in ("company", "amount", "date"):
        exact = round(arguments_f1(tagger, generated, role), 3)
        tell(f"arguments: F1 of exact {role} spans, generated", exact, "fraction")
    record.write("events", rows)


if __name__ == "__main__":
    main()
