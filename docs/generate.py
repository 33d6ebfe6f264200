"""Writes the parts of the docs that follow from the code: the recipe's keys, and each verb's options.

python docs/generate.py          rewrites what stands between the marks
python docs/generate.py --check  exits 1 and names the pages that are not up to date
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from r1core.recipe.schema import Recipe
from r1core.recipe.table import Table

DOCS = Path(__file__).parent
MARK = re.compile(r"(<!-- generated: (?P<what>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEANINGS = {
    "run.name": "names the run and its directory `runs/NAME`",
    "run.seed": "every random number of the run derives from it",
    "run.plugins": "plugins that take part",
    "model.base": "name that a `model_source` plugin provides",
    "model.path": "a local Hugging Face model directory; never reaches the network",
    "model.hub": "a Hugging Face hub id",
    "model.revision": "branch, tag or commit of `model.hub`",
    "model.precision": "`auto` = the faster by a short probe on a CPU, bf16 on a GPU",
    "model.attention": "attention implementation of transformers",
    "data.columns.text": "the text that `{text}` in `data.prompt` stands for",
    "data.columns.answer": "the gold answer",
    "data.columns.id": "a record's id; absent = file name and line",
    "data.columns.group": "the unit that splits keep together and standard errors are clustered by (a patient)",
    "data.columns.as_of": "date at which the record's facts were known",
    "data.columns.facts": "a JSON object with the record's facts",
    "data.columns.cluster": "by which standard errors are clustered; absent = `group`",
    "data.files.train": "CSV, JSONL or Parquet; `val` and `test` are split off it where they are absent",
    "data.files.val": "records to choose settings on",
    "data.files.test": "records to measure on",
    "data.kind": "`choice` = closed label set, `text` = free text",
    "adapter.kind": "LoRA through PEFT",
    "adapter.rank": "rank of the update",
    "adapter.alpha": "the update is scaled by alpha / rank",
    "adapter.dropout": "on the adapter's input",
    "adapter.targets": "names of linear layers in the blocks, or all of them",
    "train.objective": "supervised fine-tuning: cross-entropy of the answer's tokens",
    "train.epochs": "passes over the training rows",
    "train.learning_rate": "of the adapter, at its highest",
    "train.schedule": "after the warm-up",
    "train.warmup_fraction": "share of all steps",
    "train.weight_decay": "of the adapter; extra layers have none",
    "train.max_grad_norm": "the gradient's norm is clipped to this",
    "train.packing": "`shared_prefix` = rows in one sequence, the common start computed once; `none` = row by row",
    "train.keep_checkpoints": "older ones are removed",
    "evaluate.baselines": "majority class and TF-IDF (label sets only)",
    "evaluate.base_model": "the model before adaptation",
    "evaluate.batch_size": "prompts answered together",
    "evaluate.max_new_tokens": "tokens of a free-running answer",
    "generate.max_new_tokens": "tokens of an answer of `r1core generate`",
    "generate.temperature": "0 = the likeliest token",
    "generate.top_p": "sample among the likeliest tokens of this total probability",
    "report.title": "heading of the report",
    "report.examples": "records shown",
    "report.demo_prompt": "answered with and without the rules; empty for none",
    "report.demo_facts": "JSON file with the facts of that prompt",
    "plugins": "one table for each plugin; its keys stand on the plugin's page",
}
"""What a key means, where the schema's own description does not say it."""


def keys(table: type[Table] = Recipe, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of the recipe, dotted, with its field."""
    for name, field in table.model_fields.items():
        inner = [kind for kind in _alternatives(field.annotation) if isinstance(kind, type) and issubclass(kind, Table)]
        if inner:
            yield from keys(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def recipe() -> str:
    """The table of all keys, one section a table."""
    tables: dict[str, list[str]] = {}
    for key, field in keys():
        table, _, name = key.rpartition(".")
        meaning = MEANINGS.get(key) or field.description or ""
        assert meaning, f"{key}: say what it means in the schema, or in MEANINGS"
        cells = (f"`{name}`" if table else "any name", _type(field.annotation), _default(field), meaning)
        row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        tables.setdefault(table or key, []).append(row)
    head = "| key | type | default | meaning |\n|---|---|---|---|"
    parts = [f"\n### `[{table}]`\n\n{head}\n" + "\n".join(rows) for table, rows in tables.items()]
    return "\n".join(parts).strip() + "\n"


def options(verb: str) -> str:
    """A verb's usage line, arguments and options."""
    command: click.Command = importlib.import_module(f"r1core.cli.{verb}").command
    context = click.Context(command, info_name=f"r1core {verb}", help_option_names=["-h", "--help"])
    lines = ["```", " ".join([f"r1core {verb}", *command.collect_usage_pieces(context)]), "```", ""]
    lines += ["| option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            lines.append(f"| `{record[0]}` | {record[1]} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """A page with its generated parts renewed."""

    def renewed(match: re.Match[str]) -> str:
        what, _, argument = match["what"].partition(" ")
        made = recipe() if what == "recipe" else options(argument)
        return f"{match[1]}\n{made}\n{match[3]}"

    return MARK.sub(renewed, text)


def outdated() -> dict[Path, str]:
    """Pages whose generated parts are not what the code says, with what they should be."""
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(DOCS.rglob("*.md"))}
    return {file: made for file, text in texts.items() if (made := page(text)) != text}


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _type(annotation: Any) -> str:
    shown = []
    for kind in _alternatives(annotation):
        origin = get_origin(kind)
        if origin is Literal:
            shown += [f'`"{value}"`' for value in get_args(kind)]
        elif origin is list:
            shown.append(f"list of {_type(get_args(kind)[0])}")
        elif origin is dict:
            shown.append("table")
        elif kind is not types.NoneType:
            named = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "Path": "path"}
            shown.append(named[kind.__name__])
    return ", ".join(shown)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    shown = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    return f"`{shown or (repr(value) if not isinstance(value, str) else chr(34) + value + chr(34))}`"


def main() -> int:
    """Rewrite the pages, or name those that need it."""
    stale = outdated()
    for file, text in stale.items():
        print(file.relative_to(DOCS))
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
