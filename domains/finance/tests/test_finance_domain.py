"""The domain as it is found, and that it only composes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from r1core_finance.domain import FINANCE

from r1core import api
from r1core.recipe.schema import Recipe


def test_the_domain_composes_and_implements_no_hook() -> None:
    assert isinstance(FINANCE, api.Domain)
    assert FINANCE.name == "finance"
    assert all(isinstance(source, api.DatasetSource) for source in FINANCE.sources)
    texts = [path.read_text(encoding="utf-8") for path in Path(FINANCE.resources).glob("*.py")]
    assert len(texts) >= 4
    assert not any("hookimpl" in text or "import r1core_events" in text for text in texts)


def test_the_recipe_is_valid_and_names_what_takes_part() -> None:
    recipe = Recipe.model_validate(tomllib.loads(FINANCE.recipe.read_text(encoding="utf-8")))
    assert recipe.run.name == FINANCE.name
    assert recipe.data.source == "events/generated"
    assert set(recipe.plugins) <= set(recipe.run.plugins)
