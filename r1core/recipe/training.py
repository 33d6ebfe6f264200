"""The tables of the recipe that say what is trained, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1core.recipe.table import Fraction, Positive, Table

RANK_PRESETS = {"text-64": 64, "text-128": 128, "multimodal-32": 32, "multimodal-64": 64}
"""Rank by the name of `adapter.preset`; its alpha is twice that."""
RATE_PRESETS = {"tenth": 10.0, "fifth": 5.0}
"""What `train.base_learning_rate` is divided by, by the name of `train.learning_rate_preset`."""


class Adapter(Table):
    """[adapter]: low-rank adapters. `targets` are module names, or all linear layers of the blocks; `experts` among the
    names are the stacked experts of every block (LoRA and rsLoRA).

    LoRA (arXiv:2106.09685), rsLoRA (arXiv:2312.03732) and DoRA (arXiv:2402.09353) through PEFT; GELU-LoRA is ours.
    """

    kind: Literal["lora", "rslora", "dora", "gelu_lora"] = "lora"
    preset: Literal["", "text-64", "text-128", "multimodal-32", "multimodal-64"] = Field(
        default="", description="a rank by name, with alpha = 2 x rank; excludes `rank`"
    )
    rank: Positive = 16
    alpha: int = Field(default=32, gt=0, strict=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, strict=False)
    targets: list[str] | Literal["all-linear"] = "all-linear"
    first_layer: int = Field(default=0, ge=0, description="blocks below this one stay untouched (and need no backward)")
    initial: Literal["random", "principal"] = Field(
        default="random",
        description="how A starts: at random, or at the principal directions of what each layer reads (LoRA kinds)",
    )
    freeze_a: bool = Field(
        default=False,
        description="A stays as it starts and B alone is trained (LoRA-FA, arXiv:2308.03303; LoRA kinds)",
    )
    public_source: str | None = Field(
        default=None, description="for `initial`: a data set whose prompts (`train`) anyone may read"
    )
    public_texts: Path | None = Field(
        default=None,
        strict=False,
        description="for `initial`: a file of public texts instead, one a line, put into `data.prompt`",
    )
    gelu_scale: float = Field(
        default=0.7, gt=0.0, strict=False, description="`gelu_lora` only: what its update is multiplied by"
    )

    @model_validator(mode="before")
    @classmethod
    def _rank_of_the_preset(cls, data: object) -> object:
        rank = RANK_PRESETS.get(str(data.get("preset"))) if isinstance(data, dict) else None
        if not isinstance(data, dict) or rank is None:
            return data
        if data.get("rank", rank) != rank:  # a run's own recipe.toml states both, and they agree
            raise ValueError(
                f'preset = "{data["preset"]}" is rank {rank}, and rank = {data["rank"]}; state one of them'
            )
        return {"alpha": 2 * rank, **data, "rank": rank}


class RouterTemperature(Table):
    """[train.router_temperature]: how training moves tau of R1's routers; all of them have to be trained."""

    start: float = Field(default=2.0, ge=0.001, le=1000.0, strict=False, description="before the first step")
    end: float = Field(default=0.5, ge=0.001, le=1000.0, strict=False, description="what the trained model routes by")
    shape: Literal["cosine", "linear"] = Field(default="cosine", description="`cosine` is flat at both ends")
    share: float = Field(default=1.0, gt=0.0, le=1.0, strict=False, description="of the steps, then tau is at `end`")


class Train(Table):
    """[train]: the objective and the optimiser. Learning rates are per optimiser step."""

    objective: Literal["sft", "multitask"] = "sft"
    epochs: Positive = 1
    steps: int = Field(default=0, ge=0, description="stop after this many optimiser steps; 0 = by epochs")
    batch_size: Positive = Field(default=16, description="rows per optimiser step")
    learning_rate: float = Field(default=1e-3, gt=0.0, strict=False)
    base_learning_rate: float | None = Field(
        default=None, gt=0.0, strict=False, description="the rate of pre-training, for `learning_rate_preset`"
    )
    learning_rate_preset: Literal["", "tenth", "fifth"] = Field(
        default="", description="`learning_rate` as a part of `base_learning_rate`; excludes `learning_rate`"
    )
    layer_learning_rate: float = Field(default=1e-3, gt=0.0, strict=False, description="for extra layers and gates")
    lora_plus_ratio: float = Field(
        default=1.0, gt=0.0, strict=False, description="learning rate of LoRA's B over that of A (LoRA+); 1 = equal"
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        strict=False,
        description="share of each target spread over what `softmax` runs over",
    )
    softmax: Literal["vocabulary", "labels"] = Field(
        default="vocabulary",
        description="what the loss's softmax runs over: all tokens, or those that lead to some label of the set",
    )
    reasoning: Literal["supervised", "context"] = Field(
        default="supervised",
        description="a row's `<think>` block: the loss counts it with the answer, or it is read and the answer counts",
    )
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: Annotated[Fraction, Field(strict=False)] = 0.05
    weight_decay: float = Field(default=0.0, ge=0.0, strict=False)
    max_grad_norm: float = Field(default=1.0, gt=0.0, strict=False)
    packing: Literal["shared_prefix", "best_fit", "padded", "none"] = "shared_prefix"
    micro_batch_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens of one forward pass; a larger batch is accumulated. 0 = whole batch at once",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="keep each block's input only and compute the rest again: less memory, more time"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="`torch.compile` of the blocks and the loss; `auto` = on a GPU"
    )
    parallel: Literal["ddp", "fsdp2"] = Field(
        default="ddp",
        description="several processes: each holds all weights, or a slice of each (FSDP2, under a launcher)",
    )
    router_temperature: RouterTemperature | None = Field(
        default=None, description="how tau of an R1's routers moves; absent = it stays as the model states it"
    )
    balance_passes: int = Field(
        default=0,
        ge=0,
        description="passes over batches of the training behind its last step, which only move what keeps the experts"
        " of an R1 with trained routers even; each takes about a third of a step",
    )
    checkpoint_every: Positive = Field(default=100, description="optimiser steps")
    keep_checkpoints: Positive = 2

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_preset(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        part, base = RATE_PRESETS.get(str(data.get("learning_rate_preset"))), data.get("base_learning_rate")
        if (part is None) != (base is None):
            raise ValueError("learning_rate_preset and base_learning_rate are set together, or neither is")
        if part is None or not isinstance(base, int | float):
            return data
        if data.get("learning_rate", base / part) != base / part:  # a run's own recipe.toml states all, and they agree
            raise ValueError(
                f'learning_rate_preset = "{data["learning_rate_preset"]}" of {base} is {base / part:g}, '
                f"and learning_rate = {data['learning_rate']}; state one of them"
            )
        return {**data, "learning_rate": base / part}
