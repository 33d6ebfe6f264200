"""Taking the text of records out of a report. Fails closed: what is not known to be free of it goes.

Aggregates stay (figures, curves, the confusion matrix). Not covered: small counts in the matrix can still single out
a rare label; that is a matter for a privacy policy, not for redaction. Absolute paths go too: they name users and
folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath

from r1core.api import JSON
from r1core.runs.report.data import Intervention, ReportData

MARK = "[redacted]"
PATH_MARK = "[path]"
_PATH = re.compile(r"""(?<![\w:/.])/[^\s/"':,;]+/[^\s"':,;]*|\b[A-Za-z]:\\[^\s"',;]+""")  # inside a longer text
_TELLING = 4  # characters; a shorter text ("f", "71") is in every other hash and goes only where it stands alone


def redacted(data: ReportData) -> ReportData:
    """A copy without the text of any record.

    Gone are the examples, the texts and facts of the rule demonstration (rule, citation and severity stay), private
    plugin sections, every string of the manifest that holds one of those texts, and the absolute paths in the others.
    """
    if data.redacted:
        return data
    texts = {text.casefold() for text in _texts(data) if text.strip()}
    demo = data.rule_demo
    if demo is not None:
        refused = tuple(Intervention(one.rule, one.citation, MARK, one.severity) for one in demo.interventions)
        demo = replace(demo, prompt=MARK, without_rules=MARK, with_rules=MARK, interventions=refused, facts=None)
    manifest = _scrub(dict(data.manifest), texts)
    return replace(
        data,
        examples=(),
        rule_demo=demo,
        sections=tuple((plugin, section) for plugin, section in data.sections if not section.private),
        manifest=manifest if isinstance(manifest, Mapping) else {},
        redacted=True,
    )


def _texts(data: ReportData) -> Iterator[str]:
    for example in data.examples:
        yield example.prompt
    if data.rule_demo is not None:
        yield from (data.rule_demo.prompt, data.rule_demo.without_rules, data.rule_demo.with_rules)
        yield from _strings(data.rule_demo.facts)


def _strings(value: JSON) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


def _scrub(value: JSON, texts: set[str]) -> JSON:
    if isinstance(value, str):
        low = value.casefold()
        if any(text == low or (len(text) >= _TELLING and text in low) for text in texts):
            return MARK
        return PATH_MARK if PurePath(value).is_absolute() else _PATH.sub(PATH_MARK, value)
    if isinstance(value, Mapping):
        return {_scrub(key, texts): _scrub(inner, texts) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrub(inner, texts) for inner in value]
    return value
