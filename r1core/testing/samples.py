"""Records on which the conformance kit tries every plugin: plain, empty, foreign, long and answered ones."""

from __future__ import annotations

from r1core.api import Example, Message

GIVE_EXAMPLES = "give `examples` that contain what it looks for"
"""What to do about a component that had nothing to say about the records below."""

PROMPTS = (
    "The patient takes warfarin 5 mg and aspirin; history of type 2 diabetes mellitus (T2DM).",
    "",
    " \n\t ",
    "Naïve façade: 高血压 😀 e\u0301 \u200b end.",
    "Shares fell 3.5 % to EUR 12.50 on 2024-03-01, -1,204.75 in total.",
    "word " * 200,
)


def examples() -> list[Example]:
    """One record for each prompt, and one with a system message, an answer, facts and further columns."""
    asked = [Example(f"sample-{n}", (Message("user", text),), "sample") for n, text in enumerate(PROMPTS)]
    answered = Example(
        "sample-answered",
        (Message("system", "Answer briefly."), Message("user", PROMPTS[0]), Message("assistant", "Cardiology")),
        "sample",
        group="patient-1",
        as_of="2024-03-01",
        facts={"medications": ["warfarin"], "age": 71},
        fields={"label": "Cardiology", "score": 0.5},
    )
    return [*asked, answered]
