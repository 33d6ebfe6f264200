"""One's own files: foreign column names, broken rows with their lines, the stable split."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from r1core.api import UserError
from r1core.data.files import FileSource
from r1core.recipe.schema import Columns, Data, DataFiles

FOREIGN = {"text": "Befund", "answer": "Fach", "id": "Nr", "group": "Patient"}


def source(train: Path, *, columns: dict[str, str] | None = None, **options: Any) -> FileSource:
    files = DataFiles(train=train, **{k: options.pop(k) for k in ("val", "test") if k in options})
    return FileSource(Data(files=files, columns=Columns(**(columns or {})), **options))


def only(path: Path, **options: Any) -> FileSource:
    """The whole file is train: val and test are given."""
    return source(path, val=path, test=path, **options)


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def foreign_file(folder: Path, kind: str) -> Path:
    rows = [
        {"Nr": "7", "Patient": "p1", "Befund": "Schmerz, Brust", "Fach": " Kardiologie "},
        {"Nr": "8", "Patient": "p2", "Befund": "头痛\nseit gestern", "Fach": "Neurologie"},
    ]
    if kind == "csv":
        quoted = (
            '\ufeffNr,Patient,Befund,Fach\n7,p1,"Schmerz, Brust", Kardiologie \n8,p2,"头痛\nseit gestern",Neurologie\n'
        )
        return write(folder / "d.csv", quoted)
    if kind == "jsonl":
        return write(folder / "d.jsonl", "\ufeff" + "\n\n".join(json.dumps(row) for row in rows))
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist(rows), folder / "d.parquet")
    return folder / "d.parquet"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_foreign_columns_of_every_format(tmp_path: Path, kind: str) -> None:
    found = only(foreign_file(tmp_path, kind), columns=FOREIGN, prompt="Fach? {text}", system="Kurz.")
    one, two = found.read("train")
    assert (one.id, one.group, one.fields["label"]) == ("7", "p1", "Kardiologie")
    assert [(m.role, m.content) for m in one.messages] == [
        ("system", "Kurz."), ("user", "Fach? Schmerz, Brust"), ("assistant", "Kardiologie")
    ]  # fmt: skip
    assert two.messages[1].content == "Fach? 头痛\nseit gestern"
    assert found.rejected == []
    assert found.tasks["own"].choices == ("Kardiologie", "Neurologie")
    assert found.columns_missing() == []


def test_each_bad_json_line_is_set_aside_with_its_number(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a", "answer": "x"}',
        b'{"text": "broken"',
        b'{"text": "bad \xff byte", "answer": "x"}',
        b"[1, 2]",
        b'{"text": 3, "answer": "x"}',
        b'{"text": "b", "answer": null}',
        b'{"text": "", "answer": "x"}',
        b"",
        b'{"text": "half \\ud800 pair", "answer": "x"}',
        b'{"text": "whole \\ud83d\\ude00 pair", "answer": "x"}',
        b'{"text": "long", "answer": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"text": "deep", "answer": "x", "n": ' + b"[" * 100_000 + b"}",
        b'{"answer": "x"}',
        b'{"text": "c", "answer": "y"}',
    ]
    found = only(write(tmp_path / "d.jsonl", b"\n".join(lines)))
    good = [e.fields["text"] for e in found.read("train")]
    assert good == ["a", "whole 😀 pair", "c"]
    reasons = {r.line: r.reason for r in found.rejected}
    assert sorted(reasons) == [2, 3, 4, 5, 6, 7, 9, 11, 12, 13]
    for line, said in {2: "broken JSON at column", 3: "bad UTF-8 at byte 14", 4: "expected a JSON object, found list",
                       5: "'text': expected text, found int 3", 6: "'answer': expected text, found nothing",
                       7: "found nothing", 9: "surrogate", 13: "found nothing"}.items():  # fmt: skip
        assert said in reasons[line]
    assert all(r.file == str(tmp_path / "d.jsonl") for r in found.rejected)


def test_each_bad_csv_line_is_set_aside_with_its_number(tmp_path: Path) -> None:
    data = b"text,answer\na,x\nbad \xe9 byte,x\nb,x,more,still\nlonely\n,x\nc,y\n"
    found = only(write(tmp_path / "d.csv", data))
    assert [e.fields["text"] for e in found.read("train")] == ["a", "c"]
    reasons = {r.line: r.reason for r in found.rejected}
    assert reasons == {
        3: "bad UTF-8 at byte 4: invalid continuation byte",
        4: "expected 2 columns, found 4",
        5: "expected 2 columns, found 1",
        6: "column 'text': expected text, found nothing",
    }
    assert [e.id for e in found.read("train")] == ["d.csv:2", "d.csv:7"]


def test_facts_are_a_json_object_or_unknown(tmp_path: Path) -> None:
    data = 'text,answer,facts\na,x,"{""age"": 7}"\nb,x,\nc,x,{}\nd,x,5\ne,x,{age\n'
    found = only(write(tmp_path / "d.csv", data), columns={"facts": "facts"})
    assert [e.facts for e in found.read("train")] == [{"age": 7}, None, {}]
    assert {r.line: r.reason for r in found.rejected}[5] == "column 'facts': expected a JSON object, found int"
    assert "broken JSON" in {r.line: r.reason for r in found.rejected}[6]


def test_what_json_cannot_hold_does_not_travel(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as parquet

    day = datetime.date(2024, 1, 2)
    rows = [{"text": "a", "answer": "x", "day": day, "days": [day], "n": 3}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    (example,) = only(tmp_path / "d.parquet").read("train")
    assert json.loads(json.dumps(dict(example.fields)))["n"] == 3
    assert {"day", "days"}.isdisjoint(example.fields)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("d.csv", b"", "an empty file"),
        ("d.jsonl", b"", "an empty file"),
        ("d.xlsx", b"PK", r"ending '\.xlsx' is not one of"),
        ("d.parquet", b"not parquet at all", "not Parquet"),
        ("d.csv", b"t\xe9xt,answer\na,x\n", r":1: bad UTF-8 at byte 1.*in the header"),
        ("d.csv", b'text,answer\n"' + b"a" * 200_000 + b'",x\n', "not CSV: field larger"),
    ],
)
def test_a_file_that_is_no_data_is_refused_by_name(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(UserError, match=message) as refused:
        list(only(path, choices=["x"]).read("train"))
    assert str(path) in str(refused.value)
    assert refused.value.fix


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file"):
        list(only(tmp_path / "nowhere.csv").read("train"))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "Befund,Fach\na,x\n")
    said = only(path, columns={"text": "Befund", "answer": "Diagnose"}).columns_missing()
    assert "Diagnose" in str(said)
    assert "Befund, Fach" in str(said)
    header_only = write(tmp_path / "h.csv", "text,answer\n")
    with pytest.raises(UserError, match="no readable"):
        only(header_only).columns_missing()


def point(key: str) -> float:
    """Where a key falls in [0, 1): the first 64 bits of its sha256."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 16**16


def expected_split(key: str, shares: dict[str, float]) -> str:
    total, edge = sum(shares.values()), 0.0
    for name, share in shares.items():
        edge += share / total
        if point(key) < edge:
            return name
    return list(shares)[-1]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_lone_file_is_split_by_a_stable_hash(tmp_path: Path, grouped: bool) -> None:
    rows = [{"text": f"term {i}", "answer": "x", "patient": f"p{i % 40}"} for i in range(300)]
    path = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    found = source(path, columns={"group": "patient"} if grouped else {})
    shares = {"train": 0.75, "val": 0.10, "test": 0.15}
    seen = {name: [e.fields["text"] for e in found.read(name)] for name in shares}  # type: ignore[arg-type]
    for row in rows:
        key = row["patient"] if grouped else row["text"]
        assert [name for name, texts in seen.items() if row["text"] in texts] == [expected_split(key, shares)]
    assert all(seen.values())


def test_a_given_test_file_leaves_only_val_to_split_off(tmp_path: Path) -> None:
    rows = [{"text": f"term {i}", "answer": "x"} for i in range(200)]
    path = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    test = write(tmp_path / "t.jsonl", json.dumps({"text": "held out", "answer": "x"}))
    found = source(path, test=test)
    assert [e.fields["text"] for e in found.read("test")] == ["held out"]
    shares = {"train": 0.75, "val": 0.10}
    assert [e.fields["text"] for e in found.read("val")] == [
        r["text"] for r in rows if expected_split(r["text"], shares) == "val"
    ]
    assert len(list(found.read("train"))) + len(list(found.read("val"))) == 200


def test_an_answer_outside_the_label_set_is_set_aside_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "text,answer\na,x\nb,z\nc,y\n")
    found = only(path, choices=["x", "y"])
    assert [e.fields["text"] for e in found.read("train")] == ["a", "c"]
    (bad,) = found.rejected
    assert (bad.file, bad.line, bad.raw) == (str(path), 3, "b")
    assert "'z' is not one of the label set (x, y" in bad.reason


def test_free_text_has_no_label_set(tmp_path: Path) -> None:
    found = only(write(tmp_path / "d.csv", "text,answer\na,any words\n"), kind="text")
    assert found.tasks["own"].choices == ()
    assert len(list(found.read("test"))) == 1


def test_the_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", "text,answer\na,x\n")
    before = only(path).fingerprint()
    assert only(path).fingerprint() == before
    write(path, "text,answer\na,y\n")
    assert only(path).fingerprint() != before


@pytest.mark.parametrize(
    ("name", "data", "message", "fix"),
    [
        ("d.csv", b"text;answer\na;x\n", "the file is separated by `;`, expected commas", "save it with commas"),
        ("d.csv", b"text\tanswer\na\tx\n", "the file is separated by a tab, expected commas", "save it with commas"),
        (
            "d.jsonl",
            b'[{"text": "a"},\n {"text": "b"}]\n',
            "one JSON array, expected an object a line",
            "jq -c '.[]' d.jsonl",
        ),
        ("d.jsonl", b'  [\n{"text": "a"}\n]\n', "one JSON array, expected an object a line", "jq -c"),
    ],
)
def test_a_file_of_another_layout_gets_what_to_type(
    tmp_path: Path, name: str, data: bytes, message: str, fix: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        only(write(tmp_path / name, data)).columns_missing()
    assert refused.value.fix.startswith(fix)


def test_a_line_that_is_an_array_is_one_bad_row(tmp_path: Path) -> None:
    found = only(write(tmp_path / "d.jsonl", b'["a", "x"]\n{"text": "a", "answer": "x"}\n'))
    assert [e.fields["text"] for e in found.read("train")] == ["a"]
    assert [r.line for r in found.rejected] == [1]


def test_a_folder_that_is_called_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match=r"d\.csv: a folder, expected a file"):
        only(tmp_path / "d.csv").columns_missing()


TASKS = """Text,Answer,Kind,Patient
cough,lungs,clinic,1
rash,skin,clinic,2
aspirin,bleeding,drug,3
,nothing,drug,4
who,knows,,5
"""


def test_a_column_may_name_each_records_task(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", TASKS)
    test = write(tmp_path / "test.csv", "Text,Answer,Kind,Patient\nx,lungs,drug,9\ny,bone,clinic,8\nz,a,other,7\n")
    columns = {"text": "Text", "answer": "Answer", "task": "Kind", "group": "Patient"}
    stated = [{"name": "drug", "kind": "text", "prompt": "What of {text}?"}]
    found = source(train, val=train, test=test, columns=columns, tasks=stated, prompt="Where? {text}")
    assert list(found.tasks) == ["clinic", "drug"]
    assert found.tasks["clinic"].choices == ("lungs", "skin")
    assert found.tasks["drug"].choices == ()
    assert [(e.task, e.messages[0].content) for e in found.read("train")] == [
        ("clinic", "Where? cough"), ("clinic", "Where? rash"), ("drug", "What of aspirin?")
    ]  # fmt: skip
    assert [one.line for one in found.rejected] == [5, 6]
    assert found.rejected[1].reason == "column 'Kind': expected the name of a task, found nothing"
    assert [e.task for e in found.read("test")] == ["drug"]
    assert [one.reason for one in found.rejected] == [
        "answer 'bone' is not one of the label set (lungs, skin, ...)",
        "task 'other' has no record in train, only clinic, drug have",
    ]
    with pytest.raises(UserError, match="no record of task 'drugs', only of clinic, drug") as refused:
        _ = source(train, columns=columns, tasks=[{"name": "drugs"}]).tasks
    assert refused.value.fix == "did you mean 'drug'?"
