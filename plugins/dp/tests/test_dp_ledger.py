"""The ledger: what it counts, what it refuses, and that it outlives a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from r1core_dp.accounting import Phase, epsilon_of
from r1core_dp.chain import Chain
from r1core_dp.ledger import Declared, Ledger, read_ledger, spending

from r1core.api import UserError

PATIENTS = [f"p{n % 30}" for n in range(90)]


def spent(desk: Any) -> float:
    declared, lines, _ = read_ledger(desk.folder / "ledgers" / "ward.jsonl")
    return epsilon_of(spending(lines), declared.delta).value


def train(desk: Any, steps: int = 6, **given: object) -> None:
    training = desk.begin(PATIENTS, **given)  # type: ignore[arg-type]
    try:
        for _ in range(steps):
            training.draw()
    finally:
        training.close()


def test_a_whole_training_spends_what_it_was_given_and_no_more_is_left(desk: Any) -> None:
    train(desk)
    assert 2.9 <= spent(desk) <= 3.0
    for again in ({}, {"run": "another"}, {"run": "trial", "max_grad_norm": 0.1}):
        with pytest.raises(UserError, match=r"budget|no noise of use"):
            desk.begin(PATIENTS, **again)  # type: ignore[arg-type]
    assert spent(desk) <= 3.0


def test_two_trainings_share_a_budget(desk: Any) -> None:
    train(desk, budget=3.0, epsilon=1.5)
    with pytest.raises(UserError, match=r"1\.[45]\d\d of its budget of 3 is spent, and with this training it would"):
        desk.begin(PATIENTS, run="b", budget=3.0, epsilon=2.9)
    train(desk, run="c", budget=3.0, epsilon=1.5)
    assert spent(desk) <= 3.0


def test_a_resumed_training_pays_for_the_steps_that_it_lost(desk: Any) -> None:
    train(desk, steps=5)
    lost = spent(desk)
    training = desk.begin(PATIENTS, task={"step": 2})
    for _ in range(4):
        training.draw()
    with pytest.raises(UserError, match="6 steps that were planned are done"):
        training.draw()
    card = training.card()
    training.close()
    assert card["steps_counted"] == 9
    assert lost < float(card["epsilon"]) <= 3.0  # type: ignore[arg-type]
    assert spent(desk) == pytest.approx(float(card["epsilon"]), abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["byte", "line out", "line in", "order"])
def test_a_changed_ledger_is_refused(desk: Any, change: str) -> None:
    train(desk, steps=4)
    path = desk.folder / "ledgers" / "ward.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "byte": [*lines[:2], lines[2].replace(b'"step":1', b'"step":7'), *lines[3:]],
        "line out": [*lines[:3], *lines[4:]],
        "line in": [*lines[:3], lines[2], *lines[3:]],
        "order": [*lines[:3], lines[4], lines[3], *lines[5:]],
    }[change]
    assert changed != lines
    path.write_bytes(b"".join(changed))
    with pytest.raises(UserError, match=r"ward\.jsonl:\d: the line does not follow"):
        desk.begin(PATIENTS)
    with pytest.raises(UserError, match="was changed"):
        read_ledger(path)


def test_a_ledger_that_was_put_back_is_found_out_by_a_checkpoint_and_by_a_card(desk: Any) -> None:
    path = desk.folder / "ledgers" / "ward.jsonl"
    training = desk.begin(PATIENTS)
    training.draw()
    older = path.read_bytes()
    for _ in range(3):
        training.draw()
    anchor, card = training.anchor(), dict(training.card())
    training.close()
    path.write_bytes(older)
    with pytest.raises(UserError, match="the checkpoint knows a later ledger"):
        desk.begin(PATIENTS, task={"anchor": anchor, "step": 4})
    (desk.folder / "run" / "privacy" / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"card\.json knows a later ledger"):
        desk.begin(PATIENTS, run="another")


def test_a_ledger_that_was_taken_away_is_not_begun_anew(desk: Any) -> None:
    train(desk, steps=1)
    path = desk.folder / "ledgers" / "ward.jsonl"
    path.unlink()
    for _ in range(2):  # the empty file that the first refusal leaves changes nothing
        with pytest.raises(UserError, match="the ledger that says what was spent on them is gone"):
            desk.begin(PATIENTS)


def test_a_changed_data_set_is_no_new_budget(desk: Any) -> None:
    train(desk, steps=1)
    with pytest.raises(UserError, match="not the one that this ledger was begun for"):
        desk.begin([*PATIENTS, "p0"], source="b" * 64)
    with pytest.raises(UserError, match="30 of its 31 units stand in the ledger of ward already"):
        desk.begin([*PATIENTS, "new"], source="b" * 64, dataset_id="ward-2")
    desk.begin(["q1", "q2"], source="c" * 64, dataset_id="clinic", task={"batch_size": 1}).close()
    other = {"source": "d" * 64, "dataset_id": "elsewhere", "namespace": "another-hospital"}
    desk.begin(["p1", "p2"], task={"batch_size": 1}, **other).close()  # the same ids, other people
    assert not any(b"p1" in file.read_bytes() for file in (desk.folder / "ledgers").iterdir())


@pytest.mark.parametrize(
    ("key", "value"), [("delta", 1e-5), ("budget", 9.0), ("unit", "record")], ids=["delta", "budget", "unit"]
)
def test_the_terms_stay_as_they_were_declared(desk: Any, key: str, value: object) -> None:
    train(desk, steps=1)
    with pytest.raises(UserError, match=f"{key} = .*its ledger was begun with"):
        desk.begin(PATIENTS, **{key: value})  # type: ignore[arg-type]


def test_one_training_at_a_time(desk: Any) -> None:
    first = desk.begin(PATIENTS)
    with pytest.raises(UserError, match="another training draws on this ledger"):
        desk.begin(PATIENTS, run="b")
    first.close()


def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "c.jsonl")
    chain.append({"kind": "a"})
    chain.close()
    with (tmp_path / "c.jsonl").open("ab") as stream:
        stream.write(b'{"kind":"b","bef')
    again = Chain(tmp_path / "c.jsonl")
    again.append({"kind": "c"})
    again.close()
    assert [line["kind"] for line in Chain(tmp_path / "c.jsonl").lines] == ["a", "c"]


def test_a_killed_process_has_counted_every_step_that_it_took(tmp_path: Path) -> None:
    declared = Declared("a" * 64, "group", 1e-5, 3.0)
    taken = tmp_path / "taken"
    taken.touch()
    for kill in range(20):
        child = os.fork()
        if not child:  # takes steps, and says so behind each, until it is killed
            ledger = Ledger(tmp_path, "ward", declared, ["p1", "p2"])
            ledger.plan(f"r{kill}", tmp_path, Phase(1.0, 0.1, 10**6), 1.0)
            with taken.open("ab", buffering=0) as stream:
                for step in range(10**6):
                    ledger.step(f"r{kill}", step)
                    stream.write(b".")
        before, deadline = taken.stat().st_size, time.monotonic() + 60
        while taken.stat().st_size <= before + kill and time.monotonic() < deadline:
            os.sched_yield()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counted = len(spending(read_ledger(tmp_path / "ward.jsonl")[1]))
        assert before < taken.stat().st_size <= counted <= taken.stat().st_size + kill + 1


def test_a_row_without_a_group_is_refused(desk: Any) -> None:
    with pytest.raises(UserError, match="row 'row-1' has no group"):
        desk.begin(["p1", None])


@pytest.mark.slow  # the accountant of mixtures takes half a minute
def test_where_records_are_the_units_the_epsilon_of_a_patient_is_told_as_well(desk: Any) -> None:
    training = desk.begin([f"p{n % 20}" for n in range(80)], unit="record", epsilon=1.0)
    for _ in range(6):
        training.draw()
        training.finish()
    card = training.card()
    training.close()
    assert card["units"] == 80
    assert card["group_records"] == 4
    assert card["group_epsilon"] > 2 * card["epsilon"]
    assert f"an epsilon of {card['group_epsilon']:.4g} for a whole group (patient) of 4 records" in card["guarantee"]


def test_nothing_comes_of_a_step_that_the_disk_does_not_take(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training = desk.begin([f"p{n}" for n in range(40)])

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    training.draw()
    with pytest.raises(OSError, match="No space left"):
        training.finish()
    training.close()
