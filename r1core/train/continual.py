"""Training that goes on from an earlier run: its weights, rows of the whole chain to replay, and the penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from r1core.api import UserError
from r1core.data import codec
from r1core.data.tokens import Encoded
from r1core.model.adapted import Adapted
from r1core.model.adapter import stored_tensors
from r1core.model.layers import ExtraLayers
from r1core.model.own_files import LAYERS
from r1core.recipe.training import Train
from r1core.runs.chain import KEY, EarlierRun, labels
from r1core.train.fisher import Measured, fisher, kept_or, sampled
from r1core.train.order import Order
from r1core.train.penalty import ElasticWeightConsolidation, Penalty
from r1core.train.rehearsal import Rehearsed
from r1core.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Begun:
    """What training works with: all rows (new ones first), the order over them, and a penalty where there is one."""

    rows: Sequence[Encoded]
    order: Order
    penalty: Penalty | None = None


def new_part(bench: Workbench) -> Train:
    """[train] as it holds for the new rows alone, of which a step has fewer where others are replayed."""
    train, (_, new) = bench.recipe.train, bench.recipe.continual.split(bench.recipe.train.batch_size)
    return train.model_copy(update={"batch_size": new})


def begin(
    bench: Workbench,
    adapted: Adapted,
    layers: ExtraLayers,
    rows: Sequence[Encoded],
    order: Order,
    digest: str,
    processes: int,
    tell: Callable[[str], None],
) -> Begun:
    """Set the weights to where the earlier run ended; add its rows and the penalty that the recipe asks for.

    A run that continues none begins with what it was given.

    Parameters
    ----------
    order : of the new rows, `new_part` of each step.
    digest : of this training; the Fisher information is kept under it.
    """
    if bench.start is None:
        return Begun(rows, order)
    config, seed = bench.recipe.continual, bench.recipe.run.seed
    adapted.load(stored_tensors(bench.start))
    extra = bench.start / LAYERS
    with torch.no_grad():
        layers.load(load_file(extra) if extra.exists() else {})
    replayed, new = config.split(bench.recipe.train.batch_size)
    needed = replayed or config.ewc
    named = labels(bench.earlier, bench.recipe.run.name)
    earlier = [earlier_rows(bench, one) for one in bench.earlier] if needed else []
    if replayed:
        kept = ", ".join(f"{len(some)} of {name}" for name, some in zip(named, earlier, strict=False))
        tell(f"  replay: {replayed} of {replayed + new} rows of each step are earlier ones ({kept})")
    penalty = None
    if config.ewc:
        parts = [sampled(some, config.fisher_rows, seed, number) for number, some in enumerate(earlier)]
        measured = [Measured(name, part) for name, part in zip(named, parts, strict=False)]
        weights = trained_weights(adapted, layers)

        def measure() -> dict[str, torch.Tensor]:
            tell(f"  elastic weight consolidation: measuring on {sum(map(len, parts))} earlier rows")
            kinds = bench.chain.kinds
            found = [fisher(adapted.model, layers, p, kinds, weights, seed=seed, processes=processes) for p in parts]
            return {name: torch.stack([one[name] for one in found]).sum(0) for name in weights}

        penalty = ElasticWeightConsolidation(weights, kept_or(bench.run, digest, measured, measure), config.ewc)
    if not replayed:
        return Begun(rows, order, penalty)
    everything = [*rows, *(row for some in earlier for row in some)]
    return Begun(everything, Rehearsed(order, len(rows), [len(s) for s in earlier], replayed, seed), penalty)


def earlier_rows(bench: Workbench, one: EarlierRun) -> list[Encoded]:
    """An earlier run's training rows as they were prepared, in this run's tokens.

    Raises
    ------
    UserError : when a row carries spans of a kind that no plugin of this run registers.
    """
    path = one.run.split("train")
    try:
        return [bench.renderer.encode(example) for example in codec.read(path, bench.chain.kinds)]
    except KeyError as error:
        found = f"{KEY}: {path}: rows with spans of kind {error.args[0]!r}, which no plugin of this run registers"
        raise UserError(found, fix="add the plugin that writes them to run.plugins") from error


def trained_weights(adapted: Adapted, layers: ExtraLayers) -> dict[str, torch.nn.Parameter]:
    """Every weight that training changes, by a stable name."""
    own = {f"adapter/{one.name}": one.parameter for one in adapted.trained()}
    return own | {f"layers/{name}": p for name, p in layers.named_parameters() if p.requires_grad}
