"""Loading a causal language model, and proving that packing is safe on it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from r1core.api import SpanKind, UserError
from r1core.data.packing import Batch, pack_rows
from r1core.data.tokens import Encoded
from r1core.model.resolve import BaseModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(base: BaseModel, *, precision: str, attention: str) -> PreTrainedModel:
    """Load the base model, frozen, in evaluation mode.

    Parameters
    ----------
    precision : `fp32` or `bf16`.
    attention : `sdpa` or `eager`.

    Raises
    ------
    UserError : when the directory holds no causal language model, or the download is not possible.
    """
    directory = base.directory()
    logging.disable_progress_bar()  # a bar for a second's work; the CLI shows its own progress
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            revision=base.revision,
            dtype=DTYPES[precision],
            attn_implementation=attention,
            local_files_only=_offline(directory),
        )
    except SafetensorError as error:
        raise UserError(f"{directory}: broken weights: {error}", fix="copy or download the model again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: not a causal language model: {_first_line(error)}") from error
    model.requires_grad_(False)
    model.eval()
    return model


def logits_at(model: torch.nn.Module, batch: Batch, past: object = None) -> torch.Tensor:
    """Logits at the batch's wanted positions, `(P, V)` in fp32; nothing else goes through the output head."""
    output = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.mask,
        past_key_values=past,
        use_cache=past is not None,
        logits_to_keep=batch.where,
    )
    return output.logits[0].float()


@torch.no_grad()
def check_packing(
    model: PreTrainedModel | PeftModel, rows: Sequence[Encoded], kinds: Mapping[str, SpanKind], tolerance: float
) -> None:
    """Refuse packing where a packed row's logits differ from the same row's alone.

    Raises
    ------
    UserError : when they differ by more than `tolerance` (absolute, on logits).
    """
    packed = pack_rows(rows, kinds, model.dtype)
    together = logits_at(model, packed)
    alone = torch.cat([logits_at(model, pack_rows([row], kinds, model.dtype)) for row in rows])
    worst = float((together - alone).abs().max())
    if not worst <= tolerance:
        raise UserError(
            f"{type(model).__name__}: rows packed together see one another (logits differ by {worst:.3g})",
            fix='set train.packing = "none"',
        )


def _offline(directory: str) -> bool:
    return os.path.isdir(directory)  # noqa: PTH112  # a hub id is no path


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
