"""Logits at the wanted positions, and their cross-entropy without ever holding all of them.

The logits of P positions are a (P, V) matrix, often the largest tensor of a training step. Here the output head and the
loss work on a chunk of positions at a time, and what the backward pass needs is kept as a gradient of hidden size.

P = positions, D = model width, V = vocabulary. Not covered: heads that change their logits afterwards (soft caps,
scalings); `linear_head` finds them out, and their logits are then taken whole from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from r1core.data.packing import Batch
from r1core.data.routes import told
from r1core.model.limits import CHUNK_BYTES

BODY = "r1core_body"
"""Attribute of a causal language model that computes hidden states in place of `base_model`, where there is one."""
HEAD_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2.0**-5, torch.float16: 2.0**-8}
"""Largest difference of a logit, relative to the largest one, that rounding explains in each precision."""

FEW = 4
"""Below so many rows a CPU adds the terms of a matrix product one after another: 2e-6 off over 49,152 words."""
BLOCK = 512
"""Words summed at a time there: 3e-7 off, and no slower (measured with torch 2.13 and MKL)."""


class Scores(Protocol):
    """The model's view of P positions."""

    def logits(self) -> torch.Tensor:
        """All logits, (P, V) fp32."""
        ...

    def cross_entropy(self, targets: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy in nats of each position against `targets` (P,), (P,) fp32."""
        ...

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of some tokens (K,) only, (P, K) fp32."""
        ...


@dataclass(frozen=True, slots=True)
class WholeLogits:
    """Scores of a model that gives its logits only whole: (P, V) fp32."""

    values: torch.Tensor

    def logits(self) -> torch.Tensor:
        """All logits, (P, V)."""
        return self.values

    def cross_entropy(self, targets: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy of each position, (P,)."""
        return functional.cross_entropy(self.values, targets, reduction="none", label_smoothing=label_smoothing)

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of some tokens, (P, K)."""
        return self.values[:, tokens]


@dataclass(frozen=True, slots=True)
class HiddenScores:
    """Scores behind a linear head: `hidden` (P, D), `head.weight` (V, D)."""

    hidden: torch.Tensor
    head: nn.Linear
    part: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    most: int = CHUNK_BYTES

    def logits(self) -> torch.Tensor:
        """All logits, (P, V) fp32."""
        return self.head(self.hidden).float()

    def cross_entropy(self, targets: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
        """Cross-entropy of each position, (P,), a chunk of logits at a time."""
        return _ChunkedCrossEntropy.apply(
            self.hidden, self.head.weight, self.head.bias, targets, label_smoothing, self.part, self.most
        )

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of some tokens, (P, K); no others are computed."""
        bias = None if self.head.bias is None else self.head.bias[tokens]
        return functional.linear(self.hidden, self.head.weight[tokens], bias).float()


class Reader:
    """Reads a model at a batch's wanted positions; knows once and for all whether its head is a plain linear one.

    `compiled` : fuse the elementwise passes over a chunk of logits (pays on a GPU).
    `most` : bytes of fp32 logits held at a time.
    """

    def __init__(self, model: nn.Module, *, linear: bool, compiled: bool = False, most: int = CHUNK_BYTES) -> None:
        self.model, self.linear, self.most = model, linear, most
        self._part = torch.compile(_part) if compiled else _part

    def __call__(self, batch: Batch) -> Scores:
        """Scores at `batch.where`."""
        if not self.linear:
            return WholeLogits(logits_at(self.model, batch))
        causal = causal_of(self.model)
        hidden = body_of(causal)(**inputs_of(batch)).last_hidden_state.flatten(0, 1)
        wanted = hidden.index_select(0, batch.where)
        return HiddenScores(wanted, causal.get_output_embeddings(), self._part, self.most)


def logits_at(model: nn.Module, batch: Batch, past: object = None) -> torch.Tensor:
    """The model's own logits at the wanted positions, (P, V) fp32; of one sequence, no others are computed."""
    inputs = inputs_of(batch, past)
    if len(batch.input_ids) == 1:
        return model(**inputs, logits_to_keep=batch.where).logits[0].float()
    return model(**inputs).logits.flatten(0, 1).index_select(0, batch.where).float()


def inputs_of(batch: Batch, past: object = None) -> dict[str, Any]:
    """The keywords by which a Hugging Face model reads a packed batch."""
    said: dict[str, Any] = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": batch.mask,
        "past_key_values": past,
        "use_cache": past is not None,
        **told(batch.routes),
    }
    if batch.boundaries is not None:  # transformers' names for rows of different lengths
        said |= {"cu_seq_lens_q": batch.boundaries, "cu_seq_lens_k": batch.boundaries}
        said |= {"max_length_q": batch.longest, "max_length_k": batch.longest}
    return said


def causal_of(model: nn.Module) -> PreTrainedModel:
    """The causal language model itself, adapters inside it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[return-value, operator]


def body_of(causal: PreTrainedModel) -> Callable[..., Any]:
    """What computes the hidden states that the head reads."""
    body: Callable[..., Any] = getattr(causal, BODY, causal.base_model)
    return body


@torch.no_grad()
def linear_head(model: nn.Module, batch: Batch) -> bool:
    """Whether the model's logits are its last hidden state times the head's weight, tried on a batch.

    Tried at logits of a thousand too, where a soft cap shows.
    """
    causal = causal_of(model)
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear or causal.base_model is causal:
        return False
    hidden = getattr(body_of(causal)(**inputs_of(batch)), "last_hidden_state", None)
    if hidden is None or hidden.shape[-1] != head.in_features:
        return False
    ours = head(hidden.flatten(0, 1).index_select(0, batch.where)).float()
    for factor in (1.0, 1000.0 / float(ours.abs().max().clamp(min=1e-6))):
        with _scaled(head, factor):
            whole = logits_at(model, batch)
        if not bool((whole - factor * ours).abs().max() <= HEAD_TOLERANCE[hidden.dtype] * whole.abs().max()):
            return False
    return True


@contextmanager
def _scaled(head: nn.Linear, factor: float) -> Iterator[None]:
    """What the head gives is multiplied by `factor`, before the model does anything more to it."""
    handle = head.register_forward_hook(lambda module, given, out: out * factor)
    try:
        yield
    finally:
        handle.remove()


def _part(
    logits: torch.Tensor, targets: torch.Tensor, smoothing: float, slope: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of a chunk, (P,), from logits (P, V); with `slope`, its gradient by the logits too, in their dtype."""
    wide = logits.float()
    log_sum = wide.logsumexp(-1)
    right = wide.gather(-1, targets[:, None])[:, 0]
    loss = log_sum - (1 - smoothing) * right - smoothing * wide.mean(-1) if smoothing else log_sum - right
    if not slope:
        return loss, logits
    gradient = (wide - log_sum[:, None]).exp()
    place = torch.arange(wide.shape[-1], device=wide.device)
    gradient = gradient - torch.where(place == targets[:, None], 1 - smoothing, 0.0)
    if smoothing:
        gradient = gradient - smoothing / wide.shape[-1]
    return loss, gradient.to(logits.dtype)


def _by_hidden(gradient: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Write the loss's gradient by the hidden states, (P, D), from that by the logits, (P, V), and the head (V, D)."""
    if len(gradient) >= FEW or gradient.is_cuda or gradient.dtype != torch.float32:
        torch.mm(gradient, weight, out=out)
        return
    out.zero_()
    for words, rows in zip(gradient.split(BLOCK, dim=1), weight.split(BLOCK), strict=True):
        out += words @ rows


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy behind a linear head, chunk by chunk.

    A position's loss depends on its own hidden state only, so the gradient for a loss weight of 1 is taken in the
    forward pass, while the chunk's logits are at hand, and scaled in the backward pass. A trained head needs the
    weights before it sums over positions; its logits are computed a second time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        smoothing: float,
        part: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        most: int,
    ) -> torch.Tensor:
        """`hidden` (P, D), `weight` (V, D), `bias` (V,) or None, `targets` (P,) -> (P,) fp32."""
        slope = ctx.needs_input_grad[0]
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if slope else hidden.new_empty(0)
        for at in chunks(len(hidden), weight.shape[0], most):
            logits = functional.linear(hidden[at], weight, bias)
            losses[at], gradient = part(logits, targets[at], smoothing, slope)
            if slope:
                _by_hidden(gradient, weight, slopes[at])
        ctx.save_for_backward(slopes, hidden, weight, bias, targets)
        ctx.smoothing, ctx.part, ctx.most = smoothing, part, most
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `hidden`, and of `weight` and `bias` where the head is trained."""
        slopes, hidden, weight, bias, targets = ctx.saved_tensors
        by_hidden = slopes * grads[0][:, None].to(slopes.dtype) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        if by_weight is not None or by_bias is not None:
            for at in chunks(len(hidden), weight.shape[0], ctx.most):
                logits = functional.linear(hidden[at], weight, bias)
                _, gradient = ctx.part(logits, targets[at], ctx.smoothing, True)
                gradient = gradient * grads[0][at, None].to(gradient.dtype)
                if by_weight is not None:
                    by_weight.addmm_(gradient.t(), hidden[at])
                if by_bias is not None:
                    by_bias += gradient.sum(0)
        return by_hidden, by_weight, by_bias, None, None, None, None


def chunks(positions: int, vocabulary: int, most: int) -> list[slice]:
    """Slices of positions whose fp32 logits take at most so many bytes."""
    fit = max(1, most // (4 * vocabulary))
    size = -(-positions // -(-positions // fit)) if positions else fit  # all alike, up to the last one's rest
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]
