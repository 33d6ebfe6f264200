"""The prepare stage through `open_bench`, on one's own files and a tiny model directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1core.api import UserError
from r1core.data import codec
from r1core.data.prepare import prepare, trace
from r1core.selection import Selection
from r1core.testing.tiny import tiny_tokenizer
from r1core.workbench import Workbench, open_bench

from ..conftest import FEATURE, HEART, heart_plugin


def rows(split: str, number: int) -> list[str]:
    return [json.dumps({"text": f"{split} heart {i}", "answer": "xy"[i % 2]}) for i in range(number)]


@pytest.fixture
def open_own(tmp_path: Path, r1core_tiny_model: Path) -> Any:
    """Opens a run on three JSONL files of lines."""

    def opened(
        train: Sequence[str], *, data: str = "", plugin: bool = False, run: str = "run", source: str = HEART
    ) -> Workbench:
        for name, lines in {"train": train, "val": rows("val", 2), "test": rows("test", 4)}.items():
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(
            f'[run]\nname = "own"\n[model]\npath = "{r1core_tiny_model}"\n[data]\n{data}\n'
            '[data.files]\ntrain = "train.jsonl"\nval = "val.jsonl"\ntest = "test.jsonl"\n',
            encoding="utf-8",
        )
        (tmp_path / "heart.py").write_text(source)
        files = (tmp_path / "heart.py",) if plugin else ()
        return open_bench(Selection(recipe=recipe, run=tmp_path / run, files=files))

    return opened


def quarantine(bench: Workbench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bench.run.quarantine.read_text(encoding="utf-8").splitlines()]


def test_bad_rows_are_set_aside_and_the_run_goes_on(open_own: Any, tmp_path: Path) -> None:
    train = rows("train", 20)
    train[3], train[11] = '{"text": ', json.dumps({"text": 5, "answer": "x"})
    bench = open_own(train, data="max_bad_fraction = 0.2")
    told: list[str] = []
    counts = prepare(bench, told.append)
    assert counts == {"rows_train": 18, "rows_val": 2, "rows_test": 4, "quarantined": 2}
    bad = quarantine(bench)
    assert [(b["split"], b["file"], b["line"]) for b in bad] == [
        ("train", str(tmp_path / "train.jsonl"), 4), ("train", str(tmp_path / "train.jsonl"), 12)
    ]  # fmt: skip
    assert bad[0]["reason"].startswith("broken JSON")
    assert bad[0]["raw"] == '{"text": '
    assert "expected text, found int 5" in bad[1]["reason"]
    written = list(codec.read(bench.run.split("train"), {}))
    assert [e.fields["text"] for e in written] == [f"train heart {i}" for i in range(20) if i not in (3, 11)]
    assert any("18 rows, 2 set aside" in line for line in told)


def test_the_data_card_counts_tokens_as_the_tokenizer_does(open_own: Any) -> None:
    bench = open_own(rows("train", 6))
    prepare(bench, lambda line: None)
    lengths = [
        len(tiny_tokenizer().apply_chat_template(
            [{"role": "user", "content": f"train heart {i}"}], add_generation_prompt=True, return_dict=False
        )) + len(tiny_tokenizer()("xy"[i % 2])["input_ids"]) + 1
        for i in range(6)
    ]  # fmt: skip
    card = json.loads(bench.run.data_card.read_text())["splits"]["train"]
    assert card["tokens_max"] == max(lengths)
    assert card["tokens_mean"] == pytest.approx(sum(lengths) / 6, abs=0.01)
    assert card["labels"] == {"x": 3, "y": 3}


def test_more_bad_rows_than_the_share_stop_the_run(open_own: Any) -> None:
    train = rows("train", 20)
    train[3] = train[11] = "nonsense"
    bench = open_own(train, data="max_bad_fraction = 0.09")
    with pytest.raises(
        UserError, match=r"train: 2 of 20 rows are bad \(10\.0%\); the first: .*train\.jsonl:4: broken"
    ) as e:
        prepare(bench, lambda line: None)
    assert str(bench.run.quarantine) in e.value.fix
    assert len(quarantine(bench)) == 2


def test_the_share_is_of_the_rows_read_not_of_those_sampled(open_own: Any) -> None:
    train = rows("train", 40)
    train[3] = "nonsense"
    bench = open_own(train, data="max_bad_fraction = 0.05\nmax_rows = 4")
    assert prepare(bench, lambda line: None)["rows_train"] == 4


def test_a_row_that_is_too_long_stops_the_run_by_name(open_own: Any) -> None:
    train = [*rows("train", 3), json.dumps({"text": "heart " * 300, "answer": "x"})]
    with pytest.raises(UserError, match=r"train\.jsonl.*row 'train\.jsonl:4' has \d+ tokens, the limit is 256"):
        prepare(open_own(train), lambda line: None)


def test_a_limit_beyond_the_models_context_is_refused(open_own: Any) -> None:
    with pytest.raises(UserError, match=r"data\.max_tokens = 600 is beyond the context of .* \(512 tokens\)"):
        prepare(open_own(rows("train", 3), data="max_tokens = 600"), lambda line: None)


def test_the_second_row_of_one_id_is_set_aside_even_across_splits(open_own: Any, tmp_path: Path) -> None:
    bench = open_own([json.dumps({"text": f"t{i}", "answer": "xy"[i % 2], "n": f"id-{min(i, 8)}"}) for i in range(10)],
                     data="max_bad_fraction = 0.5")  # fmt: skip
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipe.read_text() + '[data.columns]\nid = "n"\n')
    (tmp_path / "test.jsonl").write_text("\n".join(
        json.dumps({"text": f"u{i}", "answer": "x", "n": f"id-{7 + i}"}) for i in range(4)
    ))  # fmt: skip
    (tmp_path / "val.jsonl").write_text(json.dumps({"text": "v", "answer": "x", "n": "v"}))
    bench = open_bench(Selection(recipe=recipe, run=tmp_path / "run"))
    counts = prepare(bench, lambda line: None)
    assert (counts["rows_train"], counts["rows_test"]) == (9, 2)
    assert [(b["split"], b["reason"]) for b in quarantine(bench)] == [
        ("train", "duplicate id 'id-8'"), ("test", "duplicate id 'id-7'"), ("test", "duplicate id 'id-8'")
    ]  # fmt: skip


def test_no_usable_row_is_an_error(open_own: Any, tmp_path: Path) -> None:
    bench = open_own(rows("train", 3))
    (tmp_path / "test.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no usable row in test") as stopped:
        prepare(bench, lambda line: None)
    assert stopped.value.fix == "check [data] and data.columns"


def test_too_few_rows_for_a_test_split_ask_for_more_or_a_file(tmp_path: Path, r1core_tiny_model: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "one", "answer": "x"}))
    recipe = tmp_path / "my.toml"
    recipe.write_text(f'[run]\nname = "own"\n[model]\npath = "{r1core_tiny_model}"\n[data.files]\ntrain = "t.jsonl"\n')
    bench = open_bench(Selection(recipe=recipe, run=tmp_path / "run"))
    with pytest.raises(UserError, match="no usable row in test") as stopped:
        prepare(bench, lambda line: None)
    assert stopped.value.fix == "give more rows, or a file of its own: data.files.test"


def test_spans_are_written_and_traced(open_own: Any) -> None:
    bench = open_own([*rows("train", 2), json.dumps({"text": "lung", "answer": "x"})], plugin=True)
    prepare(bench, lambda line: None)
    written = list(codec.read(bench.run.split("train"), bench.chain.kinds))
    assert [[(s.start, s.end, s.value) for s in e.spans] for e in written] == [[(6, 11, "organ")]] * 2 + [[]]
    lines = list(trace(bench, "train.jsonl:2"))
    assert lines == ["heart/words: 1 span", "  heart/word 'heart' -> \"organ\""]
    with pytest.raises(UserError, match="no record has the id 'nobody'"):
        list(trace(bench, "nobody"))


def test_spans_of_a_causal_kind_are_found_in_the_answer_too(open_own: Any) -> None:
    answers = ("my heart beats", "lungs", "heart")
    train = [json.dumps({"text": "which heart", "answer": answer}) for answer in answers]
    bench = open_own(train, plugin=True, data='kind = "text"', source=heart_plugin(f"{FEATURE}, causal=True"))
    prepare(bench, lambda line: None)
    found = list(codec.read(bench.run.split("train"), bench.chain.kinds))
    assert [[(s.part, s.start, s.end) for s in e.spans] for e in found] == [
        [(0, 6, 11), (1, 3, 8)],
        [(0, 6, 11)],
        [(0, 6, 11), (1, 0, 5)],
    ]
    row = bench.renderer.encode(found[0])
    slot = row.slots[1]
    read = tiny_tokenizer().decode([*row.prompt, *row.response][: slot.end])
    assert read.endswith("my heart")
    lines = list(trace(bench, "train.jsonl:1"))
    assert "the answer, token by token: 1 span" in lines
    assert lines[-1] == "  heart/word 'heart' -> \"organ\""


def test_spans_of_other_kinds_stay_out_of_the_answer(open_own: Any) -> None:
    train = [json.dumps({"text": "which heart", "answer": "my heart"})]
    bench = open_own(train, plugin=True, data='kind = "text"', source=heart_plugin(FEATURE))
    prepare(bench, lambda line: None)
    (example,) = codec.read(bench.run.split("train"), bench.chain.kinds)
    assert [s.part for s in example.spans] == [0]
    assert not any("the answer" in line for line in trace(bench, "train.jsonl:1"))


def test_sampling_keeps_the_same_rows_whatever_else_is_in_the_file(open_own: Any) -> None:
    def chosen(number: int) -> set[str]:
        bench = open_own(rows("train", number), data="max_rows = 5", run=f"run-{number}")
        prepare(bench, lambda line: None)
        return {e.id for e in codec.read(bench.run.split("train"), {})}

    few, many = chosen(30), chosen(32)
    assert len(few) == len(many) == 5
    assert len(few & many) >= 3  # at most two newcomers displace at most two
