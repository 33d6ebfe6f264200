"""A data set made in code: sums of two numbers, with a fixed split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from r1core import api

SPLITS = {"train": range(0, 6), "val": range(6, 7), "test": range(7, 9)}


class Sums:
    """Asks for a + b; the answers are the closed label set."""

    name = "dataset_source/sums"
    tasks: Mapping[str, api.Task] = {"sum": api.Task("sum", choices=tuple(map(str, range(17))), cluster="first")}

    def read(self, split: Literal["train", "val", "test"]) -> Iterator[api.Example]:
        """Yield examples whose last message is the gold answer."""
        for first in SPLITS[split]:
            for second in range(9):
                question, answer = f"What is {first} + {second}?", str(first + second)
                messages = (api.Message("user", question), api.Message("assistant", answer))
                fields = {"label": answer, "first": first}
                yield api.Example(f"{first}+{second}", messages, "sum", source=self.name, fields=fields)

    def fingerprint(self) -> str:
        """A hash of the raw bytes where there are some; here the rows follow from the code."""
        return repr(SPLITS)


@api.hookimpl
def dataset_source(ctx: api.Context) -> Sequence[api.DatasetSource]:
    """The one data set; a recipe names it as `data.source = "dataset_source/sums"`."""
    return [Sums()]
