"""`r1core rules`: check rule files, and see which rule stops a text where. Needs no model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from r1core.api import Reason, UserError

_FILES = click.Path(path_type=Path, dir_okay=False)


@click.group()
def rules() -> None:
    """Check clinical rules and try them on a text."""


@rules.command()
@click.argument("files", nargs=-1, required=True, type=_FILES)
@click.option("--json", "as_json", is_flag=True, help="Print problems as JSON.")
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Report every problem of the rule FILES; exit code 2 when there is one."""
    from r1core_clinical_rules.reading import read

    book, problems = read(files)
    if as_json:
        found = [dataclasses.asdict(p) for p in problems]
        click.echo(json.dumps({"drugs": len(book.drugs), "rules": len(book.rules), "problems": found}, indent=2))
    else:
        for p in problems:
            click.echo(f"{p.severity}: {p.where}: found {p.found}, expected {p.expected}. Fix: {p.fix}", err=True)
        if not problems:
            names = len(book.forbidden(book.rules))
            click.echo(f"{len(book.rules)} rules over {len(book.drugs)} drugs, {names} names that can be forbidden")
    if any(p.severity == "error" for p in problems):
        ctx.exit(2)


@rules.command()
@click.argument("file", type=_FILES)
@click.argument("text")
@click.option("--facts", type=_FILES, help='JSON file such as {"medications": ["warfarin"]}.')
@click.option(
    "--on-unknown",
    type=click.Choice(["block", "warn", "skip"]),
    default="block",
    show_default=True,
    help="What rules with a condition do without --facts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the interventions as JSON.")
def test(file: Path, text: str, facts: Path | None, on_unknown: Any, as_json: bool) -> None:
    """Show which rule of FILE would stop TEXT, and where."""
    from r1core_clinical_rules.reading import load
    from r1core_clinical_rules.rulebook import medications_of

    book = load([file])
    medications = medications_of(_read_facts(facts), str(facts))
    applicable = book.applicable(medications, on_unknown)
    found = interventions(book.forbidden(applicable), text)
    if as_json:
        rows = [{"at": at, "reasons": [dataclasses.asdict(r) for r in why]} for at, why in found]
        click.echo(json.dumps({"applicable": [r.id for r in applicable], "interventions": rows}, indent=2))
        return
    if medications is None and on_unknown == "warn":
        left_out = len(book.rules) - len(applicable)
        click.echo(f"warning: medications unknown, {left_out} rules not applied", err=True)
    click.echo(f"{len(applicable)} of {len(book.rules)} rules apply")
    for at, why in found:
        place = "at the end" if at == len(text) else f"at character {at} ({text[at]!r})"
        for reason in why:
            click.echo(f"{place}: {reason.rule} ({reason.severity}) forbids {reason.text}. {reason.citation}")
    if not found:
        click.echo("no rule intervenes")


def interventions(names: dict[str, list[Reason]], text: str) -> list[tuple[int, tuple[Reason, ...]]]:
    """Return where the text would be stopped (character offset, its length for the end) and why.

    After each stop the search goes on behind the stopped character as if a new text began there.
    """
    from r1core_clinical_rules.automaton import ForbiddenNames

    if not names:
        return []
    automaton = ForbiddenNames(names)
    found: list[tuple[int, tuple[Reason, ...]]] = []
    state = automaton.start
    for at, character in enumerate(text):
        data = character.encode("utf-8", "surrogatepass")
        why = automaton.explain(state, data)
        if why:
            found.append((at, why))
            state = automaton.start
            continue
        for byte in data:
            state = int(automaton.row(state)[byte])
    if not automaton.may_end(state):
        found.append((len(text), automaton.explain(state, b"")))
    return found


def _read_facts(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no readable JSON ({error})", fix='write {"medications": ["warfarin"]}') from error
    if not isinstance(facts, dict):
        raise UserError(f"{path}: found a {type(facts).__name__}, expected a JSON object of facts")
    return facts
