"""`r1core var`: figures for today, a backtest, the contributions of positions, and the validation report."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from r1core.api import UserError

if TYPE_CHECKING:
    from r1core_var.csv_series import ReturnSeries

_FILE = click.Path(exists=True, path_type=Path, dir_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NAN = click.option(
    "--nan",
    "nan_policy",
    type=click.Choice(["refuse", "drop"]),
    default="refuse",
    show_default=True,
    help="Empty cells.",
)
_PRICES = click.option("--prices", is_flag=True, help="The column holds prices, not returns.")
_PERCENT = click.option("--percent", is_flag=True, help="Returns are in percent: 1.5 means 1.5 %.")
_LEVEL = click.option("--level", type=float, default=0.99, show_default=True, help="Confidence, between 0.5 and 1.")
_MODEL = click.option("--model", default="fhs-combined", show_default=True, help="See `r1core var models`.")
_WINDOW = click.option(
    "--window", type=int, default=1000, show_default=True, help="Days that each forecast is made from."
)
_REFIT = click.option(
    "--refit", type=int, default=20, show_default=True, help="Days that a t, skewed t or raw Pareto fit is kept."
)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of simulations.")


def _reading(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every verb that reads one series."""
    for option in (
        _NAN,
        click.option("--date-format", default="%Y-%m-%d", show_default=True, help="Of the column date."),
        _PERCENT,
        _PRICES,
        click.option("--column", help="Which column, where there are several of numbers."),
        click.argument("file", type=_FILE),
    ):
        command = option(command)
    return command


@click.group()
def var() -> None:
    """Estimate value-at-risk and expected shortfall, backtest a model, and write its validation report.

    Losses are positive in every figure. FILE is a CSV with a header: a column of daily simple returns as fractions (a
    loss is negative in it), and a column date if there is one.
    """


@var.command()
@_reading
@_MODEL
@_LEVEL
@click.option("--horizon", type=int, default=1, show_default=True, help="Days.")
@click.option("--window", type=int, help="Last returns that are used; without it 1000, or all where there are fewer.")
@click.option("--scaling", type=click.Choice(["simulation", "sqrt", "overlapping"]), help="How more days are reached.")
@_SEED
@_JSON
def estimate(
    file: Path,
    model: str,
    level: float,
    horizon: int,
    window: int | None,
    scaling: Any,
    seed: int,
    as_json: bool,
    **reading: Any,
) -> None:
    """Print value-at-risk and expected shortfall of the next days from the returns in FILE."""
    from r1core_var.models import estimate as estimate_risk

    data = _read(file, **reading)
    risk = estimate_risk(
        data.returns, model=model, level=level, horizon=horizon, window=window, scaling=scaling, seed=seed
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(risk), indent=2))
        return
    days = "1 day" if risk.horizon == 1 else f"{risk.horizon} days"
    click.echo(f"value-at-risk      {risk.value_at_risk:.4%} of the position, {days}, confidence {risk.level:g}")
    click.echo(f"expected shortfall {risk.expected_shortfall:.4%}")
    click.echo(risk.method)


@var.command()
@_reading
@_MODEL
@_LEVEL
@_WINDOW
@_REFIT
@click.option("--strict", is_flag=True, help="Exit code 1 when a test rejects at 5 %.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write losses, forecasts and exceedances as SVG."
)
@_SEED
@_JSON
@click.pass_context
def backtest(
    ctx: click.Context,
    file: Path, model: str, level: float, window: int, refit: int, strict: bool, plot: Path | None, seed: int,
    as_json: bool,
    **reading: Any,
) -> None:  # fmt: skip
    """Forecast each day of FILE from the days before it, and test the forecasts against what happened."""
    from r1core_var.backtests.suite import backtest as run_backtest
    from r1core_var.rolling import forecast
    from r1core_var.svg import exceedance_plot
    from r1core_var.validation import verdict_words

    if plot is not None:
        _writable(plot, "--plot", (".svg",))
    data = _read(file, **reading)
    forecasts = forecast(data.returns, model=model, level=level, window=window, refit=refit)
    found = run_backtest(forecasts, seed=seed)
    if plot is not None:
        _write(plot, exceedance_plot(forecasts, None if data.dates is None else data.dates[forecasts.first :]))
    if as_json:
        told = {"model": model, "level": level, "window": window, **dataclasses.asdict(found)}
        click.echo(json.dumps(_finite(told), indent=2))
    else:
        click.echo(f"{model}, confidence {level:g}, window {window}: {found.days} days forecast, losses positive")
        click.echo(
            f"exceedances {found.exceedances}, expected {found.expected:.1f}; mean pinball {100 * found.pinball:.5f} %"
        )
        for one in found.verdicts:
            p = "" if one.p_value != one.p_value else f"p {one.p_value:.4f}"
            click.echo(f"  {one.test:28} {p:10} {verdict_words(one)}")
        light = found.light
        click.echo(f"traffic light {light.zone}: {light.exceedances} exceedances in the last {light.days} days")
    if strict and found.rejections():
        ctx.exit(1)


@var.command()
@_reading
@_MODEL
@_LEVEL
@_WINDOW
@_REFIT
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="report.html or report.md")
@_SEED
@click.pass_context
def report(
    ctx: click.Context, file: Path, model: str, level: float, window: int, refit: int, out: Path, seed: int,
    **reading: Any,
) -> None:  # fmt: skip
    """Write the validation report of a model on FILE, as HTML or Markdown by the ending of --out."""
    from r1core_var.document import to_html, to_markdown
    from r1core_var.validation import validation_report

    writers = {".html": to_html, ".md": to_markdown}
    _writable(out, "--out", tuple(writers))
    data = _read(file, **reading)
    title, sections = validation_report(
        data, model=model, level=level, window=window, refit=refit, seed=seed, command=_typed(ctx)
    )
    _write(out, writers[out.suffix.lower()](title, sections))
    click.echo(f"{out}: {sections[0].paragraphs[0]}")


@var.command()
@click.argument("file", type=_FILE)
@click.option("--weights", required=True, help="Positions, as NAME=WEIGHT,NAME=WEIGHT; names are columns of FILE.")
@click.option("--method", type=click.Choice(["historical", "normal"]), default="historical", show_default=True)
@click.option("--measure", type=click.Choice(["var", "es"]), default="es", show_default=True)
@click.option(
    "--neighbours",
    type=click.IntRange(min=0),
    default=0,
    help="Scenarios on either side over which the quantile of --method historical --measure var is averaged.",
)
@_LEVEL
@_PRICES
@_PERCENT
@_NAN
@_JSON
def decompose(
    file: Path, weights: str, method: str, measure: str, neighbours: int, level: float, prices: bool, percent: bool,
    nan_policy: Any, as_json: bool,
) -> None:  # fmt: skip
    """Print what each position contributes to the one-day figure of a portfolio; components sum to the total."""
    import numpy as np

    from r1core_var import decomposition
    from r1core_var.csv_series import read_table

    if neighbours and (method, measure) != ("historical", "var"):
        fix = "say --method historical --measure var, or leave it out"
        raise UserError("--neighbours: only a historical quantile is averaged", fix=fix)
    held = _weights(weights)
    names, returns, dropped = read_table(
        file, columns=list(held), kind="prices" if prices else "returns", nan_policy=nan_policy, percent=percent
    )
    positions = list(held.values())
    _told(dropped)
    if abs(sum(positions) - 1) > 1e-6:
        click.echo(f"weights sum to {sum(positions):g}, not to 1; figures are of them as they are", err=True)
    full: decomposition.Measure = "value_at_risk" if measure == "var" else "expected_shortfall"
    if method == "historical":
        found = decomposition.historical(positions, returns, level, full, neighbours=neighbours)
    else:
        mean, covariance = returns.mean(axis=0), np.atleast_2d(np.cov(returns.T))
        found = decomposition.parametric(positions, mean, covariance, level, full)
    if as_json:
        told = {"measure": full, "level": level, "method": found.method, "total": found.total}
        parts = ("marginal", "component", "incremental")
        rows = [
            {"name": name, "weight": positions[at], **{p: float(getattr(found, p)[at]) for p in parts}}
            for at, name in enumerate(names)
        ]
        click.echo(json.dumps({**told, "positions": rows}, indent=2))
        return
    click.echo(
        f"{full.replace('_', ' ')} {found.total:.4%}, confidence {level:g}, 1 day ({found.method}); losses positive"
    )
    click.echo(f"{'position':12} {'weight':>9} {'marginal':>10} {'component':>10} {'incremental':>12}")
    for at, name in enumerate(names):
        click.echo(
            f"{name:12} {positions[at]:9.4f} {found.marginal[at]:10.4%} {found.component[at]:10.4%} "
            f"{found.incremental[at]:12.4%}"
        )
    click.echo(f"{'sum':12} {sum(positions):9.4f} {'':10} {found.component.sum():10.4%}")


@var.command()
@_JSON
def models(as_json: bool) -> None:
    """List the models."""
    from r1core_var.rolling import SUMMARIES

    click.echo(
        json.dumps(dict(SUMMARIES), indent=2) if as_json else "\n".join(f"{n:14} {s}" for n, s in SUMMARIES.items())
    )


def _read(
    file: Path, *, column: str | None, prices: bool, percent: bool, nan_policy: Any, date_format: str
) -> ReturnSeries:
    from r1core_var.csv_series import read_returns

    data = read_returns(
        file,
        column=column,
        kind="prices" if prices else "returns",
        percent=percent,
        nan_policy=nan_policy,
        date_format=date_format,
    )
    _told(data.dropped)
    return data


def _told(dropped: int) -> None:
    if dropped:
        click.echo(f"left out {dropped} rows without a number", err=True)


def _weights(text: str) -> dict[str, float]:
    fix, found = "write AAPL=0.6,XOM=0.4", {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        name = name.strip()
        try:
            weight = float(value)
        except ValueError as error:
            raise UserError(f"--weights: {part!r} is no NAME=WEIGHT", fix=fix) from error
        if not name or not math.isfinite(weight):
            raise UserError(f"--weights: {part!r} is no NAME=WEIGHT", fix=fix)
        if name in found:
            raise UserError(f"--weights: {name} stands there twice", fix="add its weights up")
        found[name] = weight
    if not any(found.values()):
        raise UserError("--weights: every weight is 0", fix=fix)
    return found


def _typed(ctx: click.Context) -> str:
    """The command with every option that counts for the figures, as it can be typed again."""
    words = ["r1core", "var", str(ctx.info_name), str(ctx.params["file"])]
    for option in ctx.command.params:
        value = ctx.params.get(str(option.name))
        if isinstance(option, click.Option) and option.name != "out" and value is not None and value is not False:
            words += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return shlex.join(words)


def _writable(path: Path, option: str, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written before anything is computed."""
    if path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: unknown ending {path.suffix!r}", fix=f"use {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}", fix="name a folder that there is")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})", fix="name a folder that there is") from error


def _finite(value: Any) -> Any:
    """The same with NaN as null, which JSON has."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value != value else value
