"""What `reward`, `difficulty`, `metric` and `callback` return: what scores or watches a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from r1core.api.values import JSON, Example


@runtime_checkable
class Reward(Protocol):
    """Scores completions; None abstains. Higher is better."""

    name: str

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **fields: Sequence[JSON]
    ) -> Sequence[float | None]: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class Difficulty(Protocol):
    """How difficult a training record is, as a finite number, larger being harder: what a curriculum sorts by.

    Called once for each prepared record, its answer and spans included. Pure; only the order of the numbers counts.
    `fingerprint()` changes whenever the number for some record may change.
    """

    name: str

    def __call__(self, example: Example) -> float: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class Metric(Protocol):
    """A number over predictions, larger or smaller being better as `higher_is_better` says.

    `predictions` and `references` are texts of equal length. A metric that reads more than its plugin's source, such as
    a word list, has besides a `fingerprint() -> str` that changes whenever the number for some input may change.
    """

    name: str
    higher_is_better: bool

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[Example]) -> float: ...


class Callback:
    """Observes a run; cannot change it. Override what you need. Errors are logged and counted, never fatal."""

    name: str = "callback"

    def on_stage(self, stage: str, status: Literal["start", "skip", "done", "failed"]) -> None:
        """A stage began or ended."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """An optimiser step ended."""
