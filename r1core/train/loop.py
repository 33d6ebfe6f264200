"""The training loop. One step, top to bottom, stands in `Trainer.step`.

Data order, dropout and initial weights derive from the seed, so a run that was stopped and resumed ends on the same
bits as one that was not. Ranks share out the rows of each batch; the loss is normalised by the whole batch's weight,
so the number of ranks and the micro-batching change rounding only (and, with dropout, what each rank draws).

On a GPU nothing in a step waits for the device: a step's figures are read while the next one computes, and a step whose
loss or gradient is not finite is left out by the optimiser itself, so its figures still come in time to stop the run.

Not covered here: FSDP2, mixed objectives.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from r1core.api import PrivacyPolicy, R1Error, SpanKind
from r1core.data.packing import Batch, pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapted import LanguageModel
from r1core.model.adapter import adapter_tensors, set_adapter_tensors
from r1core.model.compiled import checkpoint_blocks, compile_blocks, compiles, evaluating
from r1core.model.fused_lora import Casts
from r1core.model.layers import ExtraLayers
from r1core.model.scores import Reader, linear_head
from r1core.recipe.training import Train
from r1core.train.feed import Feed, StepRows
from r1core.train.figures import OnTheWay
from r1core.train.objective import Objective
from r1core.train.optimizer import Schedule, adamw, set_rates
from r1core.train.order import Order
from r1core.train.penalty import Penalty
from r1core.train.replay import Replay

Tensors = Mapping[str, torch.Tensor]
Groups = dict[str, Tensors]
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a step has to tell; `figures` are its loss and gradient norm, and its penalty where there is one."""

    step: int
    figures: OnTheWay
    rate: float
    rows: StepRows
    cpu_seconds: float


class NonFiniteLoss(R1Error):
    """The loss or the gradient became NaN or infinite; the run stops and saves nothing of that step."""


class Trainer:
    """Trains an adapter and the extra layers of one model on encoded rows.

    Parameters
    ----------
    order : which rows each step sees.
    save : called with `(step, tensors, state)` at every checkpoint; must be atomic.
    on_step : called with `(step, metrics)` after every optimiser step: loss in nats a token, learning rate (LoRA's
        A, or a strategy's first role), gradient norm before clipping, examples a second, tokens of the step, CPU
        seconds of all ranks so far.
    layer_loss_weights : weight of each layer's own loss, by layer name; a layer without one adds none.
    penalty : added to the loss once a step, and told beside it.
    """

    def __init__(
        self,
        model: LanguageModel,
        layers: ExtraLayers,
        rows: Sequence[Encoded],
        kinds: Mapping[str, SpanKind],
        objective: Objective,
        config: Train,
        *,
        order: Order,
        seed: int,
        save: Callable[[int, Groups, State], None],
        on_step: Callable[[int, Mapping[str, float]], None],
        privacy: PrivacyPolicy | None = None,
        layer_loss_weights: Mapping[str, float] | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        self.penalty = penalty
        self.model, self.layers, self.rows, self.kinds = model, layers, rows, kinds
        self.objective, self.config, self.seed = objective, config, seed
        self.save, self.on_step, self.privacy = save, on_step, privacy
        self.layer_loss_weights = layer_loss_weights or {}
        self.order, self.total = order, order.total
        self.schedule = Schedule(config.schedule, self.total, max(1, round(self.total * config.warmup_fraction)))
        self.optimizer = adamw(model, layers, config)
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.accelerator = Accelerator(cpu=model.device.type == "cpu")  # unasked, it runs CPU ranks as lone processes
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.accelerator.num_processes != expected:
            raise R1Error(f"the launcher promised {expected} processes, {self.accelerator.num_processes} run")
        self.done = 0
        self._cpu = 0.0  # seconds, of all ranks
        self._clock = time.process_time()
        self._pending: _Figures | None = None
        self.casts: Casts | None = None  # while `run` runs
        self._first, self._started = 0, 0.0

    @cached_property
    def feed(self) -> Feed:
        """The micro-batches of each step."""
        return Feed(
            self.rows,
            self.order,
            self.objective.weight,
            self.kinds,
            self.config,
            device=self.model.device,
            dtype=self.model.dtype,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

    @cached_property
    def read(self) -> Reader:
        """How the model's scores are read: chunk by chunk where its head is a plain linear one."""
        sample = pack_rows([self.rows[0]], self.kinds, self.model.dtype, replace(self.feed.layout, multiple=1))
        with evaluating(self.model):
            linear = linear_head(self.model, sample.to(self.model.device))
        compiled = compiles(self.config, self.model.device)
        if compiled:
            compile_blocks(self.model)
        return Reader(self.model, linear=linear, compiled=compiled)

    @cached_property
    def replay(self) -> Replay | None:
        """Passes recorded as CUDA graphs, where that is possible."""
        drawn = any(isinstance(m, torch.nn.Dropout) and m.p for m in self.model.modules())
        lone = self.accelerator.num_processes == 1 and self.privacy is None
        if not (lone and self.feed.layout.flash and compiles(self.config, self.model.device)) or drawn:
            return None
        return Replay(self._backward, self.trainable)

    def run(self) -> None:
        """Train to the last step, saving every `checkpoint_every` steps and at the end."""
        if self.config.gradient_checkpointing:
            checkpoint_blocks(self.model)
        _ = self.read
        self.casts = Casts(self.model)
        self.model.train()
        self._started, self._first, self._clock = time.monotonic(), self.done, time.process_time()
        try:
            for step in range(self.done, self.total):
                torch.manual_seed(hash_seed(self.seed, step, self.accelerator.process_index))
                self.step(step)
                self.done = step + 1
                due = self.done % self.config.checkpoint_every == 0 or self.done == self.total
                if due:
                    self.settle()
                if due and self.accelerator.is_main_process:
                    self.save(self.done, self.tensors(), {"step": self.done, "cpu_seconds": self._cpu})
        finally:
            self.feed.close()
            self.casts.end()
        self.model.eval()

    def step(self, step: int) -> None:
        """One optimiser step. Its figures reach `on_step` at once on a CPU, with the next step on a GPU.

        Raises
        ------
        NonFiniteLoss : for this step or the one before; the optimiser has not taken it.
        R1Error : when the first batch gives no gradient at all (the run would train nothing).
        """
        given = self.feed.step(step)
        if self.casts is not None:
            self.casts.refresh()
        total = torch.zeros((), device=self.model.device)
        for batch in given.batches:
            if self.replay is not None and not batch.features:
                total += self.replay(batch, 1 / given.weight, alone=len(given.batches) == 1)
            else:
                total += self._backward(batch, 1 / given.weight)
        now = time.process_time()
        used, self._clock = now - self._clock, now
        if self.accelerator.num_processes > 1:
            total, used = self._reduce(total, used)
        self._cpu += used
        penalties = [] if self.penalty is None else [self.penalty.add()]  # once, when the ranks' gradients are one
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, self.config.max_grad_norm)
        figures = torch.stack([total / given.weight, norm, *penalties])
        self.settle()
        set_rates(self.optimizer, self.schedule.factor(step))
        rate = self.optimizer.param_groups[0]["lr"]
        self._pending = _Figures(step, OnTheWay(figures), rate, given, self._cpu)
        if figures.device.type == "cpu":
            self.settle()
        # As torch's gradient scaler does: where it is 1, a fused optimiser leaves the step out, unasked by the host.
        self.optimizer.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def settle(self) -> None:
        """Read the figures of the last step, refuse what is not finite, and tell.

        Raises
        ------
        NonFiniteLoss : with the step; the optimiser has not taken it.
        R1Error : when the first batch gave no gradient at all.
        """
        if self._pending is None:
            return
        one, self._pending = self._pending, None
        loss, norm, *penalty = one.figures.read()
        step, ids = one.step + 1, ", ".join(one.rows.ids)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            found = f"step {step}: loss {loss}, gradient norm {norm} (rows {ids}, ...)"
            raise NonFiniteLoss(f"{found}; nothing of this step is saved")
        if step == 1 and norm == 0.0:
            raise R1Error("the first batch gave a zero gradient: nothing would be trained; check adapter.targets")
        told = dict(zip(("penalty",), penalty, strict=False))
        elapsed = max(1e-9, time.monotonic() - self._started)
        metrics = {"loss": loss, "learning_rate": one.rate, "grad_norm": norm, **told}
        metrics["examples_per_second"] = (step - self._first) * self.config.batch_size / elapsed
        metrics["tokens"] = float(one.rows.tokens)
        metrics["cpu_seconds"] = one.cpu_seconds
        if self.accelerator.is_main_process:
            self.on_step(step, metrics)

    def _backward(self, batch: Batch, factor: float | torch.Tensor) -> torch.Tensor:
        """Add the gradient of these rows' summed loss times `factor`; return the sum in nats, ()."""
        with self.layers.using(batch.features):
            losses = self.objective.loss(self.read(batch), batch)
            weights = self.layer_loss_weights
            auxiliary = {n: weights[n] * v.sum() for n, v in self.layers.losses().items() if weights.get(n)}
            if self.privacy is None:
                self.accelerator.backward(sum(auxiliary.values(), losses.sum()) * factor)
            elif auxiliary:
                raise R1Error("a layer's own loss cannot be made private; set its weight in [layers] to 0")
            else:
                self.privacy.backward(losses, torch.ones_like(losses) / factor)
        return losses.detach().sum()

    def _reduce(self, total: torch.Tensor, used: float) -> tuple[torch.Tensor, float]:
        """Sum the ranks' gradients, in one message; return their summed loss and CPU seconds.

        Once a step and by hand: ranks may hold different numbers of rows and micro-batches, the last batch none at all,
        and a collective inside the backward pass would then wait forever.
        """
        given = [float(p.grad is not None) for p in self.trainable]
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in self.trainable]
        flat = torch.cat([*parts, total[None], torch.tensor([*given, used], device=total.device)])
        *sums, counts = self.accelerator.reduce(flat, "sum").split(
            [*(p.numel() for p in self.trainable), 1 + len(given) + 1]
        )
        held = counts.tolist()
        for parameter, summed, count in zip(self.trainable, sums, held[1:-1], strict=True):
            parameter.grad = summed.view_as(parameter).clone() if count else None
        return counts[0], held[-1]

    def tensors(self) -> Groups:
        """Everything that a resumed run needs, in groups: adapter, layers, optimiser moments."""
        moments = {
            f"{index}/{key}": value.detach().clone()
            for index, parameter in enumerate(self.trainable)
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        groups = {"adapter": adapter_tensors(self.model), "layers": self.layers.tensors(), "optimizer": moments}
        return {name: tensors for name, tensors in groups.items() if tensors}

    def resume(self, groups: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """Continue from what `save` was given."""
        set_adapter_tensors(self.model, groups["adapter"])
        with torch.no_grad():
            self.layers.load(groups.get("layers", {}))
        for name, value in groups.get("optimizer", {}).items():
            index, _, key = name.partition("/")
            parameter = self.trainable[int(index)]
            self.optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
        self.done = int(state["step"])
        self._cpu = float(state["cpu_seconds"])


def hash_seed(seed: int, step: int, rank: int = 0) -> int:
    """A 63-bit seed for one step's dropout on one rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
