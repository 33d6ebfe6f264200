"""What `preprocess`, `dataset_source`, `quality_gate` and `augment` return: components between a source and a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from r1core.api.values import Example, SpanKind

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Annotator(Protocol):
    """A pure `Example -> Example`, run alike in prepare, generate and serve. Fails closed.

    `after` and `before` name other annotators (`plugin/name`), `*` meaning every other one.
    `fingerprint()` changes whenever the output for some input may change.
    """

    name: str
    after: tuple[str, ...]
    before: tuple[str, ...]
    span_kinds: tuple[SpanKind, ...]

    def __call__(self, example: Example) -> Example: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class DatasetTransform(Protocol):
    """A stream to a stream, n to m, in prepare only. Privacy refuses `fits_on_data` and `cross_record`."""

    name: str
    after: tuple[str, ...]
    before: tuple[str, ...]
    fits_on_data: bool
    cross_record: bool

    def transform(self, examples: Iterable[Example]) -> Iterator[Example]: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class DatasetSource(Protocol):
    """A named data set with a fixed split.

    `tasks` maps a task's name to its description; `read(split)` yields examples whose last message is the
    gold answer; `fingerprint()` is a hash of the raw bytes.
    """

    name: str

    @property
    def tasks(self) -> Mapping[str, Task]: ...
    def read(self, split: Literal["train", "val", "test"]) -> Iterator[Example]: ...
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of the model.

    Parameters
    ----------
    choices : the closed label set, or () for free text.
    cluster : the field of `Example.fields` by which standard errors are clustered ("" for none).
    """

    name: str
    choices: tuple[str, ...] = ()
    cluster: str = ""
    description: str = ""


@runtime_checkable
class QualityGate(Protocol):
    """Says why a record must not be used (a short reason), or None."""

    name: str

    def __call__(self, example: Example) -> str | None: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class Augment(Protocol):
    """Derives further training examples from one; `rng` is derived from `(seed, epoch, index)`."""

    name: str

    def __call__(self, example: Example, rng: np.random.Generator) -> Iterable[Example]: ...
    def fingerprint(self) -> str: ...
