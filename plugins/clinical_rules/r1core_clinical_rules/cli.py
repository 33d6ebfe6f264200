"""`r1core rules`: check, test and explain rule files, audit a text, warn of orders. Needs no model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from r1core.api import Problem, Reason, UserError

if TYPE_CHECKING:
    from r1core_clinical_rules.engine import Engine
    from r1core_clinical_rules.facts import Patient
    from r1core_clinical_rules.interactions import InteractionWarning
    from r1core_clinical_rules.outcome import Outcome

_FILES = click.Path(path_type=Path, dir_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _asked(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every verb that asks for one patient."""
    for option in (
        click.option(
            "--facts", type=_FILES, help='JSON file such as {"medications": ["warfarin"]}; without it: unknown.'
        ),
        click.option(
            "--on-unknown",
            type=click.Choice(["block", "warn", "skip"]),
            default="block",
            show_default=True,
            help="What a rule does where its condition cannot be decided.",
        ),
        click.option("--unverified", is_flag=True, help="Use rules of `status: unverified` too."),
        _JSON,
    ):
        command = option(command)
    return command


@click.group()
def rules() -> None:
    """Check clinical rules, test and explain them, audit a text, and warn of orders in one."""


@rules.command()
@click.argument("files", nargs=-1, required=True, type=_FILES)
@_JSON
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Report every problem of the rule FILES; exit code 2 when there is one."""
    from r1core_clinical_rules.reading import read

    book, problems = read(files)
    if as_json:
        found = [dataclasses.asdict(p) for p in problems]
        click.echo(json.dumps({"drugs": len(book.drugs), "rules": len(book.rules), "problems": found}, indent=2))
    else:
        _print(problems)
        if not problems:
            names = {name for rule in book.rules for name, _ in book.reasons(rule)}
            click.echo(
                f"{len(book.rules)} rules over {len(book.drugs)} drugs, {len(names)} names that can be forbidden"
            )
    if any(p.severity == "error" for p in problems):
        ctx.exit(2)


@rules.command()
@click.argument("files", nargs=-1, required=True, type=_FILES)
@click.option("--today", help="Day (YYYY-MM-DD) at which rules have to be valid.")
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings too.")
@_JSON
@click.pass_context
def lint(ctx: click.Context, files: tuple[Path, ...], today: str | None, strict: bool, as_json: bool) -> None:
    """Find contradictions, conditions that cannot hold, shadowed rules and weak citations; exit code 1 for an error."""
    import datetime

    from r1core_clinical_rules.lint import lint as lint_book
    from r1core_clinical_rules.reading import load

    try:
        day = None if today is None else datetime.date.fromisoformat(today)
    except ValueError as error:
        raise UserError(f"--today {today!r} is no day", fix="write YYYY-MM-DD") from error
    problems = lint_book(load(files), day)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(p) for p in problems], indent=2))
    else:
        _print(problems)
        errors = sum(p.severity == "error" for p in problems)
        click.echo(f"{errors} errors, {len(problems) - errors} warnings")
    if any(strict or p.severity == "error" for p in problems):
        ctx.exit(1)


@rules.command()
@click.argument("files", nargs=-1, required=True, type=_FILES)
@_JSON
@click.pass_context
def test(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Run the cases written beside each rule of FILES; exit code 1 when one fails."""
    from r1core_clinical_rules.cases import run_cases
    from r1core_clinical_rules.reading import load

    ran, failed, bare = run_cases(load(files))
    if as_json:
        found = [dataclasses.asdict(f) for f in failed]
        click.echo(json.dumps({"cases": ran, "failed": found, "without_cases": bare}, indent=2))
    else:
        for failure in failed:
            click.echo(f"failed: {failure}", err=True)
        click.echo(f"{ran} cases, {len(failed)} failed; {len(bare)} rules without cases")
    if failed:
        ctx.exit(1)


@rules.command()
@click.argument("file", type=_FILES)
@_asked
@click.option("--every", is_flag=True, help="Also the rules that do not apply.")
def explain(file: Path, facts: Path | None, on_unknown: str, unverified: bool, as_json: bool, every: bool) -> None:
    """Say what the rules of FILE conclude for a patient, with a proof for each rule that applies."""
    engine, patient = _engine(file, on_unknown, unverified), _patient(facts)
    outcome = engine.evaluate(patient)
    proofs = engine.explain(patient) if every else outcome.proofs
    if as_json:
        said = {**outcome.as_dict(), "proofs": [proof.as_dict() for proof in proofs]}
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
        return
    for proof in proofs:
        click.echo(f"{proof}\n")
    _print_outcome(outcome, len(engine.rules))


@rules.command()
@click.argument("file", type=_FILES)
@click.argument("text")
@_asked
@click.pass_context
def audit(
    ctx: click.Context, file: Path, text: str, facts: Path | None, on_unknown: str, unverified: bool, as_json: bool
) -> None:
    """Recheck a finished TEXT against FILE for a patient; exit code 1 when something is found."""
    from r1core_clinical_rules.audit import check_text

    outcome = _engine(file, on_unknown, unverified).evaluate(_patient(facts))
    found = check_text(outcome, text)
    if as_json:
        said = {"findings": [f.as_dict() for f in found], "warnings": list(outcome.warnings)}
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        for f in found:
            click.echo(f"{f.kind} at {f.start}-{f.end} {f.text!r}: {', '.join(f.rules)}. {f.why}")
        for warning in outcome.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{len(found)} findings")
    if found:
        ctx.exit(1)


@rules.command()
@click.argument("file", type=_FILES)
@click.argument("text")
@_asked
def trace(file: Path, text: str, facts: Path | None, on_unknown: str, unverified: bool, as_json: bool) -> None:
    """Show where generation of TEXT would be stopped by a rule of FILE."""
    engine = _engine(file, on_unknown, unverified)
    outcome = engine.evaluate(_patient(facts))
    found = interventions(outcome, text)
    if as_json:
        rows = [{"at": at, "reasons": [dataclasses.asdict(r) for r in why]} for at, why in found]
        applicable = [rule.id for rule, _ in outcome.applied]
        click.echo(json.dumps({"applicable": applicable, "interventions": rows}, indent=2))
        return
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{len(outcome.applied)} of {len(engine.rules)} rules apply")
    for at, why in found:
        place = "at the end" if at == len(text) else f"at character {at} ({text[at]!r})"
        for reason in why:
            click.echo(f"{place}: {reason.rule} ({reason.severity}): {reason.text}. {reason.citation}")
    if not found:
        click.echo("no rule intervenes")


@rules.command()
@click.argument("file", type=_FILES)
@click.argument("text", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--facts", type=_FILES, help="JSON file with what else is known of the patient.")
@click.option(
    "--names", multiple=True, type=_FILES, help="List of other drugs, so that none is taken for a listed one."
)
@click.option("--unverified", is_flag=True, help="Use rules of `status: unverified` too.")
@_JSON
@click.pass_context
def warn(
    ctx: click.Context,
    file: Path,
    text: TextIO,
    facts: Path | None,
    names: tuple[Path, ...],
    unverified: bool,
    as_json: bool,
) -> None:
    """Read the orders of one patient in TEXT (a file, or standard input) and warn of what FILE says of them together.

    Exit code 1 when there is a warning, or a word in the place of a drug that no list knows. Finding nothing is no
    approval.
    """
    from r1core_clinical_rules.interactions import Warner
    from r1core_clinical_rules.medications import Recogniser, other_drugs
    from r1core_clinical_rules.orders import read_orders, unread

    engine = _engine(file, "block", unverified)
    warner = Warner(engine, Recogniser(engine.book, other_drugs(names)))
    try:
        note = text.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{text.name}: no UTF-8 text ({error})", fix="save it as UTF-8") from error
    orders, unknown = read_orders(warner.recogniser, note), unread(warner.recogniser, note)
    warnings = warner.judge([(0, order) for order in orders], _patient(facts))
    if as_json:
        said = {
            "orders": [o.as_dict() for o in orders],
            "unread": [word.as_dict() for word in unknown],
            "warnings": [w.as_dict() for w in warnings],
        }
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        for order in orders:
            if not order.mention.certain:
                place = f"{order.mention.start}-{order.mention.end}"
                click.echo(f"uncertain: {order.mention} at {place} ({order.status})", err=True)
        for word in unknown:
            at = f"{word.start}-{word.end}"
            click.echo(f"not recognised: {word.text!r} at {at} (in the place of a drug; no rule sees it)", err=True)
        _print_warnings(warnings)
    if warnings or unknown:
        ctx.exit(1)


@rules.command()
def schema() -> None:
    """Print the JSON Schema of a rule file."""
    click.echo(schema_text(), nl=False)


@rules.command()
@click.argument("bundle", type=_FILES)
@click.option(
    "--complete",
    multiple=True,
    type=click.Choice(["medications", "allergies", "conditions"]),
    help="A list that you know to be whole in this bundle; without it what is not there is unknown.",
)
def fhir(bundle: Path, complete: tuple[str, ...]) -> None:
    """Print the facts in a FHIR R4 BUNDLE (JSON), to be given as --facts; what was left out goes to stderr."""
    from r1core_clinical_rules.fhir import facts_from_bundle

    facts, notes = facts_from_bundle(_json(bundle), complete)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def schema_text() -> str:
    """The JSON Schema of a rule file, as it ships in `rule_file.schema.json`."""
    from r1core_clinical_rules.schema import RuleFile

    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RuleFile.model_json_schema()}
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def interventions(outcome: Outcome, text: str) -> list[tuple[int, tuple[Reason, ...]]]:
    """Return where the text would be stopped (character offset, its length for the end) and why.

    After each stop the search goes on behind the stopped character as if a new text began there. A required phrase that
    is missing stops the end.
    """
    from r1core_clinical_rules.automaton import ForbiddenNames
    from r1core_clinical_rules.phrases import RequiredPhrases

    found: list[tuple[int, tuple[Reason, ...]]] = []
    if outcome.forbidden:
        automaton = ForbiddenNames(outcome.forbidden)
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
    if outcome.phrases:
        required = RequiredPhrases(outcome.phrases)
        state = required.start
        for byte in text.encode("utf-8", "surrogatepass"):
            state = int(required.row(state)[byte])
        if not required.may_end(state):
            found.append((len(text), required.explain(state, b"")))
    return found


def _engine(file: Path, on_unknown: str, unverified: bool) -> Engine:
    from r1core_clinical_rules.engine import Engine
    from r1core_clinical_rules.reading import load
    from r1core_clinical_rules.schema import Policy

    return Engine(load([file]), Policy.model_validate({"on_unknown": on_unknown, "unverified": unverified}))


def _patient(path: Path | None) -> Patient:
    from r1core_clinical_rules.facts import patient_from

    facts: Any = None if path is None else _json(path)
    if facts is not None and not isinstance(facts, Mapping):
        raise UserError(f"{path}: found a {type(facts).__name__}, expected a JSON object of facts")
    return patient_from(facts, str(path))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no readable JSON ({error})", fix='write {"medications": ["warfarin"]}') from error


def _print(problems: Sequence[Problem]) -> None:
    for p in problems:
        click.echo(f"{p.severity}: {p.where}: found {p.found}, expected {p.expected}. Fix: {p.fix}", err=True)


def _print_warnings(warnings: Sequence[InteractionWarning]) -> None:
    for warning in warnings:
        sure = "" if warning.certain else ", uncertain"
        click.echo(f"{warning.severity}{sure}: {' with '.join(one.name for one in warning.medications)}")
        for one in warning.medications:
            places = ", ".join(f"{o.mention.text!r} at {o.mention.start}-{o.mention.end}" for _, o in one.orders)
            click.echo(f"  {one.reading}{' (asked about)' if one.asked else ''}: {places or 'in the facts'}")
        for rule in warning.rules:
            click.echo(f"  {rule.rule} ({rule.severity}): {rule.title}. {rule.citation}")
            for check in rule.checks:
                click.echo(f"    must be checked: {check}")
    click.echo(f"{len(warnings)} warnings")


def _print_outcome(outcome: Outcome, count: int) -> None:
    click.echo(f"{len(outcome.applied)} of {count} rules apply")
    if outcome.forbidden_drugs:
        click.echo(f"forbidden: {', '.join(outcome.forbidden_drugs)} ({len(outcome.forbidden)} names)")
    for cap in outcome.caps:
        route = f" {cap.route}" if cap.route else ""
        amount = cap.amount or "unknown, since the weight is: no dose can be allowed"
        click.echo(f"cap: {cap.drug}{route} per {cap.per}: {amount} ({', '.join(cap.rules)})")
    for phrase in outcome.phrases:
        click.echo(f"must say: {' or '.join(map(repr, phrase.any))} ({', '.join(r.rule for r in phrase.reasons)})")
    for one in outcome.checks:
        click.echo(f"must be checked: {one.text} ({one.reason.rule})")
    for overridden in outcome.overridden:
        click.echo(f"overridden: {overridden.rule} by {overridden.by}: {overridden.reason}")
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)
