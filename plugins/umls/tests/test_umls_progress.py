"""What a user sees of a long build, on a terminal and in a log."""

from __future__ import annotations

import io
import time

import pytest
from r1core_umls.progress import shown
from rich.console import Console


def test_lines_come_every_few_seconds_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 4.0, 10.0, 12.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    printed = io.StringIO()
    with shown(Console(file=printed, width=40)) as report:
        for done in (0, 40_000_000, 100_000_000, 120_000_000, 200_000_000):
            report("reading MRCONSO.RRF", done, 400_000_000)
    assert printed.getvalue().splitlines() == [
        "reading MRCONSO.RRF: 100.0 MB of 400.0 MB, 10.0 MB/s, 30 s left",
        "reading MRCONSO.RRF: 200.0 MB of 400.0 MB, 10.0 MB/s, 20 s left",
    ]


def test_a_terminal_gets_a_bar_for_each_stage() -> None:
    printed = io.StringIO()
    with shown(Console(file=printed, force_terminal=True, width=120)) as report:
        report("reading MRCONSO.RRF", 50_000_000, 100_000_000)
        report("indexing", 2, 6)
    assert "reading MRCONSO.RRF" in printed.getvalue()
    assert "step 3 of 6" in printed.getvalue()
