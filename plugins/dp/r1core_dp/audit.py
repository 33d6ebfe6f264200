"""`r1core dp audit`: train a run's model once more, on canaries alone, and see what gives them away.

Sampling rate, clipping norm, noise, number of steps and delta are those of the run, settled anew by the same code; the
data are nobody's, so that nothing is spent. The result is a lower bound on the mechanism's epsilon: one above the
claimed epsilon refutes the claim. One below it does not prove it: proof is the accountants', and the audit looks for
what they cannot see, a mechanism that is not the one they reckon with.

Not covered: rows that are given to the wrong patient, which is a question of the data, not of the mechanism, and faults
that show only on real text.
"""

from __future__ import annotations

import json
import math
import secrets
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1core import api
from r1core_dp.canaries import SILENT, Canaries, Seen
from r1core_dp.config import DpConfig
from r1core_dp.draws import judged
from r1core_dp.ledger import CARD
from r1core_dp.lower_bound import CONFIDENCE, bound

CANARIES = 1_000
MOST_RECORDS = 2  # of a canary: enough to see whether its rows are clipped as one
FALSE_ALARM = 1e-4  # of the tests of sampling and noise, each
SURE = 4.0  # standard errors
LEAST_NOISE = 0.99  # measured over stated


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a run says of itself."""

    config: DpConfig
    card: Mapping[str, Any]

    @property
    def units(self) -> int:
        """N."""
        return int(self.card["units"])


def claimed(run: Path) -> Claimed:
    """Read a run's recipe and privacy card.

    Raises
    ------
    UserError : where it has none.
    """
    card, recipe = run / CARD, run / "recipe.toml"
    if not card.is_file() or not recipe.is_file():
        raise api.UserError(f"{run}: no privacy card: nothing was trained privately here", fix="name a private run")
    stated = tomllib.loads(recipe.read_text("utf-8")).get("plugins", {}).get("dp")
    if stated is None:
        raise api.UserError(f"{run}: its recipe does not name the plugin dp", fix="name a run that dp trained")
    return Claimed(DpConfig.model_validate(stated), json.loads(card.read_text("utf-8")))


def audit(
    host: api.Host, run: Path, canaries: int, tell: Callable[[int, int], None], plugins: Sequence[Path] = ()
) -> dict[str, api.JSON]:
    """Audit a run; what was found, as it stands in the card.

    Raises
    ------
    UserError : for a run that is not private, and more canaries than it has units.
    """
    stated = claimed(run)
    if canaries > stated.units:
        raise api.UserError(f"{canaries} canaries, and the run has {stated.units} units", fix="fewer --canaries")
    entered = sum(secrets.randbits(1) for _ in range(canaries))
    records = min(MOST_RECORDS, int(stated.card["records_of_a_unit_at_most"]))
    with tempfile.TemporaryDirectory() as folder:
        own = {"dataset_id": "audit", "ledger": Path(folder), "budget": None}
        policy = Canaries(stated.config.model_copy(update=own), canaries, int(stated.card["steps"]))
        host.rehearse(run, _examples(entered, stated.units, records), policy, tell, plugins)
    assert policy.seen is not None
    truth = [True] * entered + [False] * (canaries - entered)  # which axis is whose was dealt out by chance
    return _result(policy.seen, truth, stated)


def _examples(entered: int, units: int, records: int) -> list[api.Example]:
    """Canaries with their records, then units with nothing to add, up to N."""
    names = [f"canary/{n}" for n in range(entered)] + [f"{SILENT}{n}" for n in range(units - entered)]
    return [
        api.Example(
            id=f"{name}/{record}",
            messages=(
                api.Message("user", f"Nobody's record {record} of {name}?"),
                api.Message("assistant", f"Nobody's answer to {name}."),
            ),
            task="audit",
            source="audit",
            group=name,
        )
        for name in names
        for record in range(records if name.startswith("canary/") else 1)
    ]


def _result(seen: Seen, truth: Sequence[bool], stated: Claimed) -> dict[str, api.JSON]:
    epsilon, delta = float(stated.card["epsilon"]), seen.delta
    found, sampling = bound(seen.scores, truth, delta), judged(seen.counts, seen.sizes, seen.sample_rate)
    flags = []
    if found.epsilon > epsilon:
        flags.append(f"epsilon is at least {found.epsilon:.2f}, and {epsilon:.2f} is claimed")
    noise, error = seen.noise
    if noise < LEAST_NOISE * seen.noise_multiplier - SURE * error:
        flags.append(f"the noise multiplier measures {noise:.4g}, and {seen.noise_multiplier:.4g} is stated")
    if math.erfc(seen.repeats / math.sqrt(2)) * len(seen.sizes) < FALSE_ALARM:
        flags.append("the noise of one step resembles that of the step before")
    part, error = seen.part
    if part > 1 + SURE * error:
        flags.append(f"a unit adds {part:.3g} clipping norms to the sum, and at most 1 is claimed")
    if sampling.lowest < FALSE_ALARM:
        flags.append(f"units are not drawn as Poisson sampling draws them (p = {sampling.lowest:.1g})")
    return {
        "method": "one run, canaries along axes of their own (Steinke, Nasr & Jagielski 2023)",
        "canaries": len(truth),
        "entered": sum(truth),
        "guesses": found.guesses,
        "right": found.right,
        "confidence": CONFIDENCE,
        "epsilon_at_least": round(found.epsilon, 3),
        "epsilon_claimed": epsilon,
        "delta": delta,
        "steps": len(seen.sizes),
        "sample_rate": seen.sample_rate,
        "noise_multiplier": seen.noise_multiplier,
        "noise_measured": round(noise, 5),
        "unit_adds": round(part, 4),
        "sampling_p": sampling.lowest,
        "flags": flags,
    }
