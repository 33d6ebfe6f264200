"""`r1core adapt`: all stages, and a short table of what was reached."""

from __future__ import annotations

import json

import click

from r1core.cli.common import Terminal, selects_run
from r1core.cli.table import print_table
from r1core.selection import Selection
from r1core.workbench import open_bench


@click.command("adapt")
@selects_run
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON at the end.")
def command(selection: Selection, as_json: bool) -> None:
    """Prepare, train, evaluate and report; an interrupted run continues where it stood."""
    from r1core.evaluate import summary
    from r1core.pipeline import run_to
    from r1core.runs.report.over_time import over_time

    bench = open_bench(selection)
    results = run_to(bench, "report", Terminal())
    rows = summary.read_summary(bench.run.summary)
    if as_json:
        click.echo(json.dumps(summary.to_json(rows)))
        return
    click.echo("")
    main = {name: "accuracy" if task.choices else "exact_match" for name, task in bench.tasks.items()}
    shown = [r for r in rows if r.metric == main[r.task]]
    table = [(r.system, f"{r.value:.3f}", f"± {1.96 * r.se:.3f}" if r.se == r.se else "", str(r.n)) for r in shown]
    if len(main) == 1:
        print_table(("system", *main.values(), "95 %", "rows"), table)
    else:
        table_of_all = [(r.task, r.metric, *cells) for r, cells in zip(shown, table, strict=True)]
        print_table(("task", "metric", "system", "value", "95 %", "rows"), table_of_all)
    chain = over_time(bench.run.evaluation / "continual.json")
    if chain is not None:
        for title, matrix in chain.tables[: chain.short]:
            click.echo(f"\n{title}")
            print_table(matrix.columns, matrix.rows)
        click.echo(f"\n{chain.summary}")
    for result in results:
        if result.status == "done":
            click.echo(f"{result.name}: {result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-s")
    click.echo(f"report: {bench.run.report}")
