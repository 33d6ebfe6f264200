"""`r1core dp`: look at ledgers, reckon noise and epsilon beforehand (these need no model), and audit a run."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from r1core.api import Host, UserError
from r1core_dp.accounting import Phase, epsilon_of, noise_for, of_group, pld
from r1core_dp.ledger import folder_of, read_ledger, runs_of, spending

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where the ledgers stand.")


@click.group()
def dp() -> None:
    """Show what was spent on a data set, reckon what a training would cost, and audit one."""


@dp.command()
@click.argument("dataset_id", required=False)
@_FOLDER
@_JSON
def ledger(dataset_id: str | None, folder: Path | None, as_json: bool) -> None:
    """Show the ledger of DATASET_ID, or name all ledgers. A ledger that was changed is refused."""
    place = folder_of(folder)
    if dataset_id is None:
        names = sorted(path.stem for path in place.glob("*.jsonl"))
        click.echo(json.dumps(names) if as_json else "\n".join(names) or f"no ledgers in {place}")
        return
    path = place / f"{dataset_id}.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such ledger", fix="r1core dp ledger names those that there are")
    declared, lines, hashes = read_ledger(path)
    spent = spending(lines)
    both = find_spec("opacus") is not None
    epsilon = epsilon_of(spent, declared.delta).value if both else pld(spent, declared.delta)
    runs = [
        {"run": run, "where": plan["where"], "noise_multiplier": plan["noise_multiplier"],
         "sample_rate": plan["sample_rate"], "steps_counted": steps}
        for run, plan, steps in runs_of(lines)
    ]  # fmt: skip
    if as_json:
        told = {"dataset_id": dataset_id, "source": declared.source, "unit": declared.unit, "delta": declared.delta}
        told |= {"budget": declared.budget, "epsilon": epsilon, "head": hashes[-1], "runs": runs}
        click.echo(json.dumps(told, indent=2))
        return
    per = f"delta {declared.delta:.4g}, for each {declared.unit}" + ", by PLD alone" * (not both)
    click.echo(f"{dataset_id}: epsilon {epsilon:.4f} of {declared.budget:g} spent ({per})")
    for run in runs:
        click.echo(
            f"  {run['where']}: {run['steps_counted']} steps, noise multiplier {run['noise_multiplier']:.4g}, "
            f"sampling rate {run['sample_rate']:.4g}"
        )
    click.echo(f"  head {hashes[-1]}")


@dp.command()
@click.option("--units", type=click.IntRange(2), required=True, help="Units (patients) of the training part.")
@click.option("--batch-size", type=click.IntRange(1), required=True, help="Units of a step, on average.")
@click.option("--steps", type=click.IntRange(1), required=True, help="Optimiser steps.")
@click.option("--epsilon", type=click.FloatRange(0, min_open=True), default=3.0, show_default=True)
@click.option("--delta", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Default: units^-1.1.")
@click.option(
    "--records", type=click.IntRange(1), default=1, show_default=True, help="Of a patient, each its own unit."
)
@_JSON
def noise(
    units: int, batch_size: int, steps: int, epsilon: float, delta: float | None, records: int, as_json: bool
) -> None:
    """Tell the noise that a training needs, and what it then costs by each accountant."""
    chance, rate = units**-1.1 if delta is None else delta, min(1.0, batch_size / units)
    multiplier = noise_for(epsilon, chance, rate, steps)
    planned = [Phase(multiplier, rate, steps)]
    found = epsilon_of(planned, chance)
    told = {"noise_multiplier": multiplier, "sample_rate": rate, "steps": steps, "delta": chance}
    told |= {"epsilon_prv": found.prv, "epsilon_pld": found.pld}
    if records > 1:
        told["group_epsilon"] = of_group(planned, chance, records)
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        click.echo(f"{name:<18}{value:.5g}")


@dp.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--canaries", type=click.IntRange(16), help="How many, half of which enter (default: 1,000, or the run's units)."
)
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="Plugins in a file.")
@_JSON
@click.pass_obj
def audit(host: Host, run: Path, canaries: int | None, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Train the model of RUN once more, on canaries alone, and see what gives them away. Spends nothing.

    The result is noted in the run's privacy card. Exit 1 where it refutes what the card claims.
    """
    from r1core_dp.audit import CANARIES, audit, claimed
    from r1core_dp.ledger import CARD

    card = claimed(run).card
    wanted = min(CANARIES, int(card["units"])) if canaries is None else canaries
    with click.progressbar(length=int(card["steps"]), label="auditing", file=sys.stderr) as bar:
        found = audit(host, run, wanted, lambda done, total: bar.update(done - bar.pos), plugins)
    host.keep(run, CARD, {**card, "audit": found})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(
            f"epsilon is at least {found['epsilon_at_least']} ({found['right']} of {found['guesses']} guesses on "
            f"{found['canaries']} canaries were right, 95 % confidence), and {found['epsilon_claimed']:.4g} is claimed"
        )
        click.echo(f"noise multiplier {found['noise_measured']:.5g} measured, {found['noise_multiplier']:.5g} stated")
        click.echo(f"a drawn unit adds {found['unit_adds']:.3f} clipping norms, sampling p = {found['sampling_p']:.2g}")
        for flag in found["flags"]:
            click.echo(f"VIOLATED: {flag}")
        if not found["flags"]:
            click.echo("nothing speaks against the claim")
    raise SystemExit(1 if found["flags"] else 0)
