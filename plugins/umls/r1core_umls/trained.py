"""The trained encoder and ranker of a base on disk, with the tables that they make of it.

Numpy arrays and a note with their sha256, no pickle.

`$R1CORE_CACHE/umls/encoders/<key>/`; the key covers the base, how the encoder is trained, and the layout. Trained on a
licensed base, they fall under its licence as well, which the note states.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from r1core.api import UserError, build_once
from r1core_umls import search
from r1core_umls.concepts import Progress
from r1core_umls.encoder import Encoder
from r1core_umls.hashing import cache_root, file_digest, sha256
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.ranking import Fitted, Ranker
from r1core_umls.tables import Tables

LAYOUT = 7  # raised whenever the files, the features or the training change, so that older ones are trained again
RANKER = tuple(f"ranker_{field.name}.npy" for field in fields(Ranker))
FILES = ("encoder.npy", *RANKER, *Tables.files())
_log = logging.getLogger(__name__)


def folder_of(base: KnowledgeBase, seed: int = 0) -> Path:
    """Return where the encoder and ranker of a base stand, trained or not."""
    key = json.dumps([LAYOUT, base.fingerprint(), seed])
    return cache_root() / "encoders" / hashlib.sha256(key.encode()).hexdigest()


def load(base: KnowledgeBase, seed: int = 0) -> Fitted | None:
    """Return the trained encoder (memory-mapped) and ranker of a base; None where there are none, or damaged ones."""
    folder = folder_of(base, seed)
    if not folder.is_dir():
        return None
    if not _sound(folder):
        _log.warning("%s is damaged or of another layout; train again", folder)
        return None
    ranker = Ranker(*(np.load(folder / name, allow_pickle=False) for name in RANKER))
    encoder = Encoder(np.load(folder / "encoder.npy", mmap_mode="r", allow_pickle=False))
    return Fitted(encoder, ranker, Tables.load(folder), search.load(folder))


def load_known(base: KnowledgeBase, train: str) -> Fitted:
    """Return what was trained on a base; nothing is trained here.

    Parameters
    ----------
    train : the command that trains it, for the message.

    Raises
    ------
    UserError : it is not trained yet.
    """
    fitted = load(base)
    if fitted is None:
        raise UserError(f"the encoder of {base.report.source} is not trained yet (some minutes, once)", fix=train)
    return fitted


def load_or_train(base: KnowledgeBase, progress: Progress | None = None, seed: int = 0) -> Fitted:
    """Return the encoder and ranker of a base, trained once. Training needs torch.

    Raises
    ------
    UserError : torch is not installed, the base has too few synonyms, or the cache cannot be written.
    """
    known = load(base, seed)
    if known is not None:
        return known
    folder = folder_of(base, seed)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        build_once(folder, lambda aside: _train(base, progress, seed, aside), _sound)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the trained encoder ({error.strerror or error})",
            fix="free some space, or export R1CORE_CACHE=/a/writable/folder",
        ) from error
    fitted = load(base, seed)
    if fitted is None:
        raise UserError(f"{folder}: cannot be read back", fix="export R1CORE_CACHE=/a/folder/on/a/sound/disk")
    return fitted


def _train(base: KnowledgeBase, progress: Progress | None, seed: int, aside: Path) -> None:
    fitted = _fit(base, progress, seed, aside)
    np.save(aside / "encoder.npy", fitted.encoder.weights, allow_pickle=False)
    for field, name in zip(fields(Ranker), RANKER, strict=True):
        np.save(aside / name, getattr(fitted.ranker, field.name), allow_pickle=False)
    fitted.tables.save(aside)
    if fitted.cells is not None:
        search.save(fitted.cells, aside)
    hashes = {file.name: sha256(file).hex() for file in sorted(aside.iterdir())}
    note = {"layout": LAYOUT, "base": base.fingerprint(), "terms": asdict(base.terms), "sha256": hashes}
    (aside / "meta.json").write_text(json.dumps(note, indent=1), "utf-8")


def _fit(base: KnowledgeBase, progress: Progress | None, seed: int, folder: Path) -> Fitted:
    try:
        from r1core_umls.fitting import fit
        from r1core_umls.training import Training
    except ModuleNotFoundError as error:
        raise UserError("training the encoder needs torch", fix="pip install 'r1core-umls[train]'") from error
    from r1core_umls.normaliser import columns_of

    names, owners, definitions, parents = columns_of(base)
    try:
        return fit(names, owners, definitions, parents, Training(seed=seed), progress, folder)
    except ValueError as error:
        raise UserError(
            f"{base.report.source}: {error}", fix="use a base with more synonyms, such as the installed HPO"
        ) from error


def _sound(folder: Path) -> bool:
    """Whether a folder holds what `load_or_train` wrote, byte for byte."""
    try:
        note = json.loads((folder / "meta.json").read_text("utf-8"))
        hashes = note["sha256"]
        if note["layout"] != LAYOUT or not set(FILES) <= set(hashes):
            return False
        return all(file_digest(folder / name).hex() == value for name, value in hashes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
