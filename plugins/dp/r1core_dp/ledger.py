"""What was spent on a data set, in one file for all trainings on it: `<dataset_id>.jsonl`, outside of the runs.

The first line declares the data set (hash of its bytes, delta, budget), a line says what each training is about to do,
and a line stands for each step before anything comes of it: a crash counts a step too many, never one too few. Beside
it stand the units as keyed hashes, `<dataset_id>.units`, so that the same people under another name, or with a row
more, are found out. The key, `key`, is this folder's own.

Checkpoints and privacy cards hold the ledger's head, and a training that finds one that the ledger does not know, in
any run directory that the ledger names, refuses. Not covered: a ledger that is put back to an older state together with
every checkpoint and card that knows better, and somebody who begins a new folder of ledgers. Keep the folder where
trainings cannot remove it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError
from r1core_dp.accounting import Phase
from r1core_dp.chain import Chain, Line, holds, read_lines

VERSION = 1
CARD = "privacy/card.json"  # in a run directory
MARK = 16  # bytes of a keyed hash that are kept
NEVER = "never edit a ledger; restore the data set as it was"


@dataclass(frozen=True, slots=True)
class Declared:
    """What is fixed for a data set. `source`: sha256 of its raw bytes. `budget`: an epsilon at this delta."""

    source: str
    unit: str
    delta: float
    budget: float


def folder_of(stated: Path | None) -> Path:
    """Where ledgers stand."""
    if stated is not None:
        return stated
    named = os.environ.get("R1CORE_LEDGERS")
    return Path(named) if named else Path.home() / ".local" / "share" / "r1core" / "ledgers"


def spending(lines: Iterable[Line], run: str | None = None) -> list[Phase]:
    """The steps that stand in a ledger, of all trainings or of one."""
    plans: dict[str, Line] = {}
    found: list[Phase] = []
    for line in lines:
        if line["kind"] == "plan":
            plans[line["run"]] = line
        elif line["kind"] == "step" and run in (None, line["run"]):
            plan = plans[line["run"]]
            found.append(Phase(plan["noise_multiplier"], plan["sample_rate"], 1))
    return found


class Ledger:
    """The ledger of one data set, held by one training.

    Raises
    ------
    UserError : for another data set under this name, one whose units stand in another ledger, other terms than were
        declared, a ledger that was changed, or one that another training holds.
    """

    def __init__(self, folder: Path, dataset_id: str, declared: Declared, units: Iterable[str]) -> None:
        self.name, self.folder, self.declared = dataset_id, folder, declared
        self._units = folder / f"{dataset_id}.units"
        self._chain = Chain(folder / f"{dataset_id}.jsonl")
        try:
            marks = _marks(_key(folder), units)
            self._refuse_others(marks)
            if self._chain.lines:
                self._refuse_changes(declared)
            elif self._units.exists():  # they are written behind the first line
                raise UserError(
                    f"{self.name}: its units are known, and the ledger that says what was spent on them is gone",
                    fix=f"restore {self._chain.path} from a copy",
                )
            else:
                self._append("dataset", version=VERSION, **{k: getattr(declared, k) for k in Declared.__slots__})
            self._keep(marks)
            self._ask_cards()
        except BaseException:
            self._chain.close()
            raise

    def _append(self, kind: str, **said: object) -> None:
        self._chain.append({"kind": kind, "time": round(time.time()), **said})

    def _refuse_changes(self, declared: Declared) -> None:
        first = self._chain.lines[0]
        if first["source"] != declared.source:
            raise UserError(
                f"{self.name}: the data set is not the one that this ledger was begun for (sha256 "
                f"{declared.source[:12]}, expected {first['source'][:12]}); a changed data set is not a new budget",
                fix=NEVER,
            )
        for key in ("unit", "delta", "budget"):
            if first[key] != getattr(declared, key):
                raise UserError(
                    f"{self.name}: {key} = {getattr(declared, key)}, and its ledger was begun with {first[key]}",
                    fix=f"set plugins.dp.{key} = {first[key]!r}",
                )

    def _refuse_others(self, marks: NDArray[np.void]) -> None:
        for other in sorted(self.folder.glob("*.units")):
            if other.stem == self.name:
                continue
            known = np.fromfile(other, dtype=f"V{MARK}")
            common = len(np.intersect1d(known, marks))
            if common:
                raise UserError(
                    f"{self.name}: {common} of its {len(marks)} units stand in the ledger of {other.stem} already",
                    fix=f"their budget is that one's: set plugins.dp.dataset_id = {other.stem!r} with its data; if the "
                    "same ids mean other people here, set plugins.dp.namespace and answer for it",
                )

    def _ask_cards(self) -> None:
        """Refuse where the card of an earlier training knows more than this ledger."""
        for where in {line["where"] for line in self._chain.lines if line["kind"] == "plan"}:
            card = Path(where) / CARD
            if card.is_file():
                told = json.loads(card.read_text("utf-8"))
                if told.get("dataset_id") == self.name:
                    self.require(str(told.get("ledger_head")), str(card))

    def _keep(self, marks: NDArray[np.void]) -> None:
        path = self._units
        known = np.fromfile(path, dtype=marks.dtype) if path.exists() else marks[:0]
        every = np.union1d(known, marks)
        if len(every) > len(known):
            aside = path.with_suffix(".new")
            with aside.open("wb") as stream:
                stream.write(every.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)

    def spent(self, run: str | None = None) -> list[Phase]:
        """The steps that count, of all trainings or of one."""
        return spending(self._chain.lines, run)

    @property
    def head(self) -> str:
        """The hash of the last line."""
        return self._chain.head

    def require(self, head: str, where: str) -> None:
        """Refuse to go on where this ledger does not know a head that was handed out before.

        Raises
        ------
        UserError : naming `where` the head stands.
        """
        if not holds(self._chain.hashes, head):
            raise UserError(
                f"{self.name}: {where} knows a later ledger than this one: it was put back or begun anew",
                fix="restore the newest copy of the ledger",
            )

    def plan(self, run: str, where: Path, planned: Phase, max_grad_norm: float) -> None:
        """Say what a training, whose run directory is `where`, is about to do; its steps that follow count so."""
        self._append("plan", run=run, where=str(where), max_grad_norm=max_grad_norm, **asdict(planned))

    def step(self, run: str, step: int) -> None:
        """Count a step; it is on the disk when `settle` returns, and nothing may come of the step before."""
        line = {"kind": "step", "time": round(time.time()), "run": run, "step": step}
        self._chain.append(line, later=True)

    def settle(self) -> None:
        """Wait until every step that was counted is on the disk."""
        self._chain.settle()

    def close(self) -> None:
        """Let other trainings draw on it."""
        self._chain.close()


def read_ledger(path: Path) -> tuple[Declared, list[Line], list[str]]:
    """A ledger to look at: what was declared, its lines and their hashes.

    Raises
    ------
    UserError : when it was changed, or is none.
    """
    lines, hashes = read_lines(path)
    if not lines or lines[0].get("kind") != "dataset":
        raise UserError(f"{path}: no ledger", fix="r1core dp ledger lists what there is")
    return Declared(**{key: lines[0][key] for key in Declared.__slots__}), lines, hashes


def _key(folder: Path) -> bytes:
    """The folder's own key for hashes of units, made once."""
    path = folder / "key"
    if not path.exists():
        aside = folder / f"key.{os.getpid()}"
        aside.write_bytes(os.urandom(32))
        aside.chmod(0o600)
        try:
            os.link(aside, path)  # the first one stays
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return path.read_bytes()


def _marks(key: bytes, units: Iterable[str]) -> NDArray[np.void]:
    """Each unit's keyed hash, once, sorted."""
    made = {hmac.new(key, unit.encode(), hashlib.sha256).digest()[:MARK] for unit in units}
    return np.frombuffer(b"".join(sorted(made)), dtype=f"V{MARK}")


def runs_of(lines: Sequence[Line]) -> list[tuple[str, Line, int]]:
    """Each training of a ledger: its name, its last plan and the steps that count."""
    plans = {line["run"]: line for line in lines if line["kind"] == "plan"}
    return [(run, plan, sum(p.steps for p in spending(lines, run))) for run, plan in plans.items()]
