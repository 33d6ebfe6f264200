"""The one module that a plugin author imports: the values that travel, the protocols, the hook marker.

Nothing here imports torch, transformers or any other part of r1core, so importing a plugin stays cheap.
The API version is the version of the distribution `r1core`; a plugin states the range it was written for
in its own `Requires-Dist` (`r1core>=0.1,<0.2`) and is refused, by name, outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pluggy

from r1core.errors import PluginError as PluginError  # an alias to itself is a re-export
from r1core.errors import R1Error as R1Error
from r1core.errors import UserError as UserError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from pydantic import BaseModel

hookimpl = pluggy.HookimplMarker("r1core")

JSON = Any  # a value that `json.dumps` accepts without a `default`


# ---------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `content` is the raw text, before any chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one message that a plugin says something about.

    Parameters
    ----------
    part : index of the message in `Example.messages`.
    start, end : offsets in characters of that message's raw content, `start < end`.
    kind : `plugin/name`, as registered by a `SpanKind`.
    value : anything that the kind's codec turns into JSON.
    """

    part: int
    start: int
    end: int
    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class Example:
    """One record on its way through the stages. Immutable: annotators return a changed copy.

    Parameters
    ----------
    group : the privacy unit (for instance a patient id); None where the data has none.
    as_of : ISO 8601 date at which the record's facts were known.
    facts : patient or market facts as a JSON object; None means unknown, `{}` means known to be empty.
    fields : every other column of the source (reward columns, tables, the gold `label`).
    images : paths of images, in the order in which the text refers to them.
    """

    id: str
    messages: tuple[Message, ...]
    task: str
    source: str = ""
    group: str | None = None
    as_of: str | None = None
    facts: Mapping[str, JSON] | None = None
    fields: Mapping[str, JSON] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    def with_spans(self, spans: Iterable[Span]) -> Example:
        """Return a copy that carries these spans as well, in order of position."""
        every = [*self.spans, *spans]
        merged = list(dict.fromkeys(every)) if all(_hashable(s) for s in every) else every
        return replace(self, spans=tuple(sorted(merged, key=lambda s: (s.part, s.start, s.end, s.kind))))


def _hashable(span: Span) -> bool:
    try:
        hash(span)
    except TypeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SpanKind:
    """How the values of one kind of span are stored, reconciled and shown to layers.

    Parameters
    ----------
    name : `plugin/name`.
    encode, decode : value to JSON and back; `decode(encode(v)) == v` is checked by the conformance kit.
    overlap : what to do with overlapping spans of this kind: keep the `longest`, or `all`.
    width : how many numbers `feature` returns.
    feature : value to `width` numbers; what a layer receives for this span.
    causal : the kind may stand inside a response, where its feature is placed after the span's last token.
    """

    name: str
    encode: Callable[[Any], JSON]
    decode: Callable[[JSON], Any]
    overlap: Literal["longest", "all"] = "longest"
    width: int = 0
    feature: Callable[[Any], Sequence[float]] | None = None
    causal: bool = False


def edit(example: Example, part: int, start: int, end: int, text: str) -> Example:
    """Replace characters `[start, end)` of one message and remap every span behind them.

    The only way in which a plugin changes text. Spans that overlap the edited stretch are dropped,
    since what they say of the old text need not hold of the new.

    Raises
    ------
    ValueError : when the range is not inside the message.
    """
    content = example.messages[part].content
    if not 0 <= start <= end <= len(content):
        raise ValueError(f"edit [{start}, {end}) is outside message {part} of {len(content)} characters")
    shift = len(text) - (end - start)
    kept: list[Span] = []
    for span in example.spans:
        if span.part != part or span.end <= start:
            kept.append(span)
        elif span.start >= end:
            kept.append(replace(span, start=span.start + shift, end=span.end + shift))
    messages = list(example.messages)
    messages[part] = replace(messages[part], content=content[:start] + text + content[end:])
    return replace(example, messages=tuple(messages), spans=tuple(kept))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that `r1core check` found: where, what, what was expected and how to mend it."""

    where: str
    found: str
    expected: str
    fix: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Context:
    """What a hook is told when it builds its components.

    Parameters
    ----------
    domain : name of the domain, or "" without one.
    config : this plugin's section of the recipe, validated by its own config model.
    seed : the run's seed; derive generators from `(seed, epoch, index)`, never from global state.
    run_dir : the run directory, or None outside a run.
    tokenizer_factory : builds the tokenizer when it is first asked for.
    """

    domain: str
    config: BaseModel | None
    seed: int
    run_dir: Path | None = None
    tokenizer_factory: Callable[[], Any] | None = None

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded at the first access.

        Raises
        ------
        UserError : where no model is configured (for instance inside `r1core umls link`).
        """
        if self.tokenizer_factory is None:
            raise UserError("no tokenizer here: this command works without a model")
        return self.tokenizer_factory()


# ------------------------------------------------------------------------------------------- preprocess, data


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


# ------------------------------------------------------------------------------------------------------ model


@runtime_checkable
class ModelSource(Protocol):
    """Named base models that a plugin can provide as a local Hugging Face directory."""

    def names(self) -> Mapping[str, str]:
        """Name to one-line description (size, licence)."""
        ...

    def materialise(self, name: str) -> Path:
        """Return the directory, converting or unpacking it once; atomic, so a killed run leaves nothing half made."""
        ...

    def fingerprint(self, name: str) -> str:
        """Hash of the source bytes of that model; cheap, no conversion."""
        ...


@dataclass(frozen=True, slots=True)
class SlotFeatures:
    """The spans of one kind in a batch, aligned with tokens.

    B = rows, S = slots (padded), V = the kind's `width`. All tensors live on the batch's device.
    `start`, `end` : (B, S) int64, token range `[start, end)`; `values` : (B, S, V) float32; `mask` : (B, S) bool.
    """

    start: torch.Tensor
    end: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> SlotFeatures:
        """The same slots on a device."""
        return SlotFeatures(*(t.to(device) for t in (self.start, self.end, self.values, self.mask)))


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One extra layer: where it sits, what it reads and how it is made.

    Parameters
    ----------
    site : `embedding`, `block:i` (after decoder block i, negative from the end) or `head` (before the output head).
    factory : `hidden_size -> torch.nn.Module`, whose `forward(hidden (B, T, D), features) -> (B, T, D)` gives what is
        added to the hidden state. The core multiplies it by a zero-initialised gate, so step 0 equals the base.
    kinds : the span kinds that `features` holds (`{kind: SlotFeatures}`).
        It must work position by position: a packed batch holds several rows in one sequence.
    loss : auxiliary loss `(module, hidden, features) -> (B,)`, summed over a row's tokens, weighted by `[layers]`.
    """

    name: str
    site: str
    factory: Callable[[int], torch.nn.Module]
    kinds: tuple[str, ...] = ()
    loss: Callable[..., torch.Tensor] | None = None


# ----------------------------------------------------------------------------------------------------- reward


@runtime_checkable
class Reward(Protocol):
    """Scores completions; None abstains. Higher is better."""

    name: str

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **fields: Sequence[JSON]
    ) -> Sequence[float | None]: ...
    def fingerprint(self) -> str: ...


# ------------------------------------------------------------------------------------------- decode constraints


@dataclass(frozen=True, slots=True)
class TokenMask:
    """Which tokens may come next: sparse `banned` ids, or packed `allowed` bits. Exactly one is given.

    `banned` : (n,) int32 token ids, sorted. `allowed` : (ceil(V / 8),) uint8, `np.packbits` little-endian order.
    """

    banned: NDArray[np.int32] | None = None
    allowed: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if (self.banned is None) == (self.allowed is None):
            raise ValueError("a TokenMask has either `banned` or `allowed`")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a token was refused: the rule, its citation and the text that it guards against."""

    rule: str
    citation: str
    text: str
    severity: str = ""


@runtime_checkable
class ByteAutomaton(Protocol):
    """A deterministic automaton over the bytes of the generated text; the core lifts it to token masks.

    States are small non-negative ints, made lazily or ahead. `row(state)` : (256,) int32, the next state for each
    byte, -1 where that byte is refused. `may_end(state)`: whether the text may end here. An automaton that makes many
    rows at once more cheaply may also offer `rows(states)` : (K, 256) int32; the core then asks for them together.
    """

    start: int

    def row(self, state: int) -> NDArray[np.int32]: ...
    def may_end(self, state: int) -> bool: ...
    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Why `data`, appended in `state`, is refused (b"": why the text may not end); () when it is not."""
        ...


@runtime_checkable
class ConstraintState(Protocol):
    """Immutable state of a constraint after a prefix of tokens; equal `key`s mean equal futures."""

    @property
    def key(self) -> Hashable: ...
    def mask(self) -> TokenMask: ...
    def advance(self, token_id: int) -> ConstraintState: ...
    def explain(self, token_id: int) -> tuple[Reason, ...]: ...


class DecodeRequest(Protocol):
    """What a constraint is told about one generation.

    `example` : the prompt with its facts and spans. `outputs` : what extra layers computed at prefill, by layer name.
    """

    @property
    def example(self) -> Example:
        """The prompt; its facts say which rules apply."""
        ...

    @property
    def outputs(self) -> Mapping[str, Any]:
        """What layers computed, by layer name."""
        ...

    def lift(self, automaton: ByteAutomaton) -> ConstraintState:
        """Turn a byte automaton into a state over this model's tokens (masks cached per automaton state)."""
        ...


@runtime_checkable
class DecodeConstraint(Protocol):
    """Starts a state for each generation, or None where it has nothing to say about this request."""

    name: str

    def start(self, request: DecodeRequest) -> ConstraintState | None: ...
    def fingerprint(self) -> str: ...


# ----------------------------------------------------------------------------------- privacy, metric, callback


@runtime_checkable
class PrivacyPolicy(Protocol):
    """Turns per-sample `(loss_sum, weight)` into a private gradient. The only thing besides the optimiser that may.

    `backward(loss_sums, weights)` : both (B,); leaves the gradient to use in `.grad`.
    """

    name: str

    def attach(self, model: torch.nn.Module, groups: Sequence[str]) -> None: ...
    def backward(self, loss_sums: torch.Tensor, weights: torch.Tensor) -> None: ...
    def card(self) -> Mapping[str, JSON]: ...
    def fingerprint(self) -> str: ...


@runtime_checkable
class Metric(Protocol):
    """A number over predictions, larger or smaller being better as `higher_is_better` says.

    `predictions` and `references` are texts of equal length.
    """

    name: str
    higher_is_better: bool

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[Example]) -> float: ...


class Callback:
    """Observes a run; cannot change it. Override what you need. Errors are logged and counted, never fatal."""

    name: str = "callback"

    def on_stage(self, stage: str, status: Literal["start", "skip", "done", "failed"]) -> None:
        """A stage began or ended."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """An optimiser step ended."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report; cells are plain text and are escaped."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A line plot of a report; drawn by the core as inline SVG."""

    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section that a plugin adds to the report. `private` sections are left out by `report --redact`."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    private: bool = True


@dataclass(frozen=True, slots=True)
class RunView:
    """Read-only view of a run for `report` hooks: the directory, the manifest and the evaluation rows."""

    directory: Path
    manifest: Mapping[str, JSON]
    summary: Sequence[Mapping[str, JSON]]


# ------------------------------------------------------------------------------------------ plugins and domains


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is about to do, for `validate` hooks: the resolved recipe as JSON and where each key came from."""

    recipe: Mapping[str, JSON]
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain distribution's entry point names: composition only, no hook implementation.

    Parameters
    ----------
    recipe : path of the complete recipe that users override.
    resources : directory against which relative paths in that recipe are resolved.
    sources : the domain's own data sets.
    """

    name: str
    summary: str
    recipe: Path
    resources: Path
    sources: tuple[DatasetSource, ...] = ()


class Plugin:
    """Optional base of a plugin: names the config model. Hooks are methods marked with `@hookimpl`.

    An entry point of the group `r1core.plugins` may name a `Plugin` subclass, an instance or a module.
    """

    config: type[BaseModel] | None = None
