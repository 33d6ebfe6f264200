"""`r1core events`: tag a text, look into the taxonomy, evaluate the tagger on labelled rows, fit it anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from r1core.api import UserError

if TYPE_CHECKING:
    from r1core_events.tagger import Tagger
    from r1core_events.values import Argument, Event

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_TAXONOMY = click.option(
    "--taxonomy", "folders", multiple=True, type=click.Path(path_type=Path), help="Folder with further groups."
)


def _tagging(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every verb that tags."""
    for option in (
        click.option("--threshold", type=float, help="Least probability of an event; default: chosen while fitting."),
        click.option("--model", type=click.Path(path_type=Path), help="Weights that `fit` wrote."),
        _TAXONOMY,
        _JSON,
    ):
        command = option(command)
    return command


@click.group()
def events() -> None:
    """Find financial events in text, with their arguments."""


@events.command()
@click.argument("text")
@_tagging
def tag(text: str, as_json: bool, folders: tuple[Path, ...], model: Path | None, threshold: float | None) -> None:
    """Tag TEXT: a text, the name of a file, or - for standard input."""
    from r1core_events.tagger import Tagger

    content = _content(text)
    found = Tagger.load(folders, model, threshold=threshold).tag(content)
    if as_json:
        click.echo(json.dumps([_as_json(event, content) for event in found], indent=2, ensure_ascii=False))
        return
    for event in found:
        words = " ".join(content[event.start : event.end].split())
        click.echo(f"{event.type} {event.probability:.2f} at {event.start}-{event.end} {words!r} ({event.source})")
        for argument in event.arguments:
            click.echo(f"  {_line(argument, content)}")
    click.echo("1 event" if len(found) == 1 else f"{len(found)} events", err=True)


def _content(text: str) -> str:
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        single = len(text) < 1_000 and len(text.split()) == 1
        if len(text) < 4_000 and "\n" not in text and "\0" not in text:
            path = Path(text)
            if len(path.name.encode()) < 256 and path.is_file():
                return path.read_bytes().decode("utf-8")
            if single and (path.suffix or "/" in text):
                raise UserError(f"{text}: no such file", fix="name a file, or give a text of more than one word")
    except UnicodeDecodeError as error:
        raise UserError(f"{text}: is no UTF-8 ({error.reason} at byte {error.start})", fix="convert it") from error
    except OSError as error:
        raise UserError(f"{text}: {error.strerror}", fix="name a file that can be read") from error
    return text


def _as_json(event: Event, content: str) -> dict[str, object]:
    stored = {**event.as_json(), "text": content[event.start : event.end]}
    arguments = [{**one.as_json(), "text": content[one.start : one.end]} for one in event.arguments]
    return {**stored, "arguments": arguments}


def _line(argument: Argument, content: str) -> str:
    from r1core_events.values import Money

    value = argument.value
    told = f" = {value.value} {value.currency}" if isinstance(value, Money) else f" = {value}"
    spelled = " ".join(content[argument.start : argument.end].split())
    return f"{argument.role} {spelled!r}{'' if argument.role == 'company' else told}"


@events.command(name="list")
@click.option("--group", help="Only the types of this group.")
@_TAXONOMY
@_JSON
def list_(group: str | None, folders: tuple[Path, ...], as_json: bool) -> None:
    """List the event types with the usual direction of their effect."""
    from r1core_events.taxonomy import load

    groups = load(*folders).groups
    if group is not None:
        chosen = [one for one in groups if one.id == group]
        if not chosen:
            raise UserError(f"no group {group!r}", fix=f"groups: {', '.join(one.id for one in groups)}")
        groups = tuple(chosen)
    if as_json:
        rows = [{"id": t.id, "title": t.title, "direction": t.direction} for one in groups for t in one.types]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for one in groups:
        click.echo(f"{one.id}: {one.title}")
        for kind in one.types:
            click.echo(f"  {kind.id}  {kind.title} ({kind.direction})")
    click.echo(f"{sum(len(one.types) for one in groups)} types in {len(groups)} groups", err=True)


@events.command()
@click.argument("identifier", metavar="ID")
@_TAXONOMY
@_JSON
def show(identifier: str, folders: tuple[Path, ...], as_json: bool) -> None:
    """Show one event type: definition, direction, crosswalk, triggers, examples."""
    from r1core_events.taxonomy import load

    kind = load(*folders).find(identifier)
    if as_json:
        click.echo(json.dumps(asdict(kind), indent=2, ensure_ascii=False))
        return
    click.echo(f"{kind.id}: {kind.title}\n{kind.definition}")
    click.echo(f"usual direction: {kind.direction}")
    for name, codes in (("Form 8-K items", kind.sec_8k), ("FIBO", kind.fibo), ("ISO 15022 CAEV", kind.iso15022)):
        click.echo(f"{name}: {', '.join(codes) or 'none'}")
    click.echo(f"triggers: {'; '.join(kind.triggers)}")
    for example in kind.examples:
        click.echo(f"example: {example}")


@events.command()
@click.argument("file", type=click.Path(path_type=Path))
@_tagging
def evaluate(file: Path, as_json: bool, folders: tuple[Path, ...], model: Path | None, threshold: float | None) -> None:
    """Score the tagger on the labelled rows of FILE (JSON lines with text, types, origin)."""
    from r1core_events.evaluation import by_origin, read
    from r1core_events.tagger import Tagger

    tagger = Tagger.load(folders, model, threshold=threshold)
    rows = read(file, {kind.id for kind in tagger.taxonomy.types})
    found = by_origin(rows, lambda text: _types(tagger, text))
    if as_json:
        click.echo(json.dumps({origin: one.as_json() for origin, one in found.items()}, indent=2))
        return
    for origin, one in found.items():
        click.echo(f"{origin}: {one.rows} rows, {one.types} types")
        click.echo(f"  micro precision {one.precision:.3f}, recall {one.recall:.3f}, F1 {one.micro_f1:.3f}")
        macro = f"precision {one.macro_precision:.3f}, recall {one.macro_recall:.3f}, F1 {one.macro_f1:.3f}"
        click.echo(f"  macro {macro}")


def _types(tagger: Tagger, text: str) -> set[str]:
    return {event.type for event in tagger.tag(text)}


@events.command()
@_TAXONOMY
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File for the weights (.npz).")
@_JSON
def fit(folders: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Fit the classifier from the templates of the taxonomy; needs r1core-events[fit]."""
    from r1core_events.taxonomy import load

    if output.suffix != ".npz" or not output.parent.is_dir():
        raise UserError(f"--output {output}: not a .npz file in an existing folder", fix="write, say, model.npz")
    kinds = load(*folders)
    try:
        from r1core_events.fitting import write
    except ModuleNotFoundError as error:
        raise UserError(f"fitting needs {error.name}", fix="pip install 'r1core-events[fit]'") from error
    fitted = write(kinds, output)
    if as_json:
        told = {"types": len(kinds.types), "dev_micro_f1": fitted.dev_micro_f1, "threshold": fitted.weights.threshold}
        click.echo(json.dumps({**told, "output": str(output)}, indent=2))
        return
    click.echo(f"{output}: {len(kinds.types)} types, micro-F1 {fitted.dev_micro_f1:.3f} on generated dev sentences, "
               f"threshold {fitted.weights.threshold:.2f}")  # fmt: skip
