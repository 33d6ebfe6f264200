"""The hooks behind `[plugins.var.advice]`: orders in answers are held to the risk limit of the request's facts.

`constraints(ctx)` is for the hook `decode_constraint`, `layers(ctx, model)` for `extra_layer`, `annotators(ctx)` for
`preprocess` (it marks the instruments that the layer reads). Without that section all three are empty.

Not covered: prose. What a text says in free words ("double the position") is not read; it is not allowed at all
unless the recipe lets a rationale follow the orders.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1core import api
from r1core_var.advice_config import AdviceConfig

if TYPE_CHECKING:
    import torch

    from r1core_var.advice_automaton import AdviceAutomaton
    from r1core_var.advice_orders import Desk

_log = logging.getLogger(__name__)
NAME, LAYER = "var/advice", "var/risk"
MAX_AUTOMATA = 16  # kept, one for each portfolio that was asked about
UNNAMED = ("prompt", "demonstration")  # what r1core calls the task of a request for which none was named
MAX_STATES = 200_000  # of one automaton, some 100 bytes each; then it is made anew


class AdviceConstraint:
    """Holds the orders of an answer to the limit in the request's facts; see `advice_orders.py` for the form."""

    name = NAME

    def __init__(self, config: AdviceConfig) -> None:
        self._config = config
        self._automata: dict[str, AdviceAutomaton] = {}

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """The orders' automaton, or None where the request names a task that is none of those held to it.

        Raises
        ------
        api.UserError : when the facts hold a risk section that cannot be read.
        """
        from r1core_var.advice_automaton import AdviceAutomaton

        example = request.example
        if not self._holds(example):
            return None
        desk = self._desk(example)
        if desk is None and self._config.on_unknown == "allow":
            _log.warning("example %s: no risk limit is known, its advice is not held to any", example.id)
            return None
        key = "" if desk is None else desk.facts.model_dump_json()
        automaton = self._automata.pop(key, None)
        if automaton is None or automaton.size > MAX_STATES:
            automaton = AdviceAutomaton(desk, self._config)
        self._automata[key] = automaton  # last in the order, as the most recently used
        if len(self._automata) > MAX_AUTOMATA:
            del self._automata[next(iter(self._automata))]
        return request.lift(automaton)

    def rules(self, example: api.Example) -> Sequence[str]:
        """The limit that applies, or that none is known."""
        if not self._holds(example):
            return ()
        desk = self._desk(example)
        return ("var/unknown" if desk is None else f"var/limit: {desk.limit()}",)

    def recheck(self, example: api.Example, text: str) -> Sequence[api.Reason]:
        """What is wrong with an answer: its lines are read again, and the risk of each is worked out by sorting."""
        from r1core_var.advice_recheck import findings

        if not self._holds(example):
            return ()
        desk = self._desk(example)
        if desk is None and self._config.on_unknown == "allow":
            return ()
        return findings(desk, self._config, text)

    def fingerprint(self) -> str:
        """Hash of the configuration."""
        return hashlib.sha256(json.dumps(self._config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def _holds(self, example: api.Example) -> bool:
        return not self._config.tasks or example.task in (*self._config.tasks, *UNNAMED)

    @staticmethod
    def _desk(example: api.Example) -> Desk | None:
        from r1core_var.advice_facts import risk_facts
        from r1core_var.advice_orders import Desk
        from r1core_var.advice_risk import risk_model

        facts = risk_facts(example)
        return None if facts is None else Desk(facts, risk_model(facts))


def constraints(ctx: api.Context) -> Sequence[api.DecodeConstraint]:
    """The constraint on advice, where the recipe has a section `advice`."""
    config = _config(ctx)
    return [] if config is None else [AdviceConstraint(config)]


def annotators(ctx: api.Context) -> Sequence[api.Annotator]:
    """What marks instruments in prompts for the layer, where the recipe asks for it."""
    from r1core_var.advice_spans import RiskAnnotator

    config = _config(ctx)
    return [RiskAnnotator()] if config is not None and config.layer else []


def layers(ctx: api.Context, model: object) -> Sequence[api.LayerSpec]:
    """The layer that tells a model the risk of what a prompt names, where the recipe asks for it."""
    from r1core_var.advice_spans import KIND

    def make(hidden_size: int) -> torch.nn.Module:
        from r1core_var.torch_risk_embedding import RiskEmbedding

        return RiskEmbedding(hidden_size)

    config = _config(ctx)
    if config is None or not config.layer:
        return []
    return [api.LayerSpec(LAYER, "embedding", make, kinds=(KIND,))]


def _config(ctx: api.Context) -> AdviceConfig | None:
    found = getattr(ctx.config, "advice", None)
    return found if isinstance(found, AdviceConfig) else None
