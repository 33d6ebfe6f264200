"""The report stage: gathers what the other stages wrote, and draws the report and the model card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from r1core.api import JSON, Example, ReportSection, RunView, Task
from r1core.data import codec
from r1core.evaluate import suite, summary
from r1core.evaluate.predictions import Prediction, read_predictions
from r1core.runs.files import write_atomic
from r1core.runs.manifest import Manifest
from r1core.runs.report import build, data, model_card
from r1core.runs.report.over_time import over_time
from r1core.runs.report.routing import routed
from r1core.workbench import Workbench

CURVES = ("loss", "learning_rate", "grad_norm", "penalty")
"""Drawn where the run has them; the penalty is that of elastic weight consolidation."""
INTERVAL = 1.96
"""Standard errors in a 95 % interval of a normal estimate."""


def write_report(bench: Workbench) -> None:
    """Write `report.html` and the model card; under a privacy policy without the text of any record."""
    gathered = gather(bench)
    write_atomic(bench.run.report, build(gathered, redact=bench.privacy is not None))
    write_atomic(bench.run.model_card, model_card(gathered))


def write_redacted(bench: Workbench) -> Path:
    """Write `report-redacted.html`, which holds no text of any record, beside the run's other files."""
    path = bench.run.report.with_name("report-redacted.html")
    write_atomic(path, build(gather(bench), redact=True))
    Manifest(bench.run).update("report-redacted", artefacts=[path])
    return path


def gather(bench: Workbench) -> data.ReportData:
    """Everything that the report shows, read from the run directory."""
    run, recipe = bench.run, bench.recipe
    rows = summary.read_summary(run.summary)
    manifest = Manifest(run).read()
    test = list(codec.read(run.split("test"), bench.chain.kinds))
    answers = {
        name: read_predictions(path) for name in summary.SYSTEMS if (path := run.evaluation / f"{name}.jsonl").exists()
    }
    view = RunView(run.path, manifest, tuple(summary.to_json(rows)))
    chain = over_time(run.evaluation / "continual.json")
    lone = next(iter(bench.tasks.values())) if len(bench.tasks) == 1 else None  # several have tables of their own only
    counts = suite.confusion_of(lone, answers, "adapted" + summary.CONSTRAINED) if lone and lone.choices else None
    headline = [f for task in bench.tasks.values() for f in _headline(rows, task, several=lone is None)]
    return data.ReportData(
        title=recipe.report.title or f"{recipe.run.name}: {bench.base.name} adapted",
        domain=bench.domain.name if bench.domain else "",
        model=bench.base.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=" ".join(filter(None, (_sentence(rows, task, several=lone is None) for task in bench.tasks.values()))),
        headline=(*headline, *([chain.headline] if chain else [])),
        systems=tuple(
            data.SystemRow(r.task, r.system, r.metric, r.value, None if r.se != r.se else r.se, r.n) for r in rows
        ),
        curves=_curves(bench),
        confusion=None
        if counts is None
        else data.Confusion(
            counts.labels, tuple(tuple(map(int, line)) for line in counts.matrix), tuple(map(int, counts.unanswered))
        ),
        examples=tuple(_examples(test, answers, recipe.report.examples)),
        rule_demo=_demo(run.evaluation / "rule_demo.json"),
        over_time=chain,
        routed=routed(run.evaluation / "routing.json"),
        sections=tuple(_sections(bench, view)),
        manifest=manifest,
        cost=_cost(manifest["stages"]),
        base=_description(bench),
    )


def _main(choices: bool) -> tuple[str, str]:
    return ("accuracy", "adapted" + summary.CONSTRAINED) if choices else ("exact_match", "adapted")


def _headline(rows: Sequence[summary.Row], task: Task, *, several: bool) -> Iterator[data.Figure]:
    choices = bool(task.choices)
    metric, best = _main(choices)
    shown = [(best, "adapted model, labels only"), ("adapted", "adapted model, free-running")]
    shown += [("base" + summary.CONSTRAINED, "before adaptation, labels only"), ("tfidf", "TF-IDF on the same rows")]
    for system, label in shown if choices else [("adapted", "adapted model"), ("base", "before adaptation")]:
        row = summary.find(rows, system, metric, task.name)
        if row is not None and not (several and system not in (best, best.replace("adapted", "base"))):
            label = f"{task.name}: {label}" if several else label
            spread = "" if row.se != row.se else f"± {INTERVAL * row.se * 100:.1f} points (95 %, clustered)"
            yield data.Figure(label, f"{row.value * 100:.1f} %", f"{spread}, {row.n} rows".lstrip(", "))


def _sentence(rows: Sequence[summary.Row], task: Task, *, several: bool) -> str:
    metric, best = _main(bool(task.choices))
    after = summary.find(rows, best, metric, task.name)
    before = summary.find(rows, best.replace("adapted", "base"), metric, task.name)
    if after is None or before is None:
        return ""
    return (
        f"On {after.n} held-out records {f'of {task.name} ' if several else ''}"
        f"the adapted model reaches {after.value * 100:.1f} % "
        f"{metric.replace('_', ' ')}, from {before.value * 100:.1f} % before adaptation."
    )


def _curves(bench: Workbench) -> Mapping[str, tuple[tuple[float, float], ...]]:
    lines = list(bench.run.metrics.read())
    curves = {n: tuple((float(line["step"]), float(line[n])) for line in lines if n in line) for n in CURVES}
    return {name: points for name, points in curves.items() if points}


def _examples(
    test: Sequence[Example], answers: Mapping[str, Sequence[Prediction]], wanted: int
) -> Iterator[data.ExampleView]:
    """Records with linked concepts first, right and wrong answers in turn, so that the page does not flatter."""
    by_id = {name: {one.example_id: one for one in found} for name, found in answers.items()}
    adapted, base = ([by_id[n][e.id] for e in test] for n in ("adapted", "base" if "base" in by_id else "adapted"))
    order = sorted(range(len(test)), key=lambda i: (not test[i].spans, test[i].id))
    right = [i for i in order if (adapted[i].constrained or adapted[i].text) == adapted[i].gold]
    wrong = [i for i in order if i not in set(right)]
    chosen = [i for pair in zip(right, wrong, strict=False) for i in pair][:wanted] or right[:wanted]
    for index in chosen:
        example = test[index]
        part = max((i for i, m in enumerate(example.messages) if m.role == "user"), default=0)
        yield data.ExampleView(
            prompt=example.messages[part].content,
            gold=adapted[index].gold,
            base=base[index].text,
            adapted=adapted[index].text,
            spans=tuple(_concepts(example, part)),
        )


def _concepts(example: Example, part: int) -> Iterator[data.Concept]:
    end = 0
    for span in example.spans:
        if span.part == part and span.start >= end:
            value = span.value
            yield data.Concept(
                span.start, span.end, str(getattr(value, "concept_id", span.kind)), str(getattr(value, "name", value))
            )
            end = span.end


def _demo(path: Path) -> data.RuleDemo | None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if found is None:
        return None
    reasons = {(r["rule"], r["text"]): r for i in found["interventions"] for r in i["reasons"] if r["citation"]}
    return data.RuleDemo(
        prompt=found["prompt"],
        without_rules=found["without_rules"],
        with_rules=found["with_rules"],
        interventions=tuple(
            data.Intervention(r["rule"], r["citation"], r["text"], r["severity"]) for r in reasons.values()
        ),
        facts=found["facts"],
    )


def _sections(bench: Workbench, view: RunView) -> Iterator[tuple[str, ReportSection]]:
    for made in bench.plugins.call("report", run=view):
        yield made.plugin, made.component


def _cost(stages: Mapping[str, Mapping[str, JSON]]) -> dict[str, str]:
    found = {}
    for name, record in stages.items():
        found[name] = f"{record['seconds']:.0f} s, {record['cpu_seconds']:.0f} CPU-s"
    peak = max((record["peak_memory_bytes"] for record in stages.values()), default=0)
    return {**found, "peak memory": f"{peak / 1e9:.2f} GB"}


def _description(bench: Workbench) -> str:
    """What the plugin that provides the base model says of it, its licence too."""
    from r1core.model.resolve import named_models

    sources = named_models(bench.components("model_source"))
    return sources[bench.base.name][1] if bench.base.name in sources else ""
