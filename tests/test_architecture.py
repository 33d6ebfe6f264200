"""The shape of the house: arrows point down, plugins see the API only, the light path stays light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "r1core"

LEVELS = {
    "r1core": 0,
    "r1core.errors": 0,
    "r1core.words": 0,
    "r1core.api": 1,
    "r1core.hookspecs": 2,
    "r1core.selection": 2,
    "r1core.scaffold": 2,
    "r1core.recipe": 2,
    "r1core.data": 3,  # values and files; the stage itself stands below
    "r1core.compose": 3,
    "r1core.plugins": 3,
    "r1core.runs": 3,
    "r1core.model": 4,
    "r1core.forecast": 5,
    "r1core.workbench": 5,
    "r1core.data.prepare": 6,
    "r1core.train": 6,
    "r1core.decode": 6,
    "r1core.evaluate": 7,
    "r1core.testing": 7,
    "r1core.runs.report.gather": 8,
    "r1core.check_continual": 8,
    "r1core.check_data": 8,
    "r1core.check": 9,
    "r1core.plan": 9,
    "r1core.pipeline": 10,
    "r1core.learner": 11,
    "r1core.host": 12,
    "r1core.cli": 13,
    "r1core.__main__": 14,
}
"""A module imports what stands strictly lower, or its own room. The longest matching prefix counts."""

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "spacy",
    "opacus",
    "pandas",
    "sklearn",
    "pyarrow",
    "safetensors",
)
MAX_LINES, MAX_FUNCTION = 400, 60
SHIPPED = [
    path
    for folder in ("r1core", "plugins", "domains")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"tests", "tools", "build", ".venv"} & set(path.relative_to(ROOT).parts)
]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """Absolute names of imported modules with their lines, those inside functions and type checks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in known else str(node.module)), node.lineno


def level(module: str) -> int:
    parts = module.split(".")
    return next(LEVELS[p] for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in LEVELS)


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def graph() -> dict[str, dict[str, int]]:
    files = {module_of(path): path for path in sorted(CORE.rglob("*.py"))}
    return {
        module: {name: line for name, line in imports(path, set(files)) if name.split(".")[0] == "r1core"}
        for module, path in files.items()
    }


def test_every_room_has_a_level() -> None:
    assert {room(module) for module in graph()} <= LEVELS.keys()


def test_arrows_point_down_only() -> None:
    wrong = [
        f"{module}:{line} (level {level(module)}) imports {target} (level {level(target)})"
        for module, targets in graph().items()
        for target, line in targets.items()
        if not (level(target) < level(module) or (room(target) == room(module) and level(target) <= level(module)))
    ]
    assert wrong == []


def test_no_import_goes_in_circles() -> None:
    edges = {m: {t for t in targets if not m.startswith(f"{t}.")} for m, targets in graph().items()}
    for module, targets in edges.items():
        targets.discard(module)
    list(graphlib.TopologicalSorter(edges).static_order())


def test_plugins_and_domains_import_the_api_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in SHIPPED
        if CORE not in path.parents
        for name, line in imports(path, {"r1core.api"})
        if name.split(".")[0] == "r1core" and name != "r1core.api"
    ]
    assert wrong == []


def test_no_init_in_the_folders_of_plugins_and_domains() -> None:
    assert not (ROOT / "plugins" / "__init__.py").exists()
    assert not (ROOT / "domains" / "__init__.py").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import r1core, r1core.api, r1core.hookspecs, r1core.cli.main",
        "import sys; sys.argv = ['r1core', '--help']; from r1core.cli.main import main; main()",
        "import sys; sys.argv = ['r1core', 'plugins']; from r1core.cli.main import main; main()",
    ],
    ids=["import", "--help", "plugins"],
)
def test_the_light_path_imports_nothing_heavy_and_no_plugin(code: str) -> None:
    loaded = "import atexit, sys; atexit.register(lambda: print('\\nLOADED', *sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{loaded}; {code}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {name.split(".")[0] for name in done.stdout.rpartition("\nLOADED")[2].split()}
    assert "r1core" in found
    assert found.isdisjoint(HEAVY)
    assert not [name for name in found if name.startswith("r1core_")]


def test_plugin_modules_import_nothing_heavy_at_the_top() -> None:
    """The module that an entry point names is imported by every command of a run."""
    wrong = []
    for path in SHIPPED:
        if path.name in ("plugin.py", "domain.py") and CORE not in path.parents:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                wrong += [f"{path.relative_to(ROOT)}: {n}" for n in names if n.split(".")[0] in HEAVY]
    assert wrong == []


def test_files_and_functions_stay_short() -> None:
    wrong = []
    for path in SHIPPED:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        if len(text.splitlines()) > MAX_LINES:
            wrong.append(f"{name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION:
                    wrong.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    assert wrong == []
