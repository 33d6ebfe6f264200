"""A pool of task adapters over one base: one forward pass serves a batch that mixes tasks.

A pass is told by the keyword `task_routes` which tokens belong to which task; without it a pass of a pool is refused,
unless the pool is off. Trained weights are fp32 over a base of any dtype. B starts at zero, so the first step is the
base to the bit, but for the task token where one is prepended: the base never reads that.

Not covered: roles trained in full, dropout, DoRA, GELU-LoRA, an adapter on the output head, `torch.compile`, recorded
passes, private training; all are refused before a weight is loaded (`r1core.model.pool_check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from r1core.api import JSON, R1Error, UserError
from r1core.data.routes import KEYWORD, Routes
from r1core.model.adapted import Trained
from r1core.model.own_adapter import OwnAdapted
from r1core.model.own_files import CONFIG, WEIGHTS
from r1core.model.placement import linear_kinds, low_rank
from r1core.model.pool_check import KIND, NOT_MERGEABLE, Settings, unlike
from r1core.model.pool_gate import Gate
from r1core.model.pool_linear import Current, Pass, PoolLinear, Slice
from r1core.recipe.pool import Pool
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter

MODULE = "r1core_pool"
"""Name under which tokens, gate and projection stand in the model."""
MOST_RUNS = 2
"""Runs a task of which hard routing takes slices; where tasks alternate more, one gated product is the cheaper.

It is on a GPU too, where ten small products take longer to launch than one large one takes to compute."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pool that a recipe asks for: its table, and the tasks that are to be trained, in order."""

    pool: Pool
    tasks: tuple[str, ...]


class PoolAdapted(OwnAdapted):
    """A model whose linear layers named in `layers` have become `PoolLinear`s under one gate."""

    kind, not_mergeable = KIND, NOT_MERGEABLE

    def __init__(self, model: PreTrainedModel, strategy: Strategy, settings: Settings, gate: Gate) -> None:
        super().__init__(model, strategy)
        self.settings, self.gate = settings, gate
        self.tasks = {name: number for number, name in enumerate(settings.tasks)}
        self.enabled = True
        self._current = Current()
        self._inside = False
        model.add_module(MODULE, gate)
        for name in settings.modules:
            parent, _, last = name.rpartition(".")
            base = model.get_submodule(name)
            layer = PoolLinear(base, settings.rank, settings.scale, self._current)
            setattr(model.get_submodule(parent), last, layer)
        self.layers = {name: m for name, m in model.named_modules() if isinstance(m, PoolLinear)}
        self._marks: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        model.register_forward_pre_hook(self._enter, with_kwargs=True)
        model.register_forward_hook(self._leave, always_call=True)
        model.base_model.register_forward_pre_hook(self._enter_inner, with_kwargs=True)
        model.get_input_embeddings().register_forward_hook(self._prepend)

    @property
    def routed(self) -> bool:
        """Whether passes have to be told their tasks: while it is on."""
        return self.enabled

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, every layer is its base layer alone."""
        self.enabled, self._current.now = False, None
        try:
            yield
        finally:
            self.enabled = True

    def grow(self, tasks: Sequence[str]) -> None:
        """Add a cohort of untrained tasks; what is there is trained no longer."""
        for layer in self.layers.values():
            layer.grow(len(tasks))
        self.gate.grow(len(tasks))
        self.gate.to(self.model.device)
        self.settings = replace(self.settings, cohorts=(*self.settings.cohorts, tuple(tasks)))
        self.tasks = {name: number for number, name in enumerate(self.settings.tasks)}

    def state(self) -> dict[str, torch.Tensor]:
        """All weights of the pool, those that are trained no longer included."""
        layers = {
            f"{name}.{half}.{cohort}": value
            for name, layer in self.layers.items()
            for half in ("pool_A", "pool_B")
            for cohort, value in enumerate(getattr(layer, half))
        }
        return layers | {f"{MODULE}.{name}": value for name, value in self.gate.named_parameters()}

    def described(self) -> dict[str, JSON]:
        """Its settings."""
        return self.settings.to_json()

    def trained(self) -> Iterator[Trained]:
        """The weights that require a gradient; those of the gate have the embeddings' role."""
        for one in super().trained():
            if one.name.startswith(f"{MODULE}."):
                yield replace(one, role="embeddings", up=False)
            else:
                yield replace(one, up=".pool_B." in one.name)

    def _enter(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take the routes out of a call of the whole model, and stand ready for that of its decoder."""
        self._begin(kwargs.pop(KEYWORD, None))
        self._inside = True
        return args, kwargs

    def _leave(self, *_: object) -> None:
        self._inside = False

    def _enter_inner(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same for a call of the decoder alone."""
        routes = kwargs.pop(KEYWORD, None)
        if not self._inside:
            self._begin(routes)
        return args, kwargs

    def _begin(self, routes: Routes | None) -> None:
        self._current.now, self._marks = None, ((), ())
        if not self.enabled:
            if routes is not None:
                raise R1Error("a pass of the base model was told tasks")
            return
        if routes is None:
            raise R1Error("a pool of task adapters was not told the tasks of its tokens")
        if unknown := [run.task for run in routes.runs if run.task not in self.tasks]:
            raise unknown_task(unknown[0], list(self.tasks))
        numbers = [self.tasks[run.task] for run in routes.runs]
        self._current.now = self._pass(routes, numbers)
        if routes.tokens and self.gate.project is None:
            raise R1Error("a pool without prepended tokens was given some")
        self._marks = (routes.tokens, tuple(self.tasks[routes.task_at(place)] for place in routes.tokens))

    def _pass(self, routes: Routes, numbers: Sequence[int]) -> Pass:
        """What the layers need: slices where hard routing has few runs, else gates."""
        firsts = [sum(self.gate.cohorts[:c]) for c in range(len(self.gate.cohorts))]
        cohort_of = [max(c for c, first in enumerate(firsts) if first <= number) for number in numbers]
        device = self.model.device
        few = len(numbers) <= MOST_RUNS * len(set(numbers)) and device.type == "cpu"
        if self.settings.routing == "hard" and few:
            cohorts = tuple(sorted(set(cohort_of)))
            slices = (
                Slice(c, number - firsts[c], run.start, run.end)
                for run, number, c in zip(routes.runs, numbers, cohort_of, strict=True)
            )
            return Pass(routes.length, cohorts, slices=tuple(slices))
        cohorts = tuple(range(max(cohort_of) + 1))
        lengths = torch.tensor([run.end - run.start for run in routes.runs])
        of = torch.repeat_interleave(torch.tensor(numbers), lengths)
        weights = self.gate.weights().to(device)
        of = of.to(device, non_blocking=True)
        gates = [weights[:, firsts[c] : firsts[c] + self.gate.cohorts[c]].index_select(0, of) for c in cohorts]
        return Pass(routes.length, cohorts, gates=tuple(gates))

    def _prepend(self, _module: nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor | None:
        places, tasks = self._marks
        if not places or not self.enabled:
            return None
        vectors = self.gate.prepended(tasks).to(output.dtype)
        at = torch.tensor(places).to(output.device, non_blocking=True)
        return output.index_copy(-2, at, vectors.expand(*output.shape[:-2], -1, -1))


def unknown_task(name: str, known: Sequence[str]) -> UserError:
    """Why a task is refused."""
    said = f"task {name!r} is not in this pool" if name else "no task was named, and this pool has several"
    return UserError(said, fix=f"name one of: {', '.join(known)}")


def add_pool(model: PreTrainedModel, adapter: Adapter, strategy: Strategy, seed: int, wanted: Wanted) -> PoolAdapted:
    """Put an untrained pool into the model, or the trained one that it extends and untrained adapters beside it.

    Raises
    ------
    UserError : for a pool that cannot be extended so, as `pool_check` says.
    """
    modules = tuple(low_rank(model, adapter, strategy))
    settings = Settings.of(adapter, wanted.pool, modules)
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if wanted.pool.extends is None:
            made = _untrained(model, strategy, settings)
        else:
            directory = wanted.pool.extends / "adapter"
            if differs := next(unlike(settings, Settings.read(directory)), None):
                raise UserError(f"{differs.found}; expected {differs.expected}", fix=differs.fix)
            made = load_pool(model, directory)
            made.strategy = strategy
        made.grow(wanted.tasks)
    return made


def load_pool(model: PreTrainedModel, directory: Path) -> PoolAdapted:
    """Attach a saved pool for inference.

    Raises
    ------
    UserError : when it is of another format, broken, or made for another model.
    """
    settings = Settings.read(directory)
    kinds = {name: type(module) for name, module in model.named_modules()}
    if wrong := [name for name in settings.modules if not issubclass(kinds.get(name, object), linear_kinds())]:
        fix = "use the base that it was made on"
        raise UserError(f"{directory / CONFIG}: {wrong[0]} is no linear layer of this model", fix=fix)
    model.requires_grad_(False)
    made = _untrained(model, Strategy(), replace(settings, cohorts=()))
    for tasks in settings.cohorts:
        made.grow(tasks)
    try:
        made.load(load_file(directory / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory / WEIGHTS}: cannot be read: {error}", fix="train again") from error
    model.requires_grad_(False)
    return made


def _untrained(model: PreTrainedModel, strategy: Strategy, settings: Settings) -> PoolAdapted:
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, torch.Tensor)
    gate = Gate(
        routing=settings.routing,
        top_k=settings.top_k,
        width=settings.width,
        hidden_size=embedding.shape[1] if settings.prepend else 0,
        scale=float(embedding.detach().float().square().mean().sqrt()),
    )
    return PoolAdapted(model, strategy, settings, gate)
