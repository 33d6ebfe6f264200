"""The YAML rule file as data: drugs with their names and classes, and rules that forbid them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Severity = Literal["contraindicated", "major", "moderate", "minor"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Drug(_Strict):
    """One drug; `name`, `brands` and `aliases` are all names of it."""

    name: Text
    brands: tuple[Text, ...] = ()
    aliases: tuple[Text, ...] = ()
    classes: tuple[Text, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the drug is known, as listed."""
        return tuple(dict.fromkeys((self.name, *self.brands, *self.aliases)))


class Citation(_Strict):
    """Where a rule comes from: the source, the place in it and its words."""

    source: Text
    locator: Text
    quote: Text
    url: Text | None = None

    def __str__(self) -> str:
        return f"{self.source}, {self.locator}: “{self.quote}”" + (f" <{self.url}>" if self.url else "")


class Medications(_Strict):
    """True when the patient takes any of these drugs, or any drug of these classes."""

    any: tuple[Text, ...] = Field(min_length=1)


class When(_Strict):
    """What must be known of the patient for the rule to apply."""

    medications: Medications


class Forbid(_Strict):
    """What must not be generated: drugs by any of their names, and every drug of a class."""

    drugs: tuple[Text, ...] = ()
    classes: tuple[Text, ...] = ()


class Rule(_Strict):
    """One rule; without `when` it always applies."""

    id: Text
    version: Annotated[Text | int, Field(union_mode="left_to_right")]
    title: Text
    severity: Severity
    citation: Citation
    when: When | None = None
    forbid: Forbid


class RuleFile(_Strict):
    """The top level of a rule file."""

    version: Literal[1]
    drugs: tuple[Drug, ...] = ()
    rules: tuple[Rule, ...] = ()


class Config(_Strict):
    """The recipe's section of this plugin.

    Parameters
    ----------
    files : rule files, absolute or relative to the current directory; drugs are shared between them.
    on_unknown : what a rule with `when` does where the patient's medications are not known: `block` applies it,
        `warn` logs that it was not applied, `skip` says nothing.
    """

    files: tuple[Path, ...] = Field(min_length=1)
    on_unknown: Literal["block", "warn", "skip"] = "block"
