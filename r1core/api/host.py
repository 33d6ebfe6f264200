"""What the core does for a plugin's verb: click hands it a `Host` (`@click.pass_obj`), so no verb reaches inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from r1core.api.learner import Learner
from r1core.api.privacy import PrivacyPolicy
from r1core.api.values import JSON, Example


class Host(Protocol):
    """The core, as a plugin's verb sees it."""

    def rehearse(
        self,
        run: Path,
        examples: Sequence[Example],
        policy: PrivacyPolicy,
        tell: Callable[[int, int], None],
        plugins: Sequence[Path] = (),
    ) -> None:
        """Train a run's model, as its recipe says, on other examples under another policy; nothing of it is kept.

        Parameters
        ----------
        run : an existing run directory. examples : what is trained on, as they are: no preprocessing.
        tell : called with the steps done and all steps. plugins : files of plugins, as `--plugin` names them.

        Raises
        ------
        UserError : where there is no run, it was not trained as its recipe says, or cannot be trained privately.
        """
        ...

    def keep(self, run: Path, name: str, content: JSON) -> Path:
        """Write a JSON file into a run, by its path there, and note it in the run's manifest.

        Raises
        ------
        UserError : where there is no run, or another command writes to it.
        """
        ...

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
        """Prepare the records of a recipe, and hold its run for training in rounds until the block ends.

        Parameters
        ----------
        domain : whose recipe the file is laid over. sets : overrides, `key=value`.
        run : the run directory; None = `runs/NAME`.
        plugins : files of plugins, as `--plugin` names them. tell : receives one line on what happens.

        Raises
        ------
        UserError : for a recipe that is not valid, and where another command writes to the run.
        """
        ...
