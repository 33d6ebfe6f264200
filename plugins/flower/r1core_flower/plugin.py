"""The plugin: its section of the recipe, what `r1core check` has to say of it, and its section of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence

from r1core import api
from r1core.api import hookimpl
from r1core_flower.config import FlowerConfig
from r1core_flower.record import COLUMNS, NAME, cells


class FlowerPlugin(api.Plugin):
    """Federated rounds."""

    config = FlowerConfig

    @hookimpl
    def validate(self, ctx: api.Context, plan: api.Plan) -> Sequence[api.Problem]:
        """A server's noise that cannot mean much, and a client's policy that is counted on and not there."""
        config = ctx.config
        assert isinstance(config, FlowerConfig)
        found = []
        if config.dp == "client" and not config.clients and "dp" not in plan.recipe["run"]["plugins"]:
            fix = 'add "dp" to run.plugins of each client; a server that trains nothing may leave it'
            found.append(api.Problem("plugins.flower.dp", 'dp = "client" and no policy here', "", fix, "warning"))
        if config.dp == "server" and config.number < 100:
            said = f'dp = "server" hides one of {config.number} clients: the noise drowns so few, or hides nothing'
            fix = 'dp = "client", with the plugin dp at each client, guards its patients'
            found.append(api.Problem("plugins.flower.dp", said, "hundreds of clients", fix, "warning"))
        return found

    @hookimpl
    def report(self, ctx: api.Context, run: api.RunView) -> Sequence[api.ReportSection]:
        """The rounds of the server's run."""
        path = run.directory / NAME
        told = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if "made_by" not in told:
            return []
        tables = [api.Table(COLUMNS, tuple(map(cells, told["rounds"])))]
        privacy = told["privacy"]
        text = "No guarantee of privacy by the server." if privacy is None else privacy["guarantee"] + "."
        return [api.ReportSection("Federated rounds", text, tuple(tables), private=False)]
