"""Reasoning blocks: what a model writes between `<think>` and `</think>`, and what its answer is. Torch-free.

One rule, for templates, loss, constraints, rewards and figures alike:

- a model reasons where its chat template, in use, names one of the two marks; elsewhere the marks are text;
- a block stands at the start of an answer and ends at the first `</think>`. The answer is what stands behind it, line
  breaks aside; a `<think>` or `</think>` further on is text of the answer;
- `</think>` without a `<think>` ends a block that began with the answer's first character;
- `<think>` that is never closed leaves no answer: a training row is refused, a generated one has failed;
- earlier turns of a conversation stand in the prompt without their blocks;
- an answer without reasoning stands behind an empty block, which is part of the prompt.

Not covered: other marks than these two, several blocks in one answer, templates that ask for reasoning by a variable
(they are rendered as they are by default).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from r1core.api import Example, Message, UserError, edit

OPEN, CLOSE = "<think>", "</think>"
_MARK = "\x02"


@dataclass(frozen=True, slots=True)
class Parts:
    """An answer's reasoning, "" for none, and the answer itself; None where the block was never closed."""

    reasoning: str
    answer: str | None


def parts(text: str, *, inside: bool = False) -> Parts:
    """Take an answer apart.

    Parameters
    ----------
    inside : whether the prompt has opened the block already.
    """
    head, closed, rest = text.partition(CLOSE)
    if not closed and not inside and not head.lstrip().startswith(OPEN):
        return Parts("", text)
    reasoning = head.strip().removeprefix(OPEN).strip()
    return Parts(reasoning, rest.lstrip("\n") if closed else None)


def without_block(example: Example, part: int) -> Example:
    """The example with one message's answer alone, spans moved along, and no column that holds the whole message."""
    content = example.messages[part].content
    answer = parts(content).answer or ""
    if answer == content:
        return example
    bare = edit(example, part, 0, len(content) - len(answer), "")
    fields = {name: answer if value == content else value for name, value in example.fields.items()}
    return replace(bare, fields=fields)


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a chat template that knows reasoning leaves a prompt.

    Parameters
    ----------
    prompt : the generation prompt is `free` of blocks (the model may open one), leaves one `open`, or has `closed` it.
    lead : what starts the reasoning behind that prompt.
    """

    prompt: Literal["free", "open", "closed"]
    lead: str

    def block(self, reasoning: str = "") -> str:
        """What stands between the prompt and the answer; an empty block where there is no reasoning."""
        return "" if self.prompt == "closed" else f"{self.lead}{reasoning}\n{CLOSE}\n\n"

    def generated(self, text: str, *, reasons: bool) -> Parts:
        """A generated text taken apart; `reasons` : it stands behind a prompt without an empty block."""
        return parts(text, inside=reasons and self.prompt == "open")

    def of_row(self, example: Example) -> Parts:
        """A training row's answer, taken apart.

        Raises
        ------
        UserError : naming the row, for reasoning that is never closed, has no answer behind it, or finds no place.
        """
        content = example.messages[-1].content
        found = parts(content)
        if found.answer is None or (content and not found.answer):
            said = f"its {OPEN} is never closed" if found.answer is None else f"no answer behind its {CLOSE}"
            raise UserError(
                f"example {example.id!r}: {said}", fix=f"write {OPEN}reasoning{CLOSE}answer, or drop the row"
            )
        if found.reasoning and self.prompt == "closed":
            raise UserError(
                f"example {example.id!r}: its answer has reasoning, and the model's chat template closes the block",
                fix="leave the reasoning out, or take a chat template that opens the block",
            )
        return found


def blocks_of(template: object, render: Callable[[tuple[Message, ...]], str]) -> Blocks | None:
    """What a chat template does about reasoning; None where it names no mark of it.

    Parameters
    ----------
    template : the template's source.
    render : from messages to the text that generation continues.
    """
    source = str(template or "")
    if OPEN not in source and CLOSE not in source:
        return None
    tail = render((Message("user", _MARK),)).rpartition(_MARK)[2]
    opened, closed = tail.rfind(OPEN), tail.rfind(CLOSE)
    if opened == closed:  # neither is there
        return Blocks("free", f"{OPEN}\n")
    if closed > opened:
        return Blocks("closed", "")
    return Blocks("open", "" if tail.endswith("\n") else "\n")


def answer_of(blocks: Blocks | None, *, reasons: bool) -> Callable[[str], str]:
    """From a generated text to the answer that rewards and figures are shown; "" where the block was never closed."""
    if blocks is None:
        return str
    return lambda text: blocks.generated(text, reasons=reasons).answer or ""


def no_room(blocks: Blocks | None, key: str, tokens: int) -> UserError | None:
    """Why a model cannot be given tokens for reasoning; None where it can, or is given none."""
    if not tokens or (blocks is not None and blocks.prompt != "closed"):
        return None
    said = "has no <think> block" if blocks is None else "closes the block"
    return UserError(f"{key} = {tokens}, and the model's chat template {said}", fix=f"set {key} = 0")
