"""The annotator, the verb, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import r1core_alignment as alignment
from click.testing import CliRunner, Result
from pydantic import ValidationError
from r1core_alignment.cli import align as verb
from r1core_alignment.config import AlignmentConfig
from r1core_alignment.plugin import AlignmentPlugin

from r1core import api
from r1core.api import UserError

Table = Callable[..., pd.DataFrame]
FACTS = """
2022-01-01..2022-03-31 10 2022-04-20 a-1
2022-01-01..2022-06-30 30 2022-07-20 a-2
2022-01-01..2022-09-30 60 2022-10-20 a-3
2022-01-01..2022-12-31 100.5 2023-02-20 a-4 10-K
2023-01-01..2023-03-31 15 2023-04-20 a-5
"""


@pytest.fixture
def path(tmp_path: Path, table: Table) -> Path:
    frame = pd.concat(
        [table(FACTS, entity="CIK0000000320"), table("2022-03-31 7 2022-04-20", concept="us-gaap:Assets")]
    )
    frame.to_csv(tmp_path / "facts.csv", index=False)
    return tmp_path / "facts.csv"


def example(as_of: str | None = "2023-02-21", **fields: Any) -> api.Example:
    fields = fields or {"cik": 320}
    return api.Example("row-1", (api.Message("user", "What did it earn?"),), "task", as_of=as_of, fields=fields)


def annotator(path: Path, **settings: Any) -> Any:
    config = AlignmentConfig.model_validate({"files": [path], "concepts": ["Revenues"], "entity": "cik", **settings})
    (made,) = AlignmentPlugin().preprocess(api.Context("", config, seed=0))
    return made


def test_conforms(r1core_check: Any, path: Path) -> None:
    config = {"files": [str(path)], "concepts": ["Revenues"], "entity": "cik", "unnamed": "leave", "prompt": True}
    r1core_check("alignment", config=config, examples=[example()])


def test_a_record_is_given_what_was_filed_before_its_day(path: Path) -> None:
    known = annotator(path)
    day = {one["measure"]: one for one in known(example("2023-02-20")).facts["alignment"]}
    assert {name: one["value"] for name, one in day.items()} == {"quarter": 30}
    later = {one["measure"]: one for one in known(example("2023-02-21")).facts["alignment"]}
    assert {name: one["value"] for name, one in later.items()} == {"quarter": 40.5, "year": 100.5, "ttm": 100.5}
    assert later["quarter"] | {"sources": None} == {
        "entity": "CIK0000000320", "concept": "us-gaap:Revenues", "unit": "USD", "measure": "quarter", "value": 40.5,
        "rule": "year - nine_months", "start": "2022-10-01", "end": "2022-12-31", "accession": "a-4",
        "filed": "2023-02-20", "form": "10-K", "first_filed": "2023-02-20", "sources": None,
    }  # fmt: skip
    assert [(one["sign"], one["value"]) for one in later["quarter"]["sources"]] == [(1, 100.5), (-1, 60)]
    json.dumps(known(example()).facts)


def test_every_day_is_as_if_it_were_a_grid_of_its_own(path: Path) -> None:
    facts = alignment.read(path).select("Revenues")
    for settings in ({}, {"lag": 3}, {"max_age": 100}):
        known = annotator(path, **settings)
        for date in pd.date_range("2022-04-01", "2023-08-01", freq="30D"):
            aligned = alignment.align(facts, grid=[date], **settings).long(exact=True)
            told = known(example(str(date.date()))).facts["alignment"]
            assert [(one["measure"], one["accession"], float(one["value"])) for one in told] == [
                (row.measure, row.accession, float(row.value)) for row in aligned.itertuples()
            ]


def test_nothing_known_is_an_empty_list(path: Path) -> None:
    assert annotator(path)(example("2022-04-20")).facts == {"alignment": []}


def test_the_prompt_tells_what_was_known(path: Path) -> None:
    made = annotator(path, prompt=True, measures=["quarter"])(example())
    assert made.messages[0].content == (
        "What did it earn?\n\nKnown of CIK0000000320 before 2023-02-21:\n"
        "- us-gaap:Revenues, quarter, 2022-10-01 to 2022-12-31: 40.5 USD "
        "(10-K filed 2023-02-20, a-4, year - nine_months)"
    )
    before = annotator(path, prompt=True)(example("2022-01-01")).messages[0].content
    assert before.endswith("Known before 2022-01-01:\n- nothing")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (example(None), "example row-1: it has no as_of"),
        (example("2023-02-21T10:00:00"), "example row-1: as_of: found"),
        (example("soon"), "example row-1: as_of: found 'soon'"),
        (example(other=1), "it names no entity"),
        (example(cik=321), "no file has facts of the entity 'CIK0000000321'"),
    ],
)
def test_a_record_that_cannot_be_placed_is_refused(path: Path, asked: api.Example, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        annotator(path)(asked)
    assert caught.value.fix


def test_names_of_records_and_of_files(path: Path) -> None:
    known = annotator(path, entity="ticker", names={"ACM": "CIK0000000320"})
    assert known(example(ticker="ACM")).facts["alignment"]
    asked = api.Example("row-1", (), "task", as_of="2023-02-21", fields={"ticker": "ACM"}, facts={"ticker": "X"})
    with pytest.raises(UserError, match="'ticker' is ACM and X"):
        known(asked)


def test_a_prompt_may_say_its_day_and_entity_in_its_facts(path: Path) -> None:
    """`generate` has no columns."""
    facts = {"cik": 320, "as_of": "2023-02-20"}
    asked = api.Example("prompt", (api.Message("user", "?"),), "prompt", facts=facts)
    made = annotator(path)(asked).facts
    assert [one["value"] for one in made["alignment"]] == [30]
    assert {name: made[name] for name in facts} == facts
    torn = api.Example("prompt", (), "prompt", as_of="2023-02-21", facts=facts)
    with pytest.raises(UserError, match="'as_of' is 2023-02-20 and 2023-02-21"):
        annotator(path)(torn)


def test_records_without_an_entity_can_be_left(path: Path) -> None:
    assert annotator(path, unnamed="leave")(example(other=1)).facts is None


def test_the_fingerprint_follows_files_and_settings(path: Path) -> None:
    first = annotator(path).fingerprint()
    assert annotator(path, lag=1).fingerprint() != first
    path.write_text(path.read_text().replace("100.5", "100.6"))
    assert annotator(path).fingerprint() != first
    assert annotator(path).input_files() == (path,)


@pytest.mark.parametrize(
    "wrong", [{"lag": -1}, {"measures": ["month"]}, {"filed": "end"}, {"concepts": []}, {"files": []}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AlignmentConfig.model_validate({"files": ["a.csv"], "concepts": ["Assets"], **wrong})


def test_check_says_what_is_wrong_with_the_files(path: Path, tmp_path: Path) -> None:
    def problems(**settings: Any) -> list[api.Problem]:
        config = AlignmentConfig.model_validate({"files": [path], "concepts": ["Revenues"], **settings})
        return list(AlignmentPlugin().validate(api.Context("", config, seed=0), api.Plan({})))

    assert problems() == []
    assert problems(concepts=["Profit"])[0].severity == "error"
    assert "none.csv" in problems(files=[tmp_path / "none.csv"])[0].found
    path.write_text(path.read_text() + "ACME,us-gaap:Revenues,USD,1,,2032-01-01,2022-01-01,a-9,10-Q\n")
    assert problems()[0].severity == "warning"
    with pytest.raises(UserError, match="no files of facts"):
        AlignmentPlugin().preprocess(api.Context("", None, seed=0))


def run(*words: object) -> Result:
    return CliRunner().invoke(verb, [str(word) for word in words])


def test_the_verb_prints_a_table(path: Path) -> None:
    done = run(
        path, "--concepts", "Revenues", "--measure", "ttm,quarter", "--start", "2023-02-01", "--end", "2023-02-28"
    )
    assert done.exit_code == 0, done.output
    head, first, second = done.stdout.splitlines()
    assert head.split()[:4] == ["date", "concept", "measure", "value"]
    assert first.split() == [
        "2023-02-28", "Revenues", "quarter", "40.5", "USD", "2022-10-01..2022-12-31", "2023-02-20", "10-K", "a-4",
        "year", "-", "nine_months",
    ]  # fmt: skip
    assert second.split()[2:4] == ["ttm", "100.5"]


def test_the_verb_prints_json_and_lists_concepts(path: Path) -> None:
    (row,) = json.loads(run(path, "--concepts", "Assets", "--json").stdout)
    assert (row["date"], row["value"], row["start"], row["accession"]) == ("2022-04-30", 7, None, "a-000")
    listed = run(path, "--list").stdout
    assert "us-gaap:Assets" in listed
    assert {row["concept"]: row["facts"] for row in json.loads(run(path, "--list", "--json").stdout)} == {
        "us-gaap:Assets": 1, "us-gaap:Revenues": 5,
    }  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".csv.gz"])
def test_the_verb_writes_audits_and_rechecks(path: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out{ending}"
    done = run(path, "--grid", "week", "--lag", 2, "--out", out, "--audit")
    assert done.exit_code == 0, done.output
    assert "rows with look-ahead: 0;" in done.stdout
    assert run(path, "--recheck", out, "--lag", 2).exit_code == 0
    assert run(path, "--recheck", out, "--lag", 9).exit_code == 1
    if ending == ".csv":
        out.write_text(out.read_text().replace(",30,", ",31,"))
        found = run(path, "--recheck", out, "--lag", 2, "--json")
        assert found.exit_code == 1
        assert json.loads(found.stdout)["ok"] is False


def test_the_verb_takes_dates_of_an_exchange(path: Path, tmp_path: Path) -> None:
    (tmp_path / "dates.txt").write_text("2022-04-20\n2022-04-21\n")
    rows = json.loads(run(path, "--dates", tmp_path / "dates.txt", "--json").stdout)
    assert {row["date"] for row in rows} == {"2022-04-21"}


@pytest.mark.parametrize(
    "words",
    [
        ("--grid", "year"),
        ("--measure", "month"),
        ("--lag", "-1"),
        ("--concepts", "Profit"),
        ("--out", "a.xls"),
        ("--start", "x"),
    ],
)
def test_the_verb_refuses_in_one_line(path: Path, words: tuple[str, ...]) -> None:
    done = run(path, *words)
    assert isinstance(done.exception, UserError)
    assert done.exception.fix
    assert done.stdout == ""


def test_the_verb_of_the_core_refuses_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "r1core", "align", str(tmp_path / "none.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "  fix: " in done.stderr


def test_importing_the_plugin_and_its_help_needs_no_pandas(r1core_imports: Callable[..., frozenset[str]]) -> None:
    found = r1core_imports("r1core_alignment", *(f"r1core_alignment.{name}" for name in ("plugin", "config", "cli")))
    assert "r1core_alignment" in found
    assert not found & {"pandas", "numpy", "torch"}
