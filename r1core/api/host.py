"""What the core does for a plugin's verb: click hands it a `Host` (`@click.pass_obj`), so no verb reaches inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

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
