"""What the tagger finds, where, and that no text breaks it."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_events import fitting, taxonomy
from r1core_events.model import OWN, Weights
from r1core_events.sentences import sentences
from r1core_events.tagger import Tagger, heaviest_run
from r1core_events.units import units
from r1core_events.values import Event, Money

from r1core.api import UserError

ODD = "\t\r\n  .;!?,$€%'’\"()[]{}0123456789abcXYZé東京дом😀\u200d\u2028\x00-&"
PIECES = ["declared a quarterly dividend", "Norvale Industries Inc.", "$1.2 billion", "March 3, 2024", "did not", "; "]


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.load()


def types(tagger: Tagger, text: str) -> set[str]:
    return {event.type for event in tagger.tag(text)}


def test_an_event_with_its_arguments(tagger: Tagger) -> None:
    text = "Norvale Industries Inc. declared a quarterly dividend of $0.45 a share, payable on March 3, 2024."
    (event,) = tagger.tag(text)
    assert event.type == "distributions/dividend-declared"
    assert text[event.start : event.end] == "declared a quarterly dividend"
    assert event.probability > 0.5
    told = {argument.role: argument for argument in event.arguments}
    assert text[told["company"].start : told["company"].end] == "Norvale Industries Inc."
    assert told["amount"].value == Money(Decimal("0.45"), "USD")
    assert told["date"].value == "2024-03-03"


@pytest.mark.parametrize(
    "text",
    [
        "Tarn Harbour Bank did not declare a dividend.",
        "Tarn Harbour Bank denied that it had filed for bankruptcy protection.",
        "It is unclear whether Quillmere Foods agreed to be acquired.",
        "If Norvale Industries filed for Chapter 11, lenders would lose money.",
        "Everybody at the table was fine with that.",
        "Shares of Quillmere Foods rose 2% in light trading.",
    ],
)
def test_what_is_denied_or_only_imagined_is_no_event(tagger: Tagger, text: str) -> None:
    assert types(tagger, text) == set()


def test_what_follows_a_denial_counts_again(tagger: Tagger) -> None:
    text = "Tarn Harbour Bank did not declare a dividend; separately, it filed for bankruptcy protection."
    assert types(tagger, text) == {"insolvency/bankruptcy-filing"}


def test_two_events_of_one_sentence_have_their_own_places_and_amounts(tagger: Tagger) -> None:
    text = "Norvale Industries declared a quarterly dividend of $1 a share; it was fined $3 million by the regulator."
    found = {event.type: event for event in tagger.tag(text)}
    assert set(found) == {"distributions/dividend-declared", "regulation/fine"}
    first, second = found["distributions/dividend-declared"], found["regulation/fine"]
    assert first.end <= text.index(";") < second.start
    amounts = [[a.value for a in one.arguments if a.role == "amount"] for one in (first, second)]
    assert amounts == [[Money(Decimal(1), "USD")], [Money(Decimal(3_000_000), "USD")]]


def test_offsets_are_of_the_raw_text(tagger: Tagger) -> None:
    line = "Norvale Industries filed for bankruptcy protection."
    for before in ("", "😀 Hello.\r\n\r\n", "東京。\n", "Mr. Smith slept. "):
        (event,) = tagger.tag(before + line)
        (alone,) = tagger.tag(line)
        assert event.start == alone.start + len(before)
        assert (before + line)[event.start : event.end] == line[alone.start : alone.end]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(ODD, max_size=8), st.sampled_from(PIECES)), max_size=14).map("".join))
def test_spans_lie_in_the_text_whatever_it_is(text: str) -> None:
    for event in SHARED.tag(text):
        assert 0 <= event.start < event.end <= len(text)
        assert text[event.start : event.end].strip() == text[event.start : event.end]
        assert 0.0 <= event.probability <= 1.0
        assert Event.from_json(event.as_json()) == event
        for argument in event.arguments:
            assert 0 <= argument.start < argument.end <= len(text)
    assert SHARED.tag(text) == SHARED.tag(text)


SHARED = Tagger.load()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(ODD, max_size=8), st.sampled_from(PIECES)), max_size=14).map("".join))
def test_sentences_and_clauses_lose_no_word(text: str) -> None:
    found = list(sentences(text))
    assert all(a < b <= c < d for (a, b), (c, d) in itertools.pairwise(found)) or len(found) < 2
    kept = {at for start, end in found for at in range(start, end)}
    assert all(character.isspace() for at, character in enumerate(text) if at not in kept)
    assert all(s.sentence_start <= s.start < s.end <= s.sentence_end for s in units(text))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("Norvale Inc. said on Jan. 3 that it was sold to Tarn Corp. The price was $1.2 billion.", 2),
        ("One headline\nAnother headline\nthat goes on", 2),
        ("U.S. sales of J. P. Smith Co. rose 1.5%.", 1),
        ("Stop! Why? Yes.", 3),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, count: int) -> None:
    assert len(list(sentences(text))) == count


def test_a_long_text_and_a_long_word_are_read(tagger: Tagger) -> None:
    line = "Norvale Industries filed for bankruptcy protection. "
    assert len(tagger.tag(line * 2_000)) == 2_000
    assert tagger.tag("x" * 100_000) == ()
    assert tagger.tag("; " * 50_000) == ()


def test_the_heaviest_run_is_that_of_all_runs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.normal(size=rng.integers(1, 9)).tolist()
        first, last = heaviest_run(weights)
        runs = [sum(weights[a : b + 1]) for a in range(len(weights)) for b in range(a, len(weights))]
        assert sum(weights[first : last + 1]) == pytest.approx(max(runs))


def test_the_threshold_decides(tagger: Tagger) -> None:
    text = "Norvale Industries filed for bankruptcy protection."
    assert Tagger.load(threshold=1.0).tag("Norvale may do something.") == ()
    assert len(Tagger.load(threshold=0.0).tag(text)) == len(tagger.taxonomy.types)
    with pytest.raises(UserError, match="threshold"):
        Tagger.load(threshold=1.5)


def test_a_model_of_another_taxonomy_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weather.toml").write_text(
        (taxonomy.OWN / "mergers.toml").read_text(encoding="utf-8").replace('id = "mergers"', 'id = "weather"')
    )
    with pytest.raises(UserError, match="another taxonomy"):
        Tagger.load([tmp_path])
    (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 nothing")
    for name in ("model.npz", "missing.npz"):
        with pytest.raises(UserError, match="no fitted events model"):
            Tagger.load(model=tmp_path / name)


def test_the_weights_that_ship_were_fitted_from_the_data_that_ships() -> None:
    stored, kinds = Weights.load(OWN), taxonomy.load()
    assert stored.labels == tuple(kind.id for kind in kinds.types)
    assert stored.digests == (kinds.digest(), fitting.data_digest(kinds))
    assert OWN.stat().st_size < 3_000_000


@pytest.mark.slow
def test_fitting_again_gives_the_same_tagger() -> None:
    stored, again = Weights.load(OWN), fitting.fit(taxonomy.load()).weights
    assert np.array_equal(stored.known, again.known)
    assert np.mean(stored.weights != again.weights) < 1e-4  # a linear solver may round otherwise elsewhere
    assert again.platt == pytest.approx(stored.platt, rel=1e-3)
    assert again.threshold == pytest.approx(stored.threshold, abs=0.011)
