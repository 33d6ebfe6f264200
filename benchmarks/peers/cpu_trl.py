"""TRL's side of the CPU comparison: SFTTrainer on the same token rows, the same tokens supervised.

`--packing padded` is TRL's default; `free` lays a batch's rows in one sequence without padding (`padding_free`), which
keeps rows apart by their position ids. Several processes are started by `torch.distributed.run`, each with its part of
the batch.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from cpu_work import ALPHA, RANK, RATE, Clock, Work, measured, work_from


def train(work: Work, clock: Clock) -> float:
    import pyarrow
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Tick(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            clock.tick()

    world = int(os.environ.get("WORLD_SIZE", "1"))
    bf16 = work.precision == "bf16"
    model = AutoModelForCausalLM.from_pretrained(
        work.model, dtype=torch.bfloat16 if bf16 else torch.float32, attn_implementation=work.attention
    )
    ids = [prompt + response for prompt, response in work.rows]
    labels = [[-100] * len(prompt) + response for prompt, response in work.rows]
    # With a name of its own: some pairs of datasets and dill cannot hash a table.
    data = Dataset(InMemoryTable(pyarrow.table({"input_ids": ids, "labels": labels})), fingerprint="rows")
    with tempfile.TemporaryDirectory() as place:
        config = SFTConfig(
            output_dir=place, per_device_train_batch_size=work.batch // world, max_steps=work.all_steps,
            learning_rate=RATE, lr_scheduler_type="constant", bf16=bf16, use_cpu=True, report_to=[],
            save_strategy="no", logging_steps=10**6, logging_first_step=True, disable_tqdm=True,
            gradient_checkpointing=work.checkpointing, padding_free=work.packing == "free", max_length=None,
            train_sampling_strategy="sequential", dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=config, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(work.model),
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Tick()],
        )  # fmt: skip
        if trainer.accelerator.num_processes != world:
            raise SystemExit(f"{world} processes were started, {trainer.accelerator.num_processes} run")
        torch.set_num_threads(work.threads)  # accelerate sets its own
        trainer.train()
        return float(next(line["loss"] for line in trainer.state.log_history if "loss" in line))


if __name__ == "__main__":
    asked = work_from(sys.argv[1:])
    measured(asked, lambda clock: train(asked, clock))
