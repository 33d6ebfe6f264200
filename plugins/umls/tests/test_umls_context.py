"""What is said of a mention: sentences written by hand for this test, with the flags that a reader would give."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r1core_umls.context import FLAGS, contexts
from r1core_umls.values import LinkedConcept, decode, encode

# N negated, U uncertain, H in the past, F in the family
SENTENCES = """
No [fever|N].
He denies [chest pain|N] but reports [cough|].
Denies [nausea|N], [vomiting|N] or [diarrhoea|N]. Has [ataxia|].
There is no evidence of [tumour|N], [oedema|N] or [bleeding|N].
She developed [rash|] without [itching|N].
[Fever|N] was not present. [Cough|] was.
[Seizures|N] were ruled out.
She never had [seizures|N].
The child did not have [hypotonia|N], however [ataxia|] was seen.
The lungs are free of [consolidation|N].
Gram-negative [sepsis|].
Not only [fever|] was noted.
There was no change in the [ataxia|].
There is no doubt that this is [gout|].
[Absent speech|] and [ataxia|] were noted.
She has [autism|], [thin lips|] and absent reflexes.
The [gag reflex|N] was absent.
Negative for [malaria|N]; positive for [dengue|].
Possible [pneumonia|U].
[Pneumonia|U] cannot be excluded.
Findings suggestive of [tuberculosis|U].
Rule out [sepsis|U].
Return if [fever|U] develops.
May 2020: [appendicitis|].
History of [stroke|H], now presents with [ataxia|].
Status post [myocardial infarction|H].
[Seizures|H] resolved two years ago.
Social history: lives alone, [depression|].
Family history of [epilepsy|F]; the patient has [ataxia|].
No family history of [epilepsy|NF].
Her mother had [seizures|F].
The mother and a maternal uncle had [cataract|F].
[Glaucoma|F] was seen in her brother.
Her parents report that she has [pain|].
Parents are consanguineous; she has [ataxia|].
She was born to healthy parents with [microcephaly|].
The patient's father, who has [diabetes|F], and the patient has [asthma|].
Dr. Smith saw no [rash|N].
"""


def marked(line: str) -> tuple[str, list[tuple[int, int]], list[str]]:
    text, spans, wanted = "", [], []
    for piece in re.split(r"(\[[^]]*\])", line):
        if piece.startswith("["):
            mention, _, flags = piece[1:-1].partition("|")
            spans.append((len(text), len(text) + len(mention)))
            wanted.append(flags)
            piece = mention
        text += piece
    return text, spans, wanted


def letters(text: str, spans: list[tuple[int, int]]) -> list[str]:
    names = dict(zip(FLAGS, "NUHF", strict=True))
    return ["".join(sign for flag, sign in names.items() if getattr(said, flag)) for said in contexts(text, spans)]


@pytest.mark.parametrize("line", SENTENCES.strip().splitlines())
def test_a_sentence_says_of_its_mentions_what_a_reader_hears(line: str) -> None:
    text, spans, wanted = marked(line)
    assert letters(text, spans) == wanted


def test_nothing_reaches_over_the_end_of_a_sentence() -> None:
    lines = [line for line in SENTENCES.strip().splitlines() if "Social" not in line]
    for one, two in pairwise(lines):
        text, spans, wanted = marked(f"{one} {two}")
        assert letters(text, spans) == wanted


def test_an_item_of_a_list_stands_alone() -> None:
    text, spans, wanted = marked("No [fever|N]\n- [cough|]\n\n[rash|]\nPast history: [stroke|H]\nNow: [ataxia|]")
    assert letters(text, spans) == wanted


@given(st.text(max_size=80), st.lists(st.tuples(st.integers(0, 79), st.integers(1, 20)), max_size=4))
def test_any_text_gets_one_answer_a_mention(text: str, places: list[tuple[int, int]]) -> None:
    spans = [(start, min(start + size, len(text))) for start, size in places if start < len(text)]
    assert len(contexts(text, spans)) == len(spans)


def test_values_written_before_there_were_flags_still_read() -> None:
    old = {"concept_id": "X:1", "name": "Fever", "cuis": [], "matched": "fever", "method": "exact", "alternatives": []}
    value = decode(old)
    assert (value.probability, value.negated, value.family) == (1.0, False, False)
    new = LinkedConcept("X:1", "Fever", (), "fever", "encoder", ("X:2",), 0.75, negated=True, family=True)
    assert decode(encode(new)) == new
