"""Generated rows, the rules and the figures: against values that follow from the templates themselves."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_events.evaluation import by_origin, calibration_error, read, score
from r1core_events.features import Numbering, character_buckets, word_bucket
from r1core_events.generation import fill, frame, generate, join, negatives
from r1core_events.lexicon import load as load_lexicon
from r1core_events.rules import Rules
from r1core_events.taxonomy import load
from r1core_events.tokens import tokenize
from r1core_events.values import Money, listed
from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from r1core.api import UserError

TEMPLATE = "{company} paid {amount} to {other} on {date}, said {company}."


@given(st.integers(0, 10**6))
def test_gold_spans_hold_what_was_filled_in(seed: int) -> None:
    row = fill(TEMPLATE, Random(seed), "test", ("a/b",))
    parts = [row.text[a.start : a.end] for a in row.arguments]
    assert [a.role for a in row.arguments] == ["company", "amount", "date", "company"]
    assert parts[0] == parts[3]
    assert row.text.startswith(f"{parts[0]} paid {parts[1]} to ")
    assert row.text.endswith(f" on {parts[2]}, said {parts[0].rstrip('.')}.")
    money = row.arguments[1].value
    assert isinstance(money, Money)
    assert isinstance(money.value, Decimal)
    assert money.currency


def test_rows_follow_from_seed_and_split_alone() -> None:
    kinds = load()
    first, again = (list(generate(kinds, "dev", 5)) for _ in range(2))
    assert first == again
    assert first != list(generate(kinds, "dev", 6))
    templates = {split: {row.template for row in generate(kinds, split, 5)} for split in ("train", "dev", "test")}
    assert not templates["train"] & templates["dev"]
    assert not templates["train"] & templates["test"]
    assert not templates["dev"] & templates["test"]


def test_joined_and_framed_rows_say_what_they_report() -> None:
    one = fill("{company} cut its dividend.", Random(1), "test", ("a/b",))
    two = fill("It was fined {amount}.", Random(2), "test", ("c/d",))
    both = join(one, two, "; separately, ")
    assert both.types == ("a/b", "c/d")
    for argument, source in ((both.arguments[0], one), (both.arguments[1], two)):
        own = source.arguments[0]
        assert both.text[argument.start : argument.end] == source.text[own.start : own.end]
    framed = frame(one, "{other} denied that {sentence}.", Random(3), "test")
    assert framed.types == ()
    assert "cut its dividend." in framed.text


def test_sentences_of_no_event_share_no_template_between_splits() -> None:
    for table in negatives().values():
        texts = [text for rows in table.values() for text in rows]
        assert len(texts) == len(set(texts))
        assert set(table) == {"train", "dev", "test"}


def test_rules_find_each_trigger_at_word_boundaries_and_not_in_doubt() -> None:
    kinds = load()
    rules, labels = Rules(kinds), [kind.id for kind in kinds.types]
    for label, kind in enumerate(kinds.types):
        for phrase in kind.triggers:
            for text, weighs in ((f"today {phrase} again", True), (f"they denied {phrase} again", False)):
                tokens = tokenize(text, 0, len(text), frozenset())
                own = [hit for hit in rules.find(tokens) if hit.label == label]
                assert own, f"{labels[label]}: {text}"
                longest = max(own, key=lambda hit: hit.last - hit.first)
                assert text[tokens.starts[longest.first] : tokens.ends[longest.last]] == phrase.rstrip(")'")
                assert any(hit.weight for hit in own) == weighs, text
            tokens = tokenize(f"x{phrase}x", 0, len(phrase) + 2, frozenset())
            assert not [
                h for h in rules.find(tokens) if (h.first, h.last) == (0, len(tokens.lower) - 1) and h.label == label
            ]


def test_slot_values_say_nothing_to_the_classifier() -> None:
    vocabulary = frozenset(listed("paid to on said and"))
    seen = set()
    for seed in range(60):
        row = fill("{company} paid {amount} to {other} on {date}", Random(seed), "train")
        seen.add(tuple(word for word in tokenize(row.text, 0, len(row.text), vocabulary).normal if word))
    assert seen == {("xname", "paid", "xmoney", "to", "xname", "on", "xdate")}


def test_buckets_are_the_same_on_every_machine() -> None:
    assert word_bucket("dividend") == _crc32(b"dividend") % 65536
    assert len(character_buckets("cut")) == 6  # <cu cut ut> <cut cut> <cut>
    assert Numbering(load_lexicon(), 3).total == Numbering(load_lexicon(), 0).total + 3


def _crc32(data: bytes) -> int:
    """The polynomial division, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


LABELS = ["a", "b", "c", "d"]
SETS = st.lists(st.tuples(st.sets(st.sampled_from(LABELS)), st.sets(st.sampled_from(LABELS))), min_size=1, max_size=12)


@settings(deadline=None)
@given(SETS)
def test_figures_are_those_of_scikit_learn(rows: list[tuple[set[str], set[str]]]) -> None:
    gold, predicted = [a for a, _ in rows], [b for _, b in rows]
    present = sorted(set().union(*gold, *predicted))
    found = score(gold, predicted)
    if not present:
        assert (found.micro_f1, found.macro_f1) == (0.0, 0.0)
        return
    binary = MultiLabelBinarizer(classes=LABELS).fit([LABELS])
    for average, ours in (
        ("micro", (found.precision, found.recall, found.micro_f1)),
        ("macro", (found.macro_precision, found.macro_recall, found.macro_f1)),
    ):
        theirs = precision_recall_fscore_support(
            binary.transform(gold),
            binary.transform(predicted),
            average=average,
            zero_division=0,
            labels=[*map(LABELS.index, present)],
        )[:3]
        assert ours == pytest.approx(theirs)


def test_calibration_error_of_a_small_table() -> None:
    assert calibration_error([], []) == 0.0
    assert calibration_error([0.75, 0.75, 0.75, 0.75], [True, True, True, False]) == pytest.approx(0.0)
    assert calibration_error([0.95, 0.15], [False, False]) == pytest.approx((0.95 + 0.15) / 2)


def test_real_and_generated_text_are_scored_apart(tmp_path: Path) -> None:
    rows = [
        {"text": "yes", "types": ["a/b"], "origin": "real"},
        {"text": "no", "types": ["a/b"], "origin": "generated"},
        {"text": "yes", "types": [], "origin": "generated"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = by_origin(read(file, {"a/b"}), lambda text: {"a/b"} if text == "yes" else set())
    assert found["real"].micro_f1 == 1.0
    assert found["real"].rows == 1
    assert found["generated"].micro_f1 == 0.0
    assert found["generated"].rows == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": "x", "types": []}', "origin"),
        ('{"text": "x", "types": [], "origin": "mixed"}', "origin"),
        ('{"text": "x", "types": ["no/such"], "origin": "real"}', "no/such"),
        ('{"text": "x", "types": "a/b", "origin": "real"}', "types"),
        ('{"types": [], "origin": "real"}', "text"),
        ("[1]", "text"),
        ("{", "JSON"),
        ("", "no rows"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_with_their_line(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(line)
    with pytest.raises(UserError, match=told) as error:
        read(file, {"a/b"})
    assert "rows.jsonl" in str(error.value)
