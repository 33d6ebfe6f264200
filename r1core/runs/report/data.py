"""What a report is made of: plain values, gathered by the report stage, drawn by `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from r1core.api import JSON, ReportSection, Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline number, ready to read.

    Parameters
    ----------
    value : for instance `78.3 %`.
    detail : what it is compared with, for instance `31.0 % before, ± 2.2`.
    met : whether it reached its target; None where there is none.
    """

    label: str
    value: str
    detail: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One row of `evaluation/summary.json`.

    Parameters
    ----------
    value, se : the metric and its standard error (one standard deviation), fractions where `unit` is `fraction`.
    n : number of test rows.
    """

    task: str
    system: str
    metric: str
    value: float
    se: float | None
    n: int
    unit: Literal["fraction", "plain"] = "fraction"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts by gold label (row) and answered label (column).

    Parameters
    ----------
    other : answers that are no label, counted by gold label; () where decoding was constrained to the labels.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    other: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        size = len(self.labels)
        if len(self.matrix) != size or any(len(row) != size for row in self.matrix) or len(self.other) not in (0, size):
            raise ValueError(f"a confusion matrix of {size} labels is {size} × {size}, with {size} or no others")


@dataclass(frozen=True, slots=True)
class Concept:
    """A linked concept in a prompt: characters `[start, end)`, its identifier and preferred name."""

    start: int
    end: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ExampleView:
    """One test record: what was asked, what was right, what each model answered."""

    prompt: str
    gold: str
    base: str
    adapted: str
    spans: tuple[Concept, ...] = ()

    def __post_init__(self) -> None:
        for span in self.spans:
            if not 0 <= span.start < span.end <= len(self.prompt):
                raise ValueError(f"{span} is outside a prompt of {len(self.prompt)} characters")


@dataclass(frozen=True, slots=True)
class Intervention:
    """A rule that refused a continuation.

    Parameters
    ----------
    text : what it kept from being written.
    """

    rule: str
    citation: str
    text: str
    severity: str = ""


@dataclass(frozen=True, slots=True)
class RuleDemo:
    """One prompt answered without and with the rules."""

    prompt: str
    without_rules: str
    with_rules: str
    interventions: tuple[Intervention, ...]
    facts: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class OverTime:
    """What a chain of continued runs learnt and forgot.

    Parameters
    ----------
    runs : names, oldest first, this run last.
    tables : title and table; the first `short` of them are what a terminal shows.
    headline : forgetting, for the top of the report.
    """

    runs: tuple[str, ...]
    summary: str
    tables: tuple[tuple[str, Table], ...]
    short: int
    headline: Figure


@dataclass(frozen=True, slots=True)
class RoutedLayer:
    """Where one layer's router sends tokens.

    Parameters
    ----------
    shares : of a domain's assignments that each expert group got, by domain; each row sums to 1.
    spread : standard deviation of tokens per expert over their mean.
    busiest : the largest count of an expert over the mean.
    idle : experts that got no token.
    """

    shares: tuple[tuple[float, ...], ...]
    spread: float
    busiest: float
    idle: int


@dataclass(frozen=True, slots=True)
class Routed:
    """Where the routers of a mixture of experts send the tokens of the test split.

    Parameters
    ----------
    by : what the domains are (`task`, `data set`, `label`); "" where there is one only.
    domains : name and tokens of each.
    even : the spread that routing at random, each expert alike, would have at this number of tokens.
    """

    by: str
    domains: tuple[tuple[str, int], ...]
    tokens: int
    rows: int
    experts: int
    groups: int
    top: int
    even: float
    layers: tuple[RoutedLayer, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report or a model card shows.

    Parameters
    ----------
    created : ISO 8601 date and time.
    curves : name to points `(step, value)`; `validation_loss` is drawn into the plot of `loss`, and so on for any name.
    sections : plugin name and what it adds.
    cost : label to a readable value (`CPU time` to `431 s`).
    summary : a sentence or two under the title.
    base : what its provider says of the base model (size, language, licence), for the model card.
    redacted : texts of records have been taken out (see `r1core.runs.report.redacted`).
    """

    title: str
    domain: str
    model: str
    created: str
    summary: str = ""
    headline: tuple[Figure, ...] = ()
    systems: tuple[SystemRow, ...] = ()
    curves: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    confusion: Confusion | None = None
    examples: tuple[ExampleView, ...] = ()
    rule_demo: RuleDemo | None = None
    over_time: OverTime | None = None
    routed: Routed | None = None
    sections: tuple[tuple[str, ReportSection], ...] = ()
    manifest: Mapping[str, JSON] = field(default_factory=dict)
    cost: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    redacted: bool = False
