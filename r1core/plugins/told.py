"""Errors in a plugin's own code: where they are, and as what they are told."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import r1core
from r1core import api

_CORE = Path(r1core.__file__).parent
_BETWEEN = {"importlib", "pluggy", "torch"}
"""Libraries through which the core calls a plugin."""


def place_of(error: BaseException) -> str:
    """`file:line` in the plugin's own folder: the deepest line before a library takes over; "" where there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_beyond(Path(frame.filename))]
    if frames:
        folder = Path(frames[0].filename).parent
        own = [frame for frame in frames if folder in Path(frame.filename).parents]
        return f"{_short(own[-1].filename)}:{own[-1].lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    return ""


def told(error: BaseException) -> str:
    """The error in words, with its place."""
    place = "" if isinstance(error, SyntaxError) else place_of(error)
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def _is_beyond(file: Path) -> bool:
    return file.is_absolute() and _CORE not in file.parents and not _BETWEEN & set(file.parts)


def _short(file: str) -> str:
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if here in path.parents else file


@contextmanager
def attributed(plugin: str, hook: str) -> Iterator[None]:
    """Turn what is raised inside into a `PluginError` of this plugin."""
    try:
        yield
    except api.R1Error:
        raise
    except Exception as error:
        raise failure(plugin, hook, error) from error


def failure(plugin: str, hook: str, error: BaseException) -> api.PluginError:
    """The `PluginError` that tells of this error; the caller chains it."""
    return api.PluginError(plugin, hook, told(error))
