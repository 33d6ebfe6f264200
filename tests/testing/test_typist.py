"""Typing commands in forked children: as in a terminal, one beside the other, and what may not be typed so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from r1core.testing.typist import typist

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def fresh(*words: str, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "r1core.cli.main", *words]
    done = subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_command_ends_as_in_a_terminal(tmp_path: Path) -> None:
    for words in (("--version",), ("plugins", "--json"), ("chekc",), ("check", "--recipe", "none.toml")):
        done = typist()(*words, cwd=tmp_path, env=ENV)
        assert (done.returncode, done.stdout, done.stderr) == fresh(*words, cwd=tmp_path)


def test_a_command_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = typist()("new", "plugin", "one", cwd=tmp_path / "a", env={**ENV, "R1CORE_PLUGINS": "none"})
    assert first.returncode == 0, first.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    second = typist()("check", "--recipe", "my.toml", cwd=tmp_path, env=ENV)
    assert "my.toml: cannot be read" in second.stdout


def test_a_command_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    done = typist()("check", "--recipe", "my.toml", cwd=tmp_path, env=ENV, timeout=0.0)
    assert done.returncode == -9


def test_settings_that_are_read_while_importing_are_those_of_the_first_command() -> None:
    assert typist().fits({**ENV, "PYTHONPATH": "elsewhere", "R1CORE_PLUGINS": "a"})
    assert not typist().fits({**ENV, "OMP_NUM_THREADS": "2"})
    assert not typist().fits({**ENV, "HF_HUB_OFFLINE": "0"})
