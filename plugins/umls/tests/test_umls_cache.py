"""The cache: same base after a round trip, whole or absent, no pickle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from r1core_umls.cache import cache_root, load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import KnowledgeBase

from r1core.api import UserError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HpoSource:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path / "cache"))
    lines = [
        "[Term]",
        "id: HP:2",
        "name: Müde",
        'synonym: "ADHD" EXACT abbreviation []',
        "xref: UMLS:C0000001",
        "is_a: x",
    ]
    (tmp_path / "hp.obo").write_text("\n".join([*lines, "", "[Term]", "id: HP:1", "name: Fever", "is_a: x"]))
    return HpoSource(tmp_path)


def test_round_trip(source: HpoSource) -> None:
    built, loaded = load_or_build(source), load_or_build(source)
    assert built is not loaded
    assert list(built.concepts) == list(loaded.concepts)
    assert built.index == loaded.index
    assert built.report == loaded.report
    assert built.fingerprint() == loaded.fingerprint() == source.fingerprint()


def test_files_are_private_and_hold_no_pickle(source: HpoSource) -> None:
    folder = cache_root() / load_or_build(source).fingerprint()
    assert sorted(path.name for path in folder.iterdir()) == ["concepts.json", "meta.json", "names.npz"]
    assert folder.stat().st_mode & 0o077 == 0
    with np.load(folder / "names.npz", allow_pickle=False) as columns:
        assert all(columns[name].dtype != object for name in columns.files)
    assert list(cache_root().glob(".building-*")) == []


@pytest.mark.parametrize("name", ["concepts.json", "meta.json", "names.npz"])
def test_damage_is_noticed_and_mended(source: HpoSource, name: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = cache_root() / load_or_build(source).fingerprint()
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    assert load_or_build(source).lookup("fever")[0].id == "HP:1"
    assert "building it again" in caplog.text
    caplog.clear()
    load_or_build(source)
    assert caplog.text == ""


def test_a_build_that_is_interrupted_leaves_nothing(source: HpoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left") as error:
            load_or_build(source)
    assert "R1CORE_CACHE" in error.value.fix
    assert list(cache_root().iterdir()) == []
    assert isinstance(load_or_build(source), KnowledgeBase)
