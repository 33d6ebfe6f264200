"""A model's tokenizer: as transformers loads it, and, where that comes to the same, from `tokenizer.json` alone.

transformers' automatic loader imports torch, which takes seconds. Checking and preparing records in the plain template
only need text as token ids, and most models keep all that this takes in one file. Whatever in a model directory could
make transformers change what that file says (a class of its own, code, other special tokens) is left to transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1core.api import UserError
from r1core.data.hub import offline

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Values of `tokenizer_class` that mean: the file as it is."""
FAMILIES = {"gpt2", "gpt_neox", "llama", "olmo2", "qwen3"}
"""Model types for which transformers keeps to that; it overrules the class of some others (`qwen2`, `phi3`)."""
HARMLESS = {
    *("tokenizer_class", "backend", "model_max_length", "clean_up_tokenization_spaces", "chat_template"),
    *("bos_token", "eos_token", "pad_token", "unk_token", "padding_side", "truncation_side", "model_input_names"),
}
"""Keys of `tokenizer_config.json` that leave the ids of a text as they are."""
PATCHED_ABOVE = 100_000
"""Tokens: transformers inspects larger vocabularies for a faulty regular expression that some models share."""


@lru_cache(maxsize=4)
def tokenizer_at(directory: str, revision: str | None = None) -> Any:
    """The tokenizer of a model directory or hub id, as transformers loads it.

    Raises
    ------
    UserError : when it is not there, has no fast form (offsets are needed) or no end-of-sequence token.
    """
    alone = offline(directory, revision)
    try:
        tokenizer = _loader(Path(directory)).from_pretrained(directory, revision=revision, local_files_only=alone)
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)) and type(error) is not Exception:  # a broken file is a bare one
            raise
        raise UserError(f"{directory}: no tokenizer: {_first_line(error)}", fix="give a complete model") from error
    if not tokenizer.is_fast:
        raise UserError(f"{directory}: only a slow tokenizer", fix="save its fast form (tokenizer.json) beside it")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{directory}: the tokenizer names no eos_token", fix="set eos_token in tokenizer_config.json")
    return tokenizer


def _loader(folder: Path) -> Any:
    import transformers

    if generic_config(folder) is not None:  # the class that the automatic loader comes to, without importing torch
        return transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer


class StoredTokenizer:
    """`tokenizer.json` by itself, with the part of a fast Hugging Face tokenizer that plain prompts need.

    Parameters
    ----------
    named : special tokens by their name in the configuration (`eos_token`); each is one of the file's own.
    """

    chat_template = None

    def __init__(self, backend: Tokenizer, named: Mapping[str, str]) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend_tokenizer = backend
        vocabulary = self.get_vocab()
        self.all_special_ids = sorted({vocabulary[token] for token in named.values()})
        self.eos_token_id = vocabulary[named["eos_token"]]

    def __call__(
        self, text: str, *, add_special_tokens: Literal[False], return_offsets_mapping: bool = False
    ) -> dict[str, Sequence[Any]]:
        """Token ids of a text, and each token's characters `[start, end)` where asked for."""
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        offsets = {"offset_mapping": encoded.offsets} if return_offsets_mapping else {}
        return {"input_ids": encoded.ids, **offsets}

    def decode(
        self, tokens: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: Literal[False]
    ) -> str:
        """The text of tokens, verbatim."""
        return str(self.backend_tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id, added ones included."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary


@lru_cache(maxsize=4)
def stored_tokenizer(directory: str) -> StoredTokenizer | None:
    """The tokenizer of a model directory without transformers, or None where only transformers can tell what it is."""
    folder = Path(directory)
    config = generic_config(folder)
    beside = [name for name in ("special_tokens_map.json", "added_tokens.json") if (folder / name).exists()]
    if config is None or beside or not config.keys() <= HARMLESS:
        return None
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the library raises bare Exception; transformers meets the same file and says what is wrong
        return None
    added = backend.get_added_tokens_decoder().values()
    own = {token.content for token in added if token.special and not _altered(token)}
    named = {key: value for key, value in config.items() if key.endswith("_token") and value is not None}
    known = all(isinstance(value, str) and value in own for value in named.values())
    if not known or "eos_token" not in named or backend.get_vocab_size() > PATCHED_ABOVE:
        return None
    return StoredTokenizer(backend, named)


def generic_config(folder: Path) -> Mapping[str, Any] | None:
    """`tokenizer_config.json` of a directory whose `tokenizer.json` no class of its own changes, else None."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named, family = config.get("tokenizer_class"), model.get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    generic = named in GENERIC and family in FAMILIES and "auto_map" not in config
    return config if generic and (folder / "tokenizer.json").is_file() else None


def _altered(token: Any) -> bool:
    """Whether a special token has flags that transformers would set back when it adds the token again."""
    return bool(token.normalized or token.lstrip or token.rstrip or token.single_word)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
