"""The plugin's section of the recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from r1core_numeric.lexicon import CODES
from r1core_numeric.reader import Reading

POINTER = "numeric/pointer"
"""The plugin's own layer, for `NumericConfig.layer`."""


class NumericConfig(BaseModel):
    """The plugin's section of the recipe.

    Parameters
    ----------
    locale : how digits are grouped: `en` (1,234.56) or `de` (1.234,56).
    parentheses : what they say around a number in running text; in tables they are negative.
    dollar, yen : the currency of `$` and `¥`.
    currency : money in which an answer may state numbers whose unit the input leaves out; "" for none.
    absolute : let an answer state a negative number without its sign ("fell by 12 %").
    results : where the results of a program have to stand: `first`, before any other quantity; `anywhere`; `answer`,
        nothing but them.
    program : field of the example that holds a program, or a list of programs.
    table : where the field `table` stands for the model: `beside`, it is not shown, and its numbers are slots behind
        those of the messages; `prompt`, it is written behind the question.
    layer : layer whose output holds programs; its programs come before those of the field. `numeric/pointer` is the
        plugin's own, which learns to choose them.
    least_probability : below this the plugin's own layer abstains.
    on_abstain : what becomes of an answer whose program has no result: `inputs`, it may state the numbers of the input;
        `silent`, it may state no quantity at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    locale: Literal["en", "de"] = "en"
    parentheses: Literal["negative", "aside"] = "negative"
    dollar: str = Field("USD", pattern="^[A-Z]{3}$")
    yen: str = Field("JPY", pattern="^[A-Z]{3}$")
    currency: str = Field("", pattern="^([A-Z]{3})?$")
    absolute: bool = False
    results: Literal["first", "anywhere", "answer"] = "first"
    program: str = "program"
    table: Literal["beside", "prompt"] = "beside"
    layer: str = ""
    least_probability: float = Field(0.0, ge=0.0, le=1.0)
    on_abstain: Literal["inputs", "silent"] = "inputs"

    @field_validator("dollar", "yen", "currency")
    @classmethod
    def _known(cls, code: str) -> str:
        if code and code not in CODES:
            raise ValueError(f"{code!r} is no currency that is read; one of {', '.join(sorted(CODES))}")
        return code

    @property
    def reading(self) -> Reading:
        """How numbers are read."""
        return Reading(self.locale, self.parentheses, self.dollar, self.yen)
