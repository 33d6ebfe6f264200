"""The train stage: prepared rows in, `adapter/` out, checkpoints in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from r1core.api import JSON, R1Error, UserError
from r1core.data import codec
from r1core.data.tokens import Encoded
from r1core.model import flash_rows, private_check
from r1core.model.adapted import Adapted, LanguageModel
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import check_packing, load_model
from r1core.model.pool import Wanted
from r1core.model.probe import Compute
from r1core.model.processes import how_many, ranks
from r1core.model.scores import causal_of
from r1core.model.sharding import shard
from r1core.model.slices import whole
from r1core.runs import checkpoints
from r1core.runs.crew import ALONE
from r1core.runs.files import directory_replaced, write_json
from r1core.train import difficulty
from r1core.train.base_loss import base_losses
from r1core.train.continual import Begun, begin, new_part
from r1core.train.curriculum import Staged, classes_of, described
from r1core.train.feed import layout_of
from r1core.train.loop import Groups, Trainer
from r1core.train.objective import objective_for
from r1core.train.order import Order, order_of
from r1core.train.private import PrivateTrainer, private_training
from r1core.train.start import set_routers, set_start
from r1core.workbench import Workbench


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
    run, crew = bench.run, bench.crew
    first, launched = crew.rank == 0, crew.world > 1
    rows: Sequence[Encoded] = encoded_rows(bench, "train")
    known = _known_difficulty(bench)
    model = base_on_device(bench, compute)
    world = _processes(bench, compute, model, rows)
    if not launched:
        torch.set_num_threads(compute.threads if world == 1 else 1)
    forked = 1 if launched else world
    order = _order(bench, model, rows, known, fingerprint, forked, tell)
    adapted, layers = with_adapter(bench, model, compute)
    with _first_alone(bench):
        begun = begin(bench, adapted, layers, rows, order, fingerprint, forked, tell)
    rows = begun.rows
    check_rows_apart(bench, adapted.model, rows, compute)
    found = _checkpoint(bench, fingerprint)

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        if isinstance(order, Staged):
            metrics = {**metrics, "curriculum_stage": order.stage(step - 1)}
        run.metrics.append({"step": step, **metrics})
        for callback in bench.callbacks:
            callback.on_step(step, dict(metrics))
        progress(step, trainer.total, metrics)

    def rank() -> Trainer:
        made = _trainer(bench, adapted, layers, begun, fingerprint, found, on_step)
        if found is not None:
            party = crew if made.together.sharded else ALONE
            parts = {group: found.tensors(group, party.rank, party.world) for group in found.groups}
            made.resume(parts, found.state())
        return made

    with ranks(forked, lambda: rank().run()):
        trainer = rank()
        if found is not None:
            tell(f"  continuing from step {found.step} of {trainer.total}")
        elif first:
            checkpoints.clear(run)
        if first:
            run.metrics.keep(lambda line: int(line.get("step", 0)) <= trainer.done)
        trainer.run()
    _write(bench, adapted, layers, trainer, tell)
    return _figures(bench, trainer) | {"train_processes": world} if first else {}


def _checkpoint(bench: Workbench, fingerprint: str) -> checkpoints.Checkpoint | None:
    """The newest valid checkpoint of this training, the same one for every process.

    Raises
    ------
    R1Error : when the processes see different ones.
    """
    found = checkpoints.latest_valid(bench.run, fingerprint=fingerprint)
    seen = bench.crew.exchange(None if found is None else found.path.name)
    if len(set(seen)) > 1:
        raise R1Error(f"the processes see different checkpoints ({seen}); {bench.run.path} has to be one for all")
    return found


def _known_difficulty(bench: Workbench) -> list[float] | None:
    """How difficult each training row is; [] without a curriculum, None where the model has to be asked."""
    if not bench.recipe.curriculum.difficulty:
        return []
    known = difficulty.of_records(bench, codec.read(bench.run.split("train"), bench.chain.kinds))
    if known is not None:
        classes_of(known, bench.recipe.curriculum.threshold)  # refuses what cannot be cut in two
    return known


def base_on_device(bench: Workbench, compute: Compute) -> PreTrainedModel:
    """The base model on the device; where it is to be cut, in the machine's memory, since it may not fit whole."""
    model = load_model(bench.base, precision=compute.precision, attention=bench.recipe.model.attention)
    if bench.recipe.train.parallel != "fsdp2":
        model.to(torch.device(compute.device))  # type: ignore[arg-type]  # transformers' stub takes a model here
    return model


def _order(
    bench: Workbench,
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    known: Sequence[float] | None,
    digest: str,
    processes: int,
    tell: Callable[[str], None],
) -> Order:
    """Which rows each step sees; what a curriculum goes by is written down."""
    recipe, ids = bench.recipe, [row.id for row in rows]

    def measured() -> list[float]:
        tell(f"  curriculum: measuring the base model's loss on {len(rows)} rows")
        whole = recipe.train.packing == "shared_prefix" and not recipe.train.micro_batch_tokens
        together = recipe.train.batch_size if whole else 1
        return base_losses(model, rows, bench.chain.kinds, together=together, processes=processes)

    with _first_alone(bench):
        values = difficulty.kept_or(bench, ids, digest, measured) if known is None else known
        order = order_of(new_part(bench), len(rows), recipe.run.seed, recipe.curriculum, values)
        if bench.crew.rank:
            return order
        if isinstance(order, Staged):
            difficulty.write(bench, ids, values, order.classes, digest)
            for line in described(order):
                tell(f"  {line}")
        else:
            bench.run.difficulty.unlink(missing_ok=True)  # of an earlier recipe
    return order


@contextmanager
def _first_alone(bench: Workbench) -> Iterator[None]:
    """Under a launcher, the first process runs the block, and the others when it has: they read what it wrote."""
    if bench.crew.rank:
        bench.crew.exchange(None)
    yield
    if not bench.crew.rank:
        bench.crew.exchange(None)


def with_adapter(bench: Workbench, model: PreTrainedModel, compute: Compute) -> tuple[Adapted, ExtraLayers]:
    """The base model with its untrained adapter and layers, cut if it is to be."""
    recipe = bench.recipe
    set_routers(bench, model)
    fused = bench.privacy is None or not bench.privacy.hooks_modules
    wanted = Wanted(recipe.pool, tuple(bench.tasks)) if recipe.train.objective == "multitask" else None
    adapted = add_adapter(model, recipe.adapter, recipe.run.seed, strategy=recipe.strategy, fused=fused, wanted=wanted)
    set_start(bench, adapted)
    layers = ExtraLayers(model, bench.layer_specs(model.config), recipe.run.seed)
    if recipe.train.parallel == "fsdp2":
        shard(adapted.model, torch.device(compute.device), bench.crew.world)
        layers.to(compute.device)
    return adapted, layers


def _trainer(
    bench: Workbench,
    adapted: Adapted,
    layers: ExtraLayers,
    begun: Begun,
    fingerprint: str,
    found: checkpoints.Checkpoint | None,
    on_step: Callable[[int, Mapping[str, float]], None],
) -> Trainer:
    run, recipe = bench.run, bench.recipe

    def save(step: int, groups: Groups, state: dict[str, Any]) -> None:
        party = bench.crew if trainer.together.sharded else ALONE
        checkpoints.save(run, step, groups, state, fingerprint=fingerprint, crew=party, cut=trainer.cut)
        if trainer.together.main:
            checkpoints.prune(run, keep=recipe.train.keep_checkpoints)

    given = (adapted.model, layers, begun.rows, bench.chain.kinds, objective_for(bench), recipe.train)
    trainer: Trainer
    if bench.privacy is not None:
        private = private_training(bench, adapted.model, layers, {} if found is None else found.state())
        trainer = PrivateTrainer(*given, private=private, seed=recipe.run.seed, save=save, on_step=on_step)
    else:
        trainer = Trainer(
            *given, order=begun.order, seed=recipe.run.seed, save=save, on_step=on_step,
            layer_loss_weights=recipe.layers, penalty=begun.penalty,
        )  # fmt: skip
    return trainer


def _processes(bench: Workbench, compute: Compute, model: PreTrainedModel, rows: Sequence[Encoded]) -> int:
    """How many processes share each batch: a launcher's, or as many as pay; private training runs in one."""
    if bench.crew.world > 1:
        return bench.crew.world
    if bench.privacy is not None:
        return 1
    return how_many(
        compute,
        bench.recipe.model.processes,
        parameters=sum(p.numel() for p in model.parameters()),
        tokens=sum(row.length for row in rows),
        most=bench.recipe.train.batch_size,
    )


def _write(
    bench: Workbench, adapted: Adapted, layers: ExtraLayers, trainer: Trainer, tell: Callable[[str], None]
) -> None:
    """What training leaves: the adapter, the layers, and the privacy policy's card; every process has to ask."""
    run = bench.run
    trained = {name: whole(value.detach()).cpu().contiguous() for name, value in adapted.state().items()}
    if bench.crew.rank:
        return
    with directory_replaced(run.adapter) as aside:
        adapted.save(aside, trained)
        layers.save(aside)
    if isinstance(trainer, PrivateTrainer):
        run.privacy_card.parent.mkdir(mode=0o700, exist_ok=True)
        card = trainer.private.card()
        write_json(run.privacy_card, dict(card))
        if "guarantee" in card:
            tell(f"  privacy: {card['guarantee']}")


def check_rows_apart(bench: Workbench, model: LanguageModel, rows: Sequence[Encoded], compute: Compute) -> None:
    """Where the recipe packs: set up the attention that keeps rows apart, and try two rows together and alone."""
    config = bench.recipe.train
    if config.packing == "none":
        return
    layout = layout_of(config, rows, model.device, model.dtype)
    if layout.flash:
        flash_rows.use(causal_of(model))
    shortest = min(rows[: config.batch_size], key=lambda row: row.length)
    longest = max(rows, key=lambda row: row.length)
    check_packing(model, [shortest, longest], bench.chain.kinds, compute.precision, layout)


def encoded_rows(bench: Workbench, split: str) -> list[Encoded]:
    """The prepared rows of a split as tokens."""
    return [bench.renderer.encode(example) for example in codec.read(bench.run.split(split), bench.chain.kinds)]


def _figures(bench: Workbench, trainer: Trainer) -> dict[str, JSON]:
    last = list(bench.run.metrics.read())[-1]
    loss = last.get("loss")  # a private training tells none
    return {
        "train_steps": trainer.total,
        "train_cpu_seconds": round(trainer.cpu_seconds, 1),
        "train_loss_last": loss if loss is not None and math.isfinite(float(loss)) else None,
        "trainable_parameters": sum(p.numel() for p in trainer.trainable),
    }


def _refuse_combinations(bench: Workbench) -> None:
    if bench.recipe.train.parallel == "fsdp2" and bench.crew.world == 1:
        raise UserError(
            'train.parallel = "fsdp2" is for the processes of a launcher, and this one stands alone',
            fix='torchrun --nproc-per-node N -m -- r1core ..., or set train.parallel = "ddp"',
        )
    if bench.privacy is not None and bench.crew.world > 1:
        raise UserError(f"{bench.privacy.name}: private training runs in one process", fix="start r1core by itself")
    if bench.privacy is not None:
        for refusal in private_check.refusals(bench.recipe, bench.privacy.name):
            raise UserError(refusal.found, fix=refusal.fix)
