"""How the value-at-risk benchmarks call a peer: a script of `peers/` in an environment that has it, on one thread."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

PEERS = Path(__file__).parent / "peers"


def told(python: Path, script: str, returns: np.ndarray, *words: object) -> dict[str, np.ndarray]:
    """Run `script RETURNS.npy OUT.npz WORDS` and return the arrays that it wrote.

    Raises
    ------
    SystemExit : where the script fails, with the end of what it said.
    """
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "returns.npy", Path(folder) / "out.npz"
        np.save(given, returns)
        command = [str(python), str(PEERS / script), str(given), str(out), *(str(word) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise SystemExit(f"{script}: {done.stderr[-2000:]}\npip install -r {PEERS / 'requirements-var.txt'} there")
        with np.load(out) as found:
            return dict(found)
