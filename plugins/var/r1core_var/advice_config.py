"""The section `[plugins.var.advice]` of a recipe: what an answer that advises orders is held to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class AdviceConfig(BaseModel):
    """How orders in answers are held to the risk limit that the request's facts state.

    Parameters
    ----------
    mode : `stop`: an order over the limit ends the generation; `scale`: its size is brought to the limit, in the text.
    on_unknown : where the facts hold no limit or no scenarios: `block` every order, or `allow` any text.
    tasks : the tasks whose answers are held to it, as are requests of no task; () for every request.
    max_orders : order lines in one answer.
    rationale : whether prose (ASCII, no digits) may follow the orders. What prose advises is not read.
    layer : whether the model is told the risk of the instruments that a prompt names (an extra layer at the embedding).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["stop", "scale"] = "stop"
    on_unknown: Literal["block", "allow"] = "block"
    tasks: tuple[str, ...] = ()
    max_orders: Annotated[int, Field(ge=1, le=64)] = 8
    rationale: bool = False
    layer: bool = False
