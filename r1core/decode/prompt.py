"""What is asked of a model from outside of a data set: facts from a file, and whether a prompt fits. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path

from r1core.api import JSON, Example, UserError
from r1core.data.tokens import Renderer, prompt_of

FACTS = '{"medications": ["warfarin"]}'


def read_facts(file: Path) -> dict[str, JSON]:
    """A facts file: one JSON object.

    Raises
    ------
    UserError : naming the file, when it is missing or no JSON object.
    """
    fix = f"write one JSON object, for instance {FACTS}"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise UserError(f"{file}: {said}", fix="give a JSON file with facts") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON: {error}", fix=fix) from error
    if not isinstance(facts, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(facts).__name__}", fix=fix)
    return facts


def refuse_too_long(
    renderer: Renderer, example: Example, prefix: str, max_new_tokens: int, context: int | None
) -> None:
    """Raise a `UserError` where the prompt, the answer's given start and its new tokens exceed the model's context."""
    asked = len(renderer.encode_prompt(prompt_of(example))[0]) + len(renderer.start_ids(prefix) if prefix else ())
    if context is not None and asked + max_new_tokens > context:
        raise UserError(
            f"the prompt has {asked:,} tokens; with {max_new_tokens:,} new ones that is more than the model's context, "
            f"{context:,}",
            fix="shorten the prompt" + (", or lower --max-new-tokens" if asked < context else ""),
        )
