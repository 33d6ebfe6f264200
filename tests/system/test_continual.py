"""`adapt --continue RUN` as a user types it: two tasks, a kill in the middle, an earlier run that does not fit."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import Desk, furnish

OWN = ("--recipe", "own.toml", "--set", "train.epochs=3", "--set", 'model.template="plain"')
NEW = ("--continue", "runs/own", "--set", "data.files.train=second.csv")
TASKS = {
    "second": {"bones": ("fracture", "sprain"), "eyes": ("red eye", "glaucoma")},
    "third": {"liver": ("jaundice", "cirrhosis"), "blood": ("anemia", "bruises")},
}


def records(name: str, rows: int = 48) -> str:
    rng, words = random.Random(name), TASKS[name]
    lines = ["Description,Clinic,No,Patient"]
    for number in range(rows):
        clinic = rng.choice(list(words))
        lines.append(f"{rng.choice(words[clinic])} since day {number},{clinic},{name}{number},p{number // 2}")
    return "\n".join(lines) + "\n"


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def chain_of(desk: Desk, run: str) -> Any:
    return json.loads((desk.folder / run / "evaluation/continual.json").read_text())


def steps_of(desk: Desk, run: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (desk.folder / run / "metrics.jsonl").read_text().splitlines()]


def value(desk: Desk, run: str, system: str) -> float:
    rows = json.loads((desk.folder / run / "evaluation/summary.json").read_text())
    return next(row["value"] for row in rows if (row["system"], row["metric"]) == (system, "accuracy"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Desk:
    """A desk with one adapted run. Read-only."""
    desk = furnish(tmp_path_factory.mktemp("first") / "desk", tiny)
    for name in TASKS:
        desk.write(f"{name}.csv", records(name))
    desk("adapt", *OWN)
    return desk


@pytest.fixture(scope="module")
def second(first: Desk) -> tuple[Desk, str, dict[str, str]]:
    """The same desk with a continued run beside it, what was printed, and the first run's files before."""
    before = hashes(first.folder / "runs/own")
    return first, first("adapt", *NEW).out, before


@pytest.fixture
def copy(first: Desk, tmp_path: Path) -> Desk:
    """A desk of one's own, whose first run still lies where it was made."""
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk")
    for name in ("second.csv", "tiny", "own.toml", "notes.csv", "third.csv"):
        (desk.folder / name).symlink_to(first.folder / name)
    shutil.copytree(first.folder / "runs/own", desk.folder / "runs/own")
    return desk


def test_the_matrix_holds_every_task_at_every_time(second: tuple[Desk, str, dict[str, str]]) -> None:
    desk, printed, before = second
    assert hashes(desk.folder / "runs/own") == before, "the earlier run was written to"
    chain = chain_of(desk, "runs/own-2")
    assert chain["times"] == ["base", "own", "own-2"]
    assert [one["run"] for one in chain["tasks"]] == ["own", "own-2"]
    assert [one["labels"] for one in chain["tasks"]] == [3, 2]
    ends = {"constrained": "+constrained", "free": ""}
    for measure, suffix in ends.items():
        for side in ("ours", "naive"):
            matrix = chain["measures"][measure][side]["matrix"]
            assert [len(line) for line in matrix] == [2, 2, 2]
            assert matrix[0][0]["value"] == value(desk, "runs/own", f"base{suffix}")
            assert matrix[0][1]["value"] == value(desk, "runs/own-2", f"base{suffix}")
            assert matrix[1][0]["value"] == value(desk, "runs/own", f"adapted{suffix}")
        ours = chain["measures"][measure]["ours"]
        assert ours["matrix"][2][1]["value"] == value(desk, "runs/own-2", f"adapted{suffix}")
        forgot = ours["matrix"][1][0]["value"] - ours["matrix"][2][0]["value"]
        assert ours["figures"]["forgetting"]["value"] == pytest.approx(forgot)
    assert "measured again" not in printed, "what the earlier run measured was to be read"
    assert "base on own:" not in printed
    assert "own on own-2: 1/1" in printed
    assert "A chain of 2 tasks: own, own-2." in printed


def test_report_and_card_show_the_chain_and_the_run_verifies(second: tuple[Desk, str, dict[str, str]]) -> None:
    desk, _, _ = second
    run = desk.folder / "runs/own-2"
    report, card = (run / "report.html").read_text(), (run / "README.md").read_text()
    for text in (report, card):
        assert "Accuracy by time and task: naive sequential tuning" in text
        assert "backward transfer" in text
    assert "earlier tasks forgotten" in report
    assert "Trained in this order: own, then own-2." in card
    assert "artefacts as recorded" in desk("verify", "runs/own-2").out
    assert f'from = "{desk.folder}/runs/own"' in (run / "recipe.toml").read_text()


def test_training_is_as_it_was_said(second: tuple[Desk, str, dict[str, str]]) -> None:
    desk, printed, _ = second
    assert "replay: 1 of 4 rows of each step are earlier ones (48 of own)" in printed
    lines, naive = steps_of(desk, "runs/own-2"), steps_of(desk, "runs/own-2/naive")
    assert [line["step"] for line in lines] == [line["step"] for line in naive] == list(range(1, len(lines) + 1))
    assert lines[0]["penalty"] == 0.0
    assert all(line["penalty"] > 0 for line in lines[1:])
    assert all("penalty" not in line for line in naive)
    assert all(line["tokens"] > other["tokens"] for line, other in zip(lines, naive, strict=True)), "replayed rows"
    assert not (desk.folder / "runs/own-2/naive/checkpoints").exists()


def test_the_same_command_skips_everything_and_the_run_opens_by_its_directory(
    second: tuple[Desk, str, dict[str, str]],
) -> None:
    desk, _, _ = second
    for words in (NEW, ("runs/own-2", "--continue", "runs/own")):
        assert desk("adapt", *words).out.count("skipped, nothing that it depends on changed") == 4
    assert desk("generate", "runs/own-2", "--prompt", "red eye").out.strip() != ""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["runs/own-2", "runs/own-2/naive"], ids=["ours", "naive"])
def test_a_killed_training_ends_with_the_same_bits(
    where: str, second: tuple[Desk, str, dict[str, str]], copy: Desk
) -> None:
    whole, _, _ = second
    stopped = copy.stopped(signal.SIGKILL, where, 12, "train", *NEW)
    assert stopped.code == -signal.SIGKILL
    assert not (copy.folder / where / "adapter").exists(), "it was stopped in the middle"
    done = copy("train", *NEW)
    assert "continuing from step" in done.out
    assert "elastic weight consolidation: measuring" not in done.out
    for name in ("adapter/adapter_model", "naive/adapter/adapter_model", "continual/fisher"):
        ends = [(one.folder / f"runs/own-2/{name}.safetensors").read_bytes() for one in (whole, copy)]
        assert ends[0] == ends[1], name
    keys = ("step", "loss", "penalty", "grad_norm")
    told = [[[line[key] for key in keys] for line in steps_of(desk, "runs/own-2")] for desk in (whole, copy)]
    assert told[0] == told[1]


def test_what_does_not_fit_is_told_at_once(second: tuple[Desk, str, dict[str, str]], tiny: Path) -> None:
    desk, _, _ = second
    other = desk.folder / "other"
    shutil.copytree(tiny, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    odd = {"model.path": '"other"', "adapter.rank": "4", "adapter.kind": '"dora"', "strategy.norms.mode": '"full"'}
    odd |= {"model.template": '"chat"', "continual.replay": "0.01"}
    sets = [word for key, wanted in odd.items() for word in ("--set", f"{key}={wanted}")]
    problems = desk("check", *NEW, *sets, "--json", code=2).json()["problems"]
    found = {problem["where"].removeprefix("--set "): problem for problem in problems}
    assert found.keys() == odd.keys()
    assert found["adapter.rank"]["found"] == f"adapter.rank = 4, and {desk.folder}/runs/own was trained with 16"
    assert found["adapter.rank"]["fix"] == "set adapter.rank = 16"
    assert found["model.path"]["fix"] == f'set model.path = "{desk.folder}/tiny"'
    shutil.rmtree(other)


def test_an_earlier_run_that_is_not_whole_is_one_line(copy: Desk) -> None:
    run = copy.folder / "runs/own"
    weights = run / "adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    changed = copy("train", *NEW, code=2).err.splitlines()
    assert "adapter_model.safetensors: found" in changed[0]
    assert changed[1:] == [f"  fix: r1core adapt {run}"]
    shutil.rmtree(run / "adapter")
    assert "not trained yet" in copy("check", *NEW, code=2).out
    shutil.rmtree(run)
    [line, _] = copy("train", *NEW, code=2).err.splitlines()
    assert line == "error: --continue runs/own: no run here (no recipe.toml)"
    assert not (copy.folder / "runs/own-2").exists()


def test_forecast_and_bad_shares(second: tuple[Desk, str, dict[str, str]]) -> None:
    desk, _, _ = second
    told = desk("check", *NEW, "--json").json()["forecast"]["continual"]
    assert "1 of 4 rows of a step are earlier ones" in told
    assert "about twice the time" in told
    all_old = desk("check", *NEW, "--set", "continual.replay=1.0", code=2).out
    assert "`continual.replay` is" in all_old
    itself = desk("train", *NEW, "--run", "runs/own", code=2).err
    assert "is this run itself" in itself
    same = desk("check", "--continue", "runs/own").out
    assert "warning: the records are those of" in same


@pytest.mark.slow
def test_three_tasks(second: tuple[Desk, str, dict[str, str]]) -> None:
    desk, _, _ = second
    before = [hashes(desk.folder / run) for run in ("runs/own", "runs/own-2")]
    done = desk("adapt", "--continue", "runs/own-2", "--set", "data.files.train=third.csv")
    assert [hashes(desk.folder / run) for run in ("runs/own", "runs/own-2")] == before
    assert "of own-2)" in done.out
    assert "measured again" not in done.out
    assert "own-2, naive on own-3: 1/1" in done.out
    chain, earlier = chain_of(desk, "runs/own-3"), chain_of(desk, "runs/own-2")
    assert chain["times"] == ["base", "own", "own-2", "own-3"]
    for measure in ("constrained", "free"):
        for side in ("ours", "naive"):
            whole, part = (one["measures"][measure][side]["matrix"] for one in (chain, earlier))
            assert [line[:2] for line in whole[:3]] == part
            assert [len(line) for line in whole] == [3] * 4
    again = desk("evaluate", "runs/own-3", "--set", "evaluate.max_new_tokens=5")
    assert "own-2 is measured again: evaluate.max_new_tokens was 4 and is 5" in again.out
    shutil.rmtree(desk.folder / "runs/own-3")
