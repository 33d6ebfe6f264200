"""The training loop. One step, top to bottom, stands in `Trainer.step`.

Data order, dropout and initial weights derive from the seed, so a run that was stopped and resumed ends on the same
bits as one that was not. Ranks share out the rows of each batch; the loss is normalised by the whole batch's weight,
so the number of ranks and the micro-batching change rounding only (and, with dropout, what each rank draws).

Not covered here: gradient checkpointing, FSDP2, mixed objectives.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel

from r1core.api import PrivacyPolicy, R1Error, SpanKind
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapter import adapter_tensors, set_adapter_tensors
from r1core.model.layers import ExtraLayers
from r1core.model.load import logits_at
from r1core.recipe.training import Train
from r1core.train.objective import Objective
from r1core.train.optimizer import Schedule, adamw, set_rates
from r1core.train.order import Order

Tensors = Mapping[str, torch.Tensor]
Groups = dict[str, Tensors]
State = dict[str, Any]


class NonFiniteLoss(R1Error):
    """The loss or the gradient became NaN or infinite; the run stops and saves nothing of that step."""


class Trainer:
    """Trains an adapter and the extra layers of one model on encoded rows.

    Parameters
    ----------
    order : which rows each step sees.
    save : called with `(step, tensors, state)` at every checkpoint; must be atomic.
    on_step : called with `(step, metrics)` after every optimiser step: loss in nats a token, learning rate, gradient
        norm before clipping, examples a second, CPU seconds of all ranks so far.
    layer_loss_weights : weight of each layer's own loss, by layer name; a layer without one adds none.
    """

    def __init__(
        self,
        model: PeftModel,
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
    ) -> None:
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

    def run(self) -> None:
        """Train to the last step, saving every `checkpoint_every` steps and at the end."""
        self.model.train()
        started, first, self._clock = time.monotonic(), self.done, time.process_time()
        for step in range(self.done, self.total):
            torch.manual_seed(hash_seed(self.seed, step, self.accelerator.process_index))
            metrics = self.step(step)
            self.done = step + 1
            elapsed = max(1e-9, time.monotonic() - started)
            metrics["examples_per_second"] = (self.done - first) * self.config.batch_size / elapsed
            metrics["cpu_seconds"] = self._cpu
            if self.accelerator.is_main_process:
                self.on_step(self.done, metrics)
                if self.done % self.config.checkpoint_every == 0 or self.done == self.total:
                    self.save(self.done, self.tensors(), {"step": self.done, "cpu_seconds": metrics["cpu_seconds"]})
        self.model.eval()

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step.

        Raises
        ------
        NonFiniteLoss : before the optimiser is touched.
        R1Error : when the first batch gives no gradient at all (the run would train nothing).
        """
        batch = self.batch_rows(step)
        weight = sum(self.objective.weight(row) for row in batch)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = share(batch, rank, world) if world > 1 else batch
        size = len(mine) if self.config.packing == "shared_prefix" else 1
        total = 0.0
        for start in range(0, len(mine), max(1, size)):
            total += self._backward(mine[start : start + size], weight)
        now = time.process_time()
        used, self._clock = now - self._clock, now
        if world > 1:
            total, used = self._reduce(total, used)
        self._cpu += used
        loss = total / weight
        norm = float(torch.nn.utils.clip_grad_norm_(self.trainable, self.config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            names = ", ".join(row.id for row in batch[:4])
            raise NonFiniteLoss(
                f"step {step + 1}: loss {loss}, gradient norm {norm} (rows {names}, ...); nothing of this step is saved"
            )
        if step == 0 and norm == 0.0:
            raise R1Error("the first batch gave a zero gradient: nothing would be trained; check adapter.targets")
        factor = self.schedule.factor(step)
        set_rates(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss, "learning_rate": self.config.learning_rate * factor, "grad_norm": norm}

    def _backward(self, rows: Sequence[Encoded], normaliser: float) -> float:
        """Add these rows' gradient; return their summed loss in nats."""
        packed = pack_rows(rows, self.kinds, self.model.dtype).to(self.model.device)
        with self.layers.using(packed.features):
            logits = logits_at(self.model, packed)
            losses = self.objective.loss(logits, packed)
            weights = self.layer_loss_weights
            auxiliary = {n: weights[n] * v.sum() for n, v in self.layers.losses().items() if weights.get(n)}
        if self.privacy is not None:
            if auxiliary:
                raise R1Error("a layer's own loss cannot be made private; set its weight in [layers] to 0")
            self.privacy.backward(losses, torch.full_like(losses, normaliser))
            return float(losses.detach().sum())
        self.accelerator.backward(sum(auxiliary.values(), losses.sum()) / normaliser)
        return float(losses.detach().sum())

    def batch_rows(self, step: int) -> list[Encoded]:
        """The rows of one step."""
        return [self.rows[i] for i in self.order.rows(step)]

    def _reduce(self, total: float, used: float) -> tuple[float, float]:
        """Sum the ranks' gradients, in one message; return their summed loss and CPU seconds.

        Once a step and by hand: ranks may hold different numbers of rows and micro-batches, the last batch none at all,
        and a collective inside the backward pass would then wait forever.
        """
        given = [float(p.grad is not None) for p in self.trainable]
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in self.trainable]
        flat = torch.cat([*parts, torch.tensor([*given, total, used], device=parts[0].device)])
        *sums, counts = self.accelerator.reduce(flat, "sum").split(
            [*(p.numel() for p in self.trainable), len(given) + 2]
        )
        for parameter, summed, count in zip(self.trainable, sums, counts.tolist(), strict=False):
            parameter.grad = summed.view_as(parameter).clone() if count else None
        return float(counts[-2]), float(counts[-1])

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


def share(batch: Sequence[Encoded], rank: int, world: int) -> list[Encoded]:
    """One rank's rows: dealt out by length, back and forth, so that no rank waits long for another."""
    order = sorted(batch, key=lambda row: row.length, reverse=True)
    return [row for i, row in enumerate(order) if (i % world if i // world % 2 == 0 else world - 1 - i % world) == rank]


def hash_seed(seed: int, step: int, rank: int = 0) -> int:
    """A 63-bit seed for one step's dropout on one rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
