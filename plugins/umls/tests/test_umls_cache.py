"""The cache: same base after a round trip, whole or absent, no pickle."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from r1core_umls import hashing
from r1core_umls.cache import cache_root, load_or_build, verify
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.store import Store, file_names

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
    for field in fields(Store):
        one, two = getattr(built.store, field.name), getattr(loaded.store, field.name)
        assert list(one) == list(two), field.name
    assert built.terms == loaded.terms
    assert built.report == loaded.report
    assert built.fingerprint() == loaded.fingerprint() == source.fingerprint()


def test_a_base_in_memory_equals_the_one_on_disk(source: HpoSource) -> None:
    mapped, held = load_or_build(source), KnowledgeBase.build(source)
    for field in fields(Store):
        assert list(getattr(mapped.store, field.name)) == list(getattr(held.store, field.name)), field.name


def test_files_are_private_and_hold_no_pickle(source: HpoSource) -> None:
    folder = cache_root() / load_or_build(source).fingerprint()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*file_names(), "meta.json"])
    assert folder.stat().st_mode & 0o077 == 0
    for path in folder.glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object
    assert list(cache_root().glob(".*.partial")) == []


@pytest.mark.parametrize("name", ["records.bin", "meta.json", "key_hash.npy"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_is_noticed_and_mended(
    source: HpoSource, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache_root() / load_or_build(source).fingerprint()
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-20] if damage == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert load_or_build(source).lookup("fever")[0].id == "HP:1"
    assert "building it again" in caplog.text
    caplog.clear()
    load_or_build(source)
    assert caplog.text == ""


def test_verify_names_the_file_that_changed(source: HpoSource) -> None:
    base = load_or_build(source)
    assert verify(base) == []
    path = cache_root() / base.fingerprint() / "surfaces.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert verify(base) == ["surfaces.bin"]


def test_a_large_file_is_hashed_once_until_it_changes(
    source: HpoSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hashing, "REMEMBERED", 0)
    path = tmp_path / "hp.obo"
    told: list[str] = []

    def report(stage: str, done: int, total: int) -> None:
        told.append(stage)

    def plain() -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()

    assert hashing.file_digest(path, report) == hashing.file_digest(path, report) == plain()
    assert told == ["hashing hp.obo"]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("Fever", "Fewer"))
    os.utime(path, ns=times)  # same size and same time of change: what a careless copy leaves behind
    assert hashing.file_digest(path, report) == plain()


def test_a_build_that_is_interrupted_leaves_nothing(source: HpoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left") as error:
            load_or_build(source)
    assert "R1CORE_CACHE" in error.value.fix
    assert [path for path in cache_root().iterdir() if path.is_dir()] == []
    assert isinstance(load_or_build(source), KnowledgeBase)
