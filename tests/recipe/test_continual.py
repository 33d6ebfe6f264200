"""The table [continual], and the recipe of the run that is continued as the lowest layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1core.api import UserError
from r1core.recipe.continual import Continual
from r1core.recipe.continued import EarlierRecipe, next_name
from r1core.recipe.load import Resolved, resolve
from r1core.recipe.schema import Recipe, read_by
from r1core.recipe.write import to_toml

FIRST = """\
[run]
name = "first"
seed = 5
plugins = []

[model]
path = "tiny"

[data]
choices = ["a", "b"]
max_tokens = 99

[data.files]
train = "old.csv"
test = "old-test.csv"

[data.columns]
text = "Words"

[adapter]
rank = 4
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run's directory with the recipe that a run writes down."""
    (tmp_path / "own.toml").write_text(FIRST, encoding="utf-8")
    recipe = resolve(domain=None, file=tmp_path / "own.toml").require()
    directory = tmp_path / "runs" / "first"
    directory.mkdir(parents=True)
    (directory / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    return directory


def continued(first: Path, *sets: str, file: Path | None = None) -> Resolved:
    return resolve(domain=None, file=file, sets=sets, earlier=EarlierRecipe(first))


def test_what_is_not_said_is_as_it_was(first: Path) -> None:
    recipe = continued(first, "data.files.train=new.csv").require()
    assert recipe.continual.from_ == first
    assert recipe.run.name == "first-2"
    assert (recipe.run.seed, recipe.adapter.rank, recipe.data.columns.text) == (5, 4, "Words")
    assert recipe.model.path == first.parents[1] / "tiny"
    assert recipe.data.max_tokens == 99


def test_the_earlier_runs_files_and_labels_stay_behind(first: Path) -> None:
    recipe = continued(first, "data.files.train=new.csv").require()
    assert recipe.data.files is not None
    assert recipe.data.files.train == Path.cwd() / "new.csv"
    assert (recipe.data.files.test, recipe.data.choices) == (None, None)
    other = continued(first, "data.source=a/b").require()
    assert (other.data.source, other.data.files, other.data.choices) == ("a/b", None, None)


def test_without_new_records_the_earlier_ones_stay(first: Path) -> None:
    recipe = continued(first).require()
    assert recipe.data.choices == ["a", "b"]
    assert recipe.data.files is not None
    assert recipe.data.files.test == first.parents[1] / "old-test.csv"


def test_a_file_of_ones_own_goes_over_it(first: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[run]\nname = "mine"\n[data]\nchoices = ["c"]\n[data.files]\ntrain = "x.csv"\n', encoding="utf-8")
    recipe = continued(first, "continual.replay=0.5", file=mine).require()
    assert (recipe.run.name, recipe.data.choices, recipe.continual.replay) == ("mine", ["c"], 0.5)
    assert recipe.data.files is not None
    assert recipe.data.files.test is None


def test_a_test_file_alone_does_not_bring_the_old_training_rows_along(first: Path) -> None:
    [problem] = continued(first, "data.files.test=t.csv").problems
    assert "data.files.train` is missing" in problem.found


def test_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--continue .*nowhere: no run here"):
        EarlierRecipe(tmp_path / "nowhere")


def test_it_is_written_down_and_read_back(first: Path, tmp_path: Path) -> None:
    recipe = continued(first, "data.files.train=new.csv", "continual.ewc=7").require()
    again = tmp_path / "again.toml"
    again.write_text(to_toml(recipe), encoding="utf-8")
    assert resolve(domain=None, file=again).require() == recipe
    assert f'from = "{first}"' in again.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "after"), [("first", "first-2"), ("first-2", "first-3"), ("icd-10", "icd-11")])
def test_names_count_on(name: str, after: str) -> None:
    assert next_name(name) == after


@pytest.mark.parametrize(
    ("replay", "size", "parts"),
    [(0.25, 16, (4, 12)), (0.25, 2, (1, 1)), (0.25, 1, (0, 1)), (0.1, 8, (1, 7)), (0.0, 8, (0, 8)), (0.95, 8, (8, 0))],
)
def test_shares_of_a_step(replay: float, size: int, parts: tuple[int, int]) -> None:
    assert Continual.model_validate({"from": Path("/r"), "replay": replay}).split(size) == parts


def test_a_run_that_continues_none_has_whole_steps() -> None:
    assert Continual().split(16) == (0, 16)


@pytest.mark.parametrize(("key", "value"), [("replay", 1.0), ("replay", -0.1), ("ewc", -1.0), ("fisher_rows", 0)])
def test_values_out_of_range_are_refused(first: Path, key: str, value: float) -> None:
    [problem] = continued(first, f"continual.{key}={value}").problems
    assert f"continual.{key}" in problem.found


def test_settings_without_a_run_are_refused() -> None:
    base = {"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}}
    with pytest.raises(ValueError, match="no earlier run to continue"):
        Recipe.model_validate({**base, "continual": {"replay": 0.5}})


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("from", Path("/elsewhere"), set()),  # its content counts, as inputs
        ("replay", 0.5, {"train"}),
        ("ewc", 1.0, {"train"}),
        ("fisher_rows", 7, {"train"}),
        ("naive", False, {"train", "evaluate"}),
    ],
)
def test_a_key_reaches_the_stages_that_read_it(key: str, value: object, stages: set[str]) -> None:
    base = {"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}, "continual": {"from": Path("/r")}}
    before = Recipe.model_validate(base).model_dump(mode="json")
    after = Recipe.model_validate({**base, "continual": {**base["continual"], key: value}}).model_dump(mode="json")
    assert before != after
    names = ("prepare", "train", "evaluate", "report")
    assert {stage for stage in names if read_by(stage, before) != read_by(stage, after)} == stages
