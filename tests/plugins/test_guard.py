from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1core import api
from r1core.plugins.guard import GuardedAnnotator, GuardedConstraint, GuardedTransform
from r1core.plugins.loading import Plugins

EXAMPLE = api.Example("1", (api.Message("user", "text"),), "t")


@pytest.fixture
def raising(third_party: Path) -> Plugins:
    return Plugins.load(["raising"])


@pytest.mark.parametrize(
    ("hook", "call", "cause"),
    [
        ("preprocess", lambda c: c(EXAMPLE), KeyError),
        ("reward", lambda c: c(["p"], ["c"]), KeyError),
        ("decode_constraint", lambda c: c.start(None), ZeroDivisionError),
    ],
)
def test_a_component_that_raises_is_named_and_chained(raising: Plugins, hook: str, call: Any, cause: type) -> None:
    [(_, component)] = raising.call(hook)
    with pytest.raises(api.PluginError, match=f"plugin 'raising' failed in hook '{hook}'") as caught:
        call(component)
    assert isinstance(caught.value.__cause__, cause)


def test_a_hook_that_raises_is_named(raising: Plugins) -> None:
    with pytest.raises(api.PluginError, match="hook 'metric': RuntimeError: no table"):
        raising.call("metric")


def test_observers_are_logged_and_counted(raising: Plugins, caplog: pytest.LogCaptureFixture) -> None:
    [(_, observer)] = raising.call("callback")
    with caplog.at_level(logging.WARNING):
        observer.on_step(1, {"loss": 1.0})
        observer.on_step(2, {"loss": 1.0})
        assert raising.call("report", run=None) == []
    assert raising.failures == {"raising:callback": 2, "raising:report": 1}
    assert "dashboard is down" in caplog.text
    assert "empty plot" in caplog.text


def test_a_user_error_passes_unchanged() -> None:
    class Speaks:
        name, after, before, span_kinds = "p/a", (), (), ()

        def __call__(self, example: api.Example) -> api.Example:
            raise api.UserError("no weights", fix="pip install weights")

    with pytest.raises(api.UserError, match="no weights"):
        GuardedAnnotator("p", "preprocess", Speaks())(EXAMPLE)


@pytest.mark.parametrize("result", [None, "text", api.Example("2", (), "t")])
def test_an_annotator_that_returns_no_example_of_that_id(result: object) -> None:
    class Odd:
        name, after, before, span_kinds = "p/a", (), (), ()

        def __call__(self, example: api.Example) -> object:
            return result

    with pytest.raises(api.PluginError, match="p/a"):
        GuardedAnnotator("p", "preprocess", Odd())(EXAMPLE)


class Doubling:
    name, after, before = "p/t", (), ()
    fits_on_data = cross_record = False

    def transform(self, examples: Iterable[api.Example]) -> Iterator[api.Example]:
        for example in examples:
            if example.id == "bad":
                raise ValueError("cannot double")
            yield from (example, example)


def test_a_transform_is_blamed_for_its_own_failures_only() -> None:
    guarded = GuardedTransform("p", "preprocess", Doubling())
    assert isinstance(guarded, api.DatasetTransform)
    assert list(guarded.transform([EXAMPLE])) == [EXAMPLE, EXAMPLE]
    with pytest.raises(api.PluginError, match="cannot double"):
        list(guarded.transform([EXAMPLE, api.Example("bad", (), "t")]))

    def reading() -> Iterator[api.Example]:
        yield EXAMPLE
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(guarded.transform(reading()))


class Countdown:
    """Allows token 0 only; raises at the third token."""

    def __init__(self, left: int) -> None:
        self.key = left

    def mask(self) -> api.TokenMask:
        if self.key == 0:
            raise IndexError("past the end")
        return api.TokenMask(banned=np.array([1], np.int32))

    def advance(self, token_id: int) -> Countdown:
        return Countdown(self.key - 1)

    def explain(self, token_id: int) -> tuple[api.Reason, ...]:
        return ()


def test_states_stay_guarded_as_they_advance() -> None:
    class Rule:
        name = "p/r"

        def start(self, request: object) -> Countdown:
            return Countdown(2)

        def fingerprint(self) -> str:
            return "1"

    state = GuardedConstraint("p", "decode_constraint", Rule()).start(None)  # type: ignore[arg-type]
    assert isinstance(state, api.ConstraintState)
    state = state.advance(0).advance(0)
    with pytest.raises(api.PluginError, match="IndexError: past the end"):
        state.mask()


def test_a_reward_must_answer_for_each_completion() -> None:
    class Short(api.Plugin):
        @api.hookimpl
        def reward(self) -> list[object]:
            class Half:
                name = "s/half"

                def __call__(self, prompts: object, completions: object, **fields: object) -> list[float]:
                    return [1.0]

                def fingerprint(self) -> str:
                    return "1"

            return [Half()]

    [(_, reward)] = Plugins.of("s", Short).call("reward")
    with pytest.raises(api.PluginError, match="returned 1, expected 2 scores"):
        reward(["a", "b"], ["c", "d"])


def test_a_layer_factory_that_makes_no_module_is_named() -> None:
    class Maker(api.Plugin):
        @api.hookimpl
        def extra_layer(self) -> list[api.LayerSpec]:
            return [api.LayerSpec("m/l", "embedding", factory=lambda size: object())]

    [(_, spec)] = Plugins.of("m", Maker).call("extra_layer", model=None)
    with pytest.raises(api.PluginError, match="m/l: the factory made object"):
        spec.factory(8)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None, "3", True])
def test_a_difficulty_is_a_finite_number(value: object) -> None:
    class Hard:
        name = "h/hard"

        def __call__(self, example: api.Example) -> object:
            return np.float32(2.5) if example is EXAMPLE else value

        def fingerprint(self) -> str:
            return "1"

    class Maker(api.Plugin):
        @api.hookimpl
        def difficulty(self) -> list[object]:
            return [Hard()]

    [(_, measure)] = Plugins.of("h", Maker).call("difficulty")
    assert measure(EXAMPLE) == 2.5
    with pytest.raises(api.PluginError, match=f"h/hard on 'odd': returned {value!r}, expected a finite number"):
        measure(api.Example("odd", (), "t"))
