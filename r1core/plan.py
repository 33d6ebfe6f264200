"""`plan`: the strategy table as it resolves on the recipe's model, and what training will take; no weight is read.

Without a domain and a recipe it forecasts for a model and rows that it names itself, since the guide states none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from r1core.api import JSON, Problem, UserError
from r1core.check_data import train_sample
from r1core.forecast.hardware import Hardware
from r1core.forecast.here import here
from r1core.forecast.methods import GUIDE, Forecast, on_gpus
from r1core.forecast.shape import Shape, llama_shape, read_shape
from r1core.forecast.table import Table, table_of
from r1core.forecast.work import Rows
from r1core.model.resolve import StoredConfig
from r1core.model.strategy import refusals
from r1core.recipe.problems import InvalidInput
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter, Train
from r1core.workbench import Workbench

TOKENS_PER_SAMPLE = 512
"""Where neither the recipe's data nor the user says how long a sample is."""
ANSWERED = 0.25
"""Share of a sample's tokens that are its answer, where no data says."""
UNNAMED = "a Llama of 7 B weights"
"""The model that is assumed where no recipe names one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for besides the recipe; None = as the recipe and this machine say."""

    hardware: Hardware | None = None
    samples: int | None = None
    tokens: int | None = None
    method: str | None = None


@dataclass(frozen=True)
class Outlook:
    """A plan.

    Parameters
    ----------
    rows : what is trained on; None where no data could be read.
    forecast : or why there is none.
    assumed : what neither the recipe nor the user stated, one line each.
    notes : what the counts leave open, one line each.
    """

    model: str
    table: Table
    train: Train
    rows: Rows | None
    forecast: Forecast | str
    assumed: tuple[str, ...]
    notes: tuple[str, ...]
    sampled: bool = True
    guide: bool = field(default=False)

    def as_json(self) -> dict[str, JSON]:
        """For programs; seconds and bytes."""
        table, told = self.table, self.forecast
        made: dict[str, JSON] = {
            "model": {"name": self.model, "weights": table.shape.parameters, "blocks": table.shape.blocks}
            | {"tied": table.shape.tied, "untied_weights": table.untied},
            "adapter": {key: getattr(table.adapter, key) for key in ("kind", "rank", "alpha", "first_layer")},
            "table": [asdict(role) for role in table.roles],
            "weights": table.base,
            "trained": table.trained,
            "share": table.share,
            "rows": None if self.rows is None else asdict(self.rows),
            "assumed": list(self.assumed),
            "notes": list(self.notes),
        }
        if isinstance(told, str):
            made["forecast"] = {"not_told": told}
        else:
            memory = {**asdict(told.memory), "total": told.memory.total, "together": told.together}
            made["forecast"] = {**asdict(told), "memory": memory, "fits": told.fits}
        if self.guide:
            made["guide"] = [asdict(claim) for claim in GUIDE]
        return made


def outlook(bench: Workbench, asked: Asked) -> Outlook:
    """Plan a recipe.

    Raises
    ------
    InvalidInput : where adapter and strategy do not go with the model.
    UserError : for a model that is not on this machine, or rows that cannot be read.
    """
    recipe = bench.recipe
    directory = Path(bench.base.directory())
    shape = _stored(bench, directory)
    private = bench.privacy.name if bench.privacy is not None else None
    where = bench.resolved.where
    if found := [Problem(where(key), said, want, fix) for key, said, want, fix in refusals(recipe, directory, private)]:
        raise InvalidInput(found)
    table = table_of(shape, recipe.adapter, recipe.strategy, recipe.train)
    rows, assumed = _rows(bench, asked)
    method = asked.method or "lora"
    told: Forecast | str
    if asked.hardware is not None:
        told = on_gpus(table, rows, recipe.train, asked.hardware, method)
    elif method != "lora":
        raise UserError(f"--method {method}: told for GPUs only", fix="add --hardware, for instance 8xA100-80G")
    else:
        told = here(table, rows, recipe, private=private is not None)
    notes = (*table.notes(), *_layers(bench, directory), *_pool(bench, table), *_untold(bench), *_untrained(method))
    sampled = asked.samples is None or asked.tokens is None
    return Outlook(
        bench.base.name, table, recipe.train, rows, told, tuple(assumed), notes, sampled, asked.hardware is not None
    )


def unnamed(asked: Asked) -> Outlook:
    """Plan without a recipe, for an assumed model.

    Raises
    ------
    UserError : without hardware or without samples: there is nothing to plan for.
    """
    if asked.hardware is None or asked.samples is None:
        raise UserError(
            "no domain and no recipe",
            fix="r1core plan medical, --recipe my.toml, or --hardware 4xA100-80G --samples 100000 for an assumed model",
        )
    method = asked.method or "lora"
    batch = next(claim.batch_size for claim in GUIDE if claim.method == method)
    train = Train(batch_size=batch, packing="best_fit", micro_batch_tokens=8192)
    adapter = Adapter.model_validate({"preset": "text-64"})
    shape = llama_shape(vocabulary=32_000, width=4096, feed_forward=11_008, blocks=32, heads=32, groups=32, tied=False)
    table = table_of(shape, adapter, Strategy(), train)
    rows = _alike(asked.samples, asked.tokens or TOKENS_PER_SAMPLE)
    assumed = [
        f"no recipe: {UNNAMED} (32 blocks, 4,096 wide), LoRA of rank {adapter.rank} on all linear layers, "
        f"batches of {batch} as in the guide, passes of at most 8,192 tokens, 1 epoch; "
        "name a domain or --recipe for your own"
    ]
    if asked.tokens is None:
        assumed.append(f"{TOKENS_PER_SAMPLE} tokens a sample (--tokens-per-sample)")
    assumed.append(f"a quarter of a sample's tokens are its answer, {rows.answered:.0f}")
    told = on_gpus(table, rows, train, asked.hardware, method)
    return Outlook(UNNAMED, table, train, rows, told, tuple(assumed), tuple(_untrained(method)), False, True)


def _stored(bench: Workbench, directory: Path) -> Shape:
    shape = read_shape(directory)
    if shape is None:
        key = "model.hub" if bench.recipe.model.hub is not None else "model"
        fix = "set model.path to a directory with its config.json and safetensors, or download it first"
        raise UserError(
            f"{key}: {bench.base.name}: its safetensors are not on this machine, so nothing is counted", fix
        )
    return shape


def _rows(bench: Workbench, asked: Asked) -> tuple[Rows, list[str]]:
    """What is trained on, and what of it is assumed."""
    data = bench.recipe.data
    if asked.samples is not None and asked.tokens is not None:
        rows = _alike(asked.samples, asked.tokens)
        return rows, [f"a quarter of a sample's tokens are its answer, {rows.answered:.0f}"]
    sample = train_sample(bench)
    if not sample.encoded:
        raise UserError("no training row could be read", fix="see r1core check with the same arguments")
    rows = sample.rows_like(bench.recipe)
    used, known = sample.used(data.max_rows)
    if asked.samples is not None:
        rows = Rows(asked.samples, rows.length, rows.answered, rows.shared, rows.square)
    assumed = [] if known or asked.samples is not None else [f"no more rows than the {used:,} counted in a short time"]
    if asked.tokens is not None:
        rows = _alike(int(rows.number), asked.tokens)
        assumed.append(f"a quarter of a sample's tokens are its answer, {rows.answered:.0f}")
    return rows, assumed


def _alike(number: int, tokens: int) -> Rows:
    """Rows of one length, of which nothing else is known."""
    return Rows(number, tokens, max(1.0, ANSWERED * tokens))


def _layers(bench: Workbench, directory: Path) -> Iterator[str]:
    """Extra layers, whose weights no header holds."""
    if bench.images is not None or any("extra_layer" in bench.plugins.hooks(name) for name in bench.plugins.names):
        for spec in bench.layer_specs(StoredConfig(directory)):
            yield f"the extra layer {spec.name} ({spec.site}) is trained too; how large it is, only its plugin knows"


def _pool(bench: Workbench, table: Table) -> Iterator[str]:
    """What a pool trains, of which the table counts one adapter."""
    pool = bench.recipe.pool
    if bench.recipe.train.objective != "multitask":
        return
    tasks, width = len(bench.tasks), table.shape.width
    token = tasks * pool.width if pool.prepend or pool.routing != "hard" else 0
    gate = 0 if pool.routing == "hard" else tasks * pool.width
    project = pool.width * width if pool.prepend and pool.extends is None else 0
    each = f"{tasks} x {table.trained:,} weights of adapters"
    total = tasks * table.trained + token + gate + project
    yield f"the table and the forecast count one adapter; the pool trains {each}, {total:,} with tokens and gate"


def _untold(bench: Workbench) -> Iterator[str]:
    if bench.recipe.continual.from_ is not None and bench.recipe.continual.naive:
        yield "the comparison with plain tuning (continual.naive) takes about as long again and is not in the time"
    if bench.recipe.curriculum.difficulty == "loss":
        yield 'the pass of the base model over all rows for curriculum.difficulty = "loss" is not in the time'


def _untrained(method: str) -> Iterator[str]:
    """What this version forecasts and cannot do."""
    if method == "ppo":
        yield "this version forecasts PPO and does not train it: rewards are composed and checked only"
