"""What needs no Flower: the arithmetic of the mean with noise, its account, the settings, the record."""

from __future__ import annotations

import math
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from r1core_flower.accounting import epsilon_of, noise_for
from r1core_flower.cli import federate
from r1core_flower.config import FlowerConfig
from r1core_flower.layout import Layout
from r1core_flower.mechanism import clipped, noised, norm_of, normal
from r1core_flower.plugin import FlowerPlugin
from r1core_flower.record import Record, budget_of, table
from scipy import stats

from r1core import api
from r1core.recipe.schema import Recipe

NAMED = {"b": np.arange(4, dtype="f4"), "a": np.full((2, 3), 0.5, "f4")}
LAYOUT = Layout.of(NAMED)
START = LAYOUT.vector(NAMED)


def delta_of(noise: float, epsilon: float) -> float:
    """Of one Gaussian mechanism: Balle & Wang 2018 (arXiv:1805.06530), theorem 8."""
    upper, lower = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
    return float(stats.norm.cdf(upper) - math.exp(epsilon) * stats.norm.cdf(lower))


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (2.0, 4), (8.0, 50)])
def test_epsilon_is_that_of_the_exact_formula(noise: float, rounds: int) -> None:
    """So many rounds of noise sigma are one of sigma / sqrt(rounds)."""
    epsilon = epsilon_of(noise, rounds, 1e-5)
    alone = noise / math.sqrt(rounds)
    assert delta_of(alone, epsilon) <= 1e-5  # an upper bound
    assert delta_of(alone, epsilon - 2e-3) > 1e-5  # and hardly more


def test_noise_for_an_epsilon_keeps_to_it() -> None:
    noise = noise_for(2.0, 10, 1e-6)
    assert 1.99 < epsilon_of(noise, 10, 1e-6) <= 2.0
    assert epsilon_of(noise, 0, 1e-6) == 0.0


@given(seeds=st.lists(st.integers(0, 2**31), min_size=2, max_size=6, unique=True), size=st.floats(1e-3, 1e6))
@settings(max_examples=60, deadline=None)
def test_one_client_moves_the_result_by_at_most_the_clipping_norm(seeds: list[int], size: float) -> None:
    """With and without one of them, all else equal, noise left out: over the number that was expected."""

    def result(some: list[int]) -> np.ndarray:
        drawn = [size * np.random.default_rng(seed).normal(size=START.shape) for seed in some]
        ends = [clipped((START + one).astype("f4"), START, 0.3) for one in drawn]
        assert all(norm_of(end, START) <= 0.3 * 1.0001 for end in ends)
        mean = np.mean([end.astype("f8") for end in ends], axis=0).astype("f4")
        return noised(mean, START, arrived=len(some), expected=4, deviation=0.0)

    assert norm_of(result(seeds), result(seeds[1:])) <= 0.3 / 4 * 1.0001 + 1e-5


def test_noise_is_normal_and_of_the_stated_size() -> None:
    drawn = normal(200_001)
    assert drawn.shape == (200_001,)
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert np.std(drawn) == pytest.approx(1.0, abs=0.01)
    start = np.zeros(100_000, "f4")
    made = noised(start, start, arrived=3, expected=4, deviation=8.0)
    assert np.std(made) == pytest.approx(8.0 / 4, rel=0.02)
    assert not np.array_equal(made, noised(start, start, arrived=3, expected=4, deviation=8.0))


def test_numpys_seed_does_not_bring_the_noise_back() -> None:
    np.random.seed(0)
    first = normal(8)
    np.random.seed(0)
    assert not np.array_equal(first, normal(8))


def test_a_vector_holds_the_weights_in_an_order_that_follows_from_their_names() -> None:
    other = dict(reversed(NAMED.items()))
    assert Layout.of(other).key == LAYOUT.key
    np.testing.assert_array_equal(Layout.of(other).vector(other), START)
    back = LAYOUT.named(START)
    assert {name: value.shape for name, value in back.items()} == {"a": (2, 3), "b": (4,)}
    for name, value in back.items():
        np.testing.assert_array_equal(value, NAMED[name])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "other names or shapes"),
        ({LAYOUT.key: START, "more": START}, "other names or shapes"),
        ({Layout.of({**NAMED, "b": np.zeros((2, 2), "f4")}).key: START}, "other names or shapes"),
        ({Layout.of({"c": NAMED["a"], "b": NAMED["b"]}).key: START}, "other names or shapes"),
        ({LAYOUT.key: START[:-1]}, "expected float32 (10,)"),
        ({LAYOUT.key: START.astype("f8")}, "float64"),
        ({LAYOUT.key: np.where(START == 0, np.float32(np.nan), START)}, "not finite"),
    ],
)
def test_an_answer_of_other_weights_is_told_apart(found: dict[str, np.ndarray], said: str) -> None:
    assert said in str(LAYOUT.unfit(found))
    assert LAYOUT.unfit({LAYOUT.key: START}) is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"strategy": "fedprox"}, "go together"),
        ({"proximal_mu": 0.1}, "go together"),
        ({"min_clients": 3, "expected": 2}, "2 clients are expected"),
        ({"clip": 1.0}, 'are for dp = "server"'),
        ({"dp": "server", "clip": 1.0}, "needs clip and delta"),
        ({"dp": "server", "clip": 1.0, "delta": 1e-5}, "exactly one of"),
        ({"dp": "server", "clip": 1.0, "delta": 1e-5, "epsilon": 1.0, "noise_multiplier": 1.0}, "exactly one of"),
        ({"clients": {"../north": "north.csv", "south": "south.csv"}}, "letters, digits"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(section: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FlowerConfig(**section)  # type: ignore[arg-type]


def test_a_budget_stops_before_it_is_exceeded() -> None:
    config = FlowerConfig(rounds=3, dp="server", clip=0.5, epsilon=2.0, delta=1e-5, expected=200)
    budget = budget_of(config, 0)
    assert budget is not None
    for _ in range(3):
        budget.require_one_more()
        budget.spend(START, START, 2)
    assert 1.99 < budget.epsilon <= 2.0
    assert budget.card()["rounds_counted"] == 3
    with pytest.raises(api.UserError, match=r"another round would make it"):
        budget.require_one_more()
    again = budget_of(config, 3)  # taken up by a server that was started again
    assert again is not None
    with pytest.raises(api.UserError):
        again.require_one_more()


def test_the_record_is_shown_as_a_table() -> None:
    record = Record({"strategy": "fedavg"})
    clients = [{"client": "1", "rows": 40, "update_norm": 0.25}, {"client": "2", "rows": 60, "update_norm": 0.5}]
    record.add({"round": 1, "answers": 2, "missing": 1, "update_norm": 0.125, "clients": clients})
    record.add({"round": 2, "answers": 3, "missing": 0, "update_norm": 0.1, "epsilon": 1.5, "noise_multiplier": 2.0})
    head, first, second = table(record.rounds)
    assert head.split() == ["round", "answers", "missing", "rows", "update", "largest", "epsilon", "validation"]
    assert first.split() == ["1", "2", "1", "40+60", "0.125", "0.5", "-", "-"]
    assert second.split() == ["2", "3", "0", "-", "0.1", "-", "1.5", "-"]


def test_check_says_what_a_servers_noise_on_four_clients_is_worth() -> None:
    config = FlowerConfig(dp="server", clip=1.0, delta=1e-3, epsilon=3.0, expected=4)
    ctx = api.Context("", config, 0)
    (found,) = FlowerPlugin().validate(ctx, api.Plan({"run": {"plugins": ["flower"]}}))
    assert found.severity == "warning"
    assert "hides one of 4 clients" in found.found


@pytest.mark.skipif(find_spec("flwr") is not None, reason="Flower is installed")
def test_without_flower_the_verb_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("", encoding="utf-8")
    done = CliRunner().invoke(federate, ["run", "--recipe", str(tmp_path / "r.toml")], obj=object())
    assert isinstance(done.exception, api.UserError)
    assert "r1core-flower[rounds]" in done.exception.fix


def test_no_connection_is_made_in_the_clear_unless_asked_for(tmp_path: Path) -> None:
    for words in (["server", "--address", "0.0.0.0:9"], ["client", "--server", "h:9"]):
        done = CliRunner().invoke(federate, [*words, "--recipe", str(tmp_path / "r.toml")], obj=object())
        assert isinstance(done.exception, api.UserError)
        assert "no TLS" in str(done.exception)


def test_the_example_and_the_readme_state_valid_recipes() -> None:
    folder = Path(__file__).parents[3] / "examples" / "federated"
    example = tomllib.loads((folder / "rounds.toml").read_text(encoding="utf-8"))
    Recipe.model_validate(example)
    config = FlowerConfig.model_validate(example["plugins"]["flower"])
    assert all((folder / file).is_file() for file in config.clients.values())
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        FlowerConfig.model_validate(tomllib.loads(block)["plugins"]["flower"])


def test_the_verbs_are_documented() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name, command in federate.commands.items():
        assert f"r1core federate {name}" in page
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                assert option.opts[0] in page, option.opts[0]
    for key in FlowerConfig.model_fields:
        assert key in page, key


def test_the_plugin_conforms(r1core_check: object) -> None:
    r1core_check(FlowerPlugin, name="flower", config={})  # type: ignore[operator]
