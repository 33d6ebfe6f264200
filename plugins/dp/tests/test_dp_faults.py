"""Whole private trainings that are killed at random moments: a few kills of `benchmarks/private_faults.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(900)  # some ten processes, each of which imports torch
def test_a_killed_training_has_counted_every_step_and_goes_on_within_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "private_faults", raising=False)
    import private_faults

    found = private_faults.campaign(tmp_path, kills=4, seed=11)
    assert found.wrong == []
    assert (found.kills, found.sound) == (4, 4)
    assert found.counted >= found.drawn > 0
    assert found.whole == found.finished > 0
    assert max(found.epsilons) <= private_faults.EPSILON
