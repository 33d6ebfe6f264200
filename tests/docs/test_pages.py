"""The docs say what the code is: signatures, options, keys, links, and that they build."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import click
import pytest

from r1core import hookspecs
from r1core.cli.main import VERBS
from r1core.recipe.schema import Recipe
from r1core.testing.files import module_from

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*/*/README.md"))]
HOOKS = {name: found for name, found in vars(hookspecs).items() if hasattr(found, "r1core_spec")}


def signature(hook: str) -> str:
    source = inspect.getsource(HOOKS[hook])
    return re.search(r"^def (.*):$", source, re.MULTILINE)[1]  # type: ignore[index]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return module_from(DOCS / "generate.py", "docs_generate")


def test_there_are_fourteen_hooks() -> None:
    assert len(HOOKS) == 14


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_a_hook_has_a_page_with_its_exact_signature(hook: str) -> None:
    page = (DOCS / "hooks" / f"{hook}.md").read_text(encoding="utf-8")
    assert f"\n## `{signature(hook)}`\n" in page
    for said in ("**Returns**", "**Composition.**", "**Conflict.**", "**Failure.**", f'examples/hooks/{hook}.py"'):
        assert said in page
    assert f"({hook}.md)" in (DOCS / "hooks" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_has_a_page_that_names_every_option(verb: str) -> None:
    page = (DOCS / "verbs" / f"{verb}.md").read_text(encoding="utf-8")
    command: click.Command = importlib.import_module(f"r1core.cli.{verb}").command
    shown = command.get_help(click.Context(command, info_name=verb, help_option_names=["-h", "--help"]))
    for option in re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", shown, re.MULTILINE):
        assert f"{option}" in page, option
    assert f"({verb}.md)" in (DOCS / "verbs" / "index.md").read_text(encoding="utf-8")


def test_every_recipe_key_is_on_the_recipe_page() -> None:
    page = (DOCS / "recipe.md").read_text(encoding="utf-8")
    schema = Recipe.model_json_schema()
    for table in schema["$defs"].values():
        for key in table.get("properties", {}):
            assert f"| `{key}` |" in page or f".{key}]`" in page, key
    for key in schema["properties"]:
        assert f"### `[{key}]`" in page, key


def test_generated_parts_are_up_to_date(generator: ModuleType) -> None:
    assert [file.name for file in generator.outdated()] == [], "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_snippets_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target
    for snippet in re.findall(r'--8<-- "([^"]+)"', text):
        assert (ROOT / snippet).is_file(), snippet


def test_the_readme_names_every_make_target_and_only_those() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", text)) - {"their"}
    assert named <= targets
    assert {"demo", "test", "test-all", "check", "bench", "wheelhouse"} <= named


def test_the_plugin_in_the_readme_is_the_tested_one() -> None:
    plugin = (ROOT / "examples" / "plugin_in_ten_lines.py").read_text(encoding="utf-8")
    assert plugin in (ROOT / "README.md").read_text(encoding="utf-8")
    assert len([line for line in plugin.splitlines() if line]) <= 10


def test_the_recipe_in_the_readme_is_valid() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    Recipe.model_validate(tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]))  # type: ignore[index]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install '.[dev]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "hooks" / "preprocess" / "index.html").is_file()
