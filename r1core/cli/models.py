"""`r1core models`, and what makes models of models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from r1core.cli.table import print_table

if TYPE_CHECKING:
    from r1core.api import ModelSource
    from r1core.model.upcycling import Upcycling

STEPS = {"rope_base": "rotary base", "positions": "positions", "window": "window", "every": "node every"}
"""What `models upcycle` calls a step, by its name in `r1core.model.r1.change.Change`."""


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plugin", "only", multiple=True, help="Only models of these plugins.")
@click.pass_context
def command(context: click.Context, as_json: bool, only: tuple[str, ...]) -> None:
    """List the base models that installed plugins provide, or make an R1 of one (`models upcycle`)."""
    from r1core.model.resolve import named_models

    if context.invoked_subcommand is not None:
        return
    rows = [(name, description) for name, (_, description) in sorted(named_models(_sources(only)).items())]
    if as_json:
        click.echo(json.dumps([{"name": n, "description": d} for n, d in rows], indent=2))
    elif rows:
        print_table(("name", "description"), rows)
    else:
        click.echo("no installed plugin provides a model; set model.path or model.hub in your recipe")


@command.command("upcycle")
@click.argument("dense", metavar="DENSE")
@click.option("--to", "target", type=click.Choice(["r1"], case_sensitive=False), required=True, help="What it becomes.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write; DENSE-r1 where it is left out.")
@click.option("--experts", type=int, default=128, show_default=True, help="Routed experts of a layer.")
@click.option("--groups", type=int, default=8, show_default=True, help="Domain groups that they divide into.")
@click.option("--width", type=int, default=64, show_default=True, help="Width of a routed expert.")
@click.option("--copies", is_flag=True, help="Copies of the dense part as experts, instead of a shared one.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the new weights.")
@click.option(
    "--rope-base",
    type=click.FloatRange(1, min_open=True),
    help="Change the base of the rotary embedding; needs --text.",
)
@click.option(
    "--window", type=click.IntRange(1), help="Attend to so many tokens and to the nodes before them; needs --text."
)
@click.option("--every", type=click.IntRange(1), help="A node every so many positions (256); needs --text.")
@click.option("--positions", type=click.IntRange(1), help="Read so many tokens at most, up to 204800; needs --text.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Where perplexity is taken.")
def upcycle(
    dense: str, target: str, out: Path | None, experts: int, groups: int, width: int, copies: bool, seed: int,
    rope_base: float | None, window: int | None, every: int | None, positions: int | None, text: Path | None,
) -> None:  # fmt: skip
    """Make an R1 of a dense model, by name or directory: it says the same, and can be trained on.

    With --rope-base, --positions, --window or --every, DENSE may be an R1 already. These steps are taken one by one in
    this order; they change what it says, and tell by how much.
    """
    from r1core.errors import UserError
    from r1core.model.upcycling import Upcycling

    asked = {"rope_base": rope_base, "positions": positions, "window": window, "every": every}
    steps = {f"{STEPS[key]} {value:g}": {key: value} for key, value in asked.items() if value is not None}
    if steps and text is None:
        raise UserError("--rope-base, --positions, --window and --every change what a model says",
                        fix="add --text FILE to see how much")  # fmt: skip
    if text is not None and not steps:
        raise UserError("--text, and nothing that changes what a model says", fix="add --rope-base or --window")
    folder = _directory(dense)
    out = _free(out or Path(f"{Path(dense).name}-{target.lower()}"))
    is_r1 = _stated(folder).get("model_type") == "r1"
    if is_r1 and not steps:
        raise UserError(f"{dense} is an R1 already", fix="give --rope-base or --window, or a dense model")
    how = Upcycling(experts=experts, groups=groups, width=width, copies=copies, seed=seed)
    _made(folder, out, how, is_r1, steps, text)


def _free(out: Path) -> Path:
    """The directory to write, whose parent is there.

    Raises
    ------
    UserError : where it cannot be made, or holds something.
    """
    from r1core.errors import UserError

    try:
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty", fix="give another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}", fix="give another --out") from error
    return out


def _stated(folder: Path) -> dict[str, object]:
    """What a model's `config.json` says.

    Raises
    ------
    UserError : where it is no JSON object.
    """
    from r1core.errors import UserError

    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'}: {error}", fix="give a model's directory") from error
    if not isinstance(said, dict):
        raise UserError(f"{folder / 'config.json'}: no JSON object", fix="give a model's directory")
    return said


def _made(
    folder: Path, out: Path, how: Upcycling, is_r1: bool, steps: Mapping[str, Mapping[str, float]], text: Path | None
) -> None:
    """Upcycle where it is dense, then take the steps that were asked for, one by one."""
    import tempfile

    from transformers.utils import logging

    from r1core.errors import UserError
    from r1core.model.r1.change import Change, changed, tokens_of
    from r1core.model.r1.upcycle import agreement, upcycle

    logging.disable_progress_bar()
    try:
        words = "" if text is None else text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{text}: not UTF-8: {error.reason} at byte {error.start}", fix="convert it") from error
    if text is not None:
        tokens_of(folder, words)  # refused before minutes of work
    with tempfile.TemporaryDirectory(dir=out.parent) as aside:
        source = folder
        if not is_r1:
            source = Path(aside) / "upcycled" if steps else out
            upcycle(folder, source, how)
            click.echo(f"{folder.name}: R1 with {how.experts} experts in {how.groups} groups; greatest difference of a"
                       f" logit from the dense model's: {agreement(folder, source):.3g}")  # fmt: skip
        for number, (name, step) in enumerate(steps.items(), 1):
            target = out if number == len(steps) else Path(aside) / f"step-{number}"
            before, after = changed(source, target, Change(**step), words)  # type: ignore[arg-type]
            apart = 100 * (after / before - 1)
            click.echo(f"{name}: perplexity on {text and text.name}: {before:.3f} before, {after:.3f} after"
                       f" ({apart:+.2f} %)")  # fmt: skip
            source = target
    click.echo(f"written to {out}; use it with --set model.path={out}")


def _sources(only: Sequence[str] = ()) -> list[ModelSource]:
    """Model sources of these plugins, or of all that load."""
    from r1core.cli.listing import each_loaded
    from r1core.plugins import registry
    from r1core.plugins.loading import Plugins

    names = list(only) or [one.name for one in registry.installed(registry.PLUGINS)]
    loaded = [Plugins.load(names, listing=True)] if only else [plugins for _, plugins in each_loaded(names)]
    return [made.component for plugins in loaded for made in plugins.call("model_source")]


def _directory(dense: str) -> Path:
    """Of a model by its name or path.

    Raises
    ------
    UserError : where it is neither.
    """
    from r1core.errors import UserError
    from r1core.model.resolve import named_models

    if (Path(dense) / "config.json").is_file():
        return Path(dense)
    known = named_models(_sources())
    if dense not in known:
        raise UserError(
            f"{dense}: no model directory, and no plugin provides a model of this name", fix="see `r1core models`"
        )
    return known[dense][0].materialise(dense)
