"""`r1core federate`: train one adapter on the records of several, of whom each keeps its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from r1core.api import Host, UserError
from r1core_flower.record import NAME, table

FILE = click.Path(path_type=Path, dir_okay=False)
PEM = click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True)  # Flower takes absolute paths only


def takes_recipe(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names a recipe and its run."""

    @click.argument("domain", required=False)
    @click.option("--recipe", type=FILE, required=True, help="The recipe; it names the plugin flower.")
    @click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one key of it.")
    @click.option("--run", type=click.Path(path_type=Path, file_okay=False), help="Run directory (default: runs/NAME).")
    @click.option("--plugin", "plugins", multiple=True, type=FILE, metavar="FILE.py", help="Load a plugin from a file.")
    @wraps(function)
    def wrapped(**given: Any) -> Any:
        return function(**given)

    return wrapped


@click.group()
def federate() -> None:
    """Train one adapter on the records of several hospitals: its weights travel, no record does."""


@federate.command()
@takes_recipe
@click.pass_obj
def run(host: Host, **given: Any) -> None:
    """Run all rounds on this machine, each of the recipe's clients a process of its own."""
    from r1core_flower.ends import run_here

    run_here(host, given, click.echo)


@federate.command()
@takes_recipe
@click.option("--address", required=True, metavar="HOST:PORT", help="Where clients reach this server.")
@click.option("--certificate", type=PEM, help="PEM file of the server's certificate.")
@click.option("--key", type=PEM, help="PEM file of its private key.")
@click.option("--ca", type=PEM, help="PEM file of the authority that signed it.")
@click.option("--insecure", is_flag=True, help="Encrypt nothing: for the loopback, or inside of a tunnel.")
@click.pass_obj
def server(
    host: Host,
    address: str,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    insecure: bool,
    **given: Any,
) -> None:
    """Wait for the clients on other machines, lead the rounds, and write the run."""
    from r1core_flower.ends import serve
    from r1core_flower.runtime import Tls

    if not insecure and None in (certificate, key, ca):
        raise UserError("no TLS", fix="give --certificate, --key and --ca, or --insecure inside of a tunnel")
    serve(host, given, address, Tls() if insecure else Tls(ca, certificate, key), click.echo)


@federate.command()
@takes_recipe
@click.option("--server", required=True, metavar="HOST:PORT", help="The server.")
@click.option("--ca", type=PEM, help="PEM file of the authority that signed the server's certificate.")
@click.option("--insecure", is_flag=True, help="Encrypt nothing: for the loopback, or inside of a tunnel.")
@click.pass_obj
def client(host: Host, server: str, ca: Path | None, insecure: bool, **given: Any) -> None:
    """Take part with the records of a recipe, until the server's rounds are over."""
    from r1core_flower.ends import take_part
    from r1core_flower.runtime import Tls

    if not insecure and ca is None:
        raise UserError("no TLS", fix="give --ca, or --insecure inside of a tunnel")
    take_part(host, given, server, Tls() if insecure else Tls(ca), click.echo)


@federate.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: Path, as_json: bool) -> None:
    """Show the rounds of a server's finished run."""
    path = run / NAME
    told = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if "made_by" not in told:
        raise UserError(f"{run}: no rounds of a server here", fix="name the run of `federate run` or `federate server`")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo("\n".join(table(told["rounds"])))
    if told["privacy"] is not None:
        click.echo(told["privacy"]["guarantee"])
