"""The bytes of tokens, against what the tokenizer itself decodes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from r1core.api import UserError
from r1core.decode.vocabulary import Vocabulary

TEXT = "warfarin, abba; naïve für 日本 🙂  aab"


@pytest.mark.parametrize("family", ["byte_level_tokenizer", "sentencepiece_tokenizer"])
def test_tokens_of_a_text_spell_its_bytes(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(family)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == TEXT.encode()


@pytest.mark.parametrize("family", ["byte_level_tokenizer", "sentencepiece_tokenizer"])
def test_each_token_is_what_the_tokenizer_decodes(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(family)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    for i in set(range(vocabulary.size)) - vocabulary.special_ids:
        assert vocabulary.token_bytes[i].decode("utf-8", "replace") == tokenizer.decode([i])


def test_special_and_padded_ids_are_never_allowed_but_the_end_is(byte_level_tokenizer: Any) -> None:
    width = len(byte_level_tokenizer) + 7
    vocabulary = Vocabulary.from_tokenizer(byte_level_tokenizer, size=width)
    start = byte_level_tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert vocabulary.size == width
    assert vocabulary.eos_ids == {byte_level_tokenizer.eos_token_id}
    assert start in vocabulary.never_ids
    assert set(range(width - 7, width)) <= vocabulary.never_ids
    assert not vocabulary.never_ids & vocabulary.eos_ids


def test_added_text_tokens_keep_their_text(byte_level_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(byte_level_tokenizer)
    tokenizer.add_tokens(["two words é"])
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.token_bytes[tokenizer.convert_tokens_to_ids("two words é")] == "two words é".encode()


def test_word_pieces_are_refused_by_name() -> None:
    model = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "[SEP]": 3}, unk_token="[UNK]"))
    model.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="[SEP]")
    with pytest.raises(UserError, match="'WordPiece'"):
        Vocabulary.from_tokenizer(tokenizer)


def test_a_vocabulary_without_end_is_refused() -> None:
    with pytest.raises(UserError, match="no end-of-sequence"):
        Vocabulary([b"a"], [])
