"""The bytes of tokens, against what the tokenizer itself decodes."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from r1core.api import UserError
from r1core.decode.characters import WHOLE_CHARACTERS
from r1core.decode.constraints import is_allowed
from r1core.decode.lift import lift
from r1core.decode.vocabulary import Vocabulary

from .families import FAMILIES, sentencepiece

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


@pytest.mark.parametrize("family", FAMILIES)
def test_any_tokens_spell_what_the_tokenizer_decodes(family: str) -> None:
    tokenizer = FAMILIES[family]()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    ids, rng = sorted(set(range(vocabulary.size)) - vocabulary.special_ids), random.Random(0)
    checked = 0
    while checked < 2_000:
        tokens = rng.choices(ids, k=rng.randint(1, 8))
        data = vocabulary.text_bytes(tokens)
        if vocabulary.whole_characters and data != data.decode("utf-8", "ignore").encode():
            continue
        checked += 1
        assert data.decode("utf-8", "replace") == tokenizer.backend_tokenizer.decode(tokens)


def test_broken_byte_runs_are_shown_as_other_text_and_so_are_never_written() -> None:
    tokenizer = sentencepiece()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    bytes_ = {bytes([b]): tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)}
    run = [bytes_[bytes([b])] for b in b"warfx\xffarin"]
    assert "x" not in tokenizer.decode(run)  # what a constraint over bytes alone would not know
    assert vocabulary.whole_characters
    state = lift(WHOLE_CHARACTERS, vocabulary)
    for token in run[:5]:
        state = state.advance(token)
    assert not is_allowed(state.mask(), run[5])
    begun = state.advance(bytes_[b"\xe6"]).advance(bytes_[b"\x97"])
    assert not begun.may_end()
    assert not is_allowed(begun.mask(), bytes_[b"a"])
    assert begun.advance(bytes_[b"\xa5"]).may_end()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=6))
def test_whole_characters_are_those_that_python_decodes(data: bytes) -> None:
    state: int = WHOLE_CHARACTERS.start
    for byte in data:
        state = int(WHOLE_CHARACTERS.row(state)[byte]) if state >= 0 else -1
    try:
        data.decode()
    except UnicodeDecodeError:
        assert state < 0 or not WHOLE_CHARACTERS.may_end(state)
    else:
        assert state == 0


@pytest.mark.parametrize(
    "decoder",
    [decoders.BPEDecoder(), decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]), decoders.CTC()],
)
def test_a_decoder_without_bytes_for_tokens_is_refused_by_name(decoder: Any) -> None:
    model = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "[SEP]": 3}, unk_token="[UNK]"))
    model.decoder = decoder
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="[SEP]")
    with pytest.raises(UserError, match="'WordPiece' with decoder"):
        Vocabulary.from_tokenizer(tokenizer)


def test_a_vocabulary_without_end_is_refused() -> None:
    with pytest.raises(UserError, match="no end-of-sequence"):
        Vocabulary([b"a"], [])
