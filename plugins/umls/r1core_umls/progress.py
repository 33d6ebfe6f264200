"""Progress of a long build: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from r1core_umls.concepts import Progress

SECONDS_BETWEEN_LINES = 5.0
STEPS = 1000  # a total up to this counts steps, a larger one bytes


class _Amount(ProgressColumn):
    """What is done, and how fast."""

    def render(self, task: Task) -> Text:
        """Return one cell."""
        return Text(_amount(task.completed, task.total or 0, task.speed))


def _amount(done: float, total: float, speed: float | None) -> str:
    if total <= STEPS:
        return f"step {int(done) + (done < total)} of {int(total)}"
    rate = f", {decimal(int(speed))}/s" if speed else ""
    return f"{decimal(int(done))} of {decimal(int(total))}{rate}"


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Yield what a build reports to; the bar of the stage gives way to the next, and vanishes at the end."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        current: list[tuple[str, TaskID]] = []

        def report(stage: str, done: int, total: int) -> None:
            if not current or current[-1][0] != stage:
                for _, task in current:
                    bars.remove_task(task)
                current[:] = [(stage, bars.add_task(stage, total=total))]
            bars.update(current[0][1], completed=done, total=total, refresh=True)

        yield report


class _Lines:
    """Prints a line when some seconds have passed since the last one; a short build prints none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = time.monotonic()
        self._stage, self._began = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, now
        if now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        speed = done / (now - self._began) if now > self._began else None
        left = f", {(total - done) / speed:.0f} s left" if speed and total > STEPS else ""
        self._console.print(f"{stage}: {_amount(done, total, speed)}{left}", soft_wrap=True, highlight=False)
