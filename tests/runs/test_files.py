"""Atomic writing and hashing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1core.runs.files import (
    DiskFull,
    canonical_json,
    directory_replaced,
    sha256_tree,
    tree_digest,
    write_atomic,
)


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    write_atomic(target, "old")
    write_atomic(target, "nëw")
    assert target.read_bytes() == "nëw".encode()
    assert [path.name for path in target.parent.iterdir()] == ["file.json"]
    assert target.stat().st_mode & 0o777 == 0o600


LIMITED = """
import resource, signal, sys
from pathlib import Path
from r1core.runs.files import DiskFull, write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 5000)
except DiskFull as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_no_room_leaves_the_old_file_and_names_path_and_bytes(tmp_path: Path) -> None:
    target = tmp_path / "manifest.json"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert str(target) in done.stdout
    assert "5,000 bytes" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError) as caught:
        write_atomic(tmp_path / "file" / "below", b"x")
    assert not isinstance(caught.value, DiskFull)


def test_a_tree_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_bytes(b"1")
    (tmp_path / "two.txt").write_bytes(b"2")
    (tmp_path / ".tmp-two.txt-9-ff").write_bytes(b"unfinished")
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in (("a/one.txt", b"1"), ("two.txt", b"2"))}
    assert sha256_tree(tmp_path) == expected
    assert tree_digest(tmp_path / "two.txt") == expected["two.txt"]
    before = tree_digest(tmp_path)
    (tmp_path / "two.txt").rename(tmp_path / "three.txt")
    assert tree_digest(tmp_path) != before


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_canonical_json_does_not_depend_on_order(value: dict[str, object]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "run" / "adapter"
    with directory_replaced(target) as aside:
        (aside / "one.bin").write_bytes(b"1")
        assert not target.exists()
    with directory_replaced(target) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "two.bin").write_bytes(b"2")
        assert names(target) == ["one.bin"]
    assert names(target.parent) == ["adapter", "adapter/sub", "adapter/sub/two.bin"]
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_failure_leaves_the_old_directory_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "old.bin").write_bytes(b"old")

    def fails() -> None:
        with directory_replaced(target) as aside:
            (aside / "new.bin").write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert names(tmp_path) == ["adapter", "adapter/old.bin"]


SAVED_BY_A_LIBRARY = """
import resource, signal, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from r1core.runs.files import DiskFull, directory_replaced
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with directory_replaced(Path(sys.argv[1])) as aside:
        save_file({"a": numpy.zeros(10_000)}, aside / "adapter_model.safetensors")
except DiskFull as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_no_room_in_a_librarys_own_words_is_one_clear_line(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "adapter_model.safetensors").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", SAVED_BY_A_LIBRARY, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == (
        f"no room to write {target} (File too large); what was there before is intact, free some space and run the "
        "same command again\n"
    )
    assert names(tmp_path) == ["adapter", "adapter/adapter_model.safetensors"]
    assert (target / "adapter_model.safetensors").read_bytes() == b"old"
