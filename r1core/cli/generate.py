"""`r1core generate`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from r1core.cli.common import selects_run
from r1core.selection import Selection
from r1core.words import counted
from r1core.workbench import open_bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from r1core.api import JSON, Example
    from r1core.decode.session import Answer, Session


@click.command("generate")
@selects_run
@click.option("--prompt", help="The user message (default: standard input).")
@click.option(
    "--facts", type=click.Path(path_type=Path), help='JSON facts, for instance {"medications": ["warfarin"]}.'
)
@click.option("--prefix", default="", metavar="TEXT", help="Start of the answer, given to the model.")
@click.option("--task", metavar="NAME", help="Which of the run's several tasks the prompt is of.")
@click.option("--choices", is_flag=True, help="Answer within the task's label set.")
@click.option("--base", is_flag=True, help="Ask the base model, without adapter and layers.")
@click.option("--no-rules", is_flag=True, help="Without the plugins' decode constraints (says so).")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Override generate.max_new_tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer with interventions and spans.")
def command(
    selection: Selection,
    prompt: str | None,
    facts: Path | None,
    prefix: str,
    task: str | None,
    choices: bool,
    base: bool,
    no_rules: bool,
    max_new_tokens: int | None,
    as_json: bool,
) -> None:
    """Answer a prompt with a run's adapted model, under the rules. TARGET is a run directory or a domain."""
    from r1core.api import Example, Message, UserError
    from r1core.decode.prompt import read_facts, refuse_too_long, task_of
    from r1core.model.pool_check import known_tasks
    from r1core.model.resolve import context_length
    from r1core.runs.verify import trained_adapter

    known = read_facts(facts) if facts else None
    bench = open_bench(selection)
    for name, reason in bench.plugins.left_out.items():
        click.echo(f"note: without plugin {name} ({reason})", err=True)
    if not base:
        trained_adapter(bench.directory, ", or --base")
    pool = () if base else known_tasks(bench.run.adapter)
    asked = task_of(task, pool, lambda: list(bench.tasks), labels=choices)
    if choices and asked not in bench.tasks:
        raise UserError(
            f"--choices: the label set of {asked!r} is not in this run's data, only in that of the run it extends",
            fix="answer freely, or ask that run",
        )
    text = prompt if prompt is not None else sys.stdin.read().strip()
    if not text:
        raise UserError("no prompt", fix='--prompt "..." or a text on standard input')
    config = bench.recipe.generate
    most = max_new_tokens or config.max_new_tokens
    example = bench.chain.annotate(Example("prompt", (Message("user", text),), asked or "prompt", facts=known))
    refuse_too_long(bench.renderer, example, prefix, most, context_length(bench.base.directory()))
    from r1core.decode.generate import Decoding  # torch: only once there is something to answer
    from r1core.decode.session import Session
    from r1core.pipeline import compute_of

    session = Session(bench, compute_of(bench), adapted=not base)
    labels = bench.tasks[asked].choices if choices and asked is not None else ()
    start = session.constraint(example, labels, rules=not no_rules)
    decoding = Decoding(most, config.temperature, config.top_p, bench.recipe.run.seed)
    answer = session.answer([example], decoding, [start], prefix=prefix)[0]
    done = answer.completion
    if as_json:
        click.echo(json.dumps(_record(session, example, answer, prefix, no_rules), ensure_ascii=False, indent=2))
    else:
        click.echo(prefix + answer.text)
        for line in _notes(answer, prefix, labels, no_rules):
            click.echo(line, err=True)
    if done.finish == "dead_end":
        raise UserError(done.dead_end, fix="no answer satisfies all rules; see --json")


def _notes(answer: Answer, prefix: str, labels: Sequence[str], no_rules: bool) -> Iterator[str]:
    """What to know about an answer besides its text."""
    done, said = answer.completion, (prefix + answer.text).strip()
    cited = (r for i in done.interventions for r in i.reasons if r.citation and r.rule != "choices")
    for reason in dict.fromkeys(cited):
        yield f"rule {reason.rule} kept {reason.text!r} out: {reason.citation}"
    if no_rules:
        yield "note: answered without the plugins' constraints"
    if done.finish == "length" and labels and said not in labels:
        yield f"note: no label: the answer was cut after {counted(len(done.tokens), 'token')} (--max-new-tokens)"
    elif not said:
        yield "note: the answer is empty"


def _record(session: Session, example: Example, answer: Answer, prefix: str, no_rules: bool) -> dict[str, JSON]:
    """The answer as `--json` prints it."""
    kinds = session.bench.chain.kinds
    return {
        "text": prefix + answer.text,
        "finish": answer.completion.finish,
        "rules": not no_rules,
        "interventions": [
            {"position": i.position, "refused": session.text([i.refused]), "reasons": list(map(asdict, i.reasons))}
            for i in answer.completion.interventions
        ],
        "spans": [
            {"kind": s.kind, "text": example.messages[s.part].content[s.start : s.end],
             "value": kinds[s.kind].encode(s.value)}
            for s in example.spans
        ],
    }  # fmt: skip
