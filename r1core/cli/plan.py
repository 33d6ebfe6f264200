"""`r1core plan`: what is trained, and what it will take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from r1core.cli.common import selects_run
from r1core.cli.table import print_table
from r1core.errors import UserError
from r1core.selection import Selection

if TYPE_CHECKING:
    from r1core.forecast.methods import Forecast
    from r1core.forecast.table import Table
    from r1core.plan import Outlook


@click.command("plan")
@selects_run
@click.option("--hardware", metavar="NxNAME", help="Forecast for these GPUs, for instance 4xA100-80G; needs none here.")
@click.option("--samples", type=click.IntRange(min=1), help="Training samples (default: the recipe's data).")
@click.option(
    "--tokens-per-sample",
    "tokens",
    type=click.IntRange(min=2),
    help="Tokens of a sample (default: as in the recipe's data; 512 without a recipe).",
)
@click.option("--method", metavar="lora|ppo|multitask", help="What is forecast for --hardware (default: lora).")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON: seconds and bytes.")
def command(
    selection: Selection,
    hardware: str | None,
    samples: int | None,
    tokens: int | None,
    method: str | None,
    as_json: bool,
) -> None:
    """Print the strategy table with its weights; forecast time and memory. TARGET is a domain or a run directory."""
    from r1core.forecast.hardware import hardware as named
    from r1core.forecast.methods import method_named
    from r1core.plan import Asked, outlook, unnamed
    from r1core.workbench import open_bench

    gpus = None if hardware is None else named(hardware)
    asked = Asked(gpus, samples, tokens, None if method is None else method_named(method))
    if selection.domain is None and selection.recipe is None and selection.earlier is None:
        if selection.sets:
            raise UserError("--set changes a recipe, and none is named", fix="name a domain, or --recipe")
        found = unnamed(asked)
    else:
        found = outlook(open_bench(selection), asked)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    _print_table(found)
    for line in _lines(found):
        click.echo(line)


def _print_table(found: Outlook) -> None:
    table, train = found.table, found.train
    tied = ", its output head tied to the embedding" if table.shape.tied and not table.untied else ""
    click.echo(f"model: {found.model} ({table.shape.parameters:,} weights, {table.shape.blocks} blocks{tied})")
    click.echo(f"adapter: {_adapter(table)}")
    click.echo("")
    rows = [
        (
            role.role,
            role.mode,
            "-" if role.learning_rate is None else f"{role.learning_rate:g}",
            "-" if role.weight_decay is None else f"{role.weight_decay:g}",
            f"{role.base:,}".rjust(15),
            f"{role.trained:,}".rjust(13),
        )
        for role in table.roles
    ]
    rows.append(("all", "", "", "", f"{table.base:,}".rjust(15), f"{table.trained:,}".rjust(13)))
    print_table(("role", "mode", "rate", "decay", "weights".rjust(15), "trained".rjust(13)), rows)
    click.echo("")
    click.echo(f"trained: {table.share:.2%} of the model's weights")
    if table.adapter.freeze_a:
        click.echo(
            f"  A stays as it starts (adapter.freeze_a); B learns at {train.lora_plus_ratio:g} times the rates"
            " (train.lora_plus_ratio)"
        )
    elif train.lora_plus_ratio != 1 and table.low_rank:
        click.echo(
            f"  rates are those of A; B learns at {train.lora_plus_ratio:g} times as much (train.lora_plus_ratio)"
        )


def _adapter(table: Table) -> str:
    one = table.adapter
    where = "all linear layers" if one.targets == "all-linear" else ", ".join(one.targets)
    first = f", from block {one.first_layer} on" if one.first_layer else ""
    scale = f"scale {one.gelu_scale:g}" if one.kind == "gelu_lora" else f"alpha {one.alpha}"
    return f"{one.kind}, rank {one.rank}, {scale}, on {where} of the blocks{first}"


def _lines(found: Outlook) -> Iterator[str]:
    """Everything below the table."""
    from r1core.forecast.words import duration, memory_line, time_line

    for note in found.notes:
        yield f"  note: {note}"
    yield ""
    rows, told = found.rows, found.forecast
    if rows is not None:
        shared = f", the first {rows.shared} shared" if rows.shared else ""
        yield f"rows: {rows.number:,.0f} of {rows.length:.3g} tokens{shared}, {rows.answered:.3g} of them answered"
    if isinstance(told, str):
        yield f"time: {told}"
    else:
        yield f"steps: {told.steps:,} of {found.train.batch_size} rows"
        if told.method != "lora":
            yield f"method: {told.method}"
        yield f"time: {time_line(told)}"
        if len(told.parts) > 1:
            yield "  a step: " + ", ".join(f"{name} {_seconds(value)}" for name, value in told.parts.items())
        yield f"memory: {memory_line(told)}{'' if told.fits else ' - it does not fit'}"
        yield f"  {_memory(told)}"
        for line in told.basis:
            yield f"  basis: {line}"
    assumed = found.assumed if isinstance(told, str) else (*found.assumed, *told.assumed)
    for line in assumed:
        yield f"  assumed: {line}"
    if found.guide:
        yield from _guide(found, "" if isinstance(told, str) else duration(told.seconds))


def _memory(told: Forecast) -> str:
    """What holds the memory of one worker."""
    memory, unit, size = told.memory, "GB" if told.cpu_seconds else "GiB", 1e9 if told.cpu_seconds else 2.0**30
    parts = {"weights": memory.weights, "trained weights with their moments": memory.trained}
    parts |= {
        "activations": memory.activations,
        "logits" if told.method != "ppo" else "logits and cache": memory.logits,
    }
    parts["libraries and plugins" if told.cpu_seconds else "CUDA"] = memory.libraries
    return ", ".join(f"{name} {value / size:.2f}" for name, value in parts.items()) + f" {unit}"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _guide(found: Outlook, ours: str) -> Iterator[str]:
    """The guide's rows, apart from the forecast."""
    from r1core.forecast.methods import GUIDE

    yield ""
    yield "the guide's own figures, for its own setting (it states neither model nor tokens; none is used above):"
    for claim in GUIDE:
        told = found.forecast
        mark = (
            f"   forecast above: {ours} ({told.where}, batch {found.train.batch_size})"
            if not isinstance(told, str) and told.method == claim.method
            else ""
        )
        yield f"  {claim.method:<10} {claim.hardware:<7} batch {claim.batch_size:<3} {claim.hours} h{mark}"
