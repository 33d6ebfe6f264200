"""Loading a causal language model, and proving that packing is safe on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from r1core.api import SpanKind, UserError
from r1core.data.hub import offline
from r1core.data.packing import SHARED, Layout
from r1core.data.padding import laid_out
from r1core.data.tokens import Encoded
from r1core.errors import line_of
from r1core.model import r1
from r1core.model.resolve import BaseModel
from r1core.model.scores import logits_at

PACKING_TOLERANCE = {"fp32": 2e-3, "bf16": 0.5}
"""Largest difference of a logit, packed against alone, that rounding explains in each precision, up to `USUAL`."""
USUAL = 32.0
"""Size of logits up to which that is absolute; rounding grows with them, and a loss over labels lets them grow."""
LONG = 4.0
"""So many tolerances pass, as long rows need, where another token in a neighbour changes nothing in a row."""
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
    r1.known()
    logging.disable_progress_bar()  # a bar for a second's work; the CLI shows its own progress
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            revision=base.revision,
            dtype=DTYPES[precision],
            attn_implementation=attention,
            local_files_only=offline(directory, base.revision),
        )
    except SafetensorError as error:
        raise UserError(f"{directory}: broken weights: {error}", fix="copy or download the model again") from error
    except StrictDataclassError as error:  # a value of another type in `config.json`
        raise UserError(f"{directory}/config.json: {line_of(error, -1)}", fix="correct it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: not a causal language model: {line_of(error)}") from error
    without_cudnn_attention()
    model.requires_grad_(False)
    model.eval()
    return model


def without_cudnn_attention() -> None:
    """Keep torch from cuDNN's attention, whose backward pass under a mask gives NaN for some shapes.

    Seen on an H100 with torch 2.11 for 192 packed tokens in bf16; `benchmarks/gpu_checks.py` looks for it.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@torch.no_grad()
def check_packing(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Encoded],
    kinds: Mapping[str, SpanKind],
    precision: str,
    layout: Layout = SHARED,
) -> None:
    """Refuse packing where a packed row's logits differ from the same row's alone.

    Raises
    ------
    UserError : when they differ by more than `PACKING_TOLERANCE` of this precision (absolute, on logits; in proportion
        to the largest where that is above `USUAL`); by more than `LONG` times that where no row sees another.
    """
    window = _window(model)
    longest = max(row.length for row in rows)
    if window is not None and longest > window and not (layout.flash or layout.apart):
        raise UserError(
            f"{type(model).__name__}: a packed row's mask takes the place of its sliding window of {window} tokens,"
            f" and a row has {longest}",
            fix='set train.packing = "none"',
        )
    device = next(model.parameters()).device

    def logits(laid: Sequence[Encoded]) -> torch.Tensor:
        return logits_at(model, laid_out(laid, kinds, model.dtype, replace(layout, multiple=1)).to(device))

    together, alone = logits(rows), torch.cat([logits([row]) for row in rows])
    worst = float((together - alone).abs().max())
    most = PACKING_TOLERANCE[precision] * max(1.0, float(alone.abs().max()) / USUAL)
    if worst <= most:
        return
    if not (worst <= LONG * most and _moved(rows, together, logits) <= most / 10):
        raise UserError(
            f"{type(model).__name__}: rows packed together see one another (logits differ by {worst:.3g})",
            fix='set train.packing = "none"',
        )


def _moved(
    rows: Sequence[Encoded], together: torch.Tensor, logits: Callable[[Sequence[Encoded]], torch.Tensor]
) -> float:
    """How far the logits of all rows but the first move when the first one's prompt ends in another token.

    Infinite where nothing can be seen: no other row, or no other token.
    """
    first = rows[0]
    unlike = next((token for row in rows for token in row.prompt if token != first.prompt[-1]), None)
    if unlike is None or len(rows) == 1:
        return math.inf
    other = replace(first, prompt=(*first.prompt[:-1], unlike))
    return float((logits([other, *rows[1:]]) - together)[len(first.response) :].abs().max())


def _window(model: PreTrainedModel | PeftModel) -> int | None:
    """Tokens that a layer with sliding-window attention sees; None where every layer sees all."""
    if not isinstance(model, PreTrainedModel | PeftModel):
        return None
    config = model.config.get_text_config()
    if isinstance(config, r1.R1Config):
        return None  # it narrows a mask by its window
    window = getattr(config, "sliding_window", None)
    if not window or not getattr(config, "use_sliding_window", True):
        return None
    kinds = getattr(config, "layer_types", None)
    return int(window) if kinds is None or "sliding_attention" in kinds else None
