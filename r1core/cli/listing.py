"""Loading installed plugins one by one, so that a listing survives a broken one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from r1core.plugins.loading import Plugins
from r1core.recipe.problems import InvalidInput, render


def each_loaded(names: Iterable[str]) -> Iterator[tuple[str, Plugins]]:
    """Each plugin that loads, alone; what stands against another is told on standard error."""
    for name in dict.fromkeys(names):
        try:
            yield name, Plugins.load([name], allow=[name], listing=True)
        except InvalidInput as refused:
            for line in render(refused.problems):
                click.echo(f"passed over: {line}", err=True)
