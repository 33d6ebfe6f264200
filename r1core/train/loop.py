"""The training loop. One step, top to bottom, stands in `Trainer.step`.

Data order, dropout and initial weights derive from the seed, so a run that was stopped and resumed ends on the same
bits as one that was not. Ranks share out the rows of each batch; the loss is normalised by the whole batch's weight,
so the number of ranks and the micro-batching change rounding only (and, with dropout, what each rank draws).

On a GPU nothing in a step waits for the device: a step's figures are read while the next one computes, and a step whose
loss or gradient is not finite is left out by the optimiser itself, so its figures still come in time to stop the run.

Not covered here: mixed objectives, and training under a privacy policy (`r1core.train.private`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from r1core.api import R1Error, SpanKind
from r1core.data.packing import Batch, pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapted import LanguageModel, adapted_of
from r1core.model.adapter import adapter_tensors, set_adapter_tensors
from r1core.model.compiled import checkpoint_blocks, compile_blocks, compiles, evaluating
from r1core.model.fused_lora import Casts
from r1core.model.layers import ExtraLayers
from r1core.model.limits import chunk_bytes
from r1core.model.scores import Reader, causal_of, linear_head
from r1core.model.slices import is_cut, own_slice, slice_of
from r1core.recipe.training import Train
from r1core.train.feed import Feed, StepRows, valid_tokens
from r1core.train.figures import OnTheWay
from r1core.train.objective import BatchLoss, Objective
from r1core.train.optimizer import Schedule, adamw, set_rates
from r1core.train.order import Order
from r1core.train.parallel import Together
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
    model : as it is trained; cut over the processes already where it is to be (`r1core.model.sharding.shard`).
    save : called with `(step, tensors, state)` at every checkpoint, by the main process; by every process, each with
        its slices, where the model is cut. Must be atomic.
    on_step : called with `(step, metrics)` of every optimiser step, on a CPU just before it: loss in nats a token,
        learning rate (LoRA's A, or a strategy's first role), gradient norm before clipping, examples a second, tokens
        of the step, CPU seconds of all ranks so far.
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
        layer_loss_weights: Mapping[str, float] | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        self.penalty = penalty
        self.model, self.layers, self.rows, self.kinds = model, layers, rows, kinds
        self.objective, self.config, self.seed = objective, config, seed
        self.save, self.on_step = save, on_step
        self.layer_loss_weights = layer_loss_weights or {}
        self.order, self.total = order, order.total
        self.schedule = Schedule(config.schedule, self.total, max(1, round(self.total * config.warmup_fraction)))
        self.optimizer = adamw(model, layers, config)
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.together = Together(model, model.device)
        causal: object = causal_of(model)
        self.of_batch = causal if isinstance(causal, BatchLoss) else None
        self.done = 0
        self.cpu_seconds = 0.0  # of all ranks
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
            rank=self.together.rank,
            world=self.together.world,
            even=self.together.sharded,
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
        most = chunk_bytes(self.config.gradient_checkpointing)
        return Reader(self.model, linear=linear, compiled=compiled, most=most)

    @cached_property
    def replay(self) -> Replay | None:
        """Passes recorded as CUDA graphs, where that is possible."""
        drawn = any(isinstance(m, torch.nn.Dropout) and m.p for m in self.model.modules())
        lone = self.together.world == 1 and not self.together.sharded and self.of_batch is None
        if drawn or not (lone and self.feed.layout.flash and compiles(self.config, self.model.device)):
            return None
        return Replay(self._backward, self.trainable)

    def run(self) -> None:
        """Train to the last step, saving every `checkpoint_every` steps and at the end."""
        if self.config.gradient_checkpointing:
            checkpoint_blocks(self.model)
        _ = self.read
        self.casts = None if self.together.sharded else Casts(self.model)
        self.model.train()
        if self.of_batch is not None and not self.done:
            self.of_batch.begin()
        self._started, self._first, self._clock = time.monotonic(), self.done, time.process_time()
        try:
            for step in range(self.done, self.total):
                torch.manual_seed(hash_seed(self.seed, step, self.together.rank))
                self.step(step)
                self.done = step + 1
                due = self.done % self.config.checkpoint_every == 0 or self.done == self.total
                if due:
                    self.settle()
                if self.done == self.total:
                    self.balance()
                if due and (self.together.main or self.together.sharded):
                    self.save(self.done, self.tensors(), self.state())
        finally:
            self.feed.close()
            if self.casts is not None:
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
        for index, batch in enumerate(given.batches):
            self.together.before_pass(last=index + 1 == len(given.batches))
            if self.replay is not None and not batch.features:
                total += self.replay(batch, 1 / given.weight, alone=len(given.batches) == 1)
            else:
                total += self._backward(batch, 1 / given.weight, given.shares[index])
        total, used = self.together.summed(self.trainable, total, self._used())
        self.cpu_seconds += used
        penalties = [] if self.penalty is None else [self.penalty.add()]  # once, when the ranks' gradients are one
        norm = self.together.clip(self.trainable, self.config.max_grad_norm)
        figures = torch.stack([total / given.weight, norm, *penalties])
        self.settle()
        set_rates(self.optimizer, self.schedule.factor(step))
        rate = self.optimizer.param_groups[0]["lr"]
        self._pending = _Figures(step, OnTheWay(figures), rate, given, self.cpu_seconds)
        if figures.device.type == "cpu":
            self.settle()
        # As torch's gradient scaler does: where it is 1, a fused optimiser leaves the step out, unasked by the host.
        self.optimizer.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.of_batch is not None:
            self.of_batch.after_step((step + 1) / self.order.total)

    @torch.no_grad()
    def balance(self) -> None:
        """Read rows of the training again, to move only what keeps a model's experts even: `train.balance_passes`."""
        passes = self.config.balance_passes
        if self.of_batch is None or not passes:
            return
        stride = max(1, self.total // passes)  # from all over the order, which may go from easy to hard
        with self.of_batch.balancing() as move:
            for index in range(passes):
                for batch in self.feed.step(index * stride % self.total).batches:
                    self.of_batch.reads(valid_tokens(batch))
                    with self.layers.using(batch.features):
                        self.read(batch)
                move(1 - index / passes)

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
        if not all(map(math.isfinite, (loss, norm, *penalty))):
            more = "".join(f", penalty {value}" for value in penalty)
            found = f"step {step}: loss {loss}, gradient norm {norm}{more} (rows {ids}, ...)"
            raise NonFiniteLoss(f"{found}; nothing of this step is saved")
        if step == 1 and norm == 0.0:
            raise R1Error("the first batch gave a zero gradient: nothing would be trained; check adapter.targets")
        told = dict(zip(("penalty",), penalty, strict=False))
        elapsed = max(1e-9, time.monotonic() - self._started)
        metrics = {"loss": loss, "learning_rate": one.rate, "grad_norm": norm, **told}
        metrics["examples_per_second"] = (step - self._first) * self.config.batch_size / elapsed
        metrics["tokens"] = float(one.rows.tokens)
        metrics["cpu_seconds"] = one.cpu_seconds
        if self.together.main:
            self.on_step(step, metrics)

    def _backward(self, batch: Batch, factor: float | torch.Tensor, share: float = 0.0) -> torch.Tensor:
        """Add the gradient of these rows' summed loss times `factor`; return the sum in nats, ().

        `share` : of the rows in the step, by which a loss of the batch as a whole counts.
        """
        read = self.read  # found out on a row of its own, the first time
        if self.of_batch is not None:
            self.of_batch.reads(valid_tokens(batch))
        with self.layers.using(batch.features):
            losses = self.objective.loss(read(batch), batch)
            weights = self.layer_loss_weights
            auxiliary = {n: weights[n] * v.sum() for n, v in self.layers.losses().items() if weights.get(n)}
            summed = sum(auxiliary.values(), losses.sum()) * factor
            whole = None if self.of_batch is None else self.of_batch.batch_loss()
            self.together.accelerator.backward(summed if whole is None else summed + share * whole)
        return losses.detach().sum()

    def _used(self) -> float:
        """CPU seconds since it was last asked."""
        now = time.process_time()
        used, self._clock = now - self._clock, now
        return used

    def state(self) -> State:
        """What a resumed run needs besides tensors."""
        return {"step": self.done, "cpu_seconds": self.cpu_seconds}

    def tensors(self) -> Groups:
        """Everything that a resumed run needs: adapter, layers, optimiser moments; of what is cut, own slices."""
        moments = {
            f"{index}/{key}": slice_of(value.detach()).clone()
            for index, parameter in enumerate(self.trainable)
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        groups = {"adapter": adapter_tensors(self.model), "layers": self.layers.tensors(), "optimizer": moments}
        return {name: tensors for name, tensors in groups.items() if tensors}

    @property
    def cut(self) -> frozenset[str]:
        """`group/name` of what `tensors()` gives slices of."""
        adapter = {f"adapter/{name}" for name, value in adapted_of(self.model).state().items() if is_cut(value)}
        state = enumerate(self.optimizer.state.get(parameter, {}) for parameter in self.trainable)
        return frozenset(adapter | {f"optimizer/{i}/{key}" for i, held in state for key in held if is_cut(held[key])})

    def resume(self, groups: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """Continue from what `save` was given; of what is cut, this process's slices or the whole."""
        set_adapter_tensors(self.model, groups["adapter"])
        with torch.no_grad():
            self.layers.load(groups.get("layers", {}))
        for name, value in groups.get("optimizer", {}).items():
            index, _, key = name.partition("/")
            parameter = self.trainable[int(index)]
            self.optimizer.state[parameter][key] = _beside(parameter, value)
        self.done = int(state["step"])
        self.cpu_seconds = float(state["cpu_seconds"])


def hash_seed(seed: int, step: int, rank: int = 0) -> int:
    """A 63-bit seed for one step's dropout on one rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _beside(parameter: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """An optimiser's stored tensor as it goes with a parameter: a counter (), or a moment cut like the parameter."""
    if not stored.ndim:
        return stored.to(parameter.device, copy=True)
    moment = torch.empty_like(parameter)
    slice_of(moment).copy_(own_slice(stored, parameter))
    return moment
