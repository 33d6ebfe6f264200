"""The plugin: rules as decode constraints, orders as facts, problems for `r1core check`, a list for the report."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from r1core import api
from r1core.api import hookimpl
from r1core_clinical_rules.schema import Config

if TYPE_CHECKING:
    from r1core_clinical_rules.engine import Engine
    from r1core_clinical_rules.outcome import Outcome

_log = logging.getLogger(__name__)
MAX_AUTOMATA = 16  # kept per constraint, one for each set of rules that applied; some MB each


class RuleConstraint:
    """What an outcome says, as a constraint: the automaton that `make` gives for it, remembered by its rules.

    Which rules apply is decided once per generation, from the example's facts.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        config: Config,
        source: str,
        make: Callable[[Outcome], api.ByteAutomaton | None],
    ) -> None:
        self.name, self.requires = name, name == REQUIRE
        self._engine, self._config, self._source, self._make = engine, config, source, make
        self._automata: dict[frozenset[str], api.ByteAutomaton | None] = {}

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """Return the state for this request, or None when no rule has anything to say.

        Raises
        ------
        api.UserError : when the facts hold something in a form that cannot be read.
        """
        outcome = outcome_of(self._engine, request.example)
        if self.name == FORBID:  # once per example, not once per constraint
            for warning in outcome.warnings:
                _log.warning("example %s: %s", request.example.id, warning)
            for set_aside in outcome.overridden:
                _log.warning(
                    "example %s: %s", request.example.id, _record(set_aside.rule, set_aside.by, set_aside.reason)
                )
        known = outcome.key in self._automata
        automaton = self._automata.pop(outcome.key) if known else self._make(outcome)
        self._automata[outcome.key] = automaton  # last in the order, as the most recently used
        if len(self._automata) > MAX_AUTOMATA:
            del self._automata[next(iter(self._automata))]
        return None if automaton is None else request.lift(automaton)

    def rules(self, example: api.Example) -> Sequence[str]:
        """Return the rules that apply to this prompt's patient."""
        return sorted(outcome_of(self._engine, example).key)

    def recheck(self, example: api.Example, text: str) -> Sequence[api.Reason]:
        """Return what a text holds against the rules, names and doses above their caps, or which phrases it lacks.

        A dose that cannot be compared with its cap counts: what is not known to be allowed is not given out.
        """
        from r1core_clinical_rules.audit import check_text

        every = check_text(outcome_of(self._engine, example), text)
        mine = [found for found in every if (found.kind == "missing_phrase") == self.requires]
        return [api.Reason(rule, found.why, found.text) for found in mine for rule in found.rules]

    def fingerprint(self) -> str:
        """Hash of the rule files' bytes and of the policy."""
        policy = self._config.model_dump_json(exclude={"files", "names", "read_orders"})
        return hashlib.sha256(f"{self.name}\n{self._source}\n{policy}".encode()).hexdigest()

    def input_files(self) -> Sequence[Path]:
        """The rule files and the hierarchies that they name, for the manifest."""
        from r1core_clinical_rules.reading import input_files

        return input_files(self._config.files)


FORBID, REQUIRE = "clinical_rules/forbid", "clinical_rules/require"


def _forbidden(outcome: Outcome, *, ascii_only: bool = False) -> api.ByteAutomaton | None:
    from r1core_clinical_rules.automaton import ForbiddenNames

    if not outcome.forbidden and not ascii_only:
        return None
    return ForbiddenNames(outcome.forbidden, ascii_only=ascii_only)


def _required(outcome: Outcome) -> api.ByteAutomaton | None:
    from r1core_clinical_rules.phrases import RequiredPhrases

    return RequiredPhrases(outcome.phrases) if outcome.phrases else None


def _record(rule: str, by: str, reason: str) -> str:
    return f"{rule} overridden by {by}: {reason}"


def outcome_of(engine: Engine, example: api.Example) -> Outcome:
    """What the rules say of this example's patient.

    Raises
    ------
    api.UserError : when the facts hold something in a form that cannot be read.
    """
    from r1core_clinical_rules.facts import patient_from

    return engine.evaluate(patient_from(example.facts, f"example {example.id}", example.as_of))


def _config(ctx: api.Context) -> Config:
    if not isinstance(ctx.config, Config):
        raise api.UserError(
            "clinical_rules has no rule files",
            fix='add to the recipe: [plugins.clinical_rules] files = ["rules.yaml"]',
        )
    return ctx.config


class ClinicalRulesPlugin(api.Plugin):
    """Entry point of the distribution r1core-clinical-rules."""

    config = Config

    @hookimpl
    def preprocess(self, ctx: api.Context) -> Sequence[api.Annotator]:
        """Return the annotator that reads orders in prompts, where the recipe asks for it."""
        from r1core_clinical_rules.annotator import OrderAnnotator

        config = ctx.config
        return [OrderAnnotator(config)] if isinstance(config, Config) and config.read_orders else []

    @hookimpl
    def decode_constraint(self, ctx: api.Context) -> Sequence[api.DecodeConstraint]:
        """Return what must not be named, and what must be said, over all rules of all files."""
        from r1core_clinical_rules.engine import Engine
        from r1core_clinical_rules.reading import input_files, load

        config = _config(ctx)
        engine = Engine(load(config.files), config)
        source = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in input_files(config.files))
        made = [RuleConstraint(FORBID, engine, config, source, partial(_forbidden, ascii_only=config.ascii_only))]
        if any(one.rule.then.require_phrase for one in engine.rules):
            made.append(RuleConstraint(REQUIRE, engine, config, source, _required))
        return made

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """Return every problem of every rule file."""
        from r1core_clinical_rules.reading import read

        return read(_config(ctx).files)[1]

    @hookimpl
    def report(self, ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
        """Return the rules in use, each with its citation; it holds nothing of any record."""
        from r1core_clinical_rules.conditions import words
        from r1core_clinical_rules.engine import Engine, follows
        from r1core_clinical_rules.reading import load

        config = _config(ctx)
        used = [one.rule for one in Engine(load(config.files), config).rules]
        rows = tuple(
            (
                rule.label,
                rule.severity,
                rule.title,
                words(rule.when) if rule.when else "always",
                "; ".join(follows(rule)),
                str(rule.citation or "none: unverified"),
            )
            for rule in used
        )
        columns = ("Rule", "Severity", "Title", "When", "What follows", "Citation")
        text = (
            "While generating, every token that would complete a forbidden name is masked, and the answer may not end "
            "before the phrases required stand in it. Doses are found in the finished text, which is then withheld; "
            "checks are told, not enforced. "
            f"Where a condition cannot be decided, the policy is `{config.on_unknown}` unless a rule says otherwise."
        )
        return [api.ReportSection("Clinical rules", text, (api.Table(columns, rows),), private=False)]
