"""`r1core adapt` as a user types it, for the benchmarks that adapt whole models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def adapt(folder: Path, domain: str, recipe: str, sets: Sequence[str], *further: str) -> Path:
    """Adapt a domain by a recipe of one's own in a folder; the run directory. What was printed is in `log.txt` there.

    Parameters
    ----------
    sets : assignments for `--set`. further : other words of the command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my.toml").write_text(recipe, encoding="utf-8")
    command = [sys.executable, "-m", "r1core.cli.main", "adapt", domain, "--recipe", "my.toml", "--run", "runs/one"]
    for change in sets:
        command += ["--set", change]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run([*command, *further], check=True, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    return folder / "runs" / "one"


def answers(run: Path, field: str) -> dict[str, str]:
    """What the adapted model said of each test row, by its id: `text`, or `constrained` to the labels."""
    lines = (run / "evaluation" / "adapted.jsonl").read_text("utf-8").splitlines()
    return {row["example_id"]: row[field] for row in map(json.loads, lines)}
