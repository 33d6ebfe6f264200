"""Whether the Hugging Face hub is asked: told once, quickly, instead of a minute of the library's retries."""

from __future__ import annotations

import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

from r1core.api import UserError

SECONDS = 5.0
"""To wait for the hub's first answer."""


@lru_cache(maxsize=8)
def offline(location: str, revision: str | None) -> bool:
    """Whether to load a directory or hub id from this machine alone.

    Raises
    ------
    UserError : for a hub id that is not in the cache while the hub cannot be reached.
    """
    if Path(location).is_dir():
        return True
    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif not (reason := _unreachable(constants.ENDPOINT)):
        return False
    if isinstance(try_to_load_from_cache(location, "config.json", revision=revision), str):
        return True
    raise UserError(
        f"model.hub: {location} is not in the cache of this machine, and {constants.ENDPOINT} is not asked: {reason}",
        fix="connect once, or set model.path to a model directory",
    )


def _unreachable(endpoint: str) -> str:
    """Why there is no answer, or ""; whatever the answer is, somebody gave it."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""
