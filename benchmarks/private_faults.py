"""Private trainings that are killed (SIGKILL) at random moments and resumed: does the ledger count what was spent?

Run: python benchmarks/private_faults.py [--kills 100] [--seed 5]. Other than 100 kills are a quick look, not recorded.
Each training is `r1core train` on people of its own, with a tiny model. Every second process is killed at a moment
drawn uniformly from as long as a whole training takes, every other one up to 5 ms behind an event of those that take
little time: a line of the ledger or a checkpoint is being written, a step begins. One that ends before its
moment has finished its training, or refused to go on, and the next training begins. A witness in the process writes a
line, on the disk, before each draw of units and of noise: it looks on and changes nothing, and is the truth that the
ledger is held against. Every check here reads the files by itself and reckons epsilon by `dp-accounting`,
sharing no code with the plugin.

Not covered: a machine that loses power. What a killed process wrote the system still has; fsync is not put to the test.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import write

KILLS, SEED = 100, 5
EPSILON, STEPS, PATIENTS, RECORDS = 3.0, 60, 100, 2
EVERY = (5, 10, 30)  # steps from a checkpoint to the next; drawn for each training
AIMED = {"appending": STEPS + 2, "draw": STEPS, "saving": 4}  # an event, and from how many of them one is drawn
BEHIND = 0.005  # seconds, at most, from that event to the kill
INTERVAL = 5e-4  # of privacy loss, from a point of the grid to the next; a coarser one only adds to epsilon
AGREE = 1e-3  # in epsilon, between the card's PLD and the one reckoned here
SOURCE = Path(__file__).parents[1] / "examples" / "hooks" / "model_source.py"
WITNESS = """
import os, runpy, sys
told = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
def say(*words):
    os.write(told, (" ".join(map(str, words)) + chr(10)).encode())
    os.fsync(told)
def watch(module, name, word, after=None, with_arguments=False):
    real = getattr(module, name)
    def watched(*given, **named):
        say(word, *(given[:2] if with_arguments else ()))
        result = real(*given, **named)
        if after:
            say(after)
        return result
    setattr(module, name, watched)
say("started")
from r1core.runs import checkpoints
from r1core_dp import accounting, entropy
from r1core_dp.chain import Chain
watch(accounting, "noise_for", "settling", "settled")
watch(entropy, "chosen", "draw", with_arguments=True)
watch(entropy, "normal", "noise")
watch(checkpoints, "save", "saving", "saved")
watch(Chain, "append", "appending", "appended")
runpy.run_module("r1core.cli.main", run_name="__main__", alter_sys=True)
"""
MOMENTS = {
    "": "starting Python",
    "started": "start-up and preparation",
    "settling": "settling the noise",
    "settled": "in a step",
    "appending": "writing a line of the ledger",
    "appended": "in a step",
    "draw": "in a step",
    "noise": "in a step",
    "saving": "writing a checkpoint",
    "saved": "in a step",
}
"""What a process was about, by the witness' last word. Behind the last checkpoint it is `AT_THE_END`."""
AT_THE_END = "at the end"
RECIPE = """
run = {{ name = "ward", plugins = ["dp"] }}
model = {{ base = "tiny-random", threads = 1 }}
data = {{ kind = "text", files.train = "ward.csv", columns.group = "patient" }}
train = {{ steps = {steps}, batch_size = 16, packing = "padded", checkpoint_every = {every} }}
evaluate = {{ baselines = false }}
[plugins.dp]
dataset_id = "ward-{number}"
epsilon = {epsilon}
ledger = "../ledgers"
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: so many seconds behind the start, or behind an event's n-th time."""

    seconds: float
    event: str = ""
    times: int = 0

    @classmethod
    def drawn(cls, chance: random.Random, kill: int, longest: float) -> Moment:
        """In turns uniform over the time that a whole training takes, and behind an event."""
        if kill % 2:
            return cls(chance.uniform(0, longest))
        event = chance.choice(list(AIMED))
        return cls(chance.uniform(0, BEHIND), event, chance.randint(1, AIMED[event]))

    def wait(self, child: subprocess.Popen[bytes], witness: Path) -> bool:
        """Whether it came before the process ended."""
        size = 0
        while self.times:
            now = witness.stat().st_size if witness.exists() else 0
            if now > size and _times(witness, self.event) >= self.times:
                break
            if child.poll() is not None:
                return False
            size = now
            time.sleep(0.002)
        try:
            child.wait(self.seconds)
        except subprocess.TimeoutExpired:
            return True
        return False


def _times(witness: Path, event: str) -> int:
    return sum(line.startswith(event) for line in witness.read_text("utf-8").splitlines())


NEVER = Moment(600.0)  # a training that takes so long has failed


@dataclass(frozen=True, slots=True)
class Ended:
    """How one process ended, and what its witness saw."""

    killed: bool
    code: int
    output: str
    words: Sequence[str]
    seconds: float

    @property
    def draws(self) -> list[tuple[int, float]]:
        """Number of units and rate of each draw."""
        split = (word.split() for word in self.words if word.startswith("draw"))
        return [(int(number), float(rate)) for _, number, rate in split]

    @property
    def refused(self) -> bool:
        """Whether it said that no noise of use is left: the right thing to do."""
        return self.code == 2 and "no noise of use brings" in self.output

    @property
    def moment(self) -> str:
        """What it was about."""
        last = self.words[-1].split()[0] if self.words else ""
        return MOMENTS[last]


@dataclass(slots=True)
class Found:
    """What the campaign found; `wrong` holds one line for each check that failed."""

    kills: int = 0
    sound: int = 0  # kills after which every check held
    moments: Counter[str] = field(default_factory=Counter)
    most_over: int = 0  # steps of a process that were counted and not drawn
    drawn: int = 0
    counted: int = 0
    finished: int = 0
    whole: int = 0  # of them, those of which every check held
    refused: int = 0
    epsilons: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Book:
    """A ledger as it stands on the disk, read without the plugin."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else b""
        self.raw = content[: content.rfind(b"\n") + 1]  # what was not written to its end does not count
        lines = self.raw.splitlines()
        self.lines: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
        self.hashes = [hashlib.sha256(line).hexdigest() for line in lines]
        expected = ["0" * 64, *self.hashes][: len(lines)]
        self.holds = [line["before"] for line in self.lines] == expected

    @property
    def steps(self) -> int:
        """How many are counted."""
        return sum(line["kind"] == "step" for line in self.lines)

    @property
    def plans(self) -> list[Mapping[str, Any]]:
        """What each process was about to do."""
        return [line for line in self.lines if line["kind"] == "plan"]

    def epsilon(self) -> float:
        """Of all steps that stand there, each with the noise of the plan before it."""
        import dp_accounting
        from dp_accounting.pld import PLDAccountant

        phases: Counter[tuple[float, float]] = Counter()
        plan: Mapping[str, Any] = {}
        for line in self.lines:
            plan = line if line["kind"] == "plan" else plan
            if line["kind"] == "step":
                phases[plan["noise_multiplier"], plan["sample_rate"]] += 1
        accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, INTERVAL)
        for (noise, rate), count in phases.items():
            gaussian = dp_accounting.GaussianDpEvent(noise)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, gaussian), count)
        return float(accountant.get_epsilon(self.lines[0]["delta"])) if phases else 0.0


class Ward:
    """One training: its folder, its people, and the command that begins and resumes it."""

    def __init__(self, root: Path, number: int, every: int) -> None:
        self.root, self.folder, self.name = root, root / f"ward-{number}", f"ward-{number}"
        self.folder.mkdir()
        with (self.folder / "ward.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(("id", "patient", "text", "answer"))
            for row in range(PATIENTS * RECORDS):
                who = f"w{number}-p{row % PATIENTS}"
                story = " ".join(f"day {day}, dose {row * day % 17}" for day in range(6))
                table.writerow((f"w{number}-r{row}", who, f"Patient {who}: {story}?", f"Yes, {row % 7}."))
        said = RECIPE.format(steps=STEPS, number=number, epsilon=EPSILON, every=every)
        (self.folder / "ward.toml").write_text(said, encoding="utf-8")
        self.run = self.folder / "runs" / "ward"
        self._processes = 0

    def book(self) -> Book:
        """Its ledger as it is now."""
        return Book(self.root / "ledgers" / f"{self.name}.jsonl")

    def process(self, moment: Moment) -> Ended:
        """Begin or resume the training, and kill it at this moment, should it still be there."""
        self._processes += 1
        witness = self.folder / f"witness-{self._processes}"
        words = ("train", "--recipe", "ward.toml", "--plugin", str(SOURCE))
        with (self.folder / "output").open("w+", encoding="utf-8") as output:
            begun = time.monotonic()
            child = subprocess.Popen(
                [sys.executable, "-c", WITNESS, str(witness), *words],
                cwd=self.folder, env=environment(self.root), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if moment.wait(child, witness):
                child.kill()
            child.wait()
            took = time.monotonic() - begun
            output.seek(0)
            seen = witness.read_text("utf-8").splitlines() if witness.exists() else []
            return Ended(child.returncode == -9, child.returncode, output.read(), seen, took)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """`r1core verify` of the finished run."""
        command = [sys.executable, "-m", "r1core.cli.main", "verify", str(self.run)]
        return subprocess.run(command, env=environment(self.root), capture_output=True, text=True, check=False)


def environment(root: Path) -> dict[str, str]:
    """One thread, and whatever a killed process leaves in the folder that is removed at the end."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(root), "R1CORE_CACHE": str(root / "cache")}


def look(before: Book, after: Book, ended: Ended) -> list[str]:
    """What is wrong with a ledger behind one process."""
    drawn, counted = len(ended.draws), after.steps - before.steps
    plans = after.plans[len(before.plans) :]
    planned, rate = (plans[-1]["steps"], plans[-1]["sample_rate"]) if plans else (0, None)
    resumed = re.search(r"continuing from step (\d+)", ended.output)
    done = int(resumed[1]) if resumed else 0
    checks = {
        "the ledger does not hold together": after.holds,
        "what stood in the ledger changed": after.raw.startswith(before.raw),
        f"{drawn} steps were drawn, {counted} counted": drawn <= counted <= drawn + 1,
        f"{drawn} steps were drawn, {planned} planned": drawn <= planned,
        f"{planned} steps planned from step {done} of {STEPS}": planned == STEPS - done if resumed or drawn else True,
        f"{len(plans)} plans of one process": len(plans) <= 1,
        "noise was drawn for more steps than units were": ended.words.count("noise") <= drawn,
        "units were drawn at another rate than was planned": all(one == rate for _, one in ended.draws),
        "it refused, and drew": not (ended.refused and drawn),
        f"it ended with {ended.code}: {ended.output[-500:]}": ended.killed or ended.refused or not ended.code,
    }
    return [said for said, holds in checks.items() if not holds]


def look_at_the_end(ward: Ward, book: Book, epsilon: float, ended: Ended) -> list[str]:
    """What is wrong with a training that finished."""
    card = json.loads((ward.run / "privacy" / "card.json").read_text("utf-8"))
    state = json.loads(max((ward.run / "checkpoints").iterdir()).joinpath("state.json").read_text("utf-8"))
    metrics = [json.loads(line) for line in (ward.run / "metrics.jsonl").read_text("utf-8").splitlines()]
    noises = {line["noise_multiplier"] for line in metrics[STEPS - len(ended.draws) :]}
    delta, told = book.lines[0]["delta"], f"{card['epsilon']}, {card['epsilon_pld']} by PLD"
    verified = ward.verify()
    checks = {
        f"finished at step {state['step']} of {STEPS}": state["step"] == STEPS,
        "the last steps were taken with another noise than was planned": noises <= {book.plans[-1]["noise_multiplier"]},
        f"an epsilon of {epsilon}; the card tells {told}": max(epsilon, card["epsilon"]) <= EPSILON,
        f"the card tells {told}; found {epsilon}": abs(card["epsilon_pld"] - epsilon) <= AGREE
        and card["epsilon"] >= epsilon - AGREE,
        "the card counts other steps than the ledger": card["steps_counted"] == book.steps,
        "the card knows another head of the ledger": card["ledger_head"] == book.hashes[-1],
        "another number of units than the card tells": all(number == card["units"] for number, _ in ended.draws),
        f"delta is {delta}, {card['delta']} in the card": delta == card["delta"]
        and abs(delta - card["units"] ** -1.1) < 1e-12,
        f"verify: {verified.stdout}{verified.stderr}": not verified.returncode,
    }
    return [said for said, holds in checks.items() if not holds]


def campaign(root: Path, kills: int, seed: int) -> Found:
    """Kill so often, over as many trainings as it takes; the last one runs to its end."""
    chance, found, number = random.Random(seed), Found(), 0
    whole = Ward(root, number, EVERY[0]).process(NEVER)  # how long one takes that is left alone
    if whole.code:
        raise SystemExit(f"the training that nobody killed failed:\n{whole.output}")
    while found.kills < kills:
        number += 1
        train(Ward(root, number, chance.choice(EVERY)), kills, whole.seconds, chance, found)
        done = f"{found.sound}/{found.kills} kills sound, {found.finished} finished, {found.refused} refused"
        print(f"training {number}: {done}, {found.drawn} steps drawn, {found.counted} counted", flush=True)
    return found


def train(ward: Ward, kills: int, longest: float, chance: random.Random, found: Found) -> None:
    """One training with its kills, to its end or to where it refuses."""
    while True:
        before = ward.book()
        ended = ward.process(Moment.drawn(chance, found.kills, longest) if found.kills < kills else NEVER)
        after = ward.book()
        wrong = look(before, after, ended)
        found.drawn += len(ended.draws)
        found.counted += after.steps - before.steps
        found.most_over = max(found.most_over, after.steps - before.steps - len(ended.draws))
        if ended.killed:
            found.kills += 1
            found.sound += not wrong
            last = ended.draws and after.plans[-1]["steps"] == len(ended.draws)
            found.moments[AT_THE_END if last and ended.words[-1] == "saved" else ended.moment] += 1
        else:
            found.refused += ended.refused
            found.epsilons.append(after.epsilon())
            if not ended.code:
                at_the_end = look_at_the_end(ward, after, found.epsilons[-1], ended)
                found.finished += 1
                found.whole += not at_the_end
                wrong += at_the_end
        found.wrong += [f"{ward.name}: {line}" for line in wrong]
        if not ended.killed:
            return


def rows_of(found: Found) -> list[dict[str, object]]:
    """The figures as `record.write` takes them."""
    highest, all_sound = round(max(found.epsilons), 4), found.sound == found.kills
    sound = "kills at random moments after which the ledger holds together and has every step that was drawn"
    whole = "of them: epsilon kept, card and ledger agree, r1core verify passes"
    over = "most steps of a killed process that were counted and not drawn"
    table: list[tuple[str, object, str, str | None, bool | None]] = [
        (sound, found.sound, f"of {found.kills}", f"{found.kills}", all_sound),
        (over, found.most_over, "steps", "<= 1", found.most_over <= 1),
        ("trainings that finished", found.finished, "trainings", None, None),
        (whole, found.whole, f"of {found.finished}", f"{found.finished}", found.whole == found.finished),
        ("trainings that refused to go on, killed too often", found.refused, "trainings", None, None),
        ("highest epsilon of a ledger at the end, by dp-accounting", highest, "", f"<= {EPSILON}", highest <= EPSILON),
        ("steps drawn", found.drawn, "steps", None, None),
        ("steps counted", found.counted, "steps", None, None),
        *((f"killed: {moment}", count, "kills", None, None) for moment, count in sorted(found.moments.items())),
    ]
    return [dict(zip(("figure", "value", "unit", "target", "met"), row, strict=True)) for row in table]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="private-faults-") as name:
        found = campaign(Path(name), chosen.kills, chosen.seed)
    print(*found.wrong, sep="\n")
    if chosen.kills == KILLS:
        write("private_faults", rows_of(found))
    else:
        print(*(f"{row['figure']}: {row['value']} {row['unit']}" for row in rows_of(found)), sep="\n")
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
