"""The main figures: accuracy of the adapted model on the whole test split, its distance to TF-IDF, its cost.

Run: python benchmarks/adapt.py [--seeds 0,1,2] [--runs DIRECTORY] [--titles]. A seed takes as long as `make demo`;
runs are kept, so that a second call only reads them. `--titles` trains on the titles of categories as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from record import write

TITLES = "medical/icd10_specialty_titles"


def run(seed: int, folder: Path, titles: bool) -> Path:
    """Adapt with this seed, or reuse what is there; returns the run directory."""
    place = folder / f"medical-{'titles-' if titles else ''}seed{seed}"
    command = [
        sys.executable,
        "-m",
        "r1core.cli.main",
        "adapt",
        "medical",
        "--run",
        str(place),
        "--set",
        f"run.seed={seed}",
    ]
    if titles:
        command += ["--set", f"data.source={TITLES}"]
    subprocess.run(command, check=True)
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--titles", action="store_true")
    chosen = parser.parse_args()
    places = [run(int(seed), chosen.runs, chosen.titles) for seed in chosen.seeds.split(",")]
    summaries = [json.loads((p / "evaluation" / "summary.json").read_text()) for p in places]
    compared = [json.loads((p / "evaluation" / "comparisons.json").read_text()) for p in places]
    manifests = [json.loads((p / "manifest.json").read_text()) for p in places]

    def of(system: str, metric: str, key: str = "value") -> list[float]:
        return [r[key] for rows in summaries for r in rows if r["system"] == system and r["metric"] == metric]

    def row(
        figure: str, values: list[float], unit: str, target: float, *, least: bool = True, peer: object = None
    ) -> dict[str, object]:
        mean = statistics.mean(values)
        met = mean >= target if least else mean <= target
        return {
            "figure": f"{figure} (mean of {len(values)} seeds: {', '.join(f'{v:.3g}' for v in values)})",
            "value": round(mean, 4),
            "unit": unit,
            "target": f"{'>=' if least else '<='} {target}",
            "met": met,
            "peer": peer,
        }

    differences = [
        r["value"] * 100 for rows in compared for r in rows if r["against"] == "tfidf" and r["metric"] == "accuracy"
    ]
    spread = [r["se"] * 100 for rows in compared for r in rows if r["against"] == "tfidf" and r["metric"] == "accuracy"]
    tfidf = statistics.mean(of("tfidf", "accuracy"))
    constrained = of("adapted+constrained", "accuracy")
    paired = f"points above tuned TF-IDF (paired, clustered se {statistics.mean(spread):.1f})"
    error = statistics.mean(of("adapted+constrained", "accuracy", "se")) * 100
    cost = [m["figures"]["train_cpu_seconds"] for m in manifests]
    rows = [
        row("adapted accuracy, constrained", constrained, "fraction", 0.78, peer=f"tfidf {tfidf:.4f}"),
        row("adapted accuracy, free-running", of("adapted", "accuracy"), "fraction", 0.77),
        row(paired, differences, "points", 12.0),
        row("training cost", cost, "CPU-s", 450.0, least=False),
        {"figure": "standard error of accuracy, by category", "value": round(error, 2), "unit": "points"},
    ]
    write("adapt_titles" if chosen.titles else "adapt", rows)


if __name__ == "__main__":
    main()
