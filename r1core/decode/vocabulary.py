"""The bytes of every token id, which is what byte automata are lifted over.

Covers byte-level BPE (GPT-2's byte alphabet), sentencepiece-like vocabularies (metaspace, `<0xAB>` byte fallback) and
WordPiece (`##` continues a word, any other token starts one with a space), each read from the fast tokenizer's own
decoder. Where that decoder treats the first token of a text in another way (no space before it), its bytes there are
kept beside. A decoder that does anything else to text, or that turns tokens into text only together, is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
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
    first_bytes : the same for a token that starts the text, where it differs.
    whole_characters : whether these bytes are the text only where they are valid UTF-8: sentencepiece's byte fallback
        turns a whole run of byte tokens that are not into replacement characters, letters in it included.

    Attributes
    ----------
    size : number of ids, the width of the model's logits.
    never_ids : ids that no constraint allows: special, unused or empty ones, without `eos_ids`.
    cache : what other modules derive from this vocabulary once, under their own key.
    """

    def __init__(
        self,
        token_bytes: Iterable[bytes],
        eos_ids: Iterable[int],
        special_ids: Iterable[int] = (),
        first_bytes: Iterable[bytes] | None = None,
        *,
        whole_characters: bool = False,
    ) -> None:
        self.token_bytes: tuple[bytes, ...] = tuple(token_bytes)
        first = self.token_bytes if first_bytes is None else tuple(first_bytes)
        self.first_bytes = self.token_bytes if first == self.token_bytes else first
        self.size = len(self.token_bytes)
        self.whole_characters = whole_characters
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
        empty = {i for i, data in enumerate(self.token_bytes) if not data}  # a lone space may be empty at the start
        self.never_ids = (self.special_ids | empty) - self.eos_ids
        self.cache: dict[str, object] = {}

    @cached_property
    def inside(self) -> Vocabulary:
        """The same behind other text, where no token is the first one."""
        if self.first_bytes is self.token_bytes:
            return self
        return Vocabulary(self.token_bytes, self.eos_ids, self.special_ids, whole_characters=self.whole_characters)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        *,
        size: int | None = None,
        eos_ids: Iterable[int] = (),
        spoken: Iterable[str] = (),
    ) -> Vocabulary:
        """Read a fast Hugging Face tokenizer.

        Parameters
        ----------
        size : width of the model's logits where it exceeds the tokenizer (padded embeddings); the surplus ids are
            never allowed.
        eos_ids : further ids that end the text, for instance those of the generation config.
        spoken : tokens that are text, whatever the tokenizer says of them.

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
        added = spec.get("added_tokens", [])
        special = {int(t["id"]) for t in added if t.get("special")} | {int(i) for i in tokenizer.all_special_ids}
        special -= {backend.token_to_id(token) for token in spoken}
        ids = tokenizer.get_vocab().values()
        width = max(size or 0, max(ids) + 1)
        inside, first = [b""] * width, [b""] * width
        for index in set(ids) - special:
            token = backend.id_to_token(index)  # as its decoder gets it: the keys of the vocabulary may differ
            inside[index], first[index] = decode.inside(token), decode.first(token)
        ends = {int(i) for i in eos_ids}
        if tokenizer.eos_token_id is not None:
            ends.add(int(tokenizer.eos_token_id))
        return cls(inside, ends, special, first, whole_characters=decode.whole_characters)

    def bytes_of(self, token: int, first: bool = False) -> bytes:
        """What one token appends; `first` where nothing stands before it."""
        return (self.first_bytes if first else self.token_bytes)[token]

    def text_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes of a whole text."""
        return b"".join(self.bytes_of(token, at == 0) for at, token in enumerate(tokens))


@dataclass(frozen=True, slots=True)
class _Decoder:
    """What a tokenizer.json's decoder amounts to: token string to bytes, inside a text and at its start."""

    inside: Callable[[str], bytes]
    first: Callable[[str], bytes]
    whole_characters: bool = False


def _decoder(spec: Mapping[str, Any]) -> _Decoder:
    parts = _parts(spec.get("decoder"))
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"]:
        return _Decoder(_byte_level, _byte_level)
    if kinds == ["WordPiece"]:
        inside, first = (partial(_wordpiece, parts[0], first=first) for first in (False, True))
        return _Decoder(inside, first)
    known = _sentencepiece(parts)
    if known is not None:
        return known
    found = "+".join(kinds) or "none"
    raise UserError(
        f"tokenizer model {spec['model'].get('type')!r} with decoder {found!r} gives no bytes per token; "
        "expected byte-level BPE, sentencepiece with metaspace, or WordPiece",
        fix="use a causal model with one of these vocabularies, or generate without constraints",
    )


def _sentencepiece(parts: Sequence[Mapping[str, Any]]) -> _Decoder | None:
    """Metaspace, byte fallback, and one space stripped from the start of the whole; None for anything else."""
    kinds = [part["type"] for part in parts]
    replaces = [p["type"] == "Replace" and p["pattern"] == {"String": METASPACE} and p["content"] == " " for p in parts]
    metaspace = next((p for p in parts if p["type"] == "Metaspace"), None)
    rest = [p for p, plain in zip(parts, replaces, strict=True) if not plain and p["type"] not in _SENTENCEPIECE]
    strips = kinds[-1:] == ["Strip"]
    if strips:
        strip, rest = rest[-1], rest[:-1]
        if "Fuse" not in kinds or (strip["content"], strip["start"], strip["stop"]) != (" ", 1, 0):
            return None
    if rest or not (metaspace or any(replaces)):
        return None
    fallback = "ByteFallback" in kinds
    inside = partial(_spaced, fallback=fallback)
    first = partial(_spaced, fallback=fallback, strips=strips)
    if metaspace is not None and metaspace.get("prepend_scheme") != "never":
        first = partial(_spaced, fallback=fallback, strips=strips, space="")
    return _Decoder(inside, first, whole_characters=fallback)


_SENTENCEPIECE = ("Metaspace", "ByteFallback", "Fuse")


def _spaced(token: str, *, fallback: bool, strips: bool = False, space: str = " ") -> bytes:
    """A sentencepiece token's bytes; `space` is what a metaspace stands for."""
    match = _BYTE_TOKEN.fullmatch(token) if fallback else None
    data = bytes([int(match[1], 16)]) if match else token.replace(METASPACE, space).encode()
    return data.removeprefix(b" ") if strips else data


_TIDIED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
"""What the tokenizers library's WordPiece decoder replaces, token by token, where `cleanup` is on."""


def _wordpiece(decoder: Mapping[str, Any], token: str, *, first: bool) -> bytes:
    if not first:
        prefix = decoder["prefix"]
        token = token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
    if decoder["cleanup"]:
        for written, read in _TIDIED:
            token = token.replace(written, read)
    return token.encode()


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
