"""Unsloth's patched model in a plain loop: its own gradient checkpointing, and without any.

Needs an environment of its own (`requirements-unsloth.txt`). Unsloth loads models from a directory, so the random one
is written to a temporary place first.
"""

from __future__ import annotations

import sys
import tempfile

from workload import ALPHA, LINEAR, RANK, RATE, Clock, Work, measured, model, rows, work_from

VARIANTS = ("default", "unchecked")


def train(work: Work, clock: Clock) -> float:
    import unsloth  # before torch and transformers, which it patches  # noqa: I001
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as place:
        words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2, "<unk>": 1}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(place)
        model(work, to="cpu").save_pretrained(place)
        base, _ = unsloth.FastLanguageModel.from_pretrained(
            place, max_seq_length=work.length, dtype=torch.bfloat16, load_in_4bit=False, local_files_only=True
        )
    adapted = unsloth.FastLanguageModel.get_peft_model(
        base, r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=LINEAR, bias="none",
        use_gradient_checkpointing="unsloth" if work.variant == "default" else False,
    )  # fmt: skip
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    unsloth.FastLanguageModel.for_training(adapted, use_gradient_checkpointing=work.variant == "default")
    loss = torch.zeros(())
    for batch in torch.tensor(rows(work)).split(work.rows):
        ids = batch.to("cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick()
    return float(loss.detach())


if __name__ == "__main__":
    asked = work_from(sys.argv[1:], VARIANTS)
    measured(asked, f"unsloth {asked.variant}", lambda clock: train(asked, clock))
