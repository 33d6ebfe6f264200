"""The train stage: prepared rows in, `adapter/` out, checkpoints in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel

from r1core.api import JSON, UserError
from r1core.data import codec
from r1core.data.tokens import Encoded
from r1core.model.adapter import add_lora
from r1core.model.layers import ExtraLayers
from r1core.model.load import check_packing, load_model
from r1core.model.probe import Compute
from r1core.model.processes import how_many, ranks
from r1core.runs import checkpoints
from r1core.runs.files import directory_replaced, write_json
from r1core.train.loop import Groups, Trainer
from r1core.train.objective import objective_of
from r1core.train.order import order_of
from r1core.workbench import Workbench

PACKING_TOLERANCE = {"fp32": 2e-3, "bf16": 0.5}
"""Largest difference of a logit, packed against alone, that rounding explains in each precision."""


def train(
    bench: Workbench,
    compute: Compute,
    fingerprint: str,
    progress: Callable[[int, int, Mapping[str, float]], None],
    tell: Callable[[str], None],
) -> dict[str, JSON]:
    """Train, or go on from the newest valid checkpoint of this very training; return the figures reached.

    Raises
    ------
    UserError : when an option does not compose with another (see docs: what composes with what).
    NonFiniteLoss : with the step; the last good checkpoint stays.
    """
    _refuse_combinations(bench)
    run, recipe = bench.run, bench.recipe
    rows = encoded_rows(bench, "train")
    adapted, layers = _model(bench, compute)
    world = _processes(bench, compute, adapted, rows)
    torch.set_num_threads(compute.threads if world == 1 else 1)
    _check_packing(bench, adapted, rows, compute)
    found = checkpoints.latest_valid(run, fingerprint=fingerprint)

    def save(step: int, groups: Groups, state: dict[str, Any]) -> None:
        checkpoints.save(run, step, groups, state, fingerprint=fingerprint)
        checkpoints.prune(run, keep=recipe.train.keep_checkpoints)

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        run.metrics.append({"step": step, **metrics})
        for callback in bench.callbacks:
            callback.on_step(step, dict(metrics))
        progress(step, trainer.total, metrics)

    def rank() -> Trainer:
        made = _trainer(bench, adapted, layers, rows, save, on_step)
        if found is not None:
            made.resume({group: found.tensors(group) for group in found.groups}, found.state())
        return made

    with ranks(world, lambda: rank().run()):
        trainer = rank()
        if found is not None:
            tell(f"  continuing from step {found.step} of {trainer.total}")
        else:
            checkpoints.clear(run)
        run.metrics.keep(lambda line: int(line.get("step", 0)) <= trainer.done)
        trainer.run()
    _write(bench, adapted, layers)
    return _figures(bench, trainer) | {"train_processes": world}


def _model(bench: Workbench, compute: Compute) -> tuple[PeftModel, ExtraLayers]:
    """The base model with its untrained adapter and layers, on the device; a privacy policy is attached."""
    recipe = bench.recipe
    model = load_model(bench.base, precision=compute.precision, attention=recipe.model.attention)
    model.to(torch.device(compute.device))  # type: ignore[arg-type]  # transformers' stub takes a model here
    adapted = add_lora(model, recipe.adapter, recipe.run.seed, fused=bench.privacy is None)
    layers = ExtraLayers(model, bench.layer_specs(model.config), recipe.run.seed)
    if bench.privacy is not None:
        bench.privacy.attach(adapted, _groups(bench))
    return adapted, layers


def _trainer(
    bench: Workbench,
    adapted: PeftModel,
    layers: ExtraLayers,
    rows: Sequence[Encoded],
    save: Callable[[int, Groups, dict[str, Any]], None],
    on_step: Callable[[int, Mapping[str, float]], None],
) -> Trainer:
    recipe = bench.recipe
    return Trainer(
        adapted,
        layers,
        rows,
        bench.chain.kinds,
        objective_of(recipe.train),
        recipe.train,
        order=order_of(recipe.train, len(rows), recipe.run.seed),
        seed=recipe.run.seed,
        save=save,
        on_step=on_step,
        privacy=bench.privacy,
        layer_loss_weights=recipe.layers,
    )


def _processes(bench: Workbench, compute: Compute, model: PeftModel, rows: Sequence[Encoded]) -> int:
    """How many processes share each batch; private training runs in one."""
    if bench.privacy is not None:
        return 1
    return how_many(
        compute,
        bench.recipe.model.processes,
        parameters=sum(p.numel() for p in model.parameters()),
        tokens=sum(row.length for row in rows),
        most=bench.recipe.train.batch_size,
    )


def _write(bench: Workbench, adapted: PeftModel, layers: ExtraLayers) -> None:
    """What training leaves: the adapter, the layers, and the privacy policy's card."""
    run = bench.run
    with directory_replaced(run.adapter) as aside:
        adapted.save_pretrained(str(aside))
        (aside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; the run has its own
        layers.save(aside)
    if bench.privacy is not None:
        run.privacy_card.parent.mkdir(mode=0o700, exist_ok=True)
        write_json(run.privacy_card, dict(bench.privacy.card()))


def _groups(bench: Workbench) -> list[str]:
    """The privacy unit of each training row.

    Raises
    ------
    UserError : for a row without a group; whom a record is about cannot be guessed.
    """
    groups = []
    for example in codec.read(bench.run.split("train"), bench.chain.kinds):
        if example.group is None:
            raise UserError(
                f"row {example.id!r} has no group, so {bench.privacy and bench.privacy.name} cannot tell whose it is",
                fix="set data.columns.group to the column of the patient or client id",
            )
        groups.append(example.group)
    return groups


def _check_packing(bench: Workbench, model: PeftModel, rows: Sequence[Encoded], compute: Compute) -> None:
    """Try the shortest and the longest of the first rows together and alone, where the recipe packs."""
    if bench.recipe.train.packing == "shared_prefix":
        sample = sorted(rows[: bench.recipe.train.batch_size], key=lambda r: r.length)
        check_packing(model, [sample[0], sample[-1]], bench.chain.kinds, PACKING_TOLERANCE[compute.precision])


def encoded_rows(bench: Workbench, split: str) -> list[Encoded]:
    """The prepared rows of a split as tokens."""
    return [bench.renderer.encode(example) for example in codec.read(bench.run.split(split), bench.chain.kinds)]


def _figures(bench: Workbench, trainer: Trainer) -> dict[str, JSON]:
    last = list(bench.run.metrics.read())[-1]
    return {
        "train_steps": trainer.total,
        "train_cpu_seconds": round(float(last["cpu_seconds"]), 1),
        "train_loss_last": last["loss"] if math.isfinite(float(last["loss"])) else None,
        "trainable_parameters": sum(p.numel() for p in trainer.trainable),
    }


def _refuse_combinations(bench: Workbench) -> None:
    if bench.privacy is not None and bench.recipe.train.packing != "none":
        raise UserError(
            f"{bench.privacy.name}: private training takes each row's own gradient, packing mixes rows",
            fix='set train.packing = "none"',
        )
    if bench.privacy is not None and bench.recipe.model.processes > 1:
        raise UserError(f"{bench.privacy.name}: private training runs in one process", fix="set model.processes = 1")
