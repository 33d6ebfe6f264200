"""A small dense model of ICD-10-CM, made from nothing in minutes: what R1's benchmarks upcycle where there is no GPU.

Run: python benchmarks/r1_small.py DIR [--steps 400]
Three layers of width 64, a vocabulary of 1,024 pieces learned from the training part alone, trained on that part.
`python benchmarks/r1_training.py --model DIR --text DIR/icd.npz --rows 16 --length 128` goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from r1_icd import documents, part_of, parts
from r1_steps import token_losses, trained
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, END = 1024, 0
ROWS, LENGTH, RATE = 16, 128, 3e-3


def vocabulary(file: Path) -> None:
    """Learn byte pairs from the training part and write `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = (text for category, _, text in documents() if part_of(category) == "train")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|end|>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(file))


def config(base: float = 100_000.0) -> LlamaConfig:
    """Sizes of the model, with a rotary base."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=END, eos_token_id=END, pad_token_id=END,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if not (chosen.folder / "tokenizer.json").exists():
        vocabulary(chosen.folder / "tokenizer.json")
    text = parts(chosen.folder / "icd.npz", chosen.folder / "tokenizer.json", END)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config())
    batches = text["train"].batches(ROWS, LENGTH, seed=7)
    trained(model, [(list(model.parameters()), RATE)], batches, chosen.steps, name="small")
    loss = float(np.mean(token_losses(model, text["val"].rows(LENGTH, 0)[0], ROWS)))
    model.save_pretrained(chosen.folder)
    print(f"{sum(w.numel() for w in model.parameters()):,} parameters, validation {loss:.4f} nats a token")


if __name__ == "__main__":
    main()
