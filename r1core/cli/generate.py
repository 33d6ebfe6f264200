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
    from collections.abc import Iterator

    from r1core.api import JSON, Example
    from r1core.decode.hold import Hold
    from r1core.decode.session import Answer, Session
    from r1core.workbench import Workbench


@click.command("generate")
@selects_run
@click.option("--prompt", help="The user message (default: standard input).")
@click.option(
    "--facts", type=click.Path(path_type=Path), help='JSON facts, for instance {"medications": ["warfarin"]}.'
)
@click.option(
    "--fields", type=click.Path(path_type=Path), help="JSON object with further columns of the record, such as a table."
)
@click.option(
    "--image", "images", multiple=True, type=click.Path(path_type=Path), help="An image that the prompt is about."
)
@click.option("--prefix", default="", metavar="TEXT", help="Start of the answer, given to the model.")
@click.option("--task", metavar="NAME", help="Which of the run's several tasks the prompt is of.")
@click.option("--choices", is_flag=True, help="Answer within the task's label set.")
@click.option("--base", is_flag=True, help="Ask the base model, without adapter and layers.")
@click.option("--no-rules", is_flag=True, help="Without the plugins' decode constraints (says so).")
@click.option(
    "--json-schema", type=click.Path(path_type=Path), metavar="FILE", help="Answer with a JSON document of this schema."
)
@click.option("--regex", metavar="PATTERN", help="The whole answer matches this regular expression.")
@click.option("--require", multiple=True, metavar="TEXT", help="The answer may not end before it holds this.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this.")
@click.option("--beams", type=click.IntRange(min=1), help="Width of the beam search.")
@click.option("--kv-bits", type=click.IntRange(4, 6), help="Keep keys and values in so many bits (long prompts).")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Override generate.max_new_tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer with interventions and spans.")
def command(
    selection: Selection,
    prompt: str | None,
    facts: Path | None,
    fields: Path | None,
    images: tuple[Path, ...],
    prefix: str,
    task: str | None,
    choices: bool,
    base: bool,
    no_rules: bool,
    json_schema: Path | None,
    regex: str | None,
    require: tuple[str, ...],
    stop: tuple[str, ...],
    beams: int | None,
    kv_bits: int | None,
    max_new_tokens: int | None,
    as_json: bool,
) -> None:
    """Answer a prompt with a run's adapted model, under the rules. TARGET is a run directory or a domain."""
    from r1core.decode.asked import Asked
    from r1core.decode.prompt import FIELDS, read_facts, read_object, refuse_too_long
    from r1core.model.resolve import context_length
    from r1core.runs.verify import trained_adapter

    known = read_facts(facts) if facts else None
    columns = read_object(fields, "fields", FIELDS) if fields else {}
    bench = open_bench(selection)
    for name, reason in bench.plugins.left_out.items():
        click.echo(f"note: without plugin {name} ({reason})", err=True)
    config = bench.recipe.generate
    options = Asked(json_schema, regex, require, stop, beams).over(config)
    further = options.constraints()
    if not base:
        trained_adapter(bench.directory, ", or --base")
    asked = _task(bench, task, base=base, labels=choices)
    example = _example(bench, prompt, asked, known, columns, _images(images, base=base))
    most = max_new_tokens or config.max_new_tokens
    thinking = 0 if prefix else config.reasoning_tokens
    refuse_too_long(bench.renderer, example, prefix, most, context_length(bench.base.directory()), thinking)
    from r1core.decode.session import Session  # torch: only once there is something to answer
    from r1core.decode.values import Decoding
    from r1core.pipeline import compute_of

    session = Session(bench, compute_of(bench), adapted=not base)
    labels = bench.tasks[asked].choices if choices and asked is not None else ()
    held = session.constraint(example, labels, rules=not no_rules, further=further)
    decoding = Decoding(
        most, config.temperature, config.top_p, bench.recipe.run.seed, options.beams or 1, stop=tuple(options.stop),
        reasoning=thinking, kv_bits=kv_bits or config.kv_bits,
    )  # fmt: skip
    answer = session.answer([example], decoding, [held], prefix=prefix)[0]
    shown = "" if answer.completion.withheld else prefix + answer.text
    audit = _audit(bench, answer, shown, held, no_rules)
    if as_json:
        click.echo(json.dumps(_record(session, example, answer, shown, audit, held), ensure_ascii=False, indent=2))
    else:
        _print(answer, shown, no_rules)
    _refuse_failed(answer)


def _print(answer: Answer, shown: str, no_rules: bool) -> None:
    """The answer, and on standard error what to know besides."""
    click.echo(shown)
    for line in _notes(answer, shown, no_rules):
        click.echo(line, err=True)


def _task(bench: Workbench, named: str | None, *, base: bool, labels: bool) -> str | None:
    """The prompt's task, where something depends on it."""
    from r1core.api import UserError
    from r1core.decode.prompt import task_of
    from r1core.model.pool_check import known_tasks

    pool = () if base else known_tasks(bench.run.adapter)
    asked = task_of(named, pool, lambda: list(bench.tasks), labels=labels)
    if labels and asked not in bench.tasks:
        raise UserError(
            f"--choices: the label set of {asked!r} is not in this run's data, only in that of the run it extends",
            fix="answer freely, or ask that run",
        )
    return asked


def _images(given: tuple[Path, ...], *, base: bool) -> tuple[str, ...]:
    """The prompt's images; the base model alone reads none."""
    from r1core.api import UserError

    if given and base:
        raise UserError("--image with --base: the base model alone reads no images", fix="leave one of them out")
    return tuple(str(path.absolute()) for path in given)


def _example(
    bench: Workbench,
    prompt: str | None,
    task: str | None,
    facts: dict[str, JSON] | None,
    fields: dict[str, JSON],
    images: tuple[str, ...],
) -> Example:
    """The annotated prompt."""
    from r1core.api import Example, Message, UserError

    text = prompt if prompt is not None else sys.stdin.read().strip()
    if not text:
        raise UserError("no prompt", fix='--prompt "..." or a text on standard input')
    return bench.chain.annotate(
        Example("prompt", (Message("user", text),), task or "prompt", facts=facts, fields=fields, images=images)
    )


def _audit(bench: Workbench, answer: Answer, shown: str, held: Hold | None, no_rules: bool) -> dict[str, JSON]:
    """The answer's audit record; appended to the run's `audit.jsonl`, where there is one, before anything is shown."""
    from r1core.decode.audit import audit_record

    record = audit_record(answer, shown, held) | {"rules_off": no_rules}
    if bench.directory.is_dir():
        bench.run.audit.append(record)
    return record


def _refuse_failed(answer: Answer) -> None:
    """Raise where the answer does not stand."""
    from r1core.api import R1Error, UserError

    done = answer.completion
    if done.finish == "recheck":
        raise R1Error(done.failure)
    if done.finish == "dead_end":
        raise UserError(done.failure, fix="no answer satisfies all rules; see --json")
    if done.finish == "unmet":
        raise UserError(done.failure, fix="raise --max-new-tokens, or ask for less")


def _notes(answer: Answer, shown: str, no_rules: bool) -> Iterator[str]:
    """What to know about an answer besides its text."""
    done = answer.completion
    cited = (r for i in done.interventions for r in i.reasons if r.citation and r.rule not in _OWN)
    by_rule: dict[tuple[str, str], dict[str, None]] = {}
    for reason in cited:
        by_rule.setdefault((reason.rule, reason.citation), {})[reason.text] = None
    for (rule, citation), texts in by_rule.items():
        for text in list(texts)[:SHOWN]:
            yield f"rule {rule} kept {text!r} out: {citation}"
        if len(texts) > SHOWN:
            yield f"rule {rule} kept {len(texts) - SHOWN} more out: see --json"
    if no_rules:
        yield "note: answered without the plugins' constraints"
    if done.finish == "trimmed":
        yield "note: the answer was cut back to where the rules let it end"
    if not shown.strip() and not done.failure:
        yield "note: the answer is empty"


SHOWN = 3
"""Notes on one rule; a result that is forced digit by digit intervenes at each of them."""

_OWN = ("choices", "json-schema", "regex", "required-phrase", "special-token", "utf-8")
"""What asks for a form of the answer: no rule that keeps something out."""


def _record(
    session: Session, example: Example, answer: Answer, shown: str, audit: dict[str, JSON], held: Hold | None
) -> dict[str, JSON]:
    """The answer as `--json` prints it."""
    kinds, thinks = session.bench.chain.kinds, session.renderer.blocks is not None
    done = answer.completion
    return {
        "text": shown,
        "finish": done.finish,
        "failure": done.failure,
        "rules": not audit["rules_off"],
        "interventions": [
            {"position": i.position, "refused": session.text([i.refused]), "reasons": list(map(asdict, i.reasons))}
            for i in done.interventions
        ],
        "spans": [
            {"kind": s.kind, "text": example.messages[s.part].content[s.start : s.end],
             "value": kinds[s.kind].encode(s.value)}
            for s in example.spans
        ],
        **({"reasoning": answer.reasoning, "reasoning_against": list(answer.against)} if thinks else {}),
        "provenance": held.constraints.provenance(held.example, shown) if held is not None else {},
        "audit": audit,
    }  # fmt: skip
