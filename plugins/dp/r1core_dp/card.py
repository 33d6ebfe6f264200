"""The privacy card of a training: what was done, what it guarantees, what it does not, and the curve of epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from r1core.api import JSON
from r1core_dp.accounting import epsilon_of, merged, of_group, prv

if TYPE_CHECKING:
    from r1core_dp.policy import Training

POINTS = 20  # of the curve of epsilon over steps
NOT_COVERED = (
    "how long a step or the whole training took",
    "evaluation, examples and the choice of a checkpoint or of hyperparameters, where they were made on private rows",
    "what others publish about the same people; epsilon bounds what this training adds",
    "rows that are not of the training part",
    "that floating-point numbers are a grid (Mironov 2012)",
    "the number of units N, which is taken as public",
)


def made(training: Training) -> Mapping[str, JSON]:
    """The card as JSON; every epsilon is the larger one of two accountants unless it names one."""
    config, ledger = training.config, training.ledger
    mine, every = ledger.spent(training.run), ledger.spent()
    spent = epsilon_of(mine, training.delta)
    groups: dict[str, JSON] = {}
    if config.unit == "record" and training.largest_group > 1:
        groups["group_records"] = training.largest_group
        groups["group_epsilon"] = of_group(mine, training.delta, training.largest_group)
    card: dict[str, JSON] = {
        "guarantee": _guarantee(training, spent.value, groups),
        "unit": config.unit,
        "adjacency": "one unit added or removed",
        "units": training.number,
        "records_of_a_unit_at_most": training.most_records,
        "sampler": "Poisson: each unit in each step by itself",
        "sample_rate": training.sample_rate,
        "noise_multiplier": [
            {"noise_multiplier": p.noise_multiplier, "sample_rate": p.sample_rate, "steps": p.steps}
            for p in merged(mine)
        ],
        "max_grad_norm": config.max_grad_norm,
        "steps": training.total,
        "steps_counted": sum(p.steps for p in mine),
        "delta": training.delta,
        "epsilon": spent.value,
        "epsilon_prv": spent.prv,
        "epsilon_pld": spent.pld,
        "dataset_id": config.dataset_id,
        "dataset_epsilon": epsilon_of(every, training.delta).value,
        "dataset_budget": ledger.declared.budget,
        "ledger_head": ledger.head,
        "ledger_run": training.run,
        "engine": config.engine,
        "noise_source": "the operating system's random numbers, every bit",
        "accountants": {name: version(name) for name in ("opacus", "dp-accounting")},
        "curve": _curve(training),
        "not_covered": list(NOT_COVERED),
        "audit": None,
    }
    return card | groups


def _guarantee(training: Training, epsilon: float, groups: Mapping[str, JSON]) -> str:
    """What the run may say of itself, in a sentence."""
    said = f"({epsilon:.4g}, {training.delta:.4g})-differential privacy for each "
    if training.config.unit == "group":
        return said + "group (patient)"
    if not groups:
        known = "no group (patient) has more than one" if training.largest_group else "whose they are is not known"
        return f"{said}record; {known}"
    whole = f"{groups['group_epsilon']:.4g} for a whole group (patient) of {groups['group_records']} records"
    return f"{said}record, and an epsilon of {whole}"


def _curve(training: Training) -> list[JSON]:
    """Steps counted so far, and epsilon by PRV."""
    steps = training.ledger.spent(training.run)
    marks = sorted({max(1, round(len(steps) * n / POINTS)) for n in range(1, POINTS + 1)})
    return [{"steps": mark, "epsilon": round(prv(steps[:mark], training.delta), 4)} for mark in marks]
