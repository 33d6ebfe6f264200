"""What a privacy policy does not go with, of recipes that no file can state yet."""

from __future__ import annotations

import pytest

from r1core.model import private_check
from r1core.recipe.schema import Recipe


@pytest.mark.parametrize("objective", ["ppo", "grpo", "anything else"])
def test_an_objective_that_is_not_known_to_be_a_sum_over_samples_is_refused(objective: str) -> None:
    recipe = Recipe.model_validate({"run": {"name": "x"}, "model": {"base": "b"}, "data": {"source": "ward/records"}})
    before = [one.key for one in private_check.refusals(recipe, "dp/units")]
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"objective": objective})})
    (said,) = [one for one in private_check.refusals(other, "dp/units") if one.key not in before]
    assert said.key == "train.objective"
    assert objective in said.found
    assert "not one of each sample" in said.found
