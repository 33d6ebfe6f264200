"""How a run's training starts, where the recipe asks for more than random weights and the model's own settings."""

from __future__ import annotations

from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.data import codec
from r1core.model import start_check
from r1core.model.adapted import Adapted
from r1core.model.directions import spread, start_at_directions
from r1core.workbench import Workbench


def set_start(bench: Workbench, adapted: Adapted) -> None:
    """Set A as `adapter.initial` says; a run that continues another one starts from that one's adapter instead.

    Raises
    ------
    UserError : for an unknown data set, for what `start_check` refuses, private rows under a privacy policy among it
        (also where no check went before), and what `start_at_directions` refuses.
    """
    if bench.recipe.adapter.initial == "random" or bench.start is not None:
        return
    private = bench.privacy.name if bench.privacy is not None else None
    for refusal in start_check.refusals(bench.recipe, private):
        raise UserError(refusal.found, fix=refusal.fix)
    start_at_directions(adapted.model, _prompts(bench))


def set_routers(bench: Workbench, model: PreTrainedModel) -> None:
    """Let the model move its routers' temperature as `train.router_temperature` says.

    Raises
    ------
    UserError : where that is stated, or `train.balance_passes`, for a model that has no such routers.
    """
    if not hasattr(model.config, "router_temperature"):
        for key in (key for key, stated in start_check.of_routers(bench.recipe).items() if stated):
            raise UserError(f"{key}: {type(model).__name__} has no routers of R1's", fix="leave it out")
    if (wanted := bench.recipe.train.router_temperature) is not None:
        model.config.router_temperature = wanted.model_dump()


def _prompts(bench: Workbench) -> list[tuple[int, ...]]:
    """Token ids of the public prompts, as they stand, without preprocessing; without any, of the training rows."""
    if bench.public is None:
        examples = list(codec.read(bench.run.split("train"), bench.chain.kinds))
    else:
        examples = list(bench.public.read("train"))
    chosen = [examples[index] for index in spread(len(examples))]
    return [bench.renderer.encode_prompt(example.without_answer())[0] for example in chosen]
