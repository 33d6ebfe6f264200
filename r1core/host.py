"""`CoreHost`: what `api.Host` promises to plugins' verbs, by the core's own stages. Each imports what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1core.api import JSON, Example, Learner, PrivacyPolicy


class CoreHost:
    """The context object of the command line."""

    def rehearse(
        self,
        run: Path,
        examples: Sequence[Example],
        policy: PrivacyPolicy,
        tell: Callable[[int, int], None],
        plugins: Sequence[Path] = (),
    ) -> None:
        """See `api.Host.rehearse`."""
        from r1core.pipeline import compute_of, refuse_untrained
        from r1core.selection import of_run
        from r1core.train.rehearse import rehearse
        from r1core.workbench import open_bench

        bench = open_bench(of_run(run, files=tuple(plugins)))
        refuse_untrained(bench)
        rehearse(bench, compute_of(bench), examples, policy, tell)

    def keep(self, run: Path, name: str, content: JSON) -> Path:
        """See `api.Host.keep`."""
        from r1core.runs.directory import RunDirectory
        from r1core.runs.files import write_json
        from r1core.runs.manifest import Manifest

        directory = RunDirectory(run, create=False)
        path = directory.path / name
        with directory.lock(name):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(path, content)
            Manifest(directory).update(name, artefacts=[path])
        return path

    def learner(
        self,
        recipe: Path,
        *,
        domain: str | None = None,
        sets: Sequence[str] = (),
        run: Path | None = None,
        plugins: Sequence[Path] = (),
        tell: Callable[[str], None] = lambda line: None,
    ) -> AbstractContextManager[Learner]:
        """See `api.Host.learner`."""
        from r1core.learner import opened
        from r1core.selection import Selection

        return opened(Selection(domain, recipe, tuple(sets), run, files=tuple(plugins)), tell)
