"""The audit: its bound against closed forms, its tests of sampling, and whole audits by the command line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from r1core_dp.canaries import likelihood_ratio
from r1core_dp.draws import judged
from r1core_dp.lower_bound import at_least, bound, chance
from scipy import integrate, stats

from r1core.testing.typist import typist

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "examples" / "hooks" / "model_source.py"


@pytest.mark.parametrize("guesses", [20, 250, 1000])
def test_all_guesses_right_refutes_what_a_coin_would_seldom_do(guesses: int) -> None:
    rate = 0.05 ** (1 / guesses)  # all right with probability 0.05
    assert at_least(1000, guesses, guesses, 0.0) == pytest.approx(math.log(rate / (1 - rate)), abs=2e-3)


def test_the_chance_is_that_of_the_theorem_written_out() -> None:
    canaries, guesses, right, epsilon, delta = 200, 60, 52, 1.3, 1e-3
    rate = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(guesses, k) * rate**k * (1 - rate) ** (guesses - k) for k in range(guesses + 1)]
    plain = sum(mass[right:])
    most = max(sum(mass[right - i : right]) / i for i in range(1, right + 1))
    assert chance(canaries, guesses, right, epsilon, delta) == pytest.approx(plain + 2 * canaries * delta * most)


def test_guesses_no_better_than_a_coin_refute_nothing() -> None:
    assert at_least(1000, 1000, 500, 1e-5) == 0.0


def test_the_bound_keeps_below_the_epsilon_of_randomised_response() -> None:
    draw, epsilon, above = np.random.default_rng(5), 1.0, 0
    for _ in range(200):
        entered = draw.random(400) < 0.5
        told = np.where(draw.random(400) < math.e**epsilon / (1 + math.e**epsilon), entered, ~entered)
        above += bound(told.astype(float), list(entered), 0.0).epsilon > epsilon
    assert above <= 18  # of 200 at 95 %: more would be by chance once in 100


def test_the_score_is_the_ratio_of_the_two_densities() -> None:
    noise, rate = 0.7, 0.2
    for seen in (-1.0, 0.3, 2.0):
        outside, inside = stats.norm.pdf(seen, 0, noise), stats.norm.pdf(seen, 1, noise)
        expected = math.log(((1 - rate) * outside + rate * inside) / outside)
        assert likelihood_ratio(np.array([seen]), noise, rate)[0] == pytest.approx(expected)
    whole = integrate.quad(
        lambda x: math.exp(likelihood_ratio(np.array([x]), noise, rate)[0]) * stats.norm.pdf(x, 0, noise), -8, 9
    )
    assert whole[0] == pytest.approx(1.0, abs=1e-6)


def test_poisson_draws_pass_and_others_do_not() -> None:
    draw = np.random.default_rng(3)
    units, steps, rate = 800, 50, 0.1
    lowest = []
    for _ in range(40):
        mask = draw.random((steps, units)) < rate
        lowest.append(judged(mask.sum(0), mask.sum(1).tolist(), rate).lowest)
    assert min(lowest) > 1e-4
    always = mask.copy()
    always[:, 17] = True
    assert judged(always.sum(0), always.sum(1).tolist(), rate).most < 1e-4
    dealt = np.zeros((steps, units), dtype=bool)
    for step in dealt:
        step[draw.permutation(units)[: int(rate * units)]] = True
    assert judged(dealt.sum(0), dealt.sum(1).tolist(), rate).lowest < 1e-4
    more = draw.random((steps, units)) < 1.1 * rate
    assert judged(more.sum(0), more.sum(1).tolist(), rate).all < 1e-4


def r1core(folder: Path, *arguments: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Type a command; with a fault, which is code that runs before it, in a fresh interpreter."""
    code = f"import sys\nfrom r1core_dp import policy\n{fault}\nfrom r1core.cli.main import main\nmain(sys.argv[1:])"
    loaded = ["--plugin", str(MODEL)] if arguments[:2] != ("dp", "ledger") else []
    words = [sys.executable, "-c", code, *arguments, *loaded]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not fault:
        return typist()(*arguments, *loaded, cwd=folder, env=environment)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=200, env=environment)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained private run."""
    folder = tmp_path_factory.mktemp("audited")
    rows = [f"r{n},p{n % 120},Number {n}?,Yes {n % 4}." for n in range(240)]
    (folder / "ward.csv").write_text("\n".join(["id,patient,text,answer", *rows]), encoding="utf-8")
    (folder / "my.toml").write_text(
        """
        run = { name = "ward", plugins = ["dp"] }
        model = { base = "tiny-random", threads = 1 }
        data = { kind = "text", files = { train = "ward.csv" }, columns = { group = "patient" } }
        train = { steps = 6, batch_size = 30, packing = "padded" }
        evaluate = { baselines = false }
        plugins.dp = { dataset_id = "ward", ledger = "ledgers" }
        """,
        encoding="utf-8",
    )
    done = r1core(folder, "train", "--recipe", "my.toml")
    assert done.returncode == 0, done.stderr
    return folder


def test_an_audit_spends_nothing_and_stands_in_the_card(ward: Path) -> None:
    ledger = (ward / "ledgers/ward.jsonl").read_bytes()
    done = r1core(ward, "dp", "audit", "runs/ward")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing speaks against the claim" in done.stdout
    assert (ward / "ledgers/ward.jsonl").read_bytes() == ledger
    found = json.loads((ward / "runs/ward/privacy/card.json").read_text())["audit"]
    assert found["canaries"] == json.loads((ward / "runs/ward/privacy/card.json").read_text())["units"]
    assert found["epsilon_at_least"] <= found["epsilon_claimed"]
    assert found["noise_measured"] == pytest.approx(found["noise_multiplier"], rel=0.01)
    verified = subprocess.run(
        [sys.executable, "-m", "r1core.cli.main", "verify", "runs/ward"], cwd=ward, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout
    again = r1core(ward, "train", "runs/ward")  # the card is still the one of this training
    assert "train: skipped" in again.stdout, again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(
            "normal = policy.normal\npolicy.normal = lambda *given: 0.25 * normal(*given)",
            "the noise multiplier measures",
            marks=pytest.mark.slow,
        ),
        (
            "chosen = policy.chosen\npolicy.chosen = lambda *given: chosen(*given) | True",
            "not drawn as Poisson",
        ),
    ],
    ids=["a quarter of the noise", "everybody in every step"],
)
def test_a_mechanism_that_is_not_as_stated_is_flagged(ward: Path, fault: str, said: str) -> None:
    done = r1core(ward, "dp", "audit", "runs/ward", fault=fault)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATED" in done.stdout
    assert said in done.stdout


def test_what_cannot_be_audited_is_told(ward: Path) -> None:
    plain = r1core(ward, "dp", "audit", "runs")
    assert plain.returncode == 2
    assert "nothing was trained privately here" in plain.stderr
    many = r1core(ward, "dp", "audit", "runs/ward", "--canaries", "5000")
    assert many.returncode == 2
    assert "fewer --canaries" in many.stderr
