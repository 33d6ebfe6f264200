"""One prompt answered without and with the rules, kept as JSON for the report."""

from __future__ import annotations

from dataclasses import asdict

from r1core.api import JSON, Example, Message
from r1core.decode.prompt import read_facts
from r1core.decode.session import Session
from r1core.decode.values import Decoding


def rule_demonstration(session: Session) -> dict[str, JSON] | None:
    """Answer the recipe's demonstration prompt twice; None where the recipe has none.

    Raises
    ------
    UserError : when the facts file is not JSON.
    """
    recipe = session.bench.recipe
    if not recipe.report.demo_prompt:
        return None
    facts = None
    if recipe.report.demo_facts is not None:
        facts = read_facts(recipe.report.demo_facts)
    messages = (Message("user", recipe.report.demo_prompt),)
    tasks = list(session.bench.tasks)
    task = recipe.report.demo_task or (tasks[0] if len(tasks) == 1 else "demonstration")
    example = session.bench.chain.annotate(Example("demonstration", messages, task, facts=facts))
    decoding = Decoding(recipe.generate.max_new_tokens, seed=recipe.run.seed)
    prefix = recipe.report.demo_prefix
    free = session.answer([example], decoding, prefix=prefix)[0]
    held = session.constraint(example)
    ruled = session.answer([example], decoding, [held], prefix=prefix)[0] if held is not None else free
    return {
        "prompt": recipe.report.demo_prompt,
        "facts": facts,
        "without_rules": prefix + free.text,
        "with_rules": "" if ruled.completion.withheld else prefix + ruled.text,
        "finish": ruled.completion.finish,
        "dead_end": ruled.completion.failure,
        "interventions": [
            {"position": i.position, "refused": session.text([i.refused]), "reasons": [asdict(r) for r in i.reasons]}
            for i in ruled.completion.interventions
        ],
    }
