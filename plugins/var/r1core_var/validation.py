"""The validation report of one model on one series, in the order in which a risk department files it.

It states what was computed and what the tests say. It does not approve a model: the last section is left open for
whoever does.
"""

from __future__ import annotations

import datetime
from collections import Counter
from importlib.metadata import version

import numpy as np

from r1core import api
from r1core_var.backtests.scores import pinball
from r1core_var.backtests.shortfall import SIMULATIONS, TAIL_SHAPE
from r1core_var.backtests.suite import Backtest, backtest
from r1core_var.checks import level_of
from r1core_var.csv_series import ReturnSeries
from r1core_var.document import Section
from r1core_var.models import SIMULATABLE, estimate
from r1core_var.rolling import SUMMARIES, forecast
from r1core_var.svg import exceedance_plot
from r1core_var.values import Forecasts, Verdict

SIZE = 0.05  # at which a test is said to reject
LISTED = 60  # exceedances that are listed one by one; the table by year counts all
_LIMITS = (
    "The p-values of likelihood-ratio tests and of the dynamic quantile test are asymptotic: rough with few "
    "exceedances. A test that does not reject has little power on 250 days.",
    "Of seven tests at 5 % some reject a right model more often than one alone would; look at all of them.",
    f"The p-values of Acerbi and Szekely assume a generalised Pareto tail of shape {TAIL_SHAPE:g} with the forecast "
    f"mean excess; {SIMULATIONS:,} simulated histories.",
    "One series of returns at constant positions is judged: no pricing models, no liquidity, no intraday moves, no "
    "changes of the portfolio.",
    "Returns older than the window do not count; a regime that the window does not hold is not in the figures.",
)


def verdict_words(verdict: Verdict, size: float = SIZE) -> str:
    """Say what a test says at this size."""
    rejected = verdict.rejected(size)
    return f"not computable: {verdict.note}" if rejected is None else "REJECTED" if rejected else "not rejected"


def verdict_table(found: Backtest) -> api.Table:
    """One row a test: statistic, degrees of freedom, p-value, verdict."""
    rows = tuple(
        (
            one.test,
            "" if np.isnan(one.statistic) else f"{one.statistic:.4g}",
            str(one.degrees or ""),
            "" if np.isnan(one.p_value) else f"{one.p_value:.4f}",
            verdict_words(one),
        )
        for one in found.verdicts
    )
    return api.Table(("Test", "Statistic", "Degrees", "p-value", f"At {SIZE:.0%}"), rows)


def by_year(forecasts: Forecasts, dates: tuple[datetime.date, ...] | None) -> api.Table:
    """Exceedances in each calendar year, or in each 250 days where there are no dates."""
    beyond, p = forecasts.exceedances, float(1 - level_of(forecasts.level))
    labels = [str(day.year) for day in dates] if dates else [f"days {250 * (n // 250)} on" for n in range(len(beyond))]
    days, found = Counter(labels), Counter(label for label, hit in zip(labels, beyond, strict=True) if hit)
    worst: dict[str, float] = {}
    for label, loss in zip(labels, forecasts.losses, strict=True):
        worst[label] = max(worst.get(label, -np.inf), loss)
    rows = tuple((one, str(days[one]), str(found[one]), f"{p * days[one]:.1f}", f"{worst[one]:.2%}") for one in days)
    return api.Table(("Period", "Days", "Exceedances", "Expected", "Worst loss"), rows)


def _data(data: ReturnSeries) -> Section:
    r, dates = data.returns, data.dates
    rows = (
        ("File", data.source),
        ("SHA-256", data.sha256),
        ("Column", f"{data.name}, read as {data.kind}"),
        ("Returns", f"{len(r)} daily simple returns"),
        ("Period", f"{dates[0]} to {dates[-1]}" if dates else "no dates in the file"),
        ("Rows left out", f"{data.dropped} (empty)"),
        ("Mean, standard deviation", f"{r.mean():.4%}, {r.std(ddof=1):.4%} a day"),
        ("Smallest, largest", f"{r.min():.2%}, {r.max():.2%}"),
        ("Days without a move", str(int((r == 0).sum()))),
    )
    return Section("Data", tables=(api.Table(("Item", "Value"), rows),))


def _conventions(forecasts: Forecasts, model: str, refit: int) -> Section:
    rows = (
        ("Model", f"{model}: {SUMMARIES[model]}"),
        ("Sign", "losses are positive; the value-at-risk is a loss that is exceeded with probability 1 - level"),
        ("Level, horizon", f"{forecasts.level:g}, one day"),
        ("Window", f"the {forecasts.window} returns before each day, none of the day itself or later"),
        ("Refit", f"daily; Student t, skewed t and raw Pareto fits every {refit} days"),
        ("Quantile", "inverted_cdf (Hyndman-Fan type 1); the shortfall is the exact tail mean (Acerbi-Tasche)"),
        ("Exceedance", "loss greater than the forecast"),
        ("Missing values", "refused unless dropped by request; nothing is filled in"),
    )
    return Section("Model and conventions", tables=(api.Table(("Item", "Value"), rows),))


def _current(data: ReturnSeries, model: str, window: int, seed: int) -> Section:
    rows = []
    for level in (0.975, 0.99):
        for horizon in (1, 10):
            risk = estimate(data.returns, model=model, level=level, horizon=horizon, window=window, seed=seed)
            rows.append((f"{level:g}", str(horizon), f"{risk.value_at_risk:.3%}", f"{risk.expected_shortfall:.3%}"))
    how = "by simulated paths" if model in SIMULATABLE else "by the square root of time"
    text = f"For the days after the last return. Ten days are scaled {how}."
    columns = ("Level", "Days", "Value-at-risk", "Expected shortfall")
    return Section("Current figures", (text,), (api.Table(columns, tuple(rows)),))


def _exceedances(forecasts: Forecasts, dates: tuple[datetime.date, ...] | None) -> Section:
    hits = np.flatnonzero(forecasts.exceedances)
    rows = tuple(
        (
            str(dates[at]) if dates else f"day {forecasts.first + at}",
            f"{forecasts.losses[at]:.2%}",
            f"{forecasts.value_at_risk[at]:.2%}",
            f"{forecasts.expected_shortfall[at]:.2%}",
        )
        for at in hits[-LISTED:]
    )
    which = f"All {len(hits)}" if len(rows) == len(hits) else f"The last {len(rows)} of {len(hits)}"
    text = f"{which} exceedances follow the table by period." if rows else "None."
    tables: tuple[api.Table, ...] = (by_year(forecasts, dates),)
    if rows:
        tables += (api.Table(("Day", "Loss", "Value-at-risk", "Expected shortfall"), rows),)
    return Section("Exceedances", (text,), tables, exceedance_plot(forecasts, dates))


def _worst(found: Backtest) -> str:
    return "" if np.isnan(found.worst) else f" The largest loss was {found.worst:.2f} times its forecast."


def _light(found: Backtest) -> Section:
    light = found.light
    text = f"{light.exceedances} exceedances in the last {light.days} days: {light.zone} zone."
    multiplier = (
        f"Multiplier {light.multiplier_1996:.2f} (Basel Committee 1996), {light.multiplier_mar32:.2f} (MAR32.9)."
        if light.multiplier_1996 is not None
        else "Multipliers are defined for 250 days at 0.99 only."
    )
    chance = f"A right model has so many or fewer with probability {light.cumulative:.2%}."
    return Section("Traffic light", (text, chance, multiplier))


def _reproduction(seed: int, command: str) -> Section:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    today = datetime.datetime.now(datetime.UTC).date()
    written = f"Written {today} by r1core-var {version('r1core-var')} ({versions}), seed {seed}."
    return Section("Reproduction", (written, command) if command else (written,))


def validation_report(
    data: ReturnSeries, *, model: str, level: float, window: int, refit: int = 20, seed: int = 0, command: str = ""
) -> tuple[str, tuple[Section, ...]]:
    """Return title and sections of the validation report of a model on a series.

    Parameters
    ----------
    command : what was typed for it, to be told under "Reproduction"; "" for a report made by a program.

    Raises
    ------
    api.UserError : for too few returns, or what the model refuses.
    """
    forecasts = forecast(data.returns, model=model, level=level, window=window, refit=refit)
    dates = None if data.dates is None else data.dates[forecasts.first :]
    found = backtest(forecasts, seed=seed)
    plain = forecast(data.returns, model="historical", level=level, window=window)
    rejected = found.rejections(SIZE)
    summary = (
        f"{model} on {data.name}: {found.exceedances} exceedances in {found.days} days at {level:g}, "
        f"{found.expected:.1f} expected. "
        + (f"Rejected by: {', '.join(rejected)}." if rejected else f"No test rejects at {SIZE:.0%}.")
        + f" Traffic light: {found.light.zone}.",
    )
    scores = (
        (model, f"{100 * found.pinball:.5f}"),
        ("historical (benchmark)", f"{100 * pinball(plain.losses, plain.value_at_risk, level):.5f}"),
    )
    sections = (
        Section("Summary", summary),
        _data(data),
        _conventions(forecasts, model, refit),
        _current(data, model, window, seed),
        _exceedances(forecasts, dates),
        Section(
            "Backtests",
            (f"One day ahead, {found.days} days.{_worst(found)}",),
            (verdict_table(found),),
        ),
        _light(found),
        Section(
            "Comparison",
            ("Mean pinball loss of percent returns; lower is better.",),
            (api.Table(("Model", "Pinball"), scores),),
        ),
        Section("Limitations", _LIMITS),
        _reproduction(seed, command),
        Section(
            "Sign-off",
            ("Open until filled in by those who answer for it.",),
            (
                api.Table(
                    ("", "Name", "Date", "Decision"),
                    (("Model owner", "", "", ""), ("Independent validation", "", "", "")),
                ),
            ),
        ),
    )
    return f"Validation of value-at-risk: {model}, {data.name}", sections
