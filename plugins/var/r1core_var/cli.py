"""`r1core var`: figures for today, a backtest, the contributions of positions, and the validation report."""

from __future__ import annotations

import dataclasses
import json
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
        click.option("--prices", is_flag=True, help="The column holds prices, not returns."),
        click.option("--column", help="Which column, where there are several of numbers."),
        click.argument("file", type=_FILE),
    ):
        command = option(command)
    return command


@click.group()
def var() -> None:
    """Estimate value-at-risk and expected shortfall, backtest a model, and write its validation report.

    Losses are positive. FILE is a CSV with a header: a column of daily simple returns as fractions, and a column date
    if there is one.
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
def report(file: Path, model: str, level: float, window: int, refit: int, out: Path, seed: int, **reading: Any) -> None:
    """Write the validation report of a model on FILE, as HTML or Markdown by the ending of --out."""
    from r1core_var.document import to_html, to_markdown
    from r1core_var.validation import validation_report

    writers = {".html": to_html, ".md": to_markdown}
    if out.suffix not in writers:
        raise UserError(f"--out {out}: unknown ending {out.suffix!r}", fix="use .html or .md")
    data = _read(file, **reading)
    title, sections = validation_report(data, model=model, level=level, window=window, refit=refit, seed=seed)
    _write(out, writers[out.suffix](title, sections))
    click.echo(f"{out}: {sections[0].paragraphs[0]}")


@var.command()
@click.argument("file", type=_FILE)
@click.option("--weights", required=True, help="Positions, as NAME=WEIGHT,NAME=WEIGHT; names are columns of FILE.")
@click.option("--method", type=click.Choice(["historical", "normal"]), default="historical", show_default=True)
@click.option("--measure", type=click.Choice(["var", "es"]), default="es", show_default=True)
@click.option(
    "--neighbours", type=int, default=0, help="Scenarios on either side over which a historical quantile is averaged."
)
@_LEVEL
@_PERCENT
@_NAN
@_JSON
def decompose(
    file: Path, weights: str, method: str, measure: str, neighbours: int, level: float, percent: bool, nan_policy: Any,
    as_json: bool,
) -> None:  # fmt: skip
    """Print what each position contributes to the one-day figure of a portfolio; components sum to the total."""
    import numpy as np

    from r1core_var import decomposition
    from r1core_var.csv_series import read_table

    names, returns = read_table(file, nan_policy=nan_policy, percent=percent)
    positions = _weights(weights, names)
    full: decomposition.Measure = "value_at_risk" if measure == "var" else "expected_shortfall"
    if method == "historical":
        found = decomposition.historical(positions, returns, level, full, neighbours=neighbours)
    else:
        mean, covariance = returns.mean(axis=0), np.atleast_2d(np.cov(returns.T))
        found = decomposition.parametric(positions, mean, covariance, level, full)
    held = [at for at, one in enumerate(positions) if one]
    if as_json:
        told = {"measure": full, "level": level, "method": found.method, "total": found.total}
        parts = ("marginal", "component", "incremental")
        rows = [
            {"name": names[at], "weight": positions[at], **{p: float(getattr(found, p)[at]) for p in parts}}
            for at in held
        ]
        click.echo(json.dumps({**told, "positions": rows}, indent=2))
        return
    click.echo(
        f"{full.replace('_', ' ')} {found.total:.4%}, confidence {level:g}, 1 day ({found.method}); losses positive"
    )
    click.echo(f"{'position':12} {'weight':>9} {'marginal':>10} {'component':>10} {'incremental':>12}")
    for at in held:
        click.echo(
            f"{names[at]:12} {positions[at]:9.4f} {found.marginal[at]:10.4%} {found.component[at]:10.4%} "
            f"{found.incremental[at]:12.4%}"
        )


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
    if data.dropped:
        click.echo(f"left out {data.dropped} rows without a number", err=True)
    return data


def _weights(text: str, names: tuple[str, ...]) -> list[float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise UserError(f"--weights: {part!r} is no NAME=WEIGHT", fix="write AAPL=0.6,XOM=0.4") from error
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise UserError(f"--weights: no column {', '.join(unknown)}", fix=f"columns are {', '.join(names)}")
    return [found.get(name, 0.0) for name in names]


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
