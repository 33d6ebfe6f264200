"""What the verbs share: how a run is named on the command line, and where a run speaks."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from r1core.errors import UserError
from r1core.selection import Selection, of_run

PLAIN_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""


def selects_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that name a run; the verb gets one `selection`."""

    @click.argument("target", required=False)
    @click.option("--recipe", type=click.Path(path_type=Path), help="Your recipe, over the domain's.")
    @click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one key, for instance train.steps=50."
    )
    @click.option("--run", type=click.Path(path_type=Path), help="Run directory (default: runs/NAME).")
    @click.option("--no-plugin", "blocked", multiple=True, metavar="NAME", help="Leave a plugin out.")
    @click.option(
        "--plugin",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.py",
        help="Load a plugin from a file.",
    )
    @click.option(
        "--continue",
        "earlier",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Start from an earlier run's adapter and recipe, on new data.",
    )
    @functools.wraps(function)
    def wrapped(
        target: str | None,
        recipe: Path | None,
        sets: tuple[str, ...],
        run: Path | None,
        blocked: tuple[str, ...],
        files: tuple[Path, ...],
        earlier: Path | None,
        **others: Any,
    ) -> Any:
        return function(select(target, recipe, sets, run, blocked, files, earlier), **others)

    return wrapped


def select(
    target: str | None,
    recipe: Path | None,
    sets: tuple[str, ...],
    run: Path | None,
    blocked: tuple[str, ...],
    files: tuple[Path, ...],
    earlier: Path | None = None,
) -> Selection:
    """A domain's name, or the directory of an existing run whose `recipe.toml` is taken up again.

    A run that is taken up states all that there is to say, so `earlier` there only says where it starts from.

    Raises
    ------
    UserError : for a directory that holds no run.
    """
    if target is not None and ("/" in target or (Path(target).is_dir() and (Path(target) / "recipe.toml").exists())):
        found = of_run(Path(target), sets, blocked, files)
        if recipe is not None:
            raise UserError(f"{target} is a run with a recipe of its own, and --recipe gives another", fix="drop one")
        if earlier is not None:
            begins = f"continual.from={json.dumps(str(earlier.absolute()), ensure_ascii=False)}"
            found = replace(found, sets=(begins, *sets))
        return replace(found, run=run or found.run)
    return Selection(target, recipe, sets, run, blocked, files, earlier)


class Terminal:
    """Lines, and progress: a live bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._what = ""
        self._started = self._spoke = 0.0

    def line(self, text: str) -> None:
        """Print one line."""
        self._stop()
        click.echo(text)

    def progress(self, what: str, done: int, total: int, detail: Mapping[str, float] | None = None) -> None:
        """Show how far long work is, with rate and time left."""
        now = time.monotonic()
        if what != self._what:
            self._stop()
            self._what, self._started, self._spoke = what, now, now
            self._first = done
        detail_text = "  ".join(
            f"{k} {v:.4g}" for k, v in (detail or {}).items() if k in ("loss", "examples_per_second")
        )
        if sys.stdout.isatty():
            self._bar(what, done, total, detail_text)
        elif now - self._spoke >= PLAIN_SECONDS or done == total:
            elapsed = now - self._started
            rate = (done - self._first) / elapsed if elapsed else 0.0
            left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
            click.echo(f"  {what}: {done}/{total}  {detail_text}{left}".rstrip())
            self._spoke = now
        if done == total:
            self._stop()

    def _bar(self, what: str, done: int, total: int, detail: str) -> None:
        if self._live is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
            )  # fmt: skip
            self._live = Progress(*columns)
            self._live.start()
            self._task = self._live.add_task(what, total=total, detail="")
        self._live.update(self._task, completed=done, detail=detail)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._what = ""
