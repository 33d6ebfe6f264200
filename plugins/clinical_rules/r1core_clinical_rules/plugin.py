"""The plugin: rules as a decode constraint, their problems for `r1core check`, and their list for the report."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r1core import api
from r1core.api import hookimpl
from r1core_clinical_rules.schema import Config

if TYPE_CHECKING:
    from r1core_clinical_rules.automaton import ForbiddenNames
    from r1core_clinical_rules.rulebook import RuleBook

_log = logging.getLogger(__name__)
MAX_AUTOMATA = 16  # kept per constraint, one for each set of rules that applied; some MB each


class ForbidConstraint:
    """`clinical_rules/forbid`: no name that an applicable rule forbids can be generated.

    Which rules apply is decided once per generation, from the example's facts.
    """

    name = "clinical_rules/forbid"

    def __init__(self, book: RuleBook, config: Config, source: str) -> None:
        self._book, self._config, self._source = book, config, source
        self._automata: dict[frozenset[str], ForbiddenNames] = {}

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """Return the state for this request, or None when no rule applies.

        Raises
        ------
        api.UserError : when the facts hold medications in a form that cannot be read.
        """
        from r1core_clinical_rules.automaton import ForbiddenNames
        from r1core_clinical_rules.rulebook import medications_of

        example = request.example
        medications = medications_of(example.facts, f"example {example.id}")
        rules = self._book.applicable(medications, self._config.on_unknown)
        if medications is None and self._config.on_unknown == "warn":
            left_out = len(self._book.rules) - len(rules)
            if left_out:
                _log.warning("example %s: medications unknown, %d rules not applied", example.id, left_out)
        if not rules:
            return None
        ids = frozenset(rule.id for rule in rules)
        automaton = self._automata.pop(ids, None) or ForbiddenNames(self._book.forbidden(rules))
        self._automata[ids] = automaton  # last in the order, as the most recently used
        if len(self._automata) > MAX_AUTOMATA:
            del self._automata[next(iter(self._automata))]
        return request.lift(automaton)

    def fingerprint(self) -> str:
        """Hash of the rule files' bytes and of what is done where facts are unknown."""
        return hashlib.sha256(f"{self._source}\n{self._config.on_unknown}".encode()).hexdigest()

    def input_files(self) -> Sequence[Path]:
        """The rule files, for the manifest."""
        return self._config.files


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
    def decode_constraint(self, ctx: api.Context) -> Sequence[api.DecodeConstraint]:
        """Return the one constraint, over all rules of all files."""
        from r1core_clinical_rules.reading import load

        config = _config(ctx)
        book = load(config.files)
        source = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in config.files)
        return [ForbidConstraint(book, config, source)]

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """Return every problem of every rule file."""
        from r1core_clinical_rules.reading import read

        return read(_config(ctx).files)[1]

    @hookimpl
    def report(self, ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
        """Return the rules in force, each with its citation; it holds nothing of any record."""
        from r1core_clinical_rules.reading import load

        config = _config(ctx)
        rows = tuple(
            (
                f"{rule.id}@{rule.version}",
                rule.severity,
                rule.title,
                ", ".join(rule.when.medications.any) if rule.when else "always",
                ", ".join((*rule.forbid.drugs, *(f"every {group}" for group in rule.forbid.classes))),
                str(rule.citation),
            )
            for rule in load(config.files).rules
        )
        columns = ("Rule", "Severity", "Title", "When the patient takes", "Forbids", "Citation")
        text = (
            "While generating, every token that would complete a forbidden name is masked. "
            f"Where a patient's medications are not known, the policy is `{config.on_unknown}`."
        )
        return [api.ReportSection("Clinical rules", text, (api.Table(columns, rows),), private=False)]
