"""A small rule file, written the way an author would."""

from __future__ import annotations

from pathlib import Path

import pytest

RULES = """\
version: 2
drugs:
  - name: warfarin
    brands: [Coumadin, Jantoven]
    classes: [anticoagulant]
  - name: aspirin
    brands: [Bayer Aspirin]
    aliases: [ASA, acetylsalicylic acid]
    classes: [NSAID]
  - name: ibuprofen
    brands: [Advil]
    classes: [NSAID]
  - name: isotretinoin
rules:
  - id: anticoagulant-nsaid
    version: 2
    title: No NSAID on an anticoagulant
    severity: major
    status: active
    citation: {title: Handbook, locator: p. 12, quote: Avoid together.}
    when: {medications: {any: [anticoagulant]}}
    then: {forbid: {classes: [NSAID]}}
  - id: never-isotretinoin
    version: 1
    title: Specialists only
    severity: contraindicated
    status: active
    citation: {title: Handbook, locator: p. 40, quote: Specialists only., url: "https://example.org/40"}
    then: {forbid: {drugs: [isotretinoin]}}
"""


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    return path
