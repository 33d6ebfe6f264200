"""The strategy table as it resolves on one model: what each role gets, how many weights it has and trains.

The counts follow what `r1core.model.placement` and the adapters build: rank x (inputs + outputs) a matrix for LoRA and
rsLoRA, as many and one magnitude an output for DoRA, as many and the biases of A and B for GELU-LoRA, all weights of a
module that is trained in full.

Not told: extra layers of plugins, whose weights only their code knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from r1core.forecast.shape import Shape, Weight
from r1core.model.strategy import EXPERTS, needs_untie
from r1core.recipe.strategy import ROLES, Strategy
from r1core.recipe.training import Adapter, Train

_SECOND = re.compile(r"\.(?:up_proj|w3)$")
"""The second of the two matrices of an expert that are stacked into one."""


@dataclass(frozen=True, slots=True)
class RoleCount:
    """One role: its mode, rates (None where it is frozen), and numbers of weights.

    Parameters
    ----------
    base : weights of the base model; an untied head's copy included.
    trained : weights that training changes.
    """

    role: str
    mode: str
    learning_rate: float | None
    weight_decay: float | None
    base: int
    trained: int


@dataclass(frozen=True)
class Table:
    """What is trained in a model.

    Parameters
    ----------
    weights : of the base, an untied head's copy included.
    low_rank, full : those that get an adapter, and those whose modules are trained themselves.
    untied : weights of the head's own copy; 0 where none is made.
    """

    shape: Shape
    adapter: Adapter
    roles: tuple[RoleCount, ...]
    weights: tuple[Weight, ...]
    low_rank: tuple[Weight, ...]
    full: tuple[Weight, ...]
    untied: int

    @property
    def base(self) -> int:
        """All weights of the base."""
        return sum(role.base for role in self.roles)

    @cached_property
    def trained(self) -> int:
        """All weights that training changes."""
        return sum(role.trained for role in self.roles)

    @property
    def share(self) -> float:
        """Trained weights over weights of the base."""
        return self.trained / max(1, self.base)

    @cached_property
    def lowest(self) -> int:
        """Index of the lowest block that a backward pass reaches; the number of blocks where it reaches none."""
        reached = [*self.low_rank, *self.full]
        if any(weight.role == "embeddings" for weight in reached):
            return 0
        return min((w.block for w in reached if w.block is not None), default=self.shape.blocks)

    def notes(self) -> Iterator[str]:
        """What the counts leave open."""
        if self.shape.has_experts and not any(weight.expert for weight in self.low_rank):
            yield (
                "experts and their routers are counted as the base's own: transformers stacks them, and an adapter goes"
                f" on a stack where adapter.targets names {EXPERTS!r}; a model class that keeps each as a linear layer"
                " would train more than is told here"
            )
        if self.untied:
            yield f"strategy.untie gives the output head {self.untied:,} weights of its own, a copy of the embedding's"


def table_of(shape: Shape, adapter: Adapter, strategy: Strategy, train: Train) -> Table:
    """Resolve a recipe's adapter and strategy on a model."""
    treatments = strategy.treatments()
    weights, untied = list(shape.weights), 0
    if shape.tied and strategy.untie:
        untied = shape.head
        weights.append(Weight("lm_head", untied, "output", None, True, inputs=shape.width, outputs=shape.vocabulary))
    low_rank = tuple(w for w in weights if _has_adapter(w, shape, adapter, strategy))
    full = tuple(
        w for w in weights if treatments[w.role].mode == "full" and _open(w, adapter) and not _held(w, shape, strategy)
    )
    roles = []
    for role in ROLES:
        own = [w for w in weights if w.role == role]
        trained = sum(adapter_count(w, adapter) for w in low_rank if w.role == role)
        trained += sum(w.count for w in full if w.role == role)
        treatment = treatments[role]
        rate = decay = None
        if treatment.mode != "frozen":
            given = strategy.given
            rate = treatment.learning_rate if given and treatment.learning_rate else train.learning_rate
            default = 0.0 if role == "norms" and given else train.weight_decay
            decay = treatment.weight_decay if given and treatment.weight_decay is not None else default
        roles.append(RoleCount(role, treatment.mode, rate, decay, sum(w.count for w in own), trained))
    return Table(shape, adapter, tuple(roles), tuple(weights), low_rank, full, untied)


def adapter_count(weight: Weight, adapter: Adapter) -> int:
    """Weights that an adapter of this kind trains at a linear layer, or at a stack of experts.

    Where a file holds each expert's matrices apart, the two that are stacked into one share an A.
    """
    shared = weight.expert and _SECOND.search(weight.name) is not None
    count = adapter.rank * (weight.outputs if adapter.freeze_a or shared else weight.inputs + weight.outputs)
    if adapter.kind == "dora":
        return count + weight.outputs
    return count + adapter.rank + weight.outputs if adapter.kind == "gelu_lora" else count


def _open(weight: Weight, adapter: Adapter) -> bool:
    return weight.block is None or weight.block >= adapter.first_layer


def _held(weight: Weight, shape: Shape, strategy: Strategy) -> bool:
    """Whether a tied matrix would be trained that the strategy has not untied, which training refuses."""
    return shape.tied and not strategy.untie and needs_untie(strategy) and weight.role in ("embeddings", "output")


def _has_adapter(weight: Weight, shape: Shape, adapter: Adapter, strategy: Strategy) -> bool:
    if strategy.treatments()[weight.role].mode != "lora" or not _open(weight, adapter):
        return False
    if weight.expert:
        return weight.inputs > 0 and adapter.targets != "all-linear" and EXPERTS in adapter.targets
    if not weight.linear:
        return False
    if weight.block is None:
        return weight.role == "output" and not _held(weight, shape, strategy)
    targets = _linear_names(shape) if adapter.targets == "all-linear" else adapter.targets
    return any(f".{weight.name}".endswith(f".{target}") for target in targets)


def _linear_names(shape: Shape) -> set[str]:
    """Last name parts of the linear layers of the first block."""
    return {w.name.rpartition(".")[2] for w in shape.weights if w.linear and w.block == 0}
