"""What is told of the rounds, and what the server's noise has spent. Needs no Flower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1core.api import JSON, UserError
from r1core_flower.accounting import epsilon_of, noise_for
from r1core_flower.config import FlowerConfig
from r1core_flower.layout import Vector
from r1core_flower.mechanism import noised

NAME = "federated.json"
GUARANTEE = (
    "({epsilon:.4g}, {delta:.3g})-differential privacy for each whole client, under adding or removing one, over all "
    "rounds; against whoever sees the global weights, not against the server, which sees every client's update"
)


@dataclass
class Record:
    """The rounds of a run so far, oldest first, and how they were made."""

    made_by: Mapping[str, JSON]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    privacy: Mapping[str, JSON] | None = None

    @property
    def done(self) -> int:
        """Finished rounds."""
        return len(self.rounds)

    def add(self, made: dict[str, Any]) -> None:
        """Add a round."""
        self.rounds.append(made)

    def as_json(self) -> dict[str, JSON]:
        """The record as it is kept."""
        return {"made_by": dict(self.made_by), "privacy": self.privacy, "rounds": self.rounds}

    def line(self, place: int) -> str:
        """One round in words."""
        return "  " + "  ".join(
            f"{name} {value}" for name, value in zip(COLUMNS, cells(self.rounds[place]), strict=True)
        )


COLUMNS = ("round", "answers", "missing", "rows", "update", "largest", "epsilon", "validation")


def cells(made: Mapping[str, Any]) -> tuple[str, ...]:
    """A round as a row of the table; `-` for what is not told."""
    clients, measured = made.get("clients"), made.get("validation_accuracy")
    return (
        str(made["round"]),
        str(made["answers"]),
        str(made["missing"]),
        "-" if clients is None else "+".join(str(one["rows"]) for one in clients),
        f"{made['update_norm']:.4g}",
        "-" if clients is None else f"{max(one['update_norm'] for one in clients):.4g}",
        f"{made['epsilon']:.4g}" if "epsilon" in made else "-",
        "-" if not measured else " ".join(f"{value:.3f}" for value in measured.values()),
    )


def table(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rounds as lines of a table."""
    rows = [COLUMNS, *map(cells, rounds)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@dataclass
class Budget:
    """The server's noise: how much, over how many clients, and how often it was used.

    `limit` : epsilon that may not be exceeded; None where the noise was stated and not the epsilon.
    """

    clip: float
    noise_multiplier: float
    delta: float
    expected: int
    limit: float | None
    used: int = 0

    @property
    def epsilon(self) -> float:
        """What was spent."""
        return epsilon_of(self.noise_multiplier, self.used, self.delta)

    def require_one_more(self) -> None:
        """Refuse a round that would exceed the limit.

        Raises
        ------
        UserError : with what was spent.
        """
        after = epsilon_of(self.noise_multiplier, self.used + 1, self.delta)
        if self.limit is not None and after > self.limit * (1 + 1e-9):
            raise UserError(
                f"epsilon {self.epsilon:.4g} is spent, and another round would make it {after:.4g} of {self.limit:g}",
                fix="begin another run; what was spent on these clients adds up",
            )

    def spend(self, mean: Vector, start: Vector, arrived: int) -> Vector:
        """The noisy mean of a round; it counts from now on."""
        self.used += 1
        deviation = self.noise_multiplier * self.clip
        return noised(mean, start, arrived=arrived, expected=self.expected, deviation=deviation)

    def told(self) -> dict[str, JSON]:
        """For a round's record."""
        return {"epsilon": self.epsilon, "noise_multiplier": self.noise_multiplier}

    def card(self) -> dict[str, JSON]:
        """What is guaranteed, and of what it says nothing."""
        return {
            "guarantee": GUARANTEE.format(epsilon=self.epsilon, delta=self.delta),
            "unit": "client",
            "clients": self.expected,
            "clip": self.clip,
            "noise_multiplier": self.noise_multiplier,
            "rounds_counted": self.used,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": "PLD (dp-accounting), no amplification: every client takes part in every round",
            "not_covered": [
                "the server itself, which sees each update",
                "a single patient of a client, beyond what hiding the whole client gives",
                "which clients answered, and when",
                "the choice of settings by looking at results",
            ],
        }


def budget_of(config: FlowerConfig, used: int) -> Budget | None:
    """The server's noise as the recipe asks for it; None where it asks for none."""
    if config.dp != "server":
        return None
    assert config.clip is not None
    assert config.delta is not None
    noise = config.noise_multiplier
    if noise is None:
        assert config.epsilon is not None
        noise = noise_for(config.epsilon, config.rounds, config.delta)
    return Budget(config.clip, noise, config.delta, config.number, config.epsilon, used)
