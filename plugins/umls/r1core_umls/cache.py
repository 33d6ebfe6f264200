"""The built knowledge base on disk: JSON and numpy columns, no pickle.

`$R1CORE_CACHE/umls/<fingerprint>/` (by default under `~/.cache/r1core`) holds `concepts.json`, `names.npz` and
`meta.json` with the sha256 of both. A directory appears whole or not at all: it is written aside, flushed to disk and
renamed. It is readable by its owner only, because a built Metathesaurus is licensed data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_umls.knowledge import BuildReport, Concept, KnowledgeBase, NameIndex, Scope, Source, Synonym

LAYOUT = 1  # raised whenever the files or the normal form of names change, so that older caches are rebuilt
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Return the folder that all built knowledge bases stand in."""
    base = os.environ.get("R1CORE_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "r1core") / "umls"


def load_or_build(source: Source, progress: Callable[[int], None] | None = None) -> KnowledgeBase:
    """Return the knowledge base of a source from the cache, building it once.

    A cache that is damaged or of another layout is rebuilt, with a warning in the log.

    Raises
    ------
    UserError : the source is missing or unusable, or the cache cannot be written.
    """
    fingerprint = source.fingerprint()
    folder = cache_root() / fingerprint
    if folder.is_dir():
        loaded = _load(folder, fingerprint)
        if loaded is not None:
            return loaded
        _log.warning("%s is damaged or of another layout; building it again", folder)
    built = KnowledgeBase.build(source, progress)
    if built.fingerprint() != fingerprint:
        raise UserError(f"{built.report.source} changed while it was read", fix="run the command again")
    try:
        _save(built, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the built knowledge base ({error.strerror or error})",
            fix="free some space, or export R1CORE_CACHE=/a/writable/folder",
        ) from error
    return built


def _save(base: KnowledgeBase, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        (aside / "concepts.json").write_text(
            json.dumps([_to_row(c) for c in base.concepts], ensure_ascii=False), "utf-8"
        )
        index = base.index
        np.savez(
            aside / "names.npz",
            keys=_column(list(index.rows)),
            offsets=np.asarray(index.offsets, np.int64),
            concept=np.asarray(index.concept, np.int32),
            rank=np.asarray(index.rank, np.uint8),
            surface=_column(index.surface),
            exact_only=np.asarray(index.exact_only, np.uint8),
            firsts=_column(list(index.longest)),
            longest=np.asarray(list(index.longest.values()), np.int32),
        )
        hashes = {name: _sha256(aside / name) for name in ("concepts.json", "names.npz")}
        meta = {"layout": LAYOUT, "fingerprint": base.fingerprint(), "sha256": hashes, "report": asdict(base.report)}
        (aside / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
        for name in (*hashes, "meta.json"):
            _flush(aside / name)
        _flush(aside)
        if folder.is_dir() and _load(folder, base.fingerprint()) is None:
            shutil.rmtree(folder)
        if not folder.is_dir():
            _rename(aside, folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _rename(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError:
        # Another process finished the same build in between; its bytes are as good.
        if not folder.is_dir():
            raise


def _load(folder: Path, fingerprint: str) -> KnowledgeBase | None:
    """Read a cache directory; None where it is not what `_save` wrote."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        if meta["layout"] != LAYOUT or meta["fingerprint"] != fingerprint:
            return None
        if any(_sha256(folder / name) != digest for name, digest in meta["sha256"].items()):
            return None
        rows = json.loads((folder / "concepts.json").read_text("utf-8"))
        with np.load(folder / "names.npz", allow_pickle=False) as columns:
            index = _index(columns)
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None
    report = {**meta["report"], "malformed_lines": tuple(meta["report"]["malformed_lines"])}
    return KnowledgeBase([_from_row(row) for row in rows], index, fingerprint, BuildReport(**report))


def _index(columns: np.lib.npyio.NpzFile) -> NameIndex:
    keys = _strings(columns["keys"])
    return NameIndex(
        rows={key: row for row, key in enumerate(keys)},
        offsets=columns["offsets"].tolist(),
        concept=columns["concept"].tolist(),
        rank=columns["rank"].tolist(),
        surface=_strings(columns["surface"]),
        exact_only=columns["exact_only"].tolist(),
        longest=dict(zip(_strings(columns["firsts"]), columns["longest"].tolist(), strict=True)),
    )


def _to_row(concept: Concept) -> list[object]:
    synonyms = [[s.text, s.scope, s.kind] for s in concept.synonyms]
    return [concept.id, concept.name, synonyms, concept.cuis, concept.semantic_types]


def _from_row(row: list[list[list[str]]]) -> Concept:
    concept_id, name, synonyms, cuis, semantic_types = row
    return Concept(
        str(concept_id),
        str(name),
        tuple(Synonym(text, cast(Scope, scope), kind) for text, scope, kind in synonyms),
        tuple(map(str, cuis)),
        tuple(map(str, semantic_types)),
    )


def _column(strings: list[str]) -> NDArray[np.uint8]:
    """Strings as one column of UTF-8 bytes; names that hold a NUL are never indexed."""
    return np.frombuffer("\0".join(strings).encode("utf-8"), np.uint8)


def _strings(column: NDArray[np.uint8]) -> list[str]:
    return column.tobytes().decode("utf-8").split("\0") if column.size else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
