"""One way to train for R1's benchmarks, the same for every arm: AdamW over fp32 copies, and loss per token.

Weights compute in bf16 on a GPU and in fp32 on a CPU; the optimiser holds fp32 copies either way. An R1's losses of
the batch are added, and its biases moved, by the model's own functions. Not covered: several processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from recorded import Recorded
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from r1core.model.r1 import R1ForCausalLM

Groups = Sequence[tuple[Sequence[nn.Parameter], float]]
"""Parameters and their learning rate."""
BETAS, DECAY, CLIP = (0.9, 0.95), 0.01, 1.0
WARMUP = 0.1
"""Share of the steps in which the rates rise; then they fall in a straight line to 0."""


class Masters:
    """AdamW that holds fp32 copies of the weights it trains."""

    def __init__(self, groups: Groups) -> None:
        self.weights = [weight for weights, _ in groups for weight in weights]
        self.copies = [weight.detach().float().clone() for weight in self.weights]
        each = iter(self.copies)
        self.rates = [rate for _, rate in groups]
        params = [{"params": [next(each) for _ in weights], "lr": rate} for weights, rate in groups]
        self.optimizer = torch.optim.AdamW(params, betas=BETAS, weight_decay=DECAY, fused=self.copies[0].is_cuda)

    def step(self, scale: float) -> None:
        """One step at the rates times `scale`."""
        got = [
            (weight, copy) for weight, copy in zip(self.weights, self.copies, strict=True) if weight.grad is not None
        ]
        for _, copy in got:
            copy.grad = torch.empty_like(copy) if copy.grad is None else copy.grad
        torch._foreach_copy_([copy.grad for _, copy in got], [weight.grad for weight, _ in got])
        nn.utils.clip_grad_norm_([copy for _, copy in got], CLIP)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.copies)


def scale_at(step: int, steps: int) -> float:
    """Factor of the learning rate at a step, from 0."""
    warm = max(1, round(WARMUP * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm), 1.0)


def added(model: PreTrainedModel) -> torch.Tensor | float:
    """An R1's loss of the batch; 0 for another model."""
    extra = model.batch_loss() if hasattr(model, "batch_loss") else None
    return 0.0 if extra is None else extra


def next_loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss of each next token of rows (B, T), nats, with what an R1 adds."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()) + added(model)


class Backward:
    """Loss and gradients of batches of one shape; with `record`, as a recorded pass (`recorded.Recorded`)."""

    def __init__(
        self,
        model: PreTrainedModel,
        loss_of: Callable[[PreTrainedModel, torch.Tensor], torch.Tensor],
        *,
        record: bool,
    ) -> None:
        self.model, self.loss_of, self.record = model, loss_of, record
        self.recorded: Recorded | None = None

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """The loss, (), of rows (B, T); the gradients stand in the parameters, in place of those before."""
        if not self.record:
            return self._run(ids)
        if self.recorded is None:
            self.ids = ids.clone()
            self.clear()
            self.recorded = Recorded(lambda: self._run(self.ids), list(self.model.parameters()))
        self.ids.copy_(ids)
        return self.recorded().clone()

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        self.clear()
        loss = self.loss_of(self.model, ids)
        loss.backward()
        return loss.detach()

    def clear(self) -> None:
        """Drop all gradients."""
        for weight in self.model.parameters():
            weight.grad = None


def trained(
    model: PreTrainedModel,
    groups: Groups,
    batches: Iterable[npt.NDArray[np.int64]],
    steps: int,
    loss_of: Callable[[PreTrainedModel, torch.Tensor], torch.Tensor] = next_loss,
    name: str = "",
    *,
    record: bool = False,
) -> float:
    """Train for some steps; seconds of a step, the first ten left out where there are more.

    Parameters
    ----------
    record : record a pass as a CUDA graph and replay it; batches are of one shape, and nothing waits for the host.

    Raises
    ------
    ArithmeticError : where the loss is no number any more.
    """
    model.train()
    masters, draws, backward = Masters(groups), iter(batches), Backward(model, loss_of, record=record)
    start, told = time.perf_counter(), []
    for step in range(steps):
        if step == 10:
            _wait(model)
            start = time.perf_counter()
        loss = backward(torch.from_numpy(next(draws)).to(model.device, non_blocking=True))
        masters.step(scale_at(step, steps))
        if hasattr(model, "after_step"):
            model.after_step((step + 1) / steps)
        told.append(loss)
        if step % 50 == 49 or step == steps - 1:
            mean = float(torch.stack(told).mean())
            told = []
            print(f"  {name} step {step + 1}/{steps} loss {mean:.4f}", flush=True)
            if not math.isfinite(mean):
                raise ArithmeticError(f"{name}: the loss is {mean}")
    _wait(model)
    backward.clear()
    model.eval()
    return (time.perf_counter() - start) / max(1, steps - 10 if steps > 10 else steps)


@torch.no_grad()
def balanced(model: R1ForCausalLM, batches: Iterable[npt.NDArray[np.int64]], passes: int) -> None:
    """Read so many batches of training text, to move routers' biases only (`train.balance_passes` of a recipe)."""
    with model.balancing() as move:
        for index, ids in zip(range(passes), batches, strict=False):
            model(input_ids=torch.from_numpy(ids).to(model.device), use_cache=False, logits_to_keep=1)
            move(1 - index / passes)


@torch.no_grad()
def token_losses(model: PreTrainedModel, rows: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.float64]:
    """Loss of every token of rows (R, T) but each row's first: (R, T - 1), nats."""
    model.eval()
    found = []
    for ids in _pieces(model, rows, batch):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        found.append(losses.view(len(ids), -1).double().cpu().numpy())
    return np.concatenate(found)


def _pieces(model: PreTrainedModel, rows: npt.NDArray[np.int64], batch: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(rows), batch):
        yield torch.from_numpy(rows[start : start + batch]).to(model.device)


def _wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
