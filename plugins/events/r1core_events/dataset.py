"""The data set `events/generated`: which group of events does a sentence report?

Train, val and test come from train, dev and test templates, so that no template is in two of them. Standard errors
cluster by type, since fillings of one template are alike, and of sentences without an event by their template or by
the frame that takes an event back. Rows are generated; what a model reaches here says nothing of real news.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from r1core import api
from r1core_events.config import Config

TASK, NONE = "event_group", "none"


class GeneratedEvents:
    """Sentences of one event or of none, with the group as the answer."""

    name = "events/generated"

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def tasks(self) -> Mapping[str, api.Task]:
        """The one task; its labels are the ids of the groups, and "none"."""
        from r1core_events.taxonomy import load

        choices = (*(group.id for group in load(*self._config.taxonomy).groups), NONE)
        return {TASK: api.Task(TASK, choices, "alike", "Which group of financial events does the sentence report?")}

    def read(self, split: Literal["train", "val", "test"]) -> Iterator[api.Example]:
        """Yield the rows of a split; `fields` hold label, type, what is alike, and that the text is generated."""
        from r1core_events.generation import generate
        from r1core_events.taxonomy import load

        choices = ", ".join(self.tasks[TASK].choices)
        ask = f"Which group of financial events does this sentence report? Answer with one of: {choices}.\n\n"
        kinds, own = load(*self._config.taxonomy), "dev" if split == "val" else split
        for number, row in enumerate(generate(kinds, own, self._config.seed, self._config.fillings)):
            if len(row.types) > 1:
                continue
            kind = row.types[0] if row.types else NONE
            group = kind.split("/")[0]
            messages = (api.Message("user", ask + row.text), api.Message("assistant", group))
            alike = kind if row.types else row.template.split(" | ")[0]
            fields = {"label": group, "type": kind, "alike": alike, "origin": "generated"}
            yield api.Example(f"{split}-{number}", messages, TASK, source=self.name, fields=fields)

    def fingerprint(self) -> str:
        """Hash of the taxonomy files, the negatives and the settings."""
        from r1core_events.generation import NEGATIVES, wording_files

        digest = hashlib.sha256(f"{self._config.seed}/{self._config.fillings}".encode())
        for file in (*taxonomy_files(self._config), NEGATIVES, *wording_files()):
            digest.update(file.read_bytes())
        return digest.hexdigest()


def taxonomy_files(config: Config) -> list[Path]:
    """The files of the taxonomy that ships and of further folders."""
    from r1core_events.taxonomy import OWN

    return [file for folder in (OWN, *config.taxonomy) for file in sorted(folder.glob("*.toml"))]
