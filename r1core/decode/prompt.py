"""What is asked of a model from outside of a data set: facts and columns in files, a prompt that fits. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from r1core.api import JSON, Example, UserError
from r1core.data.tokens import Renderer, prompt_of
from r1core.recipe.problems import did_you_mean

FACTS = '{"medications": ["warfarin"]}'
FIELDS = '{"table": [["", "2019"], ["Sales", "$12.1"]]}'


def read_facts(file: Path) -> dict[str, JSON]:
    """A facts file: one JSON object. Raises as `read_object`."""
    return read_object(file, "facts", FACTS)


def read_object(file: Path, what: str, such_as: str) -> dict[str, JSON]:
    """A file that holds one JSON object.

    Parameters
    ----------
    what, such_as : what it is called, and an object of the kind, for messages.

    Raises
    ------
    UserError : naming the file, when it is missing or no JSON object.
    """
    fix = f"write one JSON object, for instance {such_as}"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise UserError(f"{file}: {said}", fix=f"give a JSON file with {what}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON: {error}", fix=fix) from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}", fix=fix)
    return found


def task_of(
    asked: str | None, pool: Sequence[str], in_data: Callable[[], Sequence[str]], *, labels: bool
) -> str | None:
    """The task of a prompt; None where nothing depends on it.

    Parameters
    ----------
    asked : what the user named.
    pool : tasks of the pool that answers; () where none does.
    in_data : names of the data set's tasks, read only if need be.
    labels : whether the task's label set is wanted.

    Raises
    ------
    UserError : for a task that is not there, or where one of several has to be named.
    """
    if not pool and not labels and asked is None:
        return None
    known = pool or in_data()
    if asked is None and len(known) == 1:
        return known[0]
    one_of = f"--task with one of: {', '.join(known)}"
    if asked is None:
        raise UserError(f"this run has {len(known)} tasks, and none was named", fix=one_of)
    if asked not in known:
        near = did_you_mean(asked, known)
        raise UserError(
            f"--task: this run was not trained on {asked!r}", fix=f"did you mean {near!r}?" if near else one_of
        )
    return asked


def refuse_too_long(
    renderer: Renderer, example: Example, prefix: str, max_new_tokens: int, context: int | None, reasoning: int = 0
) -> None:
    """Raise a `UserError` where the prompt, the answer's given start and its new tokens exceed the model's context.

    `reasoning` : tokens before the answer.
    """
    max_new_tokens += reasoning
    asked = len(renderer.encode_prompt(prompt_of(example))[0]) + len(renderer.start_ids(prefix) if prefix else ())
    if context is not None and asked + max_new_tokens > context:
        raise UserError(
            f"the prompt has {asked:,} tokens; with {max_new_tokens:,} new ones that is more than the model's context, "
            f"{context:,}",
            fix="shorten the prompt" + (", or lower --max-new-tokens" if asked < context else ""),
        )
