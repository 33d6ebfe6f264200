"""What is built once and kept: written aside, flushed to disk, renamed into place, by one process at a time.

A killed build leaves a `.partial` folder beside the target, which the next one removes; the kernel frees the lock.
Does not cover: file systems without `flock`, Windows.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = "R1CORE_CACHE"
"""Environment variable that moves the cache."""


def cache_root() -> Path:
    """Where what is built from installed packages and given files is kept: `$R1CORE_CACHE`, or `~/.cache/r1core`."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "r1core").expanduser()


def build_once(target: Path, build: Callable[[Path], None], intact: Callable[[Path], bool]) -> Path:
    """Return the directory `target`, made by `build(folder)` unless `intact(target)`; atomic, one process at a time.

    Its owner alone can read it: what it is built from may be licensed.

    Raises
    ------
    OSError : where the parent cannot be written. Whatever `build` raises; the target is then as it was.
    """
    if intact(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock")):
        if intact(target):  # another process made it while this one waited
            return target
        aside = target.with_name(f".{target.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        try:
            build(aside)
            for path in aside.iterdir():
                _flush(path)
            _flush(aside)
            if target.exists():
                shutil.rmtree(target)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _flush(target.parent)
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
