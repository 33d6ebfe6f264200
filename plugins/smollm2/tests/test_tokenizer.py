"""The tokenizer against the GGUF vocabulary and a naive byte-level BPE that shares no code with it."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from r1core_smollm2.header import read_header
from tokenizers import Tokenizer

# GPT-2's pattern behind a split into single digits
DIGIT = regex.compile(r"\p{N}|[^\p{N}]+")
PIECE = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


@cache
def byte_characters() -> list[str]:
    """GPT-2's table: printable bytes stand for themselves, the others from U+0100 on (Radford et al. 2019, code)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class NaiveBPE:
    """Cut special tokens out whole; in what is left, merge the best-ranked neighbouring pair until none is left.

    A byte that has no token is left out first, so that what stood on either side of it in one piece may merge.
    """

    def __init__(self, tokens: list[str], merges: list[str], special: list[str]) -> None:
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}

        self.special = regex.compile("(" + "|".join(map(regex.escape, special)) + ")")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self.special.split(text)):
            ids += [self.ids[part]] if number % 2 else self.encode_plain(part)  # every second part is a special token
        return ids

    def encode_plain(self, text: str) -> list[int]:
        pieces = [piece for part in DIGIT.findall(text) for piece in PIECE.findall(part)]
        return [i for piece in pieces for i in self.encode_piece(piece)]

    def encode_piece(self, piece: str) -> list[int]:
        written = [byte_characters()[byte] for byte in piece.encode()]
        symbols = [symbol for symbol in written if symbol in self.ids]
        while len(symbols) > 1:
            ranked = [(self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(pairwise(symbols))]
            rank, i = min(ranked)
            if rank == 1 << 30:
                break
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        return [self.ids[symbol] for symbol in symbols]


@pytest.fixture(scope="module")
def tokenizer(converted: Path) -> Tokenizer:
    return Tokenizer.from_file(str(converted / "tokenizer.json"))


@pytest.fixture(scope="module")
def metadata(real: Path) -> dict:
    return read_header(real).metadata


@pytest.fixture(scope="module")
def naive(metadata: dict) -> NaiveBPE:
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    return NaiveBPE(tokens, metadata["tokenizer.ggml.merges"], special)


ANY, PLAIN = st.characters(exclude_categories=["Cs", "Cn"]), "aeht \n'.,0123456789"
TEXTS = st.text(ANY, max_size=60) | st.text(PLAIN, max_size=60)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="Type 2 diabetes mellitus, HbA1c 7.85 % (2021-03-04)\n\n  it's  élevé — 糖尿病 🩺")
@example(text=":\x1d/")  # no token for 0x1D: encoded as ":/" is
@example(text="a\x1db \x04\x06 \U00040000")  # dropped between pieces, as a whole piece, and as a lead byte
@example(text="a<|im_end|>\x1d<repo_name><reponame> 1")  # strings of the source under test are among what is tried
def test_encoding_is_that_of_a_naive_bpe_and_decodes_back(text: str, tokenizer: Tokenizer, naive: NaiveBPE) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == naive.encode(text)
    kept = bytes(byte for byte in text.encode() if byte_characters()[byte] in naive.ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == kept.decode(errors="replace")


def test_only_bytes_that_no_written_text_needs_have_no_token(naive: NaiveBPE) -> None:
    """The published vocabulary lacks them; such a byte is lost in encoding (the README says so)."""
    missing = {byte for byte in range(256) if byte_characters()[byte] not in naive.ids}
    controls = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D}
    planes_4_to_11 = {0xF1, 0xF2}
    never_in_utf8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert missing == controls | planes_4_to_11 | never_in_utf8


def test_a_byte_without_a_token_is_dropped_as_if_it_had_not_been_there(tokenizer: Tokenizer) -> None:
    """No unknown token stands in its place, for the published BPE model has none."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    assert len(ids(":/")) == 1
    assert ids(":\x1d/") == ids(":/")
    assert ids("\x1d") == []
    assert tokenizer.decode(ids("tablet\x1ds")) == "tablets"


def test_ids_are_those_of_the_gguf_vocabulary(tokenizer: Tokenizer, metadata: dict) -> None:
    tokens = metadata["tokenizer.ggml.tokens"]
    assert tokenizer.get_vocab_size(with_added_tokens=True) == len(tokens) == 49152
    assert [tokenizer.id_to_token(i) for i in range(len(tokens))] == tokens


def test_every_special_token_is_one_id_wherever_it_stands(tokenizer: Tokenizer, metadata: dict) -> None:
    special = [i for i, kind in enumerate(metadata["tokenizer.ggml.token_type"]) if kind == 3]
    assert len(special) == 17
    for i in special:
        text = f"a{tokenizer.id_to_token(i)}b"
        assert i in tokenizer.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == "ab"


def test_transformers_loads_the_same_tokenizer(converted: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(converted)
    text = "HbA1c 7.85 %, <|im_start|>user\n it's 2021"
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id, loaded.unk_token_id) == (1, 2, 2, 0)
    assert (loaded.eos_token, loaded.model_max_length, len(loaded)) == ("<|im_end|>", 8192, 49152)


def test_the_chat_template_renders_as_in_the_gguf_file(converted: Path, metadata: dict) -> None:
    from jinja2 import Environment
    from transformers import AutoTokenizer

    stored = json.loads((converted / "tokenizer_config.json").read_text())["chat_template"]
    assert stored == metadata["tokenizer.chat_template"]
    messages = [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "38.5 °C"}]
    rendered = AutoTokenizer.from_pretrained(converted).apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(metadata["tokenizer.chat_template"])
    assert rendered == template.render(messages=messages, add_generation_prompt=True)
    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nFever?<|im_end|>\n<|im_start|>assistant\n38.5 °C<|im_end|>\n<|im_start|>assistant\n"
    )
