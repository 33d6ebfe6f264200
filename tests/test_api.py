"""What a plugin author imports: one module, every public value of its rooms, and nothing that costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

from r1core import api

NAMES = {
    *("Annotator", "Augment", "ByteAutomaton", "Callback", "ConstraintState", "Context", "DatasetSource"),
    *("DatasetTransform", "DecodeConstraint", "DecodeRequest", "Domain", "Example", "JSON", "LayerSpec", "Message"),
    *("Metric", "ModelSource", "Plan", "Plot", "Plugin", "PluginError", "PrivacyPolicy", "Problem", "QualityGate"),
    *("R1Error", "Reason", "ReportSection", "Reward", "RunView", "Series", "SlotFeatures", "Span", "SpanKind"),
    *("Table", "Task", "TokenMask", "UserError", "edit", "hookimpl"),
}
"""Names of version 0.1: plugins in the field import them, so none of them may go within it."""

ROOMS = [importlib.import_module(f"r1core.api.{room.name}") for room in pkgutil.iter_modules(api.__path__)]


def test_no_name_that_plugins_import_is_gone() -> None:
    assert set(api.__all__) >= NAMES
    assert all(hasattr(api, name) for name in api.__all__)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_everything_public_in_a_room_is_in_the_one_module(room: object) -> None:
    defined = {n: v for n, v in vars(room).items() if getattr(v, "__module__", None) == room.__name__}  # type: ignore[attr-defined]
    public = {name: value for name, value in defined.items() if not name.startswith("_")}
    assert public
    assert {name: getattr(api, name, None) for name in public} == public


def test_importing_it_loads_no_library_but_pluggy() -> None:
    code = "import sys; import r1core.api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"r1core", "pluggy"} <= loaded
    assert loaded.isdisjoint({"numpy", "torch", "transformers", "pydantic", "click", "rich"})


def record(*spans: api.Span) -> api.Example:
    messages = (api.Message("user", "take 5 mg now"), api.Message("assistant", "take 5 mg"))
    return api.Example("r", messages, "t", fields={"label": "take 5 mg", "text": "take 5 mg now"}, spans=spans)


def test_without_its_answer_an_example_says_nothing_of_it() -> None:
    example = record(api.Span(0, 5, 9, "p/dose", "5 mg"), api.Span(1, 5, 9, "p/dose", "5 mg"))
    prompt = example.without_answer()
    assert [m.role for m in prompt.messages] == ["user"]
    assert prompt.spans == example.spans[:1]
    assert prompt.fields == {"text": "take 5 mg now"}
    assert prompt.without_answer() is prompt


def test_an_edit_takes_away_the_spans_that_it_was_needed_to_recognise() -> None:
    by_itself, late, behind = (
        api.Span(1, 0, 4, "p/k", "take"),
        api.Span(1, 0, 4, "p/k", "take", since=6),
        api.Span(1, 7, 9, "p/k", "mg", since=9),
    )
    edited = api.edit(record(by_itself, late, behind), 1, 5, 6, "500")
    assert edited.messages[1].content == "take 500 mg"
    assert edited.spans == (by_itself, api.Span(1, 9, 11, "p/k", "mg", since=11))
