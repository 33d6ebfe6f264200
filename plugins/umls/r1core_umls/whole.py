"""A folder that appears whole or not at all: written aside, flushed to disk, renamed. Readable by its owner only."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(folder: Path, sound: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a folder to write files in; it stands at `folder` once the block has ended without an error.

    Parameters
    ----------
    sound : whether what stands at a place is what would be written; such a folder is left alone, another one replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        yield aside
        for path in (*aside.iterdir(), aside):
            _flush(path)
        if folder.is_dir() and not sound(folder):
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


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
