"""What only a fresh process shows: heavy imports, and fingerprints that depend on hash seeds or addresses.

`python -m r1core.testing.probe` reads a request as JSON from standard input and answers as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

HEAVY = (
    "torch", "transformers", "tensorflow", "jax", "peft", "accelerate", "spacy", "scispacy", "opacus", "pandas",
    "pyarrow", "datasets", "scipy", "sklearn", "matplotlib",
)  # fmt: skip
"""Libraries whose import takes long enough to be felt at `r1core check`."""

FINGERPRINTED = (
    *("preprocess", "reward", "decode_constraint", "privacy", "difficulty"),
    *("dataset_source", "quality_gate", "augment"),
)
"""Hooks whose components have a `name` and a `fingerprint()`; a metric may have one."""

TIMEOUT = 120  # seconds


def is_fingerprinted(hook: str, component: Any) -> bool:
    """Whether this component, as its hook's guard wraps it, has a `fingerprint()` to look at."""
    return hook in FINGERPRINTED or (hook == "metric" and hasattr(component.inner, "fingerprint"))


def across_processes(
    name: str, plugin: str | object, config: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> Iterator[str]:
    """Failures that a second process shows; a plugin defined inside a function cannot be imported there."""
    target = "" if isinstance(plugin, str) else _address(plugin)
    if target is None:
        return
    file = getattr(sys.modules.get(target.partition(":")[0]), "__file__", None)
    request = {"name": name, "target": target, "file": file, "config": dict(config)}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "PYTHONHASHSEED": "20011",
    }
    environment.pop("R1CORE_PLUGINS", None)
    done = subprocess.run(
        [sys.executable, "-m", "r1core.testing.probe"],
        input=json.dumps(request, default=str),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment,
    )
    if done.returncode != 0:
        yield f"it does not load in a fresh process: {done.stderr.strip().splitlines()[-1]}"
        return
    answer = json.loads(done.stdout.splitlines()[-1])
    for module in answer["heavy"]:
        yield f"importing it imports {module}: import it inside the function that needs it"
    for key, fingerprint in fingerprints.items():
        if not fingerprint or not isinstance(fingerprint, str):
            yield f"{key}: fingerprint is {fingerprint!r}, expected a non-empty string"
        elif answer["fingerprints"].get(key) != fingerprint:
            yield f"{key}: its fingerprint differs between processes"


def _address(plugin: object) -> str | None:
    """`module:qualified.name` from which another process imports the plugin, or None where it cannot."""
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    kind = plugin if isinstance(plugin, type) else type(plugin)
    reachable = "<locals>" not in kind.__qualname__ and kind.__module__ != "__main__"
    return f"{kind.__module__}:{kind.__qualname__}" if reachable else None


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from r1core.plugins.loading import Plugins

    name, config = request["name"], request["config"]
    if request["target"]:
        module, _, attribute = request["target"].partition(":")
        target: Any = _module(module, request["file"])
        for part in filter(None, attribute.split(".")):
            target = getattr(target, part)
        plugins = Plugins.of(name, target, config=config, tokenizer_factory=_tokenizer)
    else:
        plugins = Plugins.load([name], configs={name: config} if config else {}, tokenizer_factory=_tokenizer)
    heavy = [module for module in HEAVY if module in sys.modules]
    fingerprints = {
        f"{hook}:{made.component.name}": made.component.fingerprint()
        for hook in plugins.hooks(name)
        if hook in (*FINGERPRINTED, "metric")
        for made in plugins.call(hook)
        if is_fingerprinted(hook, made.component)
    }
    return {"heavy": heavy, "fingerprints": fingerprints}


def _module(name: str, file: str) -> ModuleType:
    """Import by name, or else from the file: test modules often lie on no path."""
    from r1core.testing.files import module_from

    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(name)
    return module_from(file, name)


def _tokenizer() -> Any:
    from r1core.testing.tiny import tiny_tokenizer

    return tiny_tokenizer()


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
