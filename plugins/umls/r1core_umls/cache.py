"""The built knowledge base on disk: numpy columns and blobs of bytes (`store.py`), no pickle.

`$R1CORE_CACHE/umls/<fingerprint>/` (by default under `~/.cache/r1core`) holds them and `meta.json` with size and sha256
of each. A directory appears whole or not at all: it is written aside, flushed to disk and renamed. It is readable by
its owner only, because a built Metathesaurus is licensed data.

Opening compares every size, and every hash where the files are small; `verify` compares all hashes.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from r1core.api import UserError, build_once
from r1core_umls.concepts import BuildReport, Progress, Source, Terms
from r1core_umls.hashing import cache_root, sha256
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.store import file_names, open_store

__all__ = ["cache_root", "load_or_build", "verify"]
LAYOUT = 2  # raised whenever the files or the normal form of names change, so that older caches are rebuilt
HASHED_AT_OPENING = 32 << 20  # bytes of all files together: hashed in some 30 ms
_log = logging.getLogger(__name__)


def load_or_build(source: Source, progress: Progress | None = None) -> KnowledgeBase:
    """Return the knowledge base of a source from the cache, building it once.

    A cache that is damaged or of another layout is rebuilt, with a warning in the log.

    Raises
    ------
    UserError : the source is missing or unusable, or the cache cannot be written.
    """
    fingerprint = source.fingerprint(progress)
    folder = cache_root() / fingerprint
    if folder.is_dir():
        loaded = _load(folder, fingerprint)
        if loaded is not None:
            return loaded
        _log.warning("%s is damaged or of another layout; building it again", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        build_once(
            folder,
            lambda aside: _build(source, fingerprint, aside, progress),
            lambda place: _load(place, fingerprint) is not None,
        )
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the built knowledge base ({error.strerror or error})",
            fix="free some space, or export R1CORE_CACHE=/a/writable/folder",
        ) from error
    loaded = _load(folder, fingerprint)
    if loaded is None:
        raise UserError(f"{folder}: cannot be read back", fix="export R1CORE_CACHE=/a/folder/on/a/sound/disk")
    return loaded


def verify(base: KnowledgeBase) -> list[str]:
    """Return the names of the files of a cached base whose sha256 is not the recorded one: [] where all is well."""
    folder = cache_root() / base.fingerprint()
    recorded = json.loads((folder / "meta.json").read_text("utf-8"))["sha256"]
    return [name for name, digest in recorded.items() if sha256(folder / name).hex() != digest]


def _build(source: Source, fingerprint: str, aside: Path, progress: Progress | None) -> None:
    base = KnowledgeBase.build(source, progress, aside)
    if base.fingerprint() != fingerprint:
        raise UserError(f"{base.report.source} changed while it was read", fix="run the command again")
    names = file_names()
    meta = {
        "layout": LAYOUT,
        "fingerprint": fingerprint,
        "terms": asdict(base.terms),
        "sizes": {name: (aside / name).stat().st_size for name in names},
        "sha256": {name: sha256(aside / name, progress).hex() for name in names},
        "report": asdict(base.report),
    }
    (aside / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")


def _load(folder: Path, fingerprint: str) -> KnowledgeBase | None:
    """Open a cache directory; None where it is not what `_build` wrote."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        if meta["layout"] != LAYOUT or meta["fingerprint"] != fingerprint or sorted(meta["sizes"]) != file_names():
            return None
        if any((folder / name).stat().st_size != size for name, size in meta["sizes"].items()):
            return None
        if sum(meta["sizes"].values()) <= HASHED_AT_OPENING and any(
            sha256(folder / name).hex() != digest for name, digest in meta["sha256"].items()
        ):
            return None
        store = open_store(folder)
        told = meta["report"]
        lists = {name: tuple(told[name]) for name in ("malformed_lines", "notes")}
        return KnowledgeBase(store, fingerprint, BuildReport(**{**told, **lists}), Terms(**meta["terms"]))
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return None
