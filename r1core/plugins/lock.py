"""The plugin lock: which code took part in a run, by distribution, version and hash of its source."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import r1core


def source_sha256(module: str) -> str:
    """sha256 over the `.py` files of a module's top-level package (or of its one file), by relative path.

    Data files are left out: the component that reads them covers them by its own `fingerprint()`.
    """
    top = sys.modules[module.partition(".")[0]]
    folders = [Path(entry) for entry in getattr(top, "__path__", [])]
    digest = hashlib.sha256()
    for folder in sorted(folders):
        for file in sorted(folder.rglob("*.py")):
            _add(digest, file.relative_to(folder).as_posix(), file)
    if not folders and top.__file__ is not None:
        _add(digest, Path(top.__file__).name, Path(top.__file__))
    return digest.hexdigest()


def entry(
    name: str, *, distribution: str, version: str, api_range: str, hooks: list[str], module: str
) -> dict[str, object]:
    """One plugin's line in the manifest."""
    return {
        "name": name,
        "distribution": distribution,
        "version": version,
        "api": api_range or f"unstated (loaded by r1core {r1core.__version__})",
        "hooks": hooks,
        "source_sha256": source_sha256(module),
    }


def _add(digest: hashlib._Hash, name: str, file: Path) -> None:
    data = file.read_bytes()
    digest.update(f"{name}\0{len(data)}\0".encode())
    digest.update(data)
