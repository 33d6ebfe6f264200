"""Tokenizers of the three families that have bytes for tokens, built in code."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from r1core.testing.tiny import SENTENCES, tiny_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:-_/()'{}[]\"\\%"


def byte_level() -> Any:
    return tiny_tokenizer()


def sentencepiece(*, strips: bool = True) -> Any:
    """Llama's layout: metaspace, byte fallback, one space dropped from the start of the text."""
    words = sorted({f"▁{word}" for sentence in SENTENCES for word in sentence.split()} | {"▁war", "farin", "war", "▁▁"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *LETTERS, "é", *words]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    model = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if strips else []
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    model.add_tokens(["extra", AddedToken(" spaced", normalized=True)])
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_piece(*, cleanup: bool = True) -> Any:
    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    special = ["[PAD]", "[UNK]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    texts = [*SENTENCES, "war ##farin 'm n't ' s we've they're", " ".join(LETTERS), LETTERS]
    model.train_from_iterator(texts * 4, trainer)
    model.add_tokens(["do not", "'s", "##arin", "extra", '##"', "##,", "##.", "##:", "##{", "##}", "##_"])
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]")


FAMILIES = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "sentencepiece, no strip": lambda: sentencepiece(strips=False),
    "word_piece": word_piece,
    "word_piece, no cleanup": lambda: word_piece(cleanup=False),
}
