"""The domain's entry point: which recipe, which data sets. Holds no hook implementation."""

from __future__ import annotations

from pathlib import Path

from r1core import api
from r1core_finance.direction import Direction
from r1core_finance.price_questions import PriceQuestions

_HERE = Path(__file__).parent

FINANCE = api.Domain(
    name="finance",
    summary="Group of financial events that a sentence reports, and answers without a number of unknown origin",
    recipe=_HERE / "recipe.toml",
    resources=_HERE,
    sources=(Direction(), PriceQuestions()),
)
