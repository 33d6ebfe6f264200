"""Gold files, the figures of `r1core umls eval` against counts made by hand, and the hierarchy that rules read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from r1core_umls.cli import umls
from r1core_umls.gold import GoldDocument, GoldSpan, read_gold
from r1core_umls.scoring import evaluate

from r1core import api

PUBTATOR = """101|t|Fever and cough
101|a|No rash was seen.
101\t0\t5\tFever\tDisease\tD005334
101\t10\t15\tcough\tDisease\tD003371|D003372
101\t19\t23\trash\tDisease\t-1
101\tCID\tD1\tD2

102|t|Nothing
102|a|
"""


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PUBTATOR)
    spans = [
        {"start": 0, "end": 5, "concept_id": "D005334"},
        {"start": 10, "end": 15, "concept_id": ["D003371", "D003372"]},
        {"start": 19, "end": 23},
    ]
    rows = [{"id": "101", "text": "Fever and cough\nNo rash was seen.", "spans": spans}]
    rows.append({"id": "102", "text": "Nothing\n", "spans": []})
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_gold(tmp_path / "a.txt") == read_gold(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no document"),
        ('{"text": "a", "spans": []}\n{"text": "a"}\n', ":2: spans: field required"),
        ('{"text": "a", "spans": [{"start": 0, "end": 2}]}', ":1: span [0, 2) in a text of 1 characters"),
        ('{"text": "a", "spans": [{"start": "0", "end": 1}]}', ":1: spans.0.start: input should be a valid integer"),
        ('{"text": "a", ', ":1: not JSON"),
        ("1|t|Fever\n1\t0\t5\tCough\tDisease\tD1\n", ":2: the text has 'Fever' at 0"),
        ("1|t|Fever\n1\t0\t5\n", ":2: 3 columns"),
        ("Fever\n", ":1: 'Fever' is neither"),
        ("1|t|Fever\n2\t0\t5\tFever\tDisease\tD1\n", ":2: "),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "gold"
    file.write_text(content)
    result = CliRunner().invoke(umls, ["eval", str(file)])
    assert isinstance(result.exception, api.UserError)
    assert told in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.exception.fix


def test_figures_are_those_counted_by_hand() -> None:
    text = "x" * 40
    gold = [
        GoldDocument("1", text, (GoldSpan(0, 5, ("A",)), GoldSpan(10, 15, ("B", "C")), GoldSpan(20, 25, ()))),
        GoldDocument("2", text, (GoldSpan(0, 5, ("A",)),)),
    ]
    # right; right place, one of two concepts; overlapping what has no concept; nowhere near; overlapping twice
    answers = [[(0, 5, "A"), (10, 15, "C"), (22, 30, "D"), (35, 38, "E")], [(1, 5, "A"), (10, 12, "B")]]
    ranked = [[["A"], ["X", "C"], []], [["X", "Y", "A"]]]
    found = evaluate(gold, answers, lambda one: one, ranked, ks=(1, 3), known=lambda one: one == "A")
    shown = {name: (one.precision.value, one.recall.value, one.f1.value) for name, one in found.scores.items()}

    def f1(p: float, r: float) -> float:
        return 2 * p * r / (p + r)

    assert shown["spans, exact"] == pytest.approx((2 / 6, 2 / 4, f1(2 / 6, 2 / 4)))
    assert shown["spans, overlapping"] == pytest.approx((4 / 6, 4 / 4, f1(4 / 6, 1)))
    assert shown["mentions, exact"] == pytest.approx((2 / 6, 2 / 3, f1(2 / 6, 2 / 3)))
    assert shown["mentions, overlapping"] == pytest.approx((3 / 6, 3 / 3, f1(3 / 6, 1)))
    assert shown["concepts of a document"] == pytest.approx((3 / 6, 3 / 3, f1(3 / 6, 1)))
    assert found.recall_at[1].value == pytest.approx(1 / 3)
    assert found.recall_at[3].value == pytest.approx(3 / 3)
    assert found.unknown_concepts == 1
    for scores in found.scores.values():
        for figure in (scores.precision, scores.recall, scores.f1):
            assert figure.low <= figure.value <= figure.high


def test_nothing_found_and_nothing_wanted_are_not_zero_by_zero() -> None:
    silent = evaluate([GoldDocument("1", "x", (GoldSpan(0, 1, ("A",)),))], [[]], lambda one: one)
    assert silent.scores["spans, exact"].f1.value == 0
    assert json.loads(json.dumps(silent.to_json()))["scores"]["spans, exact"]["precision"]["value"] is None


def test_more_documents_narrow_the_interval() -> None:
    one = GoldDocument("1", "x" * 9, (GoldSpan(0, 1, ("A",)),))
    widths = []
    for number in (10, 1000):
        answers = [[(0, 1, "A")] if at % 2 else [(5, 6, "A")] for at in range(number)]
        figure = evaluate([one] * number, answers, lambda one: one).scores["spans, exact"].f1
        widths.append(figure.high - figure.low)
    # the binomial interval of 1/2: ± 1.96 sqrt(1/4 / n)
    assert widths == pytest.approx([2 * 1.96 * (0.25 / 10) ** 0.5, 2 * 1.96 * (0.25 / 1000) ** 0.5], rel=0.2)


def test_eval_verb_counts_retired_ids_as_what_took_their_place(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    spans = [{"start": 3, "end": 8, "concept_id": "HP:0001945"}, {"start": 10, "end": 14, "concept_id": "HP:0001630"}]
    file.write_text(json.dumps({"text": "No fever; gout, cold", "spans": spans}))
    told = json.loads(CliRunner().invoke(umls, ["eval", str(file), "--json"]).stdout)
    assert told["scores"]["mentions, exact"]["recall"]["value"] == 0.5
    assert told["ranked_by"] == "dictionary"
    shown = CliRunner().invoke(umls, ["eval", str(file)], env={"COLUMNS": "140"})
    assert "1 documents, 2 gold mentions, 2 found" in shown.output
    assert "recall@5 of gold mentions, dictionary: 0.500" in shown.output


def test_the_hierarchy_is_what_clinical_rules_read(base_of: Callable[..., object], cache: Path, tmp_path: Path) -> None:
    reading = pytest.importorskip("r1core_clinical_rules.reading")
    out = tmp_path / "hp.tsv"
    done = CliRunner().invoke(umls, ["hierarchy", str(out), "--under", "HP:0001631"])
    assert done.exit_code == 0, done.output
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 2\ndrugs: [{name: aspirin}]\nhierarchy: {file: hp.tsv}\nrules: []\n")
    book, problems = reading.read([rules])
    assert problems == []
    assert "hp:0001631" in book.ancestors("HP:0001684")
    named = tmp_path / "names.tsv"
    assert CliRunner().invoke(umls, ["hierarchy", str(named), "--under", "HP:0001631", "--names"]).exit_code == 0
    assert "Secundum atrial septal defect\tAtrial septal defect\n" in named.read_text()
    assert out.read_text().startswith("# source: hp.obo\n# release: hp/releases/")


def test_circles_are_left_out_of_the_hierarchy(tmp_path: Path) -> None:
    from r1core_umls.hierarchy import write_hierarchy
    from r1core_umls.knowledge import Concept, KnowledgeBase

    base = KnowledgeBase.of(
        [
            Concept("X:1", "Top"),
            Concept("X:2", "Left", parents=("X:1", "X:3")),
            Concept("X:3", "Right", parents=("X:2",)),
            Concept("X:4", "left", parents=("X:3",)),
        ]
    )
    assert write_hierarchy(base, tmp_path / "out.tsv", names=True) == (2, 2)
    lines = [line for line in (tmp_path / "out.tsv").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["Left (X:2)\tTop", "left (X:4)\tRight"]
    with pytest.raises(api.UserError, match="cannot be written"):
        write_hierarchy(base, tmp_path / "no folder" / "out.tsv")
