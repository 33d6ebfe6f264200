"""The bytes of every token id, which is what byte automata are lifted over.

Covers byte-level BPE (GPT-2's byte alphabet) and sentencepiece-like vocabularies (metaspace, `<0xAB>` byte fallback),
each read from the fast tokenizer's own decoder. Does not cover WordPiece or character vocabularies, whose
decoders add or remove text between tokens: no per-token bytes exist there, so they are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from r1core.api import UserError

METASPACE = "\u2581"  # sentencepiece's visible space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """What each token id appends to the generated text.

    Parameters
    ----------
    token_bytes : the bytes of each id; b"" for ids that append nothing (special and unused ids).
    eos_ids : ids that end the text; at least one.
    special_ids : control tokens; under a constraint only those in `eos_ids` may ever be generated.

    Attributes
    ----------
    size : number of ids, the width of the model's logits.
    never_ids : ids that no constraint allows: special, unused or empty ones, without `eos_ids`.
    cache : what other modules derive from this vocabulary once, under their own key.
    """

    def __init__(self, token_bytes: Iterable[bytes], eos_ids: Iterable[int], special_ids: Iterable[int] = ()) -> None:
        self.token_bytes: tuple[bytes, ...] = tuple(token_bytes)
        self.size = len(self.token_bytes)
        self.eos_ids = frozenset(int(i) for i in eos_ids)
        self.special_ids = frozenset(int(i) for i in special_ids) | self.eos_ids
        outside = sorted(i for i in self.special_ids if not 0 <= i < self.size)
        if outside:
            raise UserError(f"token ids {outside} are outside the vocabulary of {self.size} tokens")
        if not self.eos_ids:
            raise UserError(
                "the tokenizer names no end-of-sequence token, so constrained text could never end",
                fix="set eos_token in the model's tokenizer_config.json",
            )
        empty = {i for i, data in enumerate(self.token_bytes) if not data}
        self.never_ids = (self.special_ids | empty) - self.eos_ids
        self.cache: dict[str, object] = {}

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, size: int | None = None, eos_ids: Iterable[int] = ()) -> Vocabulary:
        """Read a fast Hugging Face tokenizer.

        Parameters
        ----------
        size : width of the model's logits where it exceeds the tokenizer (padded embeddings); the surplus ids are
            never allowed.
        eos_ids : further ids that end the text, for instance those of the generation config.

        Raises
        ------
        UserError : for a slow tokenizer, one without an end token, or a vocabulary without per-token bytes.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, so its decoder cannot be read",
                fix="convert it once with tokenizers and save tokenizer.json beside the model",
            )
        spec = json.loads(backend.to_str())
        decode = _decoder(spec)
        added = {int(t["id"]): t for t in spec.get("added_tokens", [])}
        special = {i for i, t in added.items() if t.get("special")} | {int(i) for i in tokenizer.all_special_ids}
        tokens: Mapping[str, int] = tokenizer.get_vocab()
        width = max(size or 0, max(tokens.values()) + 1)
        token_bytes = [b""] * width
        for token, index in tokens.items():
            if index not in special:
                token_bytes[index] = token.encode() if index in added else decode(token)
        ends = {int(i) for i in eos_ids}
        if tokenizer.eos_token_id is not None:
            ends.add(int(tokenizer.eos_token_id))
        return cls(token_bytes, ends, special)


def _decoder(spec: Mapping[str, Any]) -> Any:
    """Return the function `token string -> bytes` that a tokenizer.json's decoder amounts to."""
    parts = _parts(spec.get("decoder"))
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level
    replaces = any(p["type"] == "Replace" and p.get("pattern", {}).get("String") == METASPACE for p in parts)
    if "Metaspace" in kinds or replaces:
        return _sentencepiece if "ByteFallback" in kinds or spec["model"].get("byte_fallback") else _metaspace
    found = "+".join(sorted(kinds)) or "none"
    raise UserError(
        f"tokenizer model {spec['model'].get('type')!r} with decoder {found!r} gives no bytes per token; "
        "expected byte-level BPE, or sentencepiece with metaspace",
        fix="use a causal model with one of these vocabularies, or generate without constraints",
    )


def _parts(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] != "Sequence":
        return [decoder]
    return [leaf for part in decoder["decoders"] for leaf in _parts(part)]


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, `bytes_to_unicode`), inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _byte_level(token: str) -> bytes:
    alphabet = _byte_alphabet()
    if all(c in alphabet for c in token):
        return bytes(alphabet[c] for c in token)
    return token.encode()  # the library's decoder, too, keeps a token whole that is not in the alphabet


def _metaspace(token: str) -> bytes:
    return token.replace(METASPACE, " ").encode()


def _sentencepiece(token: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else _metaspace(token)
