"""How many patients a second the rules decide on one core, with every graded interaction of the thesaurus loaded.

A patient has up to ten medications, allergies, conditions, age, sex, weight and a creatinine. Measured from the JSON
facts to the outcome: which rules apply, whom they forbid, what they cap. Apart: with every name, reason and proof
written out. The outcomes of a sample are compared with a naive evaluation that asks all rules one by one.
"""

from __future__ import annotations

import gc
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import Outcome
from r1core_clinical_rules.reading import load

TOOL = Path(__file__).parents[1] / "domains" / "medical" / "tools" / "build_rules.py"
SHIPPED = TOOL.parents[1] / "r1core_medical" / "rules"
PATIENTS = 2_000
CHECKED = 300
TARGET = 10_000


def patients(engine: Engine, count: int, seed: int) -> list[dict[str, Any]]:
    """Facts of made-up patients; every second list of medications is written as in a record ("... 5 mg tablet")."""
    rng = random.Random(seed)
    names = [name for drug in engine.book.drugs for name in drug.names]
    conditions = ["asthma", "coma", "hypovolemia", "renal failure", "diabetes", "hypertension"]
    found = []
    for _ in range(count):
        taken = rng.choices(names, k=rng.randint(0, 10))
        if rng.random() < 0.5:
            taken = [f"{name} {rng.choice((5, 10, 20, 50, 100, 500))} mg tablet" for name in taken]
        facts: dict[str, Any] = {
            "as_of": "2026-11-01",
            "age": rng.randint(1, 95),
            "sex": rng.choice(("female", "male")),
            "weight": rng.randint(10, 120),
            "medications": taken,
            "labs": [{"name": "creatinine", "value": rng.randint(40, 200), "unit": "umol/L", "date": "2026-10-20"}],
        }
        if rng.random() < 0.9:
            facts["allergies"] = rng.choices(("aspirin", "egg", "penicillin"), k=rng.randint(0, 2))
            facts["conditions"] = rng.choices(conditions, k=rng.randint(0, 4))
        found.append(facts)
    return found


def naive(engine: Engine, facts: dict[str, Any]) -> list[str]:
    """The rules that apply, by asking every rule for its own condition."""
    patient = patient_from(facts, "naive")
    view = engine.view(patient)
    truths = [(one, one.holds(view)) for one in engine.rules]
    return [one.rule.label for one, t in truths if t or (t is None and one.on_unknown == "block")]


def rate(engine: Engine, facts: list[dict[str, Any]], use: Callable[[Outcome], object]) -> float:
    """Patients a CPU second, the median of five passes; what entries mean is remembered from the first on."""
    times = []
    for turn in range(6):
        gc.collect()
        begin = time.process_time()
        for one in facts:
            use(engine.evaluate(patient_from(one, "benchmark")))
        if turn:
            times.append(time.process_time() - begin)
    return len(facts) / statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "all.yaml"
        subprocess.run([sys.executable, str(TOOL), "--all", str(everything)], check=True)
        books = {"every interaction of the thesaurus": [everything]}
        books["the domain's rules"] = [SHIPPED / "interactions.yaml", SHIPPED / "contraindications.yaml"]
        rows = []
        for what, files in books.items():
            engine = Engine(load(files))
            facts = patients(engine, PATIENTS, seed=0)
            for one in facts[:CHECKED]:
                found = [rule.label for rule, _ in engine.evaluate(patient_from(one, "check")).applied]
                if found != naive(engine, one):
                    raise RuntimeError(f"the engine and the naive evaluation differ for {one}")
            decided = round(rate(engine, facts, lambda o: (o.applied, o.forbidden_drugs, o.caps)))
            written = round(rate(engine, facts[:500], lambda o: (o.as_dict(), [str(p) for p in o.proofs])))
            count = f"{what}, {len(engine.rules)} rules"
            unit = {"unit": "patients/CPU-s", "peer": None}
            target = {"target": TARGET, "met": decided >= TARGET}
            rows.append({**unit, **target, "figure": f"patients decided, {count}", "value": decided})
            without = {"target": None, "met": None}
            rows.append({**unit, **without, "figure": f"with names, reasons and proofs, {count}", "value": written})
    record.write("rule_speed", rows)


if __name__ == "__main__":
    main()
