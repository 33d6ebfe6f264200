"""The loop against transformers and PEFT as anybody would use them: the same losses, step by step.

The reference shares no code with ours: PEFT's own LoRA layers, rows padded to one length under an attention mask,
labels of -100, torch's loss and AdamW, one global token mean, and a schedule of torch's.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from r1core.testing.tiny import tiny_model

STEPS, RATE = 20, 2e-3
PAD = 0


def plain_losses(run: Any, attention: str) -> list[float]:
    """Losses of transformers + PEFT on the rows of each step of `run`, from the weights that `run` begins with."""
    base = tiny_model()
    base.set_attn_implementation(attention)
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).train()
    begin = {name.replace(".default", ""): tensor for name, tensor in run.tensors()["adapter"].items()}
    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    assert begin.keys() == trained.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(begin[name])
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)
    warm = max(1, round(STEPS * 0.05))

    def factor(step: int) -> float:
        after = (step - warm) / (STEPS - warm)
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * after))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    for step in range(STEPS):
        rows = [run.rows[i] for i in run.order.rows(step)]
        longest = max(len(row.prompt) + len(row.response) for row in rows)
        ids, labels, seen = (torch.full((len(rows), longest), fill) for fill in (PAD, -100, 0))
        for line, row in enumerate(rows):
            end = len(row.prompt) + len(row.response)
            ids[line, :end] = torch.tensor(row.prompt + row.response)
            labels[line, len(row.prompt) : end] = torch.tensor(row.response)
            seen[line, :end] = 1
        loss = model(input_ids=ids, attention_mask=seen, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packing", ["shared_prefix", "best_fit", "none"])
def test_losses_are_those_of_transformers_and_peft(tiny: ModuleType, packing: str, attention: str) -> None:
    losses: list[float] = []
    run = tiny.trainer(
        on_step=lambda step, metrics: losses.append(metrics["loss"]),
        layer=False, packing=packing, attention=attention, steps=STEPS, learning_rate=RATE,
    )  # fmt: skip
    expected = plain_losses(run, attention)
    run.run()
    assert losses == pytest.approx(expected, rel=1e-5)
    assert min(losses) < losses[0] - 0.1, "the run learns something"
