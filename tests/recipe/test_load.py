from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from r1core import api
from r1core.recipe.load import Resolved, resolve
from r1core.recipe.problems import InvalidInput, render

DOMAIN = """\
[run]
name = "medical"
plugins = ["umls", "rules"]

[model]
base = "small"

[data]
source = "medical/icd10"
prompt = "Q: {text}"

[train]
epochs = 2

[plugins.umls]
knowledge = "kb"

[plugins.rules]
strict = true
"""


@pytest.fixture
def domain(tmp_path: Path) -> api.Domain:
    resources = tmp_path / "site"
    resources.mkdir()
    (resources / "recipe.toml").write_text(DOMAIN)
    return api.Domain("medical", "", resources / "recipe.toml", resources)


def merged(domain: api.Domain | None, folder: Path, text: str = "", sets: Sequence[str] = ()) -> Resolved:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    return resolve(domain=domain, file=folder / "mine.toml", sets=sets)


def test_user_file_overrides_domain_and_set_overrides_both(domain: api.Domain, tmp_path: Path) -> None:
    resolved = merged(domain, tmp_path / "u", "[train]\nepochs = 3\nbatch_size = 4\n", ["train.batch_size=8"])
    recipe = resolved.require()
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.run.name) == (3, 8, "medical")
    assert resolved.origins["train.epochs"] == f"{tmp_path / 'u' / 'mine.toml'}:2"
    assert resolved.origins["train.batch_size"] == "--set train.batch_size"
    assert resolved.origins["data.prompt"] == f"{domain.recipe}:10"
    assert "train.steps" not in resolved.origins


def test_every_problem_at_once_each_at_its_line(domain: api.Domain, tmp_path: Path) -> None:
    text = (
        "[train]\nepocks = 3\nbatch_size = '4'\nschedule = 'cosin'\n"
        "[data.columns]\ntxet = 'q'\n[adapter]\nrank = -1\n[evalaute]\n"
    )
    resolved = merged(domain, tmp_path / "u", text, ["generate.top_p=7", "train.steps"])
    file = tmp_path / "u" / "mine.toml"
    told = {problem.where: problem for problem in resolved.problems}
    assert set(told) == {
        f"{file}:2", f"{file}:3", f"{file}:4", f"{file}:6", f"{file}:8", f"{file}:9",
        "--set generate.top_p", "--set train.steps",
    }  # fmt: skip
    assert told[f"{file}:2"].fix == "did you mean `epochs`?"
    assert (told[f"{file}:3"].expected, told[f"{file}:3"].fix) == ("an integer", "write batch_size = 4 without quotes")
    assert told[f"{file}:4"].fix == 'write schedule = "cosine"'
    assert told[f"{file}:6"].fix == "did you mean `text`?"
    assert told[f"{file}:8"].expected == "greater than 0"
    assert told[f"{file}:9"].fix == "did you mean `evaluate`?"
    assert resolved.recipe is None
    with pytest.raises(InvalidInput) as caught:
        resolved.require()
    assert len(str(caught.value).splitlines()) == 8
    assert all(line.count("\n") == 0 for line in render(resolved.problems))


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\n[x\n", 2), ("a = [1,\n", 1), ("a = 1\na = 2\n", 2), ("x = 'é\n", 1)]
)
def test_a_syntax_error_is_one_problem_at_its_line(domain: api.Domain, tmp_path: Path, text: str, line: int) -> None:
    resolved = merged(domain, tmp_path / "u", text)
    [problem] = resolved.problems
    assert problem.where == f"{tmp_path / 'u' / 'mine.toml'}:{line}"
    assert "not TOML" in problem.found


def test_unreadable_files(domain: api.Domain, tmp_path: Path) -> None:
    [problem] = resolve(domain=domain, file=tmp_path / "none.toml").problems
    assert "No such file" in problem.found
    (tmp_path / "latin.toml").write_bytes(b"[run]\nname = 'caf\xe9'\n")
    [problem] = resolve(domain=domain, file=tmp_path / "latin.toml").problems
    assert problem.where.endswith("latin.toml:2")
    assert "bad UTF-8" in problem.found


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("report.title=two words", "two words"),
        ("report.title='3'", "3"),
        ("report.title=a=b", "a=b"),
        ("report.title=", ""),
        ('report.title="x # y"', "x # y"),
        ("report.title=x\ny = 2", "x\ny = 2"),
    ],
)
def test_set_takes_toml_values_and_bare_words(domain: api.Domain, typed: str, value: str) -> None:
    assert resolve(domain=domain, file=None, sets=[typed]).require().report.title == value


def test_set_takes_arrays_tables_and_quoted_keys(domain: api.Domain) -> None:
    sets = ["evaluate.metrics=['a/b', 'c/d']", 'rewards."p/x"=0.5', "data.columns={text='q', answer='a'}"]
    recipe = resolve(domain=domain, file=None, sets=sets).require()
    assert recipe.evaluate.metrics == ["a/b", "c/d"]
    assert recipe.rewards == {"p/x": 0.5}
    assert (recipe.data.columns.text, recipe.data.columns.answer) == ("q", "a")


@pytest.mark.parametrize("typed", ["train.steps", "=3", "a..b=1", "evaluate.metrics=[1", "report.title='x"])
def test_a_malformed_set_is_refused(domain: api.Domain, typed: str) -> None:
    [problem] = resolve(domain=domain, file=None, sets=[typed]).problems
    assert problem.where.startswith("--set")


def test_own_data_and_model_replace_the_domains(domain: api.Domain, tmp_path: Path) -> None:
    text = "[model]\npath = 'weights'\n[data.files]\ntrain = 'rows.csv'\ntest = '/abs/t.csv'\n"
    resolved = merged(domain, tmp_path / "u", text)
    recipe = resolved.require()
    assert recipe.model.base is None
    assert recipe.model.path == tmp_path / "u" / "weights"
    assert recipe.data.source is None
    assert recipe.data.files is not None
    assert recipe.data.files.train == tmp_path / "u" / "rows.csv"
    assert recipe.data.files.test == Path("/abs/t.csv")
    assert recipe.data.prompt == "Q: {text}"
    assert "data.source" not in resolved.origins


def test_two_bases_in_one_file_stay_an_error(domain: api.Domain, tmp_path: Path) -> None:
    [problem] = merged(domain, tmp_path / "u", "[model]\nbase = 'a'\nhub = 'b'\n").problems
    assert "expected exactly one of base, path, hub; found base and hub" in problem.found
    assert problem.where.endswith("mine.toml:1")


def test_relative_paths_belong_to_the_file_that_says_them(
    domain: api.Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = merged(domain, tmp_path / "u", "[plugins.rules]\nfiles = ['r.yaml']\n", ["report.demo_facts=f.json"])
    assert resolved.origin_dir("plugins.umls.knowledge") == domain.resources
    assert resolved.origin_dir("plugins.rules.files.0") == tmp_path / "u"
    assert resolved.require().report.demo_facts == Path.cwd() / "f.json"


def test_sections_of_plugins_that_the_user_took_out_go_too(domain: api.Domain, tmp_path: Path) -> None:
    recipe = merged(domain, tmp_path / "u", "[run]\nplugins = ['umls']\n").require()
    assert set(recipe.plugins) == {"umls"}
    kept = merged(domain, tmp_path / "u", "[run]\nplugins = ['umls']\n[plugins.rules]\nstrict = false\n").require()
    assert set(kept.plugins) == {"umls", "rules"}, "what the user wrote is never dropped"


def test_without_a_recipe_the_missing_tables_are_named() -> None:
    resolved = resolve(domain=None, file=None)
    assert [problem.found for problem in resolved.problems] == [
        "`run` is missing", "`model` is missing", "`data` is missing"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "where", "said", "fix"),
    [
        ("choices = []", 7, "`data.choices`: no label in it", "list the labels"),
        ('choices = ["a", "a"]', 7, "`data.choices`: the label 'a' stands there 2 times", "keep one"),
        ('choices = ["a", ""]', 7, "`data.choices`: an empty label", "remove it"),
        ('choices = ["a", " b"]', 7, "`data.choices`: the label ' b' has spaces around it", "remove them"),
        ('kind = "text"\nchoices = ["a"]', 8, "`data.choices`: a label set with kind", "remove `choices`"),
        ('prompt = "Which?"', 7, "`data.prompt`: no `{text}` in it", "write {text} where"),
    ],
)
def test_a_label_set_and_a_prompt_that_cannot_work(line: str, where: int, said: str, fix: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f'[run]\nname = "r"\n[model]\nbase = "b"\n[data]\nfiles = {{train = "t.csv"}}\n{line}\n')
    [problem] = resolve(domain=None, file=file).problems
    assert problem.where == f"{file}:{where}"
    assert problem.found.startswith(said)
    assert problem.fix.startswith(fix)


def test_a_key_that_stands_in_another_table_is_named_there(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('[run]\nname = "a b"\n[model]\nbase = "b"\n[data]\nsource = "s"\n')
    name, steps = resolve(domain=None, file=file, sets=["steps=3"]).problems
    assert steps.fix == "did you mean `train.steps`?"
    assert name.expected == "letters, digits, dots, hyphens and underscores"
