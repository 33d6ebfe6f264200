"""Tiny tokenizers of both families, built in code."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from r1core.testing.tiny import tiny_tokenizer


def sentencepiece() -> Any:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "▁ab", "ab", "é"]
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Replace(" ", "▁")
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def sentencepiece_tokenizer() -> Any:
    return sentencepiece()
