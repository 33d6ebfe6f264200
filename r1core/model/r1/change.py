"""Steps that change what an R1 says: another rotary base, a sliding window. Each tells its change in perplexity.

Neither touches a weight. A larger base turns the slow pairs of a head more slowly, so that far positions stay apart
(the model then has to be trained on); a window hides what is further back but for the global nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from r1core.api import UserError
from r1core.errors import line_of
from r1core.model.r1.config import R1Config
from r1core.model.r1.model import R1ForCausalLM
from r1core.model.r1.upcycle import take_over

LENGTH = 2048
"""Tokens of a piece of text that perplexity is taken on."""


@dataclass(frozen=True, slots=True)
class Change:
    """A step: `rope_base`, `window` and `every` as in the configuration; None = as it is."""

    rope_base: float | None = None
    window: int | None = None
    every: int | None = None
    positions: int | None = None

    def applied(self, config: R1Config) -> R1Config:
        """The configuration after it.

        Raises
        ------
        UserError : for values that an R1 cannot have.
        """
        said: Mapping[str, Any] = {
            "rope_parameters": None
            if self.rope_base is None
            else {**(config.rope_parameters or {}), "rope_theta": self.rope_base},
            "sliding_window": self.window,
            "global_every": self.every,
            "max_position_embeddings": self.positions,
        }
        said = {name: value for name, value in said.items() if value is not None}
        try:
            return R1Config(**{**config.to_dict(), **said})
        except ValueError as error:
            raise UserError(line_of(error, -1), fix="give another value") from error


@torch.no_grad()
def perplexity(model: PreTrainedModel, ids: torch.Tensor, length: int = LENGTH) -> float:
    """exp of the mean negative log-likelihood of token ids (T,), in pieces of `length` that do not see one another."""
    total, number = 0.0, 0
    for piece in ids.split(length):
        if len(piece) < 2:
            continue
        logits = model(piece[None].to(model.device), use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, piece[1:].to(model.device), reduction="sum"))
        number += len(piece) - 1
    return math.exp(total / number)


def tokens_of(folder: Path, text: str) -> torch.Tensor:
    """Token ids (T,) of a text.

    Raises
    ------
    UserError : for a directory without a tokenizer, or a text of fewer than two tokens.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no tokenizer that reads the text", fix="put its tokenizer.json there") from error
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) < 2:
        raise UserError("the text has fewer than two tokens", fix="give a longer one")
    return ids


def changed(source: Path, target: Path, change: Change, text: str, length: int = LENGTH) -> tuple[float, float]:
    """Write the changed R1 of `source` into `target`; its perplexity on a text before and after, in fp32.

    Raises
    ------
    UserError : for a directory without an R1, or a text of fewer than two tokens.
    """
    try:
        model = R1ForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: not an R1: {line_of(error)}") from error
    ids = tokens_of(source, text)
    after = R1ForCausalLM(change.applied(model.config)).to(model.dtype).eval()
    after.load_state_dict(model.state_dict())
    length = min(length, model.config.max_position_embeddings, after.config.max_position_embeddings)
    target.mkdir(parents=True, exist_ok=True)
    after.save_pretrained(target)
    take_over(source, target)
    return perplexity(model.float(), ids, length), perplexity(after.float(), ids, length)
