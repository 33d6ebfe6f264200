"""Writes the parts of the docs that follow from the code: the recipe's keys, each verb's options, and the API.

python docs/generate.py          rewrites what stands between the marks
python docs/generate.py --check  exits 1 and names the pages that are not up to date
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from r1core import api
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
    "data.columns.task": "names the record's task, where there are several: [several tasks](training/pool.md)",
    "data.columns.cluster": "by which standard errors are clustered; absent = `group`",
    "data.files.train": "CSV, JSONL or Parquet; `val` and `test` are split off it where they are absent",
    "data.files.val": "records to choose settings on",
    "data.files.test": "records to measure on",
    "data.kind": "`choice` = closed label set, `text` = free text",
    "adapter.kind": "which [adapter](training/adapters.md): LoRA, rsLoRA or DoRA through PEFT, or r1core's GELU-LoRA",
    "adapter.rank": "rank of the update",
    "adapter.alpha": "the update is scaled by alpha / rank (`rslora`: alpha / sqrt(rank)); not read by `gelu_lora`",
    "adapter.dropout": "on the adapter's input",
    "adapter.targets": "names of linear layers in the blocks, or all of them",
    "strategy.preset": "a whole table to start from: [strategy](training/strategy.md)",
    "train.objective": "cross-entropy of the answer's tokens: of one adapter, or a [pool](training/pool.md) of them",
    "train.epochs": "passes over the training rows",
    "train.learning_rate": "of the adapter, at its highest, where [strategy](training/strategy.md) states none",
    "train.schedule": "after the warm-up",
    "train.warmup_fraction": "share of all steps",
    "train.weight_decay": "of the adapter's matrices where `[strategy]` states none; biases and layers have none",
    "train.max_grad_norm": "the gradient's norm is clipped to this",
    "train.packing": "`shared_prefix` = one sequence, the common start once; `best_fit` = whole rows; `none` = alone",
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
        kinds = _alternatives(field.annotation)
        listed = [one for kind in kinds if get_origin(kind) is list for one in get_args(kind)]
        name = field.alias or name
        inner = [kind for kind in [*kinds, *listed] if isinstance(kind, type) and issubclass(kind, Table)]
        if not inner or inner[0] in listed:
            yield f"{prefix}{name}", field
        if inner:
            yield from keys(inner[0], f"{prefix}{name}.")


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
    alike: dict[tuple[str, ...], list[str]] = {}  # tables of the same keys are shown once
    for table, rows in tables.items():
        alike.setdefault(tuple(rows), []).append(f"`[{table}]`")
    parts = [f"\n### {', '.join(names)}\n\n{head}\n" + "\n".join(rows) for rows, names in alike.items()]
    return "\n".join(parts).strip() + "\n"


def options(verb: str) -> str:
    """Usage line, arguments and options of a verb, or of a command under it (`models upcycle`)."""
    first, *under = verb.split()
    command: click.Command = importlib.import_module(f"r1core.cli.{first}").command
    for name in under:
        assert isinstance(command, click.Group), verb
        command = command.commands[name]
    context = click.Context(command, info_name=f"r1core {verb}", help_option_names=["-h", "--help"])
    lines = ["```", " ".join([f"r1core {verb}", *command.collect_usage_pieces(context)]), "```", ""]
    lines += ["| option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            lines.append(f"| `{record[0]}` | {record[1]} |")
    return "\n".join(lines) + "\n"


class Bare(ast.NodeTransformer):
    """Leaves of a class or function what its user has to know: fields, signatures, docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef | None:
        """Without its body; what is private goes, but for `__call__`."""
        if node.name.startswith("_") and node.name != "__call__":
            return None
        said = ast.get_docstring(node, clean=False)
        node.body = [ast.Expr(ast.Constant(... if said is None else said))]
        return node


def reference() -> str:
    """Every class and function of `r1core.api`, by the module that holds it."""
    rooms: dict[str, list[str]] = {}
    for name in api.__all__:
        found = getattr(api, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            bare = ast.unparse(Bare().visit(ast.parse(inspect.getsource(found))))
            rooms.setdefault(found.__module__, []).append(f"### {name}\n\n```python\n{bare}\n```\n")
    parts = []
    for module in sorted(rooms):
        said = (inspect.getdoc(importlib.import_module(module)) or "").partition("\n")[0]
        parts.append("\n".join([f"## {module}\n\n{said}\n", *rooms[module]]))
    return "\n".join(parts)


def page(text: str) -> str:
    """A page with its generated parts renewed."""

    def renewed(match: re.Match[str]) -> str:
        what, _, argument = match["what"].partition(" ")
        made = options(argument) if what == "options" else {"recipe": recipe, "api": reference}[what]()
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
            shown += [f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in get_args(kind)]
        elif origin is list:
            shown.append(f"list of {_type(get_args(kind)[0])}")
        elif origin is dict or issubclass(kind, Table):
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
    if isinstance(value, list) and value and isinstance(value[0], Table):
        value = [one.model_dump(exclude_none=True) for one in value]
        return "`[" + ", ".join("{ " + ", ".join(f"{k} = {v}" for k, v in one.items()) + " }" for one in value) + "]`"
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
