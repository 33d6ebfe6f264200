"""Components that carry their plugin's name: whatever they raise becomes a `PluginError`, chained.

Preprocessing, rewards, constraints, layers and privacy fail closed; callbacks are logged and counted.
An `R1Error` passes through unchanged: a plugin that raises `UserError` speaks to the user itself.
Not a sandbox: a plugin runs in the core's process with all of its rights.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from r1core import api
from r1core.plugins.told import attributed, failure

if TYPE_CHECKING:
    import numpy as np
    import torch

log = logging.getLogger("r1core.plugins")
T = TypeVar("T")


class Guarded:
    """Base of the wrappers: knows the plugin, the hook and the component within.

    `inner` is the plugin's own object, for those who need more of it than the protocol has.
    """

    def __init__(self, plugin: str, hook: str, inner: Any) -> None:
        self.plugin, self.hook, self.inner = plugin, hook, inner
        for name in ("name", "after", "before", "span_kinds", "fits_on_data", "cross_record", "higher_is_better"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def __repr__(self) -> str:
        return f"<{self.plugin}: {self.inner!r}>"

    def _do(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return call(*args, **kwargs)
        except api.R1Error:
            raise
        except Exception as error:
            raise failure(self.plugin, self.hook, error) from error

    def _broke(self, message: str) -> api.PluginError:
        return api.PluginError(self.plugin, self.hook, message)

    def fingerprint(self) -> str:
        """The component's own fingerprint."""
        return self._do(self.inner.fingerprint)

    def input_files(self) -> tuple[Path, ...]:
        """Local files that the component reads, where it can name them."""
        naming = getattr(self.inner, "input_files", None)
        return () if naming is None else self._do(lambda: tuple(map(Path, naming())))


class GuardedAnnotator(Guarded):
    """An `Annotator` that must return an example of the same id."""

    def __call__(self, example: api.Example) -> api.Example:
        """The annotated example."""
        result = self._do(self.inner, example)
        if not isinstance(result, api.Example):
            raise self._broke(f"{self.inner.name} returned {type(result).__name__}, expected Example")
        if result.id != example.id:
            raise self._broke(f"{self.inner.name} changed the example's id from {example.id!r} to {result.id!r}")
        return result


class GuardedTransform(Guarded):
    """A `DatasetTransform`; what the stream before it raises is not blamed on it."""

    def transform(self, examples: Iterable[api.Example]) -> Iterator[api.Example]:
        """The component's stream, guarded while it is consumed."""
        upstream: list[Exception] = []

        def watched() -> Iterator[api.Example]:
            try:
                yield from examples
            except Exception as error:
                upstream.append(error)
                raise

        try:
            yield from self.inner.transform(watched())
        except api.R1Error:
            raise
        except Exception as error:
            if any(error is one for one in upstream):
                raise
            raise failure(self.plugin, self.hook, error) from error


class GuardedReward(Guarded):
    """A `Reward` that must answer, or abstain, once for each completion."""

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **fields: Sequence[api.JSON]
    ) -> Sequence[float | None]:
        """One score, or None, for each completion."""
        scores = self._do(self.inner, prompts, completions, **fields)
        if not isinstance(scores, Sequence) or len(scores) != len(completions):
            found = len(scores) if isinstance(scores, Sequence) else type(scores).__name__
            raise self._broke(f"{self.inner.name} returned {found}, expected {len(completions)} scores")
        return scores


class GuardedConstraint(Guarded):
    """A `DecodeConstraint` whose states are guarded too."""

    def start(self, request: api.DecodeRequest) -> api.ConstraintState | None:
        """The guarded state of one generation, or None where the constraint has nothing to say."""
        state = self._do(self.inner.start, request)
        return None if state is None else GuardedState(self.plugin, self.hook, state)

    @property
    def requires(self) -> bool:
        """Whether its recheck finds what an answer lacks."""
        return bool(getattr(self.inner, "requires", False))

    def recheck(self, example: api.Example, text: str) -> tuple[api.Reason, ...]:
        """What the component finds wrong with an answer; () where it offers no recheck."""
        offered = getattr(self.inner, "recheck", None)
        found = () if offered is None else self._do(lambda: tuple(offered(example, text)))
        if other := [type(one).__name__ for one in found if not isinstance(one, api.Reason)]:
            raise self._broke(f"{self.inner.name}: recheck gave {other[0]}, expected Reason")
        return found

    def rules(self, example: api.Example) -> tuple[str, ...]:
        """Ids of the rules that apply to a prompt; () where the component does not tell them."""
        offered = getattr(self.inner, "rules", None)
        return () if offered is None else self._do(lambda: tuple(map(str, offered(example))))

    def provenance(self, example: api.Example, text: str) -> api.JSON:
        """What an answer rests on; None where the component does not tell it."""
        offered = getattr(self.inner, "provenance", None)
        return None if offered is None else self._do(offered, example, text)


class GuardedState:
    """A `ConstraintState`; one thin layer, since it stands in the path of every token."""

    __slots__ = ("hook", "inner", "plugin")

    def __init__(self, plugin: str, hook: str, inner: api.ConstraintState) -> None:
        self.plugin, self.hook, self.inner = plugin, hook, inner

    @property
    def key(self) -> Hashable:
        """The state's key."""
        with attributed(self.plugin, self.hook):
            return self.inner.key

    def mask(self) -> api.TokenMask:
        """Which tokens may come next."""
        try:
            return self.inner.mask()
        except api.R1Error:
            raise
        except Exception as error:
            raise failure(self.plugin, self.hook, error) from error

    def advance(self, token_id: int) -> GuardedState:
        """The guarded state after this token."""
        with attributed(self.plugin, self.hook):
            return GuardedState(self.plugin, self.hook, self.inner.advance(token_id))

    @property
    def may_end(self) -> Callable[..., bool] | None:
        """The state's own `may_end`, guarded; None where it has none."""
        return self._offered("may_end")

    @property
    def allows(self) -> Callable[..., bool] | None:
        """The state's own `allows`, guarded; None where it has none."""
        return self._offered("allows")

    def _offered(self, name: str) -> Callable[..., bool] | None:
        own = getattr(self.inner, name, None)
        if own is None:
            return None

        def guarded(*arguments: Any) -> bool:
            with attributed(self.plugin, self.hook):
                return bool(own(*arguments))

        return guarded

    @property
    def trims(self) -> bool:
        """Whether a text that may not end here may be cut back."""
        return bool(getattr(self.inner, "trims", False))

    def explain(self, token_id: int) -> tuple[api.Reason, ...]:
        """Why the token is refused."""
        with attributed(self.plugin, self.hook):
            return self.inner.explain(token_id)


class GuardedPrivacy(Guarded):
    """A `PrivacyPolicy` whose trainings are guarded too."""

    @property
    def hooks_modules(self) -> bool:
        """Whether the modules that own the weights have to be called as they are."""
        return bool(self.inner.hooks_modules)

    def begin(self, task: api.PrivateTask) -> api.PrivateTraining:
        """The guarded training."""
        return cast("api.PrivateTraining", GuardedTraining(self.plugin, self.hook, self._do(self.inner.begin, task)))


class GuardedTraining(Guarded):
    """A `PrivateTraining`: whatever it is asked to do, what it raises carries the plugin's name."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return partial(self._do, value) if callable(value) else value


class GuardedDifficulty(Guarded):
    """A `Difficulty` that must answer with a finite number."""

    def __call__(self, example: api.Example) -> float:
        """The difficulty, larger being harder."""
        value = self._do(self.inner, example)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise self._broke(f"{self.inner.name} on {example.id!r}: returned {value!r}, expected a finite number")
        return float(value)


class GuardedModelSource(Guarded):
    """A `ModelSource`."""

    def names(self) -> Mapping[str, str]:
        """Name to one-line description."""
        return self._do(self.inner.names)

    def materialise(self, name: str) -> Path:
        """The model's directory."""
        return self._do(self.inner.materialise, name)

    def fingerprint(self, name: str) -> str:  # type: ignore[override]
        """Hash of that model's source bytes."""
        return self._do(self.inner.fingerprint, name)


class GuardedSource(Guarded):
    """A `DatasetSource`, guarded while it is read."""

    @property
    def tasks(self) -> Mapping[str, api.Task]:
        """The source's tasks."""
        with attributed(self.plugin, self.hook):
            return self.inner.tasks

    def read(self, split: Literal["train", "val", "test"]) -> Iterator[api.Example]:
        """The examples of a split."""
        with attributed(self.plugin, self.hook):
            yield from self.inner.read(split)


class GuardedMetric(Guarded):
    """A `Metric`."""

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[api.Example]) -> float:
        """The metric's value."""
        return self._do(self.inner, predictions, references, examples)

    def fingerprint(self) -> str:
        """The metric's own fingerprint; "" where it has none, for its plugin's source may be all that it is."""
        return super().fingerprint() if hasattr(self.inner, "fingerprint") else ""


class GuardedGate(Guarded):
    """A `QualityGate`."""

    def __call__(self, example: api.Example) -> str | None:
        """The reason for which the record must not be used, or None."""
        reason = self._do(self.inner, example)
        if not (reason is None or (isinstance(reason, str) and reason)):
            found = f"returned {reason!r}, expected the reason for setting the record aside, or None"
            raise self._broke(f"{self.inner.name} on {example.id!r}: {found}")
        return reason


class GuardedAugment(Guarded):
    """An `Augment`; its examples are made at once."""

    def __call__(self, example: api.Example, rng: np.random.Generator) -> Iterable[api.Example]:
        """Further examples."""
        made = self._do(self.inner, example, rng)
        if not isinstance(made, Iterable):
            raise self._broke(f"{self.inner.name} returned {type(made).__name__}, expected examples")
        found = self._do(lambda: list(made))
        if other := [type(one).__name__ for one in found if not isinstance(one, api.Example)]:
            raise self._broke(f"{self.inner.name} yielded {other[0]}, expected Example")
        return found


class GuardedCallback(api.Callback):
    """A `Callback` whose failures are logged and counted, never fatal."""

    def __init__(self, plugin: str, inner: api.Callback, failures: Counter[str]) -> None:
        self.plugin, self.inner, self.failures = plugin, inner, failures
        self.name = inner.name if inner.name.startswith(f"{plugin}/") else f"{plugin}/{inner.name}"

    def on_stage(self, stage: str, status: Literal["start", "skip", "done", "failed"]) -> None:
        """Pass on that a stage began or ended."""
        with tolerated(self.plugin, "callback", self.failures):
            self.inner.on_stage(stage, status)

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on that an optimiser step ended; the callback gets its own copy of the metrics."""
        with tolerated(self.plugin, "callback", self.failures):
            self.inner.on_step(step, dict(metrics))


@contextmanager
def tolerated(plugin: str, hook: str, failures: Counter[str]) -> Iterator[None]:
    """Log and count (under `plugin:hook`) what is raised inside, and go on."""
    try:
        yield
    except Exception as error:
        failures[f"{plugin}:{hook}"] += 1
        log.warning("ignored: %s", error if isinstance(error, api.R1Error) else failure(plugin, hook, error))
        log.debug("the failure in full", exc_info=error)


def guard_layer(plugin: str, spec: api.LayerSpec) -> api.LayerSpec:
    """The spec with a guarded factory and loss; the core's gate around the module guards the pass and the output."""

    def factory(hidden_size: int) -> torch.nn.Module:
        with attributed(plugin, "extra_layer"):
            module = spec.factory(hidden_size)
            if not callable(getattr(module, "forward", None)):
                raise TypeError(f"{spec.name}: the factory made {type(module).__name__}, expected a torch module")
            return module

    def loss(*args: Any, **kwargs: Any) -> torch.Tensor:
        with attributed(plugin, "extra_layer"):
            assert spec.loss is not None
            return spec.loss(*args, **kwargs)

    return replace(spec, factory=factory, loss=None if spec.loss is None else loss)


_WRAPPERS: dict[str, Callable[[str, str, Any], Any]] = {
    "reward": GuardedReward,
    "decode_constraint": GuardedConstraint,
    "privacy": GuardedPrivacy,
    "difficulty": GuardedDifficulty,
    "model_source": GuardedModelSource,
    "dataset_source": GuardedSource,
    "metric": GuardedMetric,
    "quality_gate": GuardedGate,
    "augment": GuardedAugment,
}


def guard(plugin: str, hook: str, component: Any, failures: Counter[str]) -> Any:
    """The component, wrapped for its hook; plain values (problems, report sections) are returned as they are."""
    if hook == "callback":
        return GuardedCallback(plugin, component, failures)
    if hook == "extra_layer":
        return guard_layer(plugin, component)
    if hook == "preprocess":
        wrapper = GuardedTransform if hasattr(component, "transform") else GuardedAnnotator
        return wrapper(plugin, hook, component)
    return _WRAPPERS[hook](plugin, hook, component) if hook in _WRAPPERS else component
