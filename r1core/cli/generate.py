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
from r1core.workbench import open_bench

if TYPE_CHECKING:
    from r1core.api import JSON, Example
    from r1core.decode.session import Answer, Session


@click.command("generate")
@selects_run
@click.option("--prompt", help="The user message (default: standard input).")
@click.option(
    "--facts", type=click.Path(path_type=Path), help='JSON facts, for instance {"medications": ["warfarin"]}.'
)
@click.option("--prefix", default="", metavar="TEXT", help="Start of the answer, given to the model.")
@click.option("--choices", is_flag=True, help="Answer within the task's label set.")
@click.option("--base", is_flag=True, help="Ask the base model, without adapter and layers.")
@click.option("--no-rules", is_flag=True, help="Without the plugins' decode constraints (says so).")
@click.option("--max-new-tokens", type=int, help="Override generate.max_new_tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer with interventions and spans.")
def command(
    selection: Selection,
    prompt: str | None,
    facts: Path | None,
    prefix: str,
    choices: bool,
    base: bool,
    no_rules: bool,
    max_new_tokens: int | None,
    as_json: bool,
) -> None:
    """Answer a prompt with a run's adapted model, under the rules. TARGET is a run directory or a domain."""
    from r1core.api import Example, Message, UserError

    bench = open_bench(selection)
    if not base and not (bench.directory / "adapter").is_dir():
        raise UserError(f"{bench.directory}: not trained yet", fix="r1core train <the same arguments>, or --base")
    text = prompt if prompt is not None else sys.stdin.read().strip()
    if not text:
        raise UserError("no prompt", fix='--prompt "..." or a text on standard input')
    from r1core.decode.demo import read_facts  # torch: only once there is something to answer
    from r1core.decode.generate import Decoding
    from r1core.decode.session import Session
    from r1core.pipeline import compute_of

    known = read_facts(facts) if facts else None
    example = bench.chain.annotate(Example("prompt", (Message("user", text),), "prompt", facts=known))
    session = Session(bench, compute_of(bench), adapted=not base)
    labels = bench.task.choices if choices else ()
    start = session.constraint(example, labels, rules=not no_rules)
    config = bench.recipe.generate
    decoding = Decoding(
        max_new_tokens or config.max_new_tokens, config.temperature, config.top_p, bench.recipe.run.seed
    )
    answer = session.answer([example], decoding, [start], prefix=prefix)[0]
    done = answer.completion
    if as_json:
        click.echo(json.dumps(_record(session, example, answer, prefix, no_rules), ensure_ascii=False, indent=2))
    else:
        click.echo(prefix + answer.text)
        cited = (r for i in done.interventions for r in i.reasons if r.citation and r.rule != "choices")
        for reason in dict.fromkeys(cited):
            click.echo(f"rule {reason.rule} kept {reason.text!r} out: {reason.citation}", err=True)
        if no_rules:
            click.echo("note: answered without the plugins' constraints", err=True)
    if done.finish == "dead_end":
        raise UserError(done.dead_end, fix="no answer satisfies all rules; see --json")


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
