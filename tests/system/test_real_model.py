"""One short run of the embedded model through the medical domain, as `make demo` does it on all rows."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from .conftest import Desk

SHORT = (
    "medical",
    *("--set", "data.max_rows=32"),
    *("--set", "data.max_eval_rows=16"),
    *("--set", "train.batch_size=8"),
    *("--set", "evaluate.baselines=false"),
)


@pytest.mark.usefixtures("weights")
def test_adapt_medical(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    done = desk("adapt", *SHORT)
    assert done.err == ""
    run = tmp_path / "runs/medical"
    assert f"report: {run / 'report.html'}" in done.out
    for name in (
        *("manifest.json", "data/card.json", "checkpoints", "report.html", "README.md", "evaluation/rule_demo.json"),
        *("adapter/adapter_model.safetensors", "adapter/r1core_layers.safetensors"),
    ):
        assert (run / name).exists(), name

    rows = json.loads((run / "evaluation/summary.json").read_text())
    assert all(set(row) == {"task", "system", "metric", "value", "se", "n"} for row in rows)
    assert {row["system"] for row in rows} == {"base", "base+constrained", "adapted", "adapted+constrained"}
    assert {row["n"] for row in rows if row["metric"] == "accuracy"} == {16}
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert "umls/concept" in (run / "data/train.jsonl").read_text(), "the linker marked the records"
    demo = json.loads((run / "evaluation/rule_demo.json").read_text())
    assert demo["facts"], "the rules saw the patient"
    page = (run / "report.html").read_text()
    assert demo["prompt"] in page

    assert "artefacts as recorded" in desk("verify", "runs/medical").out
    started = time.monotonic()
    again = desk("adapt", *SHORT)
    assert again.out.count("skipped, nothing that it depends on changed") == 4
    assert time.monotonic() - started < 20
