"""transformers + PEFT in a plain loop: eager, compiled, or with Liger's kernels, each at its best simple setting."""

from __future__ import annotations

import sys

from workload import ALPHA, LINEAR, RANK, RATE, Clock, Work, measured, model, rows, work_from

VARIANTS = ("eager", "compiled", "liger", "liger_compiled")


def train(work: Work, clock: Clock) -> float:
    import torch
    from peft import LoraConfig, get_peft_model

    if work.variant.startswith("liger"):
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    torch.set_float32_matmul_precision("high")
    base = model(work)
    adapted = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEAR, task_type="CAUSAL_LM"))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)
    adapted.train()
    forward = torch.compile(adapted) if work.variant.endswith("compiled") else adapted
    data = torch.tensor(rows(work)).split(work.rows)
    loss = torch.zeros(())
    for batch in data:
        ids = batch.to(base.device)
        loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick()
    return float(loss)


if __name__ == "__main__":
    asked = work_from(sys.argv[1:], VARIANTS)
    measured(asked, f"transformers + peft, {asked.variant}", lambda clock: train(asked, clock))
