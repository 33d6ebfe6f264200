"""The verbs in the order in which a user types them, on the user's own records and model."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from .conftest import COMPLAINTS, RECIPE, WARD, Desk, Done

VERBS = (
    *("adapt", "check", "prepare", "train", "evaluate", "generate", "merge", "report", "verify"),
    *("plugins", "domains", "models", "new"),
)
ROW = {"task", "system", "metric", "value", "se", "n"}


def quietly(desk: Desk, name: str) -> Path:
    return desk.folder / "runs/own" / name


def test_adapt_leaves_a_whole_run(adapted: tuple[Desk, Done]) -> None:
    desk, done = adapted
    assert done.err == ""
    assert re.search(r"^adapted\+constrained +\d\.\d{3} +± \d\.\d{3} +8$", done.out, re.MULTILINE), done.out
    assert done.out.splitlines()[-1] == f"report: {quietly(desk, 'report.html')}"
    for name in ("recipe.toml", "manifest.json", "events.jsonl", "metrics.jsonl", "data/card.json", "README.md",
                 "data/quarantine.jsonl", "evaluation/summary.json", "adapter/adapter_config.json",
                 "adapter/adapter_model.safetensors", "adapter/r1core_layers.safetensors"):  # fmt: skip
        assert quietly(desk, name).is_file(), name
    assert stat.S_IMODE((desk.folder / "runs/own").stat().st_mode) == 0o700
    rows = json.loads(quietly(desk, "evaluation/summary.json").read_text())
    assert all(set(row) == ROW for row in rows)
    assert {row["system"] for row in rows} == {"base", "base+constrained", "adapted", "adapted+constrained"}
    page = quietly(desk, "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "Ward round" in page, "the section of a third party's plugin"
    assert not re.search(r"""(src|href)=["']?https?:""", page), "self-contained"


def test_a_third_party_plugin_changed_the_run(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    records = [json.loads(line) for line in quietly(desk, "data/train.jsonl").read_text().splitlines()]
    assert "ward/complaint" in json.dumps([record["spans"] for record in records])
    steps = len(quietly(desk, "metrics.jsonl").read_text().splitlines())
    assert (desk.folder / "runs/own.watch").read_text().split() == [str(n + 1) for n in range(steps)]
    from safetensors.numpy import load_file

    layers = load_file(quietly(desk, "adapter/r1core_layers.safetensors"))
    gates = [value for name, value in layers.items() if "gate" in name]
    assert gates
    assert all(float(abs(gate).max()) > 0 for gate in gates), "the layer was trained"
    [lock] = json.loads(quietly(desk, "manifest.json").read_text())["plugins"]
    assert (lock["name"], lock["distribution"], lock["version"]) == ("ward", "ward-r1core", "0.4.0")


def test_the_same_command_again_skips_every_stage(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    again = desk("adapt", *WARD, fresh=True)
    for stage in ("prepare", "train", "evaluate", "report"):
        assert f"{stage}: skipped, nothing that it depends on changed" in again.out
    assert again.seconds < 6


def test_a_run_is_taken_up_by_its_directory(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    assert desk("report", "runs/own").out.count("skipped") == 4


def test_verify_names_the_file_that_was_changed(copy: Desk) -> None:
    assert "artefacts as recorded" in copy("verify", "runs/own").out
    path = quietly(copy, "adapter/adapter_model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = copy("verify", "runs/own", code=1)
    assert "adapter/adapter_model.safetensors" in done.out
    assert "NOT as recorded" in done.out
    findings = copy("verify", "runs/own", "--json", code=1).json()
    assert "adapter_model.safetensors" in json.dumps(findings)


def test_a_redacted_report_holds_no_text_of_any_record(copy: Desk) -> None:
    done = copy("report", "--redact", *WARD)
    page = Path(done.out.splitlines()[-1].removeprefix("report: ")).read_text()
    whole = quietly(copy, "report.html").read_text()
    words = [word for words in COMPLAINTS.values() for word in words]
    assert any(f"{word} since day" in whole for word in words)
    for line in (copy.folder / "notes.csv").read_text().splitlines()[1:]:
        assert line.split(",")[0] not in page
    assert "since day" not in page
    copy("verify", "runs/own")


def test_generate_goes_on_from_a_given_start(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    plain = desk("generate", "runs/own", "--prompt", "a cough", "--prefix", "The patient", "--json").json()
    assert plain["text"].startswith("The patient")
    assert desk("generate", "runs/own", "--prompt", "a cough", "--prefix", "The patient").out.startswith("The patient")
    refused = desk("generate", "runs/own", "--prompt", "a cough", "--prefix", "zzz", "--choices", code=2)
    assert "the given start of the answer is refused by choices" in refused.err


def test_generate_answers_under_the_labels_and_shows_what_it_linked(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    done = desk("generate", "runs/own", "--choices", "--json", given="a cough since Monday")
    answer = done.json()
    assert answer["text"] in COMPLAINTS
    assert [(span["kind"], span["text"]) for span in answer["spans"]] == [("ward/complaint", "cough")]
    assert done.err == ""


def test_trace_shows_what_each_step_changes(adapted: tuple[Desk, Done]) -> None:
    desk, _ = adapted
    row = next(line for line in (desk.folder / "notes.csv").read_text().splitlines() if line.startswith("cough"))
    done = desk("prepare", *WARD, "--trace", row.split(",")[2])
    assert done.out == "ward/complaints: 1 span\n  ward/complaint 'cough' -> \"cough\"\n"
    assert "no record has the id 'n999'" in desk("prepare", *WARD, "--trace", "n999", code=2).err


@pytest.fixture
def free_text(desk: Desk, shelf: Path) -> Desk:
    """Foreign columns, answers of free text, a metric of a third party."""
    recipe = RECIPE.replace("plugins = []", 'plugins = ["ward"]').replace(
        "baselines = false", 'metrics = ["ward/words"]'
    )
    text = 'max_tokens = 200\nkind = "text"\nprompt = "Note: {text}"'
    desk.write("own.toml", recipe.replace("max_tokens = 128", text))
    head, *rows = (row.split(",") for row in (desk.folder / "notes.csv").read_text().splitlines())
    answered = [[note, f'"Go to the {clinic} clinic, please."', *rest] for note, clinic, *rest in rows]
    desk.write("notes.csv", "".join(",".join(row) + "\n" for row in [head, *answered]))
    desk.path = [shelf / "ward"]
    return desk


def test_free_text_answers_from_prepare_to_report(free_text: Desk) -> None:
    done = free_text("adapt", "--recipe", "own.toml", "--json")
    assert done.err == ""
    rows = json.loads(done.out.splitlines()[-1])
    metrics = {row["metric"] for row in rows if row["system"] == "adapted"}
    assert {"exact_match", "ward/words"} <= metrics
    assert {row["system"] for row in rows} == {"base", "adapted"}
    first = json.loads(quietly(free_text, "data/train.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["content"].startswith("Note: ")
    assert quietly(free_text, "report.html").is_file()
    answer = free_text("generate", "runs/own", "--prompt", "Note: cough", "--max-new-tokens", "3", "--json").json()
    assert answer["finish"] in ("length", "eos")
    free_text("verify", "runs/own")


MARK = """
from r1core import api

KIND = api.SpanKind("mark/since", encode=str, decode=str)


class Since:
    name = "mark/since"
    after = ()
    before = ()
    span_kinds = (KIND,)

    def __call__(self, example):
        start = example.messages[0].content.find("since")
        return example.with_spans([api.Span(0, start, start + 5, KIND.name, "since")])

    def fingerprint(self):
        return "1"


class Mark(api.Plugin):
    @api.hookimpl
    def preprocess(self):
        return [Since()]
"""


def test_one_file_in_development_and_how_plugins_are_narrowed(desk: Desk, shelf: Path) -> None:
    desk.path = [shelf / "ward"]
    desk.write("mark.py", MARK)
    desk.write("own.toml", RECIPE.replace("plugins = []", 'plugins = ["ward"]'))
    row = next(line for line in (desk.folder / "notes.csv").read_text().splitlines() if line.startswith("cough"))
    trace = ("prepare", "--recipe", "own.toml", "--trace", row.split(",")[2])
    both = desk(*trace, "--plugin", "./mark.py").out
    assert both == (
        "mark/since: 1 span\n  mark/since 'since' -> \"since\"\n"
        "ward/complaints: 1 span\n  ward/complaint 'cough' -> \"cough\"\n"
    )
    assert desk(*trace, "--plugin", "./mark.py", "--no-plugin", "ward").out == both[: both.index("ward/")]
    desk.environment = {"R1CORE_PLUGINS": "ward"}
    assert desk(*trace, "--plugin", "./mark.py").out == both[both.index("ward/") :]
    desk.write("mark.py", "import nothing_of_that_name\n")
    desk.environment = {}
    broken = desk(*trace, "--plugin", "./mark.py", code=2)
    assert "plugin 'mark' (mark.py) does not import: ModuleNotFoundError" in broken.err
    assert "mark.py:1" in broken.err


def test_listings(desk: Desk, shelf: Path) -> None:
    desk.path = [shelf / "ward"]
    assert re.search(r"^ward +0\.4\.0 +<0\.2,>=0\.1 +Marks complaints", desk("plugins").out, re.MULTILINE)
    names = [one["name"] for one in desk("plugins", "--json").json()]
    assert names == sorted(names)
    assert {"clinical_rules", "smollm2", "umls", "ward"} <= set(names)
    shown = desk("plugins", "show", "ward", "--json").json()
    assert shown["hooks"] == ["callback", "extra_layer", "metric", "preprocess", "report"]
    assert shown["settings"] == {"complaints": ["chest pain", "cough", "rash"]}
    assert "ward-r1core" in desk("plugins", "show", "ward").out
    measuring = {one["name"] for one in desk("plugins", "--hook", "metric", "--json").json()}
    assert "ward" in measuring
    assert not measuring & {"clinical_rules", "smollm2", "umls"}
    constraining = desk("plugins", "--hook", "decode_constraint", "--json").json()
    assert "clinical_rules" in [one["name"] for one in constraining]
    assert "medical" in desk("domains").out
    medical = desk("domains", "show", "medical").out
    assert "medical/icd10_specialty" in medical
    assert "[plugins.clinical_rules]" in medical
    assert desk("domains", "show", "medical", "--json").json()["name"] == "medical"
    assert "smollm2-135m-instruct" in desk("models").out
    assert [one["name"] for one in desk("models", "--json").json()] == ["r1", "smollm2-135m-instruct"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, desk: Desk) -> None:
    done = desk(verb, "--help")
    assert done.out.startswith(f"Usage: r1core {verb} ")
    assert done.err == ""


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "spacy", "pandas", "r1core_umls", "r1core_medical",
                                      "r1core_smollm2", "r1core_clinical_rules"}:
            sys.stderr.write(f"imported {name}\\n")
            sys.exit(97)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize("words", [("--help",), ("plugins",), ("domains",), ("--version",)], ids=" ".join)
def test_listing_is_quick_and_imports_neither_torch_nor_a_plugin(words: tuple[str, ...], desk: Desk) -> None:
    guard = desk.folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(WITHOUT_TORCH)
    desk.path = [guard]
    times = [desk(*words, fresh=True).seconds for _ in range(3)]
    assert min(times) < 1.5, "0.3 s is the figure on an idle machine; see benchmarks/"


def test_help_lists_verbs_of_plugins(desk: Desk) -> None:
    told = desk("--help").out
    for verb in (*VERBS, "umls", "rules"):
        assert re.search(rf"^  {verb} ", told, re.MULTILINE), verb
