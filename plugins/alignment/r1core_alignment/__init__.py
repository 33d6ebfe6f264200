"""Point-in-time alignment of reported facts. Nothing is imported before it is used: listing plugins stays fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1core_alignment.aligned import Aligned
    from r1core_alignment.aligning import align
    from r1core_alignment.auditing import AuditReport, Finding, audit
    from r1core_alignment.facts import Facts
    from r1core_alignment.provenance import Provenance, Source
    from r1core_alignment.reading import read, read_companyfacts, read_csv
    from r1core_alignment.settings import Settings
    from r1core_alignment.tidy import concat, from_frame

__all__ = [
    "Aligned",
    "AuditReport",
    "Facts",
    "Finding",
    "Provenance",
    "Settings",
    "Source",
    "align",
    "audit",
    "concat",
    "from_frame",
    "read",
    "read_companyfacts",
    "read_csv",
]

_ROOMS = {
    "aligned": ("Aligned",),
    "provenance": ("Provenance", "Source"),
    "aligning": ("align",),
    "auditing": ("AuditReport", "Finding", "audit"),
    "facts": ("Facts",),
    "tidy": ("concat", "from_frame"),
    "settings": ("Settings",),
    "reading": ("read", "read_companyfacts", "read_csv"),
}
"""Module to the public names that it holds."""


def __getattr__(name: str) -> object:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
