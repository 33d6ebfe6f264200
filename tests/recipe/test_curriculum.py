"""The table [curriculum]: its defaults, what is refused in it and at which line, and that it survives being written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from r1core.recipe.load import Resolved, resolve
from r1core.recipe.problems import render
from r1core.recipe.schema import Recipe
from r1core.recipe.write import to_toml

HEAD = '[run]\nname = "r"\n[model]\nhub = "a/b"\n[data]\nsource = "s"\n[curriculum]\n'


def resolved(folder: Path, table: str) -> Resolved:
    (folder / "mine.toml").write_text(HEAD + table)
    return resolve(domain=None, file=folder / "mine.toml")


def test_it_is_off_and_has_the_stages_of_the_issue() -> None:
    table = Recipe.model_validate(tomllib.loads(HEAD)).curriculum
    assert table.difficulty == ""
    assert [(stage.until, stage.simple) for stage in table.stages] == [(5, 1.0), (15, 0.7), (None, 0.0)]
    assert (table.unit, table.threshold) == ("epoch", 0.5)


def test_a_written_recipe_reads_back(tmp_path: Path) -> None:
    table = 'difficulty = "p/n"\nunit = "step"\nstages = [{ until = 3, simple = 1 }, { simple = 0.25 }]\n'
    recipe = resolved(tmp_path, table).require()
    again = Recipe.model_validate(tomllib.loads(to_toml(recipe)))
    assert again.curriculum == recipe.curriculum


@pytest.mark.parametrize(
    ("table", "line", "said"),
    [
        ('difficulty = "column"', 7, 'difficulty = "column" needs `column`'),
        ('difficulty = "losss"', 7, 'difficulty = "losss", expected "column", "loss" or a plugin/name'),
        ('difficulty = "/x"', 7, "or a plugin/name"),
        ("threshold = 0.3", 7, "`difficulty` is missing"),
        ('difficulty = "loss"\nthreshold = 1', 9, "less than 1"),
        ('difficulty = "loss"\nunit = "epochs"', 9, "one of 'epoch' or 'step'"),
        ('difficulty = "loss"\nstages = []', 9, "at least 1 item"),
        ('difficulty = "loss"\nstages = [\n{ simple = 1.5 }]', 10, "less than or equal to 1"),
        ('difficulty = "loss"\nstages = [\n{ until = 0, simple = 1 }, { simple = 0 }]', 10, "greater than 0"),
        ('difficulty = "loss"\nstages = [\n{ simpel = 1 }]', 10, "unknown key `curriculum.stages.0.simpel`"),
        ('difficulty = "loss"\nstages = [{ until = 2, simple = 1 }]', 7, "the last stage ends at 2"),
        ('difficulty = "loss"\nstages = [{ simple = 1 }, { simple = 0 }]', 7, "stage 1 has no `until`"),
        (
            'difficulty = "loss"\nstages = [{ until = 4, simple = 1 }, { until = 4, simple = 0.5 }, { simple = 0 }]',
            7,
            "stage 2 ends at 4, the one before it at 4",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_line(table: str, line: int, said: str, tmp_path: Path) -> None:
    told = render(resolved(tmp_path, table).problems)
    assert any(one.startswith(f"{tmp_path / 'mine.toml'}:{line}: ") and said in one for one in told), told


def test_an_empty_difficulty_switches_it_off_and_leaves_the_other_keys(tmp_path: Path) -> None:
    assert resolved(tmp_path, 'difficulty = ""\ncolumn = "level"\n').require().curriculum.column == "level"
