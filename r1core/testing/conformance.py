"""The conformance kit, first form: does a plugin, or a domain, keep to the contract of `r1core.api`?

Each check yields failures as sentences; an empty list means that the plugin conforms. The checks try the plugin on
`samples`, and on the author's own examples, which should contain what the plugin looks for. Privacy policies, whose
guarantee no black-box test can show, are checked for their interface only; models are not materialised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1core import api
from r1core.plugins import marks, registry
from r1core.plugins.find import load_domain
from r1core.plugins.loading import Contribution, Plugins
from r1core.recipe.load import resolve
from r1core.recipe.problems import render
from r1core.testing import check_data, check_decode, check_layers, check_preprocess, probe, samples

Check = Callable[[str, Any, Sequence[api.Example]], Iterator[str]]

CHECKS: dict[str, Check] = {
    "preprocess": check_preprocess.step,
    "reward": check_data.reward,
    "difficulty": check_data.difficulty,
    "metric": check_data.metric,
    "quality_gate": check_data.quality_gate,
    "augment": check_data.augment,
    "dataset_source": check_data.dataset_source,
    "model_source": check_data.model_source,
}
"""Hook to the check of one of its components, where it needs nothing but records."""


def check_plugin(
    plugin: str | object,
    *,
    name: str = "",
    config: Mapping[str, Any] | None = None,
    examples: Sequence[api.Example] = (),
    outputs: Mapping[str, object] | None = None,
    run_dir: Path | None = None,
) -> list[str]:
    """Every way in which the plugin breaks the contract.

    Parameters
    ----------
    plugin : name of an installed plugin, or a `Plugin` class, instance or module, which then needs `name`.
    config : the plugin's section of a recipe.
    examples : records that contain what the plugin looks for, beside the kit's own samples.
    outputs : what layers say of each of these records to constraints that ask them, by layer name.
    """
    tried = [*samples.examples(), *examples]
    try:
        loaded = _load(plugin, name, config or {}, run_dir)
        name = loaded.names[0]
        failures = [*_metadata(name, plugin), *_forgotten(loaded, name)]
        fingerprints: dict[str, str] = {}
        for hook in loaded.hooks(name):
            made = _build(loaded, hook)
            if hook == "extra_layer":
                failures += check_layers.layers(name, [one.component for one in made], _kinds(loaded))
            for one in made:
                if hook == "decode_constraint":
                    failures += check_decode.constraint(name, one.component, tried, outputs or {})
                elif hook in CHECKS:
                    failures += CHECKS[hook](name, one.component, tried)
                if probe.is_fingerprinted(hook, one.component):
                    fingerprints[f"{hook}:{one.component.name}"] = one.component.fingerprint()
        failures += _idle(loaded, examples or samples.examples(), "your examples" if examples else "the kit's records")
    except api.R1Error as error:
        return [f"it does not load or raises: {error}"]
    return failures + list(probe.across_processes(name, plugin, config or {}, fingerprints))


def check_domain(name: str, *, rows: int = 200) -> list[str]:
    """Every way in which an installed domain breaks the contract: recipe, resources, the first rows of its data."""
    try:
        domain = load_domain(name)
    except api.R1Error as error:
        return [str(error)]
    failures = [] if domain.name == name else [f"the domain is named {domain.name!r}, its entry point {name!r}"]
    failures += render(resolve(domain=domain, file=None).problems)
    if not domain.resources.is_dir():
        failures.append(f"resources: {domain.resources} is no directory")
    for source in domain.sources:
        failures += check_data.dataset_source(name, source, (), rows=rows)
    return failures


def _load(plugin: str | object, name: str, config: Mapping[str, Any], run_dir: Path | None) -> Plugins:
    from r1core.testing.tiny import tiny_tokenizer

    if isinstance(plugin, str):
        section = {plugin: config} if config else {}
        return Plugins.load(
            [plugin], configs=section, run_dir=run_dir, tokenizer_factory=tiny_tokenizer, allow=[plugin]
        )
    if not name:
        raise api.UserError("check_plugin needs `name` for a plugin that is not named by its entry point")
    return Plugins.of(name, plugin, config=config, run_dir=run_dir, tokenizer_factory=tiny_tokenizer)


def _metadata(name: str, plugin: str | object) -> Iterator[str]:
    if not isinstance(plugin, str):
        return
    for one in registry.named(registry.PLUGINS, name):
        if not one.requires_r1core:
            yield f"{one.distribution} states no API range: add `r1core>=0.1,<0.2` to its dependencies"
        elif "<" not in one.requires_r1core and "=" not in one.requires_r1core.replace(">=", ""):
            yield f"{one.distribution} states no upper bound of the API: {one.requires_r1core}"
        if not one.summary:
            yield f"{one.distribution} has no summary: `r1core plugins` shows an empty line"


def _forgotten(loaded: Plugins, name: str) -> Iterator[str]:
    plugin = loaded.manager.get_plugin(name)
    for attribute in marks.unmarked(plugin, marks.marked(loaded.manager, plugin)):
        yield f"`{attribute}` is named like a hook and lacks @api.hookimpl, so it is never called"


def _build(loaded: Plugins, hook: str) -> list[Contribution]:
    if hook in ("validate", "report"):
        return []
    if hook == "extra_layer":
        return loaded.call(hook, model=check_layers.base_config())
    return loaded.call(hook)


def _idle(loaded: Plugins, examples: Sequence[api.Example], called: str) -> Iterator[str]:
    """Annotators of spans that found nothing in these examples: the checks of their spans saw nothing."""
    for _, step in loaded.call("preprocess"):
        if getattr(step, "span_kinds", ()) and not any(step(example).spans for example in examples):
            told = f"it writes no span on any of {called}, so its spans were not checked"
            yield f"{step.name}: {told}; {samples.GIVE_EXAMPLES}"


def _kinds(loaded: Plugins) -> dict[str, api.SpanKind]:
    steps = [one.component for one in loaded.call("preprocess")]
    return {kind.name: kind for step in steps for kind in getattr(step, "span_kinds", ())}
