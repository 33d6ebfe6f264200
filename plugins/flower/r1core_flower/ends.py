"""The verbs' work: a server's end, a client's end, and all of them on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from r1core.api import Host, Learner, UserError
from r1core_flower.config import FlowerConfig
from r1core_flower.record import NAME, Budget, Record, budget_of, table
from r1core_flower.runtime import (
    Link,
    Lost,
    Tls,
    ending_with_us,
    free_port,
    require_flower,
    run_client,
    run_server,
    superlink,
    supernode,
)

Tell = Callable[[str], None]
ANY = 1 << 30  # clients that can come from other machines
AGAIN = 2.0  # seconds until a client tries a server again
BY_ITSELF = 30.0  # seconds that a client's process has to end behind the last round


@contextmanager
def _learner(host: Host, given: Mapping[str, Any], tell: Tell) -> Iterator[tuple[Learner, FlowerConfig]]:
    """The recipe's learner and the plugin's section of it.

    Raises
    ------
    UserError : for a recipe that does not name the plugin.
    """
    options = {key: given[key] for key in ("domain", "sets", "run", "plugins")}
    with host.learner(given["recipe"], **options, tell=tell) as learner:
        if "flower" not in learner.sections:
            raise UserError(f"{given['recipe']} does not name the plugin flower", fix='run.plugins = ["flower", ...]')
        yield learner, FlowerConfig.model_validate(learner.sections["flower"])


def serve(host: Host, given: Mapping[str, Any], address: str, tls: Tls, tell: Tell) -> None:
    """Lead the rounds of a recipe at an address, and write the run."""
    require_flower()
    with _learner(host, given, tell) as (learner, config):
        _lead(learner, config, lambda folder: superlink(address, tls, folder), tell, lambda: ANY)


def _lead(
    learner: Learner, config: FlowerConfig, link: Callable[[Path], Any], tell: Tell, possible: Callable[[], int]
) -> None:
    from r1core_flower.server import server_app

    if learner.private:  # it would be planned, and paid for, and never be taken
        raise UserError(
            "a privacy policy in the server's recipe, and the server trains nothing",
            fix='leave it out there; clients have policies in recipes of their own, and the server says dp = "client"',
        )
    record, budget = _taken_up(learner, config)
    if record.done:
        tell(f"rounds: going on behind round {record.done} of {config.rounds}")
    with tempfile.TemporaryDirectory() as folder, link(Path(folder)) as end:
        run_server(end, server_app(learner, config, record, budget, tell, possible))
    learner.finish(NAME, record.as_json())
    for line in table(record.rounds):
        tell(line)
    if budget is not None:
        tell(f"privacy: {budget.card()['guarantee']}")
    tell(f"done: {learner.run}  (r1core evaluate {learner.run} measures it)")


def _taken_up(learner: Learner, config: FlowerConfig) -> tuple[Record, Budget | None]:
    """The rounds that are done, and what the server's noise spent on them."""
    found = learner.begin(config.rounds)
    made_by = {
        "flwr": version("flwr"),
        "strategy": config.strategy,
        "proximal_mu": config.proximal_mu,
        "rounds": config.rounds,
        "dp": config.dp,
    }
    if found is None:
        return Record(made_by), budget_of(config, 0)
    record = Record(made_by, list(found["rounds"]), found["privacy"])
    return record, budget_of(config, 0 if record.privacy is None else int(record.privacy["rounds_counted"]))


def take_part(host: Host, given: Mapping[str, Any], server: str, tls: Tls, tell: Tell) -> None:
    """Train rounds for a server on the records of a recipe."""
    require_flower()
    from r1core_flower.client import Client

    with _learner(host, given, tell) as (learner, config):
        client = Client(learner, config, tell)
        tell(f"taking part at {server} with {learner.rows} rows")
        while not client.ended:
            try:
                with tempfile.TemporaryDirectory() as folder, supernode(server, tls, Path(folder), config.wait) as end:
                    run_client(end, client.app, lambda: client.ended)
            except Lost:  # not there yet, or started again, when it knows none of its former clients
                if time.monotonic() > client.heard + config.wait:
                    raise
                time.sleep(AGAIN)
        tell(f"done: {learner.run}")


def run_here(host: Host, given: Mapping[str, Any], tell: Tell) -> None:
    """Lead the rounds, with a process on this machine for each client that the recipe names."""
    require_flower()
    with _learner(host, given, tell) as (learner, config), ExitStack() as processes:
        if len(config.clients) < config.min_clients:
            raise UserError(
                f"{len(config.clients)} clients are named, {config.min_clients} are needed",
                fix="name each under [plugins.flower.clients]: NAME = its recipe or its file of records",
            )
        address = f"127.0.0.1:{free_port()}"
        started: list[subprocess.Popen[bytes]] = []

        @contextmanager
        def everybody(folder: Path) -> Iterator[Link]:
            with superlink(address, Tls(), folder) as link:
                for name, file in config.clients.items():
                    client = _client(given, learner.run, config, name, file, address, tell)
                    started.append(processes.enter_context(client))
                yield link

        _lead(learner, config, everybody, tell, lambda: sum(process.poll() is None for process in started))


@contextmanager
def _client(
    given: Mapping[str, Any], run: Path, config: FlowerConfig, name: str, file: Path, address: str, tell: Tell
) -> Iterator[subprocess.Popen[bytes]]:
    """A client's process; it ends by itself behind the last round, or is told to."""
    home = run.with_name(f"{run.name}-clients") / name
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = file.suffix == ".toml"
    command = [sys.executable, "-m", "r1core", "federate", "client"]
    command += [given["domain"]] if given["domain"] else []
    command += [
        "--recipe",
        str(file if own else given["recipe"]),
        "--run",
        str(home),
        "--server",
        address,
        "--insecure",
    ]
    records = [f"data.files.train={json.dumps(str(file))}", f"run.name={json.dumps(name)}"]
    threads = max(1, len(os.sched_getaffinity(0)) // len(config.clients)) if hasattr(os, "sched_getaffinity") else 1
    for one in [*([] if own else [*given["sets"], *records]), f"model.threads={threads}"]:
        command += ["--set", one]
    for plugin in given["plugins"]:
        command += ["--plugin", str(plugin)]
    log = home.with_suffix(".log")
    with log.open("ab") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told, preexec_fn=ending_with_us)
    tell(f"client {name}: process {process.pid}, its words in {log}")
    try:
        yield process
        with suppress(subprocess.TimeoutExpired):
            process.wait(BY_ITSELF)
    finally:
        process.terminate()
        process.wait()
