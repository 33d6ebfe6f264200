"""`r1core numeric`: read numbers, run a program over them, check an answer for numbers without provenance. No model."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from r1core.api import UserError

if TYPE_CHECKING:
    from r1core_numeric.execute import Abstained, Result
    from r1core_numeric.reader import Reading
    from r1core_numeric.values import Number

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _how(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how numbers are read."""
    options: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
        click.option("--locale", type=click.Choice(["en", "de"]), default="en", show_default=True,
                     help="en: 1,234.56; de: 1.234,56."),
        click.option("--parentheses", type=click.Choice(["negative", "aside"]), default="negative", show_default=True,
                     help="What they say around a number in running text."),
        click.option("--caption", default="", help='What stands above a table, such as "(in thousands)".'),
        _JSON,
    )  # fmt: skip
    for option in options:
        command = option(command)
    return command


@click.group()
def numeric() -> None:
    """Read numbers exactly, run programs over them, and check answers for numbers without provenance."""


@numeric.command()
@click.argument("file", type=_FILE)
@_how
def read(file: Path, locale: str, parentheses: str, caption: str, as_json: bool) -> None:
    """Print every number of FILE (text, or a table as .csv; - reads standard input), with unit, value and place.

    The first column is the number's slot, at which programs point.
    """
    from r1core_numeric.values import to_json

    slots = _slots([file], _reading(locale, parentheses), caption)
    if as_json:
        click.echo(json.dumps([to_json(slot) for slot in slots], indent=2, ensure_ascii=False))
        return
    for at, slot in enumerate(slots):
        click.echo(f"{at}\t{_said(slot)}")
    quantities = sum(slot.kind == "quantity" for slot in slots)
    click.echo(f"{quantities} quantities, {len(slots) - quantities} other", err=True)


@numeric.command()
@click.argument("program", type=_FILE)
@click.option("--text", "texts", multiple=True, type=_FILE, help="Text whose numbers are slots; before any table.")
@click.option("--table", "tables", multiple=True, type=_FILE, help="CSV file whose numbers are slots.")
@_how
@click.pass_context
def run(
    ctx: click.Context,
    program: Path,
    texts: tuple[Path, ...],
    tables: tuple[Path, ...],
    locale: str,
    parentheses: str,
    caption: str,
    as_json: bool,
) -> None:
    """Run PROGRAM (JSON: one, or a list) over the numbers of texts and a table; exit code 1 where one abstains."""
    from r1core_numeric.execute import Result, execute, result_to_json
    from r1core_numeric.programs import program_from_json

    if len(tables) > 1:
        raise UserError(f"found {len(tables)} tables, expected one", fix="columns and rows count in one table")
    slots = _slots([*texts, *tables], _reading(locale, parentheses), caption)
    given = _json(program)
    listed = given if isinstance(given, list) else [given]
    programs = [program_from_json(one, f"{program}[{at}]") for at, one in enumerate(listed)]
    done = [execute(one, slots) for one in programs]
    if as_json:
        click.echo(json.dumps([result_to_json(one, slots) for one in done], indent=2, ensure_ascii=False))
    else:
        for one in done:
            _print(one, slots)
    if not all(isinstance(one, Result) for one in done):
        ctx.exit(1)


@numeric.command()
@click.argument("answer", type=_FILE)
@click.option("--against", multiple=True, required=True, type=_FILE, help="Text or CSV that the answer rests on.")
@click.option("--program", "program_file", type=_FILE, help="JSON of programs whose results the answer may state.")
@click.option("--absolute", is_flag=True, help="A negative number may be stated without its sign.")
@_how
@click.pass_context
def check(
    ctx: click.Context,
    answer: Path,
    against: tuple[Path, ...],
    program_file: Path | None,
    absolute: bool,
    locale: str,
    parentheses: str,
    caption: str,
    as_json: bool,
) -> None:
    """Say where each number of ANSWER comes from; exit code 1 where one has no provenance."""
    from r1core_numeric.claims import allowed, provenance
    from r1core_numeric.execute import Result, execute
    from r1core_numeric.programs import program_from_json
    from r1core_numeric.values import to_json

    reading = _reading(locale, parentheses)
    slots = _slots(list(against), reading, caption)
    given = [] if program_file is None else _json(program_file)
    listed = given if isinstance(given, list) else [given]
    done = [execute(program_from_json(one, f"{program_file}[{at}]"), slots) for at, one in enumerate(listed)]
    results = [one for one in done if isinstance(one, Result)]
    found = provenance(_content(answer), allowed(slots, results, absolute=absolute), reading)
    lacking = [origin for origin in found if not origin.sources]
    if as_json:
        rows = [{**to_json(origin.number), "sources": list(origin.sources)} for origin in found]
        click.echo(json.dumps({"numbers": rows, "unsupported": len(lacking)}, indent=2, ensure_ascii=False))
    else:
        for origin in found:
            from_where = "; ".join(origin.sources) or "NO PROVENANCE"
            click.echo(f"{origin.number.start}-{origin.number.end}\t{origin.number.text!r}\t{from_where}")
        click.echo(f"{len(found)} numbers, {len(lacking)} without provenance")
    if lacking:
        ctx.exit(1)


def _reading(locale: str, parentheses: str) -> Reading:
    from r1core_numeric.config import NumericConfig

    return NumericConfig.model_validate({"locale": locale, "parentheses": parentheses}).reading


def _slots(files: list[Path], reading: Reading, caption: str) -> list[Number]:
    """The numbers of texts and tables, in the order of the files."""
    from r1core_numeric.reader import read as read_text
    from r1core_numeric.tables import read_table

    found: list[Number] = []
    for file in files:
        content = _content(file)
        if file.suffix.lower() == ".csv":
            found += read_table(list(csv.reader(io.StringIO(content, newline=""))), reading, caption=caption)
        else:
            found += read_text(content, reading)
    return found


def _content(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: no UTF-8 text ({error})", fix="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error


def _json(file: Path) -> Any:
    try:
        return json.loads(_content(file))
    except ValueError as error:
        raise UserError(f"{file}: no JSON ({error})", fix='write {"op": "add", "args": [{"slot": 0}, …]}') from error


def _said(number: Number) -> str:
    """A number in one line."""
    value = f"{number.value:f} {number.unit}" if number.amount is not None else number.kind
    note = f" ({number.note})" if number.note else ""
    kind = "" if number.kind in ("quantity", value) else f"{number.kind} "
    return f"{number.text!r}\t{kind}{value}\t{number.place()}{note}"


def _print(done: Result | Abstained, slots: list[Number]) -> None:
    from r1core_numeric.execute import Abstained

    if isinstance(done, Abstained):
        click.echo(f"{done.name}: abstains: {done.reason}")
        return
    exact = "exact" if done.exact else "to 50 significant digits"
    click.echo(f"{done.name} = {done.written.text}  ({exact}: {_short(str(done.value))} {done.unit})")
    for at in done.slots:
        click.echo(f"  [{at}] {slots[at].text!r} at {slots[at].place()}")
    for step in done.steps:
        click.echo(f"  {step.op}({', '.join(step.operands)}) = {_short(step.value)}")
    for assumed in done.assumptions:
        click.echo(f"  assumed: {assumed}")


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}..."
