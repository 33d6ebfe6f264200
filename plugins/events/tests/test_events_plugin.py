"""The plugin in the core, in spaCy and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import CliRunner
from r1core_events.cli import events
from r1core_events.config import Config
from r1core_events.dataset import GeneratedEvents
from r1core_events.plugin import EVENT, EventAnnotator
from r1core_events.tagger import Tagger
from r1core_events.taxonomy import load
from r1core_events.values import Event

from r1core.api import Example, Message, UserError

TEXT = "Norvale Industries Inc. filed for Chapter 11 on May 3, 2024, listing debts of $2.5 billion."
TYPE = "insolvency/bankruptcy-filing"


def record(text: str = TEXT) -> Example:
    return Example("1", (Message("user", text), Message("assistant", "It filed for bankruptcy.")), "task")


def test_conforms(r1core_check) -> None:  # type: ignore[no-untyped-def]
    r1core_check("events", config={"fillings": 1}, examples=[record()])


def test_events_of_a_prompt_become_spans_and_the_answer_is_left_alone() -> None:
    (span,) = EventAnnotator(Config())(record()).spans
    assert (span.part, span.kind, span.value.type) == (0, "events/event", TYPE)
    assert TEXT[span.start : span.end].startswith("filed for Chapter 11")
    assert EVENT.decode(json.loads(json.dumps(EVENT.encode(span.value)))) == span.value


def test_the_fingerprint_follows_the_settings() -> None:
    plain, strict = EventAnnotator(Config()), EventAnnotator(Config(threshold=0.9))
    assert plain.fingerprint() == EventAnnotator(Config()).fingerprint() != strict.fingerprint()


def test_the_data_set_keeps_templates_apart_and_answers_with_groups() -> None:
    source = GeneratedEvents(Config(fillings=1))
    task = source.tasks["event_group"]
    assert set(task.choices) == {group.id for group in load().groups} | {"none"}
    texts: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        rows = list(source.read(split))  # type: ignore[arg-type]
        assert {row.messages[-1].content for row in rows} == set(task.choices)
        assert all(row.fields["origin"] == "generated" and row.fields[task.cluster] for row in rows)
        assert all(row.fields["type"].split("/")[0] == row.messages[-1].content for row in rows)
        free = {row.fields[task.cluster] for row in rows if row.fields["label"] == "none"}
        assert len(free) > 20  # as many as there are templates and frames, not one
        texts[split] = {row.messages[0].content for row in rows}
    assert not texts["train"] & texts["val"]
    assert not texts["train"] & texts["test"]
    assert not texts["val"] & texts["test"]


def test_spacy_finds_the_component_by_its_name() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("r1core_events")
    doc = nlp(f"😀 {TEXT}")
    (span,) = doc.spans["events"]
    assert span.label_ == TYPE
    assert "Chapter 11" in span.text
    assert {argument.role for argument in span._.event.arguments} == {"company", "amount", "date"}
    assert list(nlp("").spans["events"]) == []


def test_spacy_takes_the_settings() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("r1core_events", config={"threshold": 1.0, "spans_key": "news"})
    assert list(nlp("Norvale Industries may do something.").spans["news"]) == []


def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(events, arguments, input=stdin)
    if isinstance(done.exception, UserError):
        return 2, f"{done.exception} ({done.exception.fix})"
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_tag_reads_a_text_a_file_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_bytes(TEXT.encode())
    expected = [event.as_json() for event in Tagger.load().tag(TEXT)]
    for arguments, stdin in ((TEXT,), None), ((str(file),), None), (("-",), TEXT.encode()):
        code, out = run("tag", "--json", *arguments, stdin=stdin)
        assert code == 0
        told = json.loads(out)
        assert [Event.from_json(one).as_json() for one in told] == expected
        assert all(one["text"] == TEXT[one["start"] : one["end"]] for one in told)
        assert all(a["text"] == TEXT[a["start"] : a["end"]] for one in told for a in one["arguments"])
    code, out = run("tag", TEXT)
    assert code == 0
    assert TYPE in out
    assert "2500000000 USD" in out
    assert "2024-05-03" in out


def test_line_ends_of_windows_keep_their_offsets(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_bytes(f"Hello.\r\n{TEXT}\r\n".encode())
    (told,) = json.loads(run("tag", "--json", str(file))[1])
    (alone,) = Tagger.load().tag(TEXT)
    assert told["start"] == alone.start + len("Hello.\r\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tag", "no-such-file.txt"), "no such file"),
        (("tag", TEXT, "--threshold", "7"), "threshold"),
        (("tag", TEXT, "--model", "no.npz"), "no fitted events model"),
        (("tag", TEXT, "--taxonomy", "no-such-folder"), "no taxonomy file"),
        (("show", "no-such-type"), "r1core events list"),
        (("list", "--group", "none-such"), "mergers"),
        (("evaluate", "no-such-file.jsonl"), "cannot be read"),
        (("fit", "--output", "no-such-folder/model.npz"), "existing folder"),
    ],
)
def test_a_mistake_gets_one_line_and_a_fix(arguments: tuple[str, ...], told: str) -> None:
    code, out = run(*arguments)
    assert code == 2
    assert told in out
    assert "\n" not in out


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_bytes(b"\xff\xfe\x00")
    assert run("tag", str(file))[1].startswith(f"{file}: is no UTF-8")
    assert run("tag", "-", stdin=b"\xff\xfe\x00")[0] == 2


def test_list_and_show() -> None:
    rows = json.loads(run("list", "--json")[1])
    assert len(rows) == len(load().types)
    assert {row["id"].split("/")[0] for row in json.loads(run("list", "--group", "mergers", "--json")[1])} == {
        "mergers"
    }
    shown = json.loads(run("show", "bankruptcy-filing", "--json")[1])
    assert shown["id"] == TYPE
    assert "1.03" in shown["sec_8k"]
    out = run("show", TYPE)[1]
    assert "1.03" in out
    assert shown["definition"] in out


def test_evaluate_keeps_origins_apart(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"text": TEXT, "types": [TYPE], "origin": "real"},
        {"text": "Fine.", "types": [TYPE], "origin": "generated"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    told = json.loads(run("evaluate", str(file), "--json")[1])
    assert told["real"]["micro_f1"] == 1.0
    assert told["generated"]["recall"] == 0.0
    assert set(told) == {"real", "generated"}
    assert "generated: 1 rows" in run("evaluate", str(file))[1]


def test_importing_the_plugin_and_the_verb_imports_nothing_heavy(
    r1core_imports: Callable[..., frozenset[str]],
) -> None:
    found = r1core_imports("r1core_events.plugin", "r1core_events.cli", "r1core_events.tagger")
    assert "r1core_events" in found
    assert not found & {"torch", "spacy", "sklearn", "scipy", "pandas"}
