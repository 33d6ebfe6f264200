"""`r1core var` as a user types it, and the plugin as the core loads it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from r1core_var.cli import var
from r1core_var.config import VarConfig
from r1core_var.plugin import ForecastScore, VarPlugin, answered

from r1core import api


@pytest.fixture
def returns(tmp_path: Path, drawn: np.ndarray) -> Path:
    path = tmp_path / "returns.csv"
    days = np.arange("2020-01-01", "2030-01-01", dtype="datetime64[D]")
    lines = (f"{day},{value:.9f}" for day, value in zip(days, drawn, strict=False))
    path.write_text("\n".join(["date,fund", *lines]) + "\n", encoding="utf-8")
    return path


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(var, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_estimate_prints_positive_losses(returns: Path, drawn: np.ndarray) -> None:
    told = json.loads(run("estimate", returns, "--model", "historical", "--json"))
    assert told["value_at_risk"] == pytest.approx(np.quantile(-drawn, 0.99, method="inverted_cdf"), abs=1e-8)
    assert "confidence 0.975" in run("estimate", returns, "--level", 0.975, "--model", "ewma", "--horizon", 10)


def test_backtest_tells_counts_verdicts_and_draws(returns: Path, tmp_path: Path) -> None:
    words = ("backtest", returns, "--window", 300, "--model", "fhs-ewma")
    told = json.loads(run(*words, "--json"))
    plot = tmp_path / "plot.svg"
    text = run(*words, "--plot", plot)
    assert told["days"] == 400
    assert f"exceedances {told['exceedances']}, expected 4.0" in text
    assert {one["test"] for one in told["verdicts"]} >= {"Kupiec coverage", "dynamic quantile", "Acerbi-Szekely Z2"}
    circles = [one for one in ET.parse(plot).iter() if one.tag.endswith("circle")]
    assert len(circles) == told["exceedances"]


def test_strict_turns_a_rejection_into_exit_code_1(returns: Path) -> None:
    words = ("backtest", returns, "--window", 300, "--model", "normal", "--level", 0.995)
    assert "REJECTED" in run(*words, "--strict", code=1)
    run(*words)


@pytest.mark.parametrize("ending", ["html", "md"])
def test_the_report_holds_what_a_validation_needs(returns: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"report.{ending}"
    run("report", returns, "--window", 300, "--model", "fhs-ewma", "--out", out)
    text = out.read_text(encoding="utf-8")
    for part in (
        "Data",
        "Model and conventions",
        "Exceedances",
        "Backtests",
        "Traffic light",
        "Limitations",
        "Sign-off",
    ):
        assert part in text
    for test in ("Kupiec", "Christoffersen conditional", "dynamic quantile", "Acerbi-Szekely Z2"):
        assert test in text
    assert "2021" in text
    assert text.index("<svg") < text.index("Worst loss")  # the plot stands before the long lists
    assert "r1core var report" in text
    assert "--window 300 --refit 20 --seed 0" in text
    assert "https://" not in text


def test_components_sum_in_what_is_printed(tmp_path: Path, drawn: np.ndarray) -> None:
    path = tmp_path / "book.csv"
    table = zip(drawn, drawn[::-1], strict=True)
    path.write_text("A,B\n" + "\n".join(f"{a:.9f},{b:.9f}" for a, b in table) + "\n", encoding="utf-8")
    for method in ("historical", "normal"):
        told = json.loads(run("decompose", path, "--weights", "A=0.7,B=0.3", "--method", method, "--json"))
        assert sum(one["component"] for one in told["positions"]) == pytest.approx(told["total"], abs=1e-12)
    with pytest.raises(api.UserError, match="no column C"):
        run("decompose", path, "--weights", "C=1")
    for weights, says in (
        ("A=much", "no NAME=WEIGHT"),
        ("A=nan", "no NAME=WEIGHT"),
        ("A=0.5,A=0.5", "twice"),
        ("A=0,B=0", "every weight is 0"),
    ):
        with pytest.raises(api.UserError, match=says):
            run("decompose", path, "--weights", weights)
    with pytest.raises(api.UserError, match="only a historical quantile"):
        run("decompose", path, "--weights", "A=1", "--neighbours", 5)


def test_decompose_says_what_weights_sum_to_and_reads_prices(tmp_path: Path, drawn: np.ndarray) -> None:
    path = tmp_path / "book.csv"
    growth = np.cumprod(1 + np.column_stack([drawn, drawn[::-1]]), axis=0)
    path.write_text("A,B\n" + "\n".join(f"{a:.9f},{b:.9f}" for a, b in [(1, 1), *growth]) + "\n", encoding="utf-8")
    done = CliRunner().invoke(var, ["decompose", str(path), "--weights", "A=1.2", "--prices"])
    assert done.exit_code == 0
    assert "weights sum to 1.2, not to 1" in done.stderr
    total = 1.2 * float(np.mean(np.sort(-drawn)[-7:]))  # 1 % of 700
    assert f"{total:.4%}" in done.stdout.splitlines()[-1]
    whole = CliRunner().invoke(var, ["decompose", str(path), "--weights", "A=0.1,B=0.9", "--prices"])
    assert whole.stderr == ""


def test_a_mistake_is_one_line_and_exit_code_2(returns: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "r1core", "var", "backtest", str(returns), "--level", "0.01"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "confidence level 0.01" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(api.UserError, match="unknown ending"):
        run("report", returns, "--out", "x.pdf")
    with pytest.raises(api.UserError, match="unknown ending"):
        run("backtest", returns, "--plot", "x.png")
    with pytest.raises(api.UserError, match="there is no folder"):
        run("report", returns, "--out", returns.parent / "none" / "x.html")
    with pytest.raises(api.UserError, match="1 days are forecast, expected at least 11"):
        run("backtest", returns, "--window", 699, "--model", "ewma")


def test_the_page_fits_a_phone(returns: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.HTML"
    run("report", returns, "--window", 300, "--model", "ewma", "--out", out)
    page = out.read_text(encoding="utf-8")
    assert "<meta name='viewport' content='width=device-width" in page
    assert page.count("<table") + page.count("<svg") == page.count("<div class='wide'")  # each is scrolled by itself
    assert "<td class='number'>0.975</td>" in page
    last = [one for one in page.split("<text")[1:] if 'text-anchor="end">20' in one]
    assert len(last) == 1  # the last date ends at the edge, and is not cut off by it


def test_neither_the_plugin_nor_its_verb_imports_a_heavy_library(
    r1core_imports: Callable[..., frozenset[str]],
) -> None:
    found = r1core_imports("r1core_var.plugin", "r1core_var.cli", "r1core_var.config")
    assert "r1core_var" in found
    assert not found & {"torch", "pandas", "scipy", "arch", "matplotlib"}


def test_nothing_of_the_numpy_side_needs_torch_or_pandas() -> None:
    code = (
        "import sys;"
        "from r1core_var import models, rolling, decomposition, validation;"
        "from r1core_var.backtests import suite; import numpy as np;"
        "r = np.random.default_rng(0).normal(size=400) / 100;"
        "print(models.estimate(r).level, [m for m in ('torch', 'pandas', 'arch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.99 []"


def example(number: int, loss: object) -> api.Example:
    message = api.Message("user", f"State the 99 % value-at-risk of fund {number} in percent.")
    return api.Example(str(number), (message,), "risk", fields={"loss": loss})


def test_metrics_score_the_number_that_was_answered() -> None:
    records = [example(0, 3.0), example(1, 1.0), example(2, 2.0)]
    answers = ["The 99 % value-at-risk is 2.5", "2.5 percent, say", "no idea"]
    pinball, exceedances = (ForecastScore(name, VarConfig()) for name in ("var/pinball", "var/exceedances"))
    by_hand = (0.99 * 0.5 + 0.01 * 1.5 + 0.99 * 2.0) / 3
    assert pinball(answers, answers, records) == pytest.approx(by_hand, abs=1e-12)
    assert exceedances(answers, answers, records) == pytest.approx(2 / 3)
    assert answered("about 1,250.5 USD") == 1250.5
    with pytest.raises(api.UserError, match="field 'loss' is None"):
        pinball(["1"], ["1"], [example(3, None)])
    with pytest.raises(api.UserError, match="none of 1 records"):
        pinball(["1"], ["1"], [api.Example("4", (), "risk")])


def test_the_report_speaks_only_where_forecasts_were_scored(tmp_path: Path) -> None:
    plugin, ctx = VarPlugin(), api.Context("", VarConfig(), 0)
    silent = api.RunView(tmp_path, {}, [{"task": "qa", "system": "base", "metric": "em", "value": 1.0}])
    assert plugin.report(ctx, silent) == []
    row = {"task": "risk", "system": "adapted", "metric": "var/pinball", "value": 0.0123, "se": None, "n": 3}
    section = plugin.report(ctx, api.RunView(tmp_path, {}, [row]))[0]
    assert section.tables[0].rows[0][:4] == ("risk", "adapted", "var/pinball", "0.0123")


def test_conforms(r1core_check) -> None:
    r1core_check("var", examples=[example(0, 3.0), example(1, 1.0)])
