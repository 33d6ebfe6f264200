"""The byte-level BPE tokenizer that the GGUF metadata describes, as `tokenizer.json` and `tokenizer_config.json`."""

from __future__ import annotations

from typing import Any

MODEL, PRE_TOKENIZER = "gpt2", "smollm"  # llama.cpp's names: byte-level BPE; digits split one by one before it
CONTROL = 3  # llama.cpp's token type of special tokens


def tokenizer_json(metadata: dict[str, Any]) -> str:
    """The content of `tokenizer.json`.

    Raises
    ------
    KeyError : where the metadata lacks a key. ValueError : where the file's tokenizer is of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if kind != (MODEL, PRE_TOKENIZER):
        raise ValueError(f"tokenizer {kind}, expected {(MODEL, PRE_TOKENIZER)}")
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError("a token occurs twice in the vocabulary")
    merges = [_pair(merge, vocabulary) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special(metadata)])
    return str(tokenizer.to_str(pretty=False))


def tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """The content of `tokenizer_config.json`, with the chat template as the file has it."""
    tokens = metadata["tokenizer.ggml.tokens"]
    names = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        **{theirs: tokens[metadata[f"tokenizer.ggml.{ours}_token_id"]] for ours, theirs in names.items()},
        "chat_template": metadata["tokenizer.chat_template"],
    }


def special(metadata: dict[str, Any]) -> list[str]:
    """The special tokens, in order of their ids."""
    pairs = zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True)
    return [token for token, kind in pairs if kind == CONTROL]


def _pair(merge: str, vocabulary: dict[str, int]) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
        raise ValueError(f"the merge {merge!r} is not two tokens that make a third")
    return left, right
