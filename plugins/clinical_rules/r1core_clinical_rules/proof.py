"""Why a rule applies, does not apply or cannot be decided: facts, then conditions, then the rule and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r1core_clinical_rules.logic import Truth, shown


@dataclass(frozen=True, slots=True)
class Proof:
    """One node of a proof tree.

    `claim` : what is said. `truth` : whether it holds, None for unknown. `fact` : the patient's fact that decides a
    leaf, "" elsewhere. `because` : what the claim rests on. `so` : what follows, at the root only.
    """

    claim: str
    truth: Truth
    fact: str = ""
    because: tuple[Proof, ...] = ()
    so: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The tree as JSON; `truth` is `true`, `false` or `unknown`."""
        data: dict[str, Any] = {"claim": self.claim, "truth": shown(self.truth)}
        if self.fact:
            data["fact"] = self.fact
        if self.because:
            data["because"] = [child.as_dict() for child in self.because]
        if self.so:
            data["so"] = list(self.so)
        return data

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> list[str]:
        indent = "  " * depth
        lines = [f"{indent}{self.claim}: {shown(self.truth)}" + (f" ({self.fact})" if self.fact else "")]
        for child in self.because:
            lines += child._lines(depth + 1)
        return lines + [f"{indent}  so: {text}" for text in self.so]
