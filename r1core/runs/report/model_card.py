"""The run's `README.md`: a model card in the Hugging Face layout, for whoever is handed the adapter alone."""

from __future__ import annotations

import json
import re

from r1core.runs.report.data import ReportData
from r1core.runs.report.views import manifest_lines, tables

_LIMITS = (
    "Measured on the test split above and on nothing else. Not a medical, legal or financial device; "
    "a person who is qualified for the domain decides."
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def model_card(data: ReportData) -> str:
    """Write the card. It holds aggregates only: no text of any record, redacted or not."""
    parts = [_front_matter(data), f"# {_plain(data.title)}", _plain(data.summary), _use(data)]
    for table in tables(data.systems):
        head = ["system", *table.metrics]
        rows = [[row.system, *(" ".join(cell).strip() for cell in row.cells)] for row in table.rows]
        parts += [f"## Results: {_plain(table.task)}", _table(head, rows)]
        parts.append(f"On {table.n:,} held-out rows, each with ± one standard error. {_plain(table.gain)}".strip())
    if data.over_time is not None:
        parts += ["## Over time", _plain(data.over_time.summary)]
        parts.append(f"Trained in this order: {_plain(', then '.join(data.over_time.runs))}.")
        for title, shown in data.over_time.tables:
            parts += [f"### {_plain(title)}", _table(list(shown.columns), [list(row) for row in shown.rows])]
    demo = data.rule_demo
    if demo is not None and demo.interventions:
        rules = [[one.rule, one.severity, one.citation] for one in demo.interventions]
        parts += [
            "## Decoding rules",
            "Rules act only where r1core decodes; the adapter's weights do not hold them. "
            "In the report's demonstration these intervened:",
            _table(["rule", "severity", "citation"], rules),
        ]
    for plugin, section in data.sections:
        if not section.private:  # what a plugin says of the adapter itself, such as a licence, travels with it
            parts += [
                f"## {_plain(section.title)}",
                f"Told by the plugin {_plain(plugin)}. {_plain(section.text)}".strip(),
            ]
            for shown in section.tables:
                parts.append(_table(list(shown.columns), [[str(cell) for cell in row] for row in shown.rows]))
    if data.cost:
        parts += ["## Cost", _table(["what", "figure"], [[name, value] for name, value in data.cost.items()])]
    facts = [["base model", data.base or data.model], *([name, text] for name, text in manifest_lines(data.manifest))]
    parts += [
        "## Provenance",
        _table(["what", "value"], facts),
        "`manifest.json` names every input and artefact by SHA-256; `r1core verify RUN` rechecks it.",
    ]
    parts += ["## Limits", _LIMITS]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(data: ReportData) -> str:
    lines = [
        "---",
        f"base_model: {json.dumps(data.model)}",
        f"library_name: {'r1core' if _own(data) else 'peft'}",
        "language: en",
    ]
    lines += [
        f"tags: {json.dumps(['r1core', _kind(data).replace('_', '-'), *([data.domain] if data.domain else [])])}",
        "---",
    ]
    return "\n".join(lines)


def _use(data: ReportData) -> str:
    task = "--task NAME " if _kind(data) == "pool" else ""
    domain = f" to the domain {_plain(data.domain)}" if data.domain else ""
    return (
        f"An adapter for {_plain(data.model)}, adapted{domain} with r1core on {_plain(data.created)}. Use it with the "
        "plugins of the run, so that prompts are preprocessed and rules applied as in training:\n\n"
        f'```console\n$ r1core generate RUN {task}--prompt "your prompt"\n```\n\n'
        + ("`adapter/` is of r1core's own format and needs r1core" if _own(data) else "`adapter/` is a PEFT directory")
        + ("; `adapter/r1core_layers.safetensors` holds extra layers and needs r1core." if _layers(data) else ".")
    )


def _kind(data: ReportData) -> str:
    """The kind of adapter, as the recipe names it, or `pool`."""
    recipe = data.manifest.get("recipe")
    train = recipe.get("train") if isinstance(recipe, dict) else None
    if isinstance(train, dict) and train.get("objective") == "multitask":
        return "pool"
    adapter = recipe.get("adapter") if isinstance(recipe, dict) else None
    return str(adapter.get("kind", "lora")) if isinstance(adapter, dict) else "lora"


def _own(data: ReportData) -> bool:
    """Whether PEFT cannot read the adapter."""
    return _kind(data) in ("gelu_lora", "pool")


def _layers(data: ReportData) -> bool:
    artefacts = data.manifest.get("artefacts")
    return isinstance(artefacts, dict) and any(name.endswith("r1core_layers.safetensors") for name in artefacts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    shown = [[_plain(cell) for cell in line] for line in (head, *rows)]
    lines = [shown[0], ["---"] * len(head), *shown[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text as one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
