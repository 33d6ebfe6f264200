"""Presets of [adapter], [train] and [strategy]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from r1core.recipe.load import resolve
from r1core.recipe.problems import InvalidInput
from r1core.recipe.schema import Recipe
from r1core.recipe.strategy import PRESETS, ROLES, Strategy
from r1core.recipe.training import Adapter, Train
from r1core.recipe.write import to_toml

HEAD = '[run]\nname = "r"\n[model]\nhub = "a/b"\n[data]\nsource = "s"\n'


def recipe(folder: Path, tables: str, *sets: str) -> Recipe:
    file = folder / "r.toml"
    file.write_text(HEAD + tables)
    return resolve(domain=None, file=file, sets=sets).require()


@pytest.mark.parametrize(
    ("preset", "rank"), [("text-64", 64), ("text-128", 128), ("multimodal-32", 32), ("multimodal-64", 64)]
)
def test_a_preset_sets_rank_and_alpha(preset: str, rank: int) -> None:
    made = Adapter.model_validate({"preset": preset})
    assert (made.rank, made.alpha) == (rank, 2 * rank)
    assert Adapter.model_validate({"preset": preset, "alpha": 7}).alpha == 7


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[adapter]\npreset = "text-64"\nrank = 8', 'preset = "text-64" is rank 64, and rank = 8; state one of them'),
        ('[adapter]\npreset = "text-65"', "'text-64'"),
        ('[train]\nlearning_rate_preset = "tenth"', "set together"),
        ("[train]\nbase_learning_rate = 1e-3", "set together"),
        (
            '[train]\nlearning_rate_preset = "fifth"\nbase_learning_rate = 1e-3\nlearning_rate = 1e-3',
            "is 0.0002, and learning_rate = 0.001; state one of them",
        ),
        ("[strategy.shallow_atention]", "did you mean `shallow_attention`?"),
        ("[strategy.norms]\nmode = 'lora'", "norms have no linear layer"),
        ("[strategy.norms]\nlearning_rte = 1", "learning_rate"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(tables: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        recipe(tmp_path, tables)
    [problem] = refused.value.problems
    assert said in f"{refused.value} {problem.fix}"
    assert problem.where.startswith(f"{tmp_path}/r.toml:")


@pytest.mark.parametrize(("preset", "rate"), [("tenth", 3e-5), ("fifth", 6e-5)])
def test_the_rate_is_a_part_of_pre_trainings(preset: str, rate: float) -> None:
    made = Train.model_validate({"learning_rate_preset": preset, "base_learning_rate": 3e-4})
    assert made.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    "tables",
    [
        "",
        '[adapter]\npreset = "text-64"\n[train]\nlearning_rate_preset = "tenth"\nbase_learning_rate = 3e-4',
        '[strategy]\npreset = "guide"\nuntie = true\n[strategy.norms]\nmode = "full"\nweight_decay = 0.01',
    ],
)
def test_a_runs_own_recipe_is_read_back_as_it_was(tables: str, tmp_path: Path) -> None:
    made = recipe(tmp_path, tables)
    (tmp_path / "again.toml").write_text(to_toml(made))
    assert resolve(domain=None, file=tmp_path / "again.toml").require() == made


def test_a_later_layer_that_states_the_other_one_wins(tmp_path: Path) -> None:
    preset = '[adapter]\npreset = "text-64"\n[train]\nlearning_rate_preset = "tenth"\nbase_learning_rate = 3e-4'
    made = recipe(tmp_path, preset, "adapter.rank=8", "train.learning_rate=1e-3")
    assert (made.adapter.preset, made.adapter.rank, made.train.learning_rate) == ("", 8, 1e-3)
    stated = "[adapter]\nrank = 8\nalpha = 8\n[train]\nlearning_rate = 1e-3"
    sets = ("adapter.preset=text-128", "train.learning_rate_preset=fifth", "train.base_learning_rate=1e-3")
    made = recipe(tmp_path, stated, *sets[:1])
    assert (made.adapter.rank, made.adapter.alpha) == (128, 256)
    both = "[train]\nlearning_rate = 1e-3\n"
    file = tmp_path / "both.toml"
    file.write_text('[train]\nlearning_rate_preset = "fifth"\nbase_learning_rate = 1e-3\n' + HEAD)
    assert resolve(domain=None, file=file).require().train.learning_rate == pytest.approx(2e-4)
    assert recipe(tmp_path, both).train.learning_rate == 1e-3


@pytest.mark.parametrize("page", ["adapters", "strategy"])
def test_the_tables_in_the_docs_are_valid(page: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert blocks
    for tables in blocks:
        recipe(tmp_path, tables)


def test_the_guide_on_the_page_is_the_guide() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training" / "strategy.md").read_text(encoding="utf-8")
    for role, said in PRESETS["guide"].items():
        stated = (
            said.mode if said.mode == "frozen" else f"{said.mode}, {said.learning_rate:.0e}, decay {said.weight_decay}"
        )
        row = next(line for line in text.splitlines() if line.startswith(f"| `{role}` |"))
        assert row.endswith(f"| {PRESETS[''][role].mode} | {stated.replace('e-0', 'e-')} |"), row


def test_a_strategy_is_its_preset_with_the_recipes_own_keys_over_it() -> None:
    made: Any = Strategy.model_validate({"preset": "guide", "output": {"learning_rate": 1e-4}}).treatments()
    assert (made["output"].mode, made["output"].learning_rate, made["output"].weight_decay) == ("full", 1e-4, 0.05)
    assert {role: t for role, t in made.items() if role != "output"} == {
        role: t for role, t in PRESETS["guide"].items() if role != "output"
    }


def test_the_guide_says_everything_about_every_role() -> None:
    guide = PRESETS["guide"]
    assert set(guide) == set(ROLES)
    assert guide["embeddings"].mode == "frozen"
    assert (guide["shallow_attention"].mode, guide["shallow_attention"].learning_rate) == ("lora", 1e-5)
    assert (guide["middle_feed_forward"].mode, guide["middle_feed_forward"].learning_rate) == ("lora", 2e-5)
    assert (guide["output"].mode, guide["output"].learning_rate) == ("full", 5e-5)
    trained = [treatment for treatment in guide.values() if treatment.mode != "frozen"]
    assert all(t.learning_rate and t.weight_decay and 0.01 <= t.weight_decay <= 0.05 for t in trained)
