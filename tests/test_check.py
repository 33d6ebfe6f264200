"""`check` on a user's own rows and a plugin file of their own: it tells what a stage would stop at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from r1core import check_data
from r1core.api import JSON, Problem, UserError
from r1core.check import check
from r1core.data.prepare import prepare
from r1core.selection import Selection
from r1core.workbench import Workbench, open_bench

Rows = Sequence[Mapping[str, JSON]]
Opens = Callable[..., Workbench]
SPLITS = ("train", "val", "test")
ROWS: Rows = [{"text": f"row {n}", "answer": "xy"[n % 2]} for n in range(12)]


@pytest.fixture
def opened(tmp_path: Path, r1core_tiny_model: Path) -> Opens:
    """Opens a run on these rows (of all splits alike) with a plugin file and assignments like `--set`."""

    def opening(rows: Rows = ROWS, plugin: str = "", *sets: str, splits: Sequence[str] = SPLITS) -> Workbench:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        for name in splits:
            (tmp_path / f"{name}.jsonl").write_text(lines)
        (tmp_path / "my.toml").write_text(
            f'[run]\nname = "own"\n[model]\npath = "{r1core_tiny_model}"\n'
            "[data.files]\n" + "".join(f'{name} = "{name}.jsonl"\n' for name in splits)
        )
        (tmp_path / "mine.py").write_text(f"from r1core import api\n\n{plugin}")
        files = (tmp_path / "mine.py",) if plugin else ()
        return open_bench(Selection(None, tmp_path / "my.toml", sets, tmp_path / "run", files=files))

    return opening


def errors(bench: Workbench) -> list[Problem]:
    return [problem for problem in check(bench)[0] if problem.severity == "error"]


def test_a_sound_run_has_no_problem(opened: Opens) -> None:
    found, forecast = check(opened())
    assert found == []
    assert forecast["rows"] == "12 to train on"


def test_a_warning_does_not_switch_off_the_checks_of_the_data(opened: Opens) -> None:
    plugin = "@api.hookimpl\ndef validate():\n    return [api.Problem('x', 'a doubt', '', '', severity='warning')]\n"
    found, forecast = check(opened(ROWS, plugin, 'data.choices=["x", "z"]'))
    assert [problem.found for problem in found if problem.severity == "warning"] == ["a doubt"]
    assert any(problem.found.startswith("train: 6 of 12 rows are bad (50.0%)") for problem in found)
    assert forecast["rows"] == "6 to train on, 6 set aside"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_prepare_would_refuse_is_told_in_its_words(split: str, opened: Opens, tmp_path: Path) -> None:
    bench = opened()
    with (tmp_path / f"{split}.jsonl").open("a") as lines:
        lines.write('{"text": "broken"\n{"text": 5, "answer": "x"}\n')
    [problem] = errors(bench)
    with pytest.raises(UserError) as refused:
        prepare(bench, lambda line: None)
    assert problem.found == str(refused.value)
    assert problem.found.startswith(f"{split}: 2 of 14 rows are bad (14.3%); the first: ")
    assert problem.where == f"{tmp_path / 'my.toml'}:5"
    assert "data.max_bad_fraction" in problem.fix


def test_rows_are_read_for_a_while_only(opened: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_data, "COUNT_SECONDS", -1.0)
    found, forecast = check(opened([*ROWS * 4, {"text": "row"}], "", "data.max_bad_fraction=0"))
    assert found == [], "the bad row comes later"
    assert forecast["rows"] == "more than 20 to train on"
    assert "not all rows were counted" in str(forecast["time"])


def test_a_row_set_aside_below_the_limit_is_counted_and_no_problem(opened: Opens) -> None:
    found, forecast = check(opened([*ROWS, {"text": "row"}], "", "data.max_bad_fraction=0.1"))
    assert found == []
    assert forecast["rows"] == "12 to train on, 1 set aside"


GATE = """
class Gate:
    name = "mine/gate"

    def __call__(self, example):
        {body}

    def fingerprint(self):
        return "1"


@api.hookimpl
def quality_gate():
    return [Gate()]
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('dose')", "plugin 'mine' failed in hook 'quality_gate': KeyError: 'dose'"),
        ("return True", "mine/gate on 'train.jsonl:1': returned True, expected the reason"),
        ("return 'dull'", "train: 12 of 12 rows are bad (100.0%); the first: "),
    ],
)
def test_a_quality_gate_is_tried(body: str, said: str, opened: Opens) -> None:
    found = errors(opened(ROWS, GATE.format(body=body)))
    assert any(said in problem.found for problem in found)
    assert not any("no usable row" in problem.found for problem in found), "the reason is told already"


AUGMENT = """
import dataclasses

LONG = api.Message("user", "ab " * 400)


class Augment:
    name = "mine/augment"

    def __call__(self, example, rng):
        {body}

    def fingerprint(self):
        return "1"


@api.hookimpl
def augment():
    return [Augment()]
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('dose')", "plugin 'mine' failed in hook 'augment': KeyError: 'dose'"),
        ("return None", "mine/augment returned NoneType, expected examples"),
        ("return ['fever']", "mine/augment yielded str, expected Example"),
        ("return [example]", "an augmentation gave the id 'train.jsonl:1' twice"),
        (
            "return [dataclasses.replace(example, id='a' + example.id, messages=(LONG, example.messages[-1]))]",
            "row 'atrain.jsonl:1' has ",
        ),
    ],
)
def test_an_augmentation_is_tried(body: str, said: str, opened: Opens) -> None:
    [problem] = errors(opened(ROWS, AUGMENT.format(body=body)))
    assert said in problem.found


def test_rows_that_an_augmentation_adds_count_in_the_forecast(opened: Opens) -> None:
    double = "return [dataclasses.replace(example, id='a' + example.id)]"
    plain, doubled = (
        check(opened(ROWS, p, "train.batch_size=4"))[1]["time"] for p in ("", AUGMENT.format(body=double))
    )
    assert "(estimate: 3 steps" in plain
    assert "(estimate: 6 steps" in doubled


DROP = """
class Drop:
    name, after, before = "mine/drop", (), ()
    fits_on_data = cross_record = False

    def transform(self, examples):
        return (one for one in examples if one.id.startswith("test"))

    def fingerprint(self):
        return "1"


@api.hookimpl
def preprocess():
    return [Drop()]
"""


def test_a_chain_that_drops_every_row_is_told(opened: Opens) -> None:
    [problem] = errors(opened(ROWS, DROP))
    assert problem.found == "no usable row in train"
    assert problem.fix == "mend the plugin that drops them"


def test_baselines_without_validation_rows_or_labels_are_refused(opened: Opens, tmp_path: Path) -> None:
    [problem] = errors(opened([{"text": f"row {n}", "answer": "x"} for n in range(5)]))
    assert problem.found == "the training split holds 1 label(s), a TF-IDF baseline needs two"
    [problem] = errors(opened(ROWS[:2], splits=("train", "test")))
    assert "the validation split has no rows" in problem.found
    assert errors(opened(ROWS[:2], "", "evaluate.baselines=false", splits=("train", "test"))) == []


LAYER = """
WORD = api.SpanKind("mine/word", encode=str, decode=str, width=1, feature=lambda value: (1.0,))


class Words:
    name, after, before, span_kinds = "mine/words", (), (), (WORD,)

    def __call__(self, example):
        return example

    def fingerprint(self):
        return "1"


@api.hookimpl
def preprocess():
    return [Words()]


@api.hookimpl
def extra_layer():
    return [api.LayerSpec("mine/layer", {site!r}, lambda size: None, kinds=({kind!r},))]
"""


@pytest.mark.parametrize(
    ("site", "kind", "said"),
    [
        ("block:1", "mine/word", ""),
        ("block:-2", "mine/word", ""),
        ("head", "mine/word", ""),
        ("blok:1", "mine/word", "mine/layer: site 'blok:1'"),
        ("block:2", "mine/word", "mine/layer: site 'block:2': the model has 2 blocks"),
        ("head", "mine/wrod", "mine/layer: it reads spans of kind 'mine/wrod', which no plugin of this run registers"),
    ],
)
def test_a_layer_without_its_site_or_spans_is_told(site: str, kind: str, said: str, opened: Opens) -> None:
    bench = opened(ROWS, LAYER.format(site=site, kind=kind))
    assert [problem.found for problem in errors(bench)] == ([said] if said else [])


def test_a_weight_needs_a_layer_and_a_layers_weight_its_loss(opened: Opens, tmp_path: Path) -> None:
    [problem] = errors(opened(ROWS, "", 'layers={"mine/ad"=1.0}'))
    assert problem.found.startswith("layers.mine/ad: no layer is called 'mine/ad'")
    assert problem.where == "--set layers"
    [problem] = errors(opened(ROWS, "", 'rewards={"mine/ad"=1.0}'))
    assert problem.where == "--set rewards", "the key's place, not the recipe's"
    found, _ = check(opened(ROWS, LAYER.format(site="head", kind="mine/word"), 'layers={"mine/layer"=1.0}'))
    assert [(one.severity, one.found) for one in found] == [
        ("warning", "a weight for mine/layer, which has no loss of its own")
    ]


def test_a_plugin_that_fails_is_placed_where_it_was_asked_for(opened: Opens, tmp_path: Path) -> None:
    [problem] = errors(opened(ROWS, GATE.format(body="raise KeyError('dose')")))
    assert problem.where == f"--plugin {tmp_path / 'mine.py'}"
    assert problem.found.endswith(f"({tmp_path / 'mine.py'}:8)")


@pytest.mark.parametrize(
    ("assignment", "said", "fix"),
    [
        ('adapter.targets=["q_proj", "self_attn.v_proj"]', "", ""),
        ('adapter.targets=["q_proj", "v_porj"]', "the model has no module 'v_porj'", "did you mean 'v_proj'?"),
        ('adapter.targets=["foo"]', "the model has no module 'foo'", "name one of these, or remove 'foo'"),
        ("adapter.first_layer=1", "", ""),
        ("adapter.first_layer=99", "adapter.first_layer = 99, and the model has 2 blocks", "lower it"),
    ],
)
def test_an_adapter_that_has_no_place_is_told(assignment: str, said: str, fix: str, opened: Opens) -> None:
    found = errors(opened(ROWS, "", assignment))
    assert [problem.fix for problem in found] == ([fix] if said else [])
    assert all(said in problem.found for problem in found)
    assert all(problem.where == f"--set {assignment.partition('=')[0]}" for problem in found)


def test_settings_of_ones_own_files_that_are_hardly_meant_are_doubted(opened: Opens) -> None:
    found, _ = check(opened(ROWS, "", 'data.prompt="{question} {text}?"', 'data.columns.text="answer"'))
    assert [(one.severity, one.where, one.found) for one in found] == [
        (
            "warning",
            "--set data.columns.text",
            "text and answer are one column, 'answer': the prompt holds its answer",
        ),
        (
            "warning",
            "--set data.prompt",
            "data.prompt: {question} is sent to the model as it stands; only {text} is filled in",
        ),
    ]


def test_a_layer_may_ask_for_what_the_stored_configuration_leaves_out(opened: Opens, tmp_path: Path) -> None:
    source = LAYER.format(site="head", kind="mine/word").replace(
        "def extra_layer():\n", "def extra_layer(model):\n    {}\n"
    )
    asked = "assert model.num_hidden_layers == 2 and model.is_encoder_decoder is False"
    assert errors(opened(ROWS, source.replace("{}", asked))) == []
    [problem] = errors(opened(ROWS, source.replace("{}", "model.nothing_of_that_name")))
    assert "has no attribute 'nothing_of_that_name'" in problem.found
