"""TRL's SFTTrainer: its defaults, and without the gradient checkpointing that they switch on."""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from workload import ALPHA, LINEAR, RANK, RATE, Clock, Work, measured, model, rows, work_from

VARIANTS = ("default", "unchecked")


def train(work: Work, clock: Clock) -> float:
    import pyarrow
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Tick(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            clock.tick()

    cuda = torch.cuda.is_available()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2, "<unk>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    # With a name of its own: some pairs of datasets and dill cannot hash a table.
    data = InMemoryTable(pyarrow.table({"input_ids": rows(work)}))
    with tempfile.TemporaryDirectory() as place:
        config = SFTConfig(
            output_dir=place, per_device_train_batch_size=work.rows, max_steps=work.all_steps, learning_rate=RATE,
            lr_scheduler_type="constant", bf16=cuda, use_cpu=not cuda, report_to=[], save_strategy="no",
            logging_steps=10**6,
            max_length=work.length, dataset_kwargs={"skip_prepare_dataset": True}, disable_tqdm=True,
            gradient_checkpointing=work.variant == "default", dataloader_num_workers=2,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model(work), args=config, train_dataset=Dataset(data, fingerprint="rows"),
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEAR, task_type="CAUSAL_LM"),
            processing_class=tokenizer, callbacks=[Tick()],
        )  # fmt: skip
        return float(trainer.train().training_loss)


if __name__ == "__main__":
    asked = work_from(sys.argv[1:], VARIANTS)
    measured(asked, f"trl {asked.variant}", lambda clock: train(asked, clock))
