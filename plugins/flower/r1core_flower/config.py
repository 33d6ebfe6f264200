"""The plugin's section of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FlowerConfig(BaseModel):
    """The plugin's section of the recipe: of the server all of it, of a client `rounds` and `dp`.

    Parameters
    ----------
    rounds : how often the clients train, each time the steps that `[train]` states.
    strategy, proximal_mu : `fedavg` is the mean by training rows; `fedprox` adds `mu / 2 ||w - w_global||^2` to the
        clients' loss.
    clients : what `r1core federate run` starts on this machine: name to a recipe of its own (`.toml`), or to a file of
        records, with which the client takes part under the server's recipe.
    expected : clients that the first round waits for; 0 = as many as `clients` names.
    min_clients : with fewer than so many whole answers, a round does not count and the run stops.
    wait, round_timeout : seconds, for clients to come and for a round's answers.
    validate_rounds : measure the global model on the server's own validation rows after each round.
    dp : whose privacy is guarded: nobody's; a client's own records, by the client's own policy (`dp` in its recipe); or
        which clients there are, by noise of the server on the mean.
    clip, noise_multiplier, epsilon, delta : for `dp = "server"`: L2 norm of a client's update, and noise on the sum in
        units of it, or the epsilon over all rounds that it is chosen for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=3, ge=1, le=10_000)
    strategy: Literal["fedavg", "fedprox"] = "fedavg"
    proximal_mu: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    clients: dict[str, Path] = Field(default_factory=dict)
    expected: int = Field(default=0, ge=0)
    min_clients: int = Field(default=2, ge=1)
    wait: float = Field(default=600.0, gt=0.0)
    round_timeout: float = Field(default=3600.0, gt=0.0)
    validate_rounds: bool = False
    dp: Literal["none", "client", "server"] = "none"
    clip: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    noise_multiplier: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    epsilon: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0.0, lt=1.0)

    @property
    def number(self) -> int:
        """Clients that the first round waits for."""
        return self.expected or len(self.clients) or self.min_clients

    @model_validator(mode="after")
    def _fits_together(self) -> FlowerConfig:
        if (self.strategy == "fedprox") != (self.proximal_mu > 0):
            raise ValueError('strategy = "fedprox" and proximal_mu > 0 go together')
        if self.min_clients > self.number:
            raise ValueError(f"min_clients = {self.min_clients}, and {self.number} clients are expected")
        if any(not name.replace("-", "").replace("_", "").isalnum() for name in self.clients):
            raise ValueError("a client's name is letters, digits, hyphens and underscores")
        stated = [self.clip, self.noise_multiplier, self.epsilon, self.delta]
        if self.dp != "server" and any(value is not None for value in stated):
            raise ValueError('clip, noise_multiplier, epsilon and delta are for dp = "server"')
        if self.dp == "server":
            if self.clip is None or self.delta is None:
                raise ValueError('dp = "server" needs clip and delta')
            if (self.noise_multiplier is None) == (self.epsilon is None):
                raise ValueError('dp = "server" needs exactly one of noise_multiplier and epsilon')
        return self
