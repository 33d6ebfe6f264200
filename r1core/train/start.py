"""What of training depends on a run's data: how its untrained adapter starts, and its objective."""

from __future__ import annotations

from r1core.api import UserError
from r1core.data import codec
from r1core.model import private_check
from r1core.model.adapted import Adapted
from r1core.model.directions import spread, start_at_directions
from r1core.model.strategy import labels_refusal
from r1core.train.objective import Objective, objective_of
from r1core.train.within import WithinLabels
from r1core.workbench import Workbench


def set_start(bench: Workbench, adapted: Adapted) -> None:
    """Set A as `adapter.initial` says; a run that continues another one starts from that one's adapter instead.

    Raises
    ------
    UserError : for an unknown data set, for private rows under a privacy policy (also where no check went before),
        and what `start_at_directions` refuses.
    """
    if bench.recipe.adapter.initial == "random" or bench.start is not None:
        return
    if bench.privacy is not None and (refusal := private_check.start_refusal(bench.recipe, bench.privacy.name)):
        raise UserError(refusal.found, fix=refusal.fix)
    start_at_directions(adapted.model, _prompts(bench))


def objective(bench: Workbench) -> Objective:
    """The objective that the recipe names.

    Raises
    ------
    UserError : for a softmax over labels without one task that has a label set.
    """
    config = bench.recipe.train
    if config.softmax == "vocabulary":
        return objective_of(config)
    if (refusal := labels_refusal(bench.tasks)) is not None:
        raise UserError(refusal, fix='set train.softmax = "vocabulary"')
    (task,) = bench.tasks.values()
    return WithinLabels([bench.renderer.response_ids(label) for label in task.choices], config.label_smoothing)


def _prompts(bench: Workbench) -> list[tuple[int, ...]]:
    """Token ids of the public prompts, as they stand, without preprocessing; without any, of the training rows."""
    train = codec.read(bench.run.split("train"), bench.chain.kinds)
    examples = list(train if bench.public is None else bench.public.read("train"))
    chosen = [examples[index] for index in spread(len(examples))]
    return [bench.renderer.encode_prompt(example.without_answer())[0] for example in chosen]
