"""`r1core verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command("verify")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(run: Path, as_json: bool) -> None:
    """Recheck every hash that a run's manifest states; exit 1 when anything differs."""
    from r1core.runs.directory import RunDirectory
    from r1core.runs.inputs import here
    from r1core.runs.manifest import Manifest
    from r1core.runs.verify import verify

    directory = RunDirectory(run, create=False)
    findings = verify(directory)
    failed = any(finding.severity == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(str(finding))
        manifest = Manifest(directory)
        content = manifest.read()
        count, inputs = len(content["artefacts"]), content["inputs"]
        named = sum(entry["path"] is not None for entry in inputs.values())
        click.echo(f"{run}: {'NOT as recorded' if failed else f'{count} artefacts as recorded'}")
        click.echo(f"{len(here(inputs))} of {named} input files are here and were rechecked")
        click.echo(f"manifest sha256 {manifest.digest()}")
    raise SystemExit(1 if failed else 0)
