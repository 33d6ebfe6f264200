"""An observer that appends the loss of every step to a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from r1core import api


class Config(BaseModel):
    """[plugins.callback]: where to write; "" for nowhere."""

    file: str = ""


class LossFile(api.Callback):
    """Override what you need; every method of the base does nothing."""

    name = "loss-file"

    def __init__(self, file: str) -> None:
        self.file = file

    def on_stage(self, stage: str, status: Literal["start", "skip", "done", "failed"]) -> None:
        """A stage began or ended."""
        self._write(f"{stage} {status}")

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """An optimiser step ended."""
        self._write(f"step {step} loss {metrics['loss']:.4f}")

    def _write(self, line: str) -> None:
        if self.file:
            with Path(self.file).open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")


class CallbackPlugin(api.Plugin):
    """A class, because it has settings: `config` names their model."""

    config = Config

    @api.hookimpl
    def callback(self, ctx: api.Context) -> Sequence[api.Callback]:
        """The one observer."""
        assert isinstance(ctx.config, Config)
        return [LossFile(ctx.config.file)]
