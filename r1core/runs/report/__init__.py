"""The report of a run (one self-contained HTML file) and its model card."""

from __future__ import annotations

from r1core.runs.report.build import build
from r1core.runs.report.data import (
    Concept,
    Confusion,
    ExampleView,
    Figure,
    Intervention,
    ReportData,
    RuleDemo,
    SystemRow,
)
from r1core.runs.report.model_card import model_card
from r1core.runs.report.redact import redacted

__all__ = [
    "Concept",
    "Confusion",
    "ExampleView",
    "Figure",
    "Intervention",
    "ReportData",
    "RuleDemo",
    "SystemRow",
    "build",
    "model_card",
    "redacted",
]
