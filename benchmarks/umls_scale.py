"""A generated Metathesaurus of full size: build time, peak memory, size on disk, time to open, lookup and link times;
then the encoder and the approximate index over it, and mentions that no name equals.

The release comes from `python -m r1core_umls.fixture` (names of our own making). Every step runs as a process of its
own, so that its memory is its own; the kernel's page cache is warm. HPO, as installed, is measured beside it.

Run: python benchmarks/umls_scale.py [--concepts 3500000 --names 9000000] [--folder /a/disk/with/8/GB]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import write

Add = Callable[..., None]
MINUTE, GB, MB = 60.0, 1e9, 1e6
RESIDENT = """
from pathlib import Path

def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) * 1024

"""
PROBE = """
import json, random, statistics, sys, time
from r1core_umls.cache import cache_root, load_or_build
from r1core_umls.hpo import HpoSource
from r1core_umls.linker import Linker
from r1core_umls.rrf import RrfSource

source = RrfSource(Path(sys.argv[1])) if len(sys.argv) > 1 else HpoSource()
load_or_build(source)
began = time.perf_counter()
base = load_or_build(source)
opened = time.perf_counter() - began
sample = random.Random(0).sample(range(base.number_of_names), min(20000, base.number_of_names))
names = [base.surface(name) for name in sample]
linker = Linker(base)
def times(call, things):
    taken = []
    for thing in things:
        began = time.perf_counter()
        call(thing)
        taken.append(time.perf_counter() - began)
    return taken
first, again = times(base.lookup, names), times(base.lookup, names)
unknown = times(base.lookup, [name[::-1] for name in names])
linked = times(linker.link, [f"The patient reports {name.lower()} since Monday." for name in names[:5000]])
walked = times(base.descendants, [base.concepts[n * len(base) // 200].id for n in range(200)])
def p50(taken): return statistics.median(taken)
def p99(taken): return sorted(taken)[int(0.99 * len(taken))]
print(json.dumps({"open": opened, "first": p50(first), "first99": p99(first), "again": p50(again),
    "again99": p99(again), "unknown": p50(unknown), "link": p50(linked), "walk": p50(walked),
    "rss": resident("VmRSS"), "own": resident("RssAnon"),
    "found": sum(bool(base.lookup(name)) for name in names) / len(names),
    "bytes": sum(file.stat().st_size for file in (cache_root() / base.fingerprint()).iterdir()),
    "concepts": len(base), "names": base.number_of_names}))
"""
NEAREST = """
import json, random, statistics, sys, time
import numpy as np
from r1core_umls.cache import load_or_build
from r1core_umls.features import words_of
from r1core_umls.normaliser import Normaliser
from r1core_umls.rrf import RrfSource
from r1core_umls.search import TOLD, Nearest
from r1core_umls.evidence import ENTRIES, Witness
from r1core_umls.trained import load

base = load_or_build(RrfSource(Path(sys.argv[1])))
began = time.perf_counter()
fitted = load(base)
normaliser = Normaliser(base, fitted)
told = {"open": time.perf_counter() - began}
draw = random.Random(0)
mentions = [base.surface(draw.randrange(base.number_of_names)) + " presenting" for _ in range(600)]
normaliser.candidates(mentions[:100])
taken = []
for mention in mentions[100:]:
    began = time.perf_counter()
    normaliser.candidates([mention])
    taken.append(time.perf_counter() - began)
told |= {"p50": statistics.median(taken), "p99": sorted(taken)[int(0.99 * len(taken))]}
began = time.process_time()
normaliser.candidates(mentions)
told["rate"] = len(mentions) / (time.process_time() - began)
told |= {"rss": resident("VmRSS"), "own": resident("RssAnon")}
search = Nearest(fitted.tables, fitted.cells)
vectors = Witness(fitted.tables, search).vectors([words_of(mention) for mention in mentions[:200]])
_, found = search.nearest(vectors, ENTRIES)
cosines = []
for first in range(0, len(fitted.tables.entries), 100000):
    part = vectors @ fitted.tables.entries[first : first + 100000].astype(np.float32).T
    part[:, max(int(fitted.tables.names) - first, 0) :] *= TOLD
    at = np.argpartition(-part, 10, axis=1)[:, :10]
    cosines.append((np.take_along_axis(part, at, 1), at + first))
close, entries = (np.concatenate(parts, 1) for parts in zip(*cosines))
right = np.take_along_axis(entries, np.argsort(-close, axis=1)[:, :10], 1)
told["shared"] = np.mean([len({*a} & {*b}) / 10 for a, b in zip(right.tolist(), found.tolist())])
print(json.dumps(told))
"""


def run(words: list[str], env: dict[str, str]) -> tuple[str, float, float, int]:
    """Run a process; what it printed, wall and CPU seconds, and its peak resident bytes."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[:3]} failed with {process.returncode}")
    return printed, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--concepts", type=int, default=3_500_000)
    parser.add_argument("--names", type=int, default=9_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go for the time of the run")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []

    def add(figure: str, value: float, unit: str, target: float | None = None) -> None:
        met = None if target is None else value <= target
        told = None if target is None else f"<= {target:g}"
        rows.append({"figure": figure, "value": round(value, 3), "unit": unit, "target": told, "met": met})

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        env = os.environ | {"R1CORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        meta = folder / "META"
        size = [f"--concepts={options.concepts}", f"--names={options.names}"]
        _, wall, _, _ = run(["-m", "r1core_umls.fixture", str(meta), *size], env)
        label = f"{options.concepts:,} concepts, {options.names:,} names"
        add(f"fixture: {label}, writing it", wall, "s")
        add("fixture: size on disk", sum(file.stat().st_size for file in meta.iterdir()) / GB, "GB")
        command = ["-c", "from r1core_umls.cli import umls; umls()", "build", str(meta), "--json"]
        _, wall, cpu, peak = run(command, env)
        add(f"UMLS scale ({label}): build, wall", wall / MINUTE, "min", 30)
        add("UMLS scale: build, CPU", cpu / MINUTE, "min")
        add("UMLS scale: build, peak resident memory", peak / GB, "GB", 4)
        _measure("UMLS scale", [str(meta)], env, add)
        command = ["-c", "from r1core_umls.cli import umls; umls()", "train", str(meta)]
        _, wall, cpu, peak = run(command, env)
        add("UMLS scale: encoder, ranker and index, wall", wall / MINUTE, "min", 30)
        add("UMLS scale: encoder, ranker and index, CPU", cpu / MINUTE, "min")
        add("UMLS scale: encoder, ranker and index, peak resident memory", peak / GB, "GB", 4)
        _nearest(str(meta), env, add)
        command = ["-c", "from r1core_umls.cli import umls; umls()", "build", "--json"]
        _, wall, cpu, peak = run(command, env)
        add("HPO: build, wall, the whole process", wall, "s", 5)
        add("HPO: build, CPU, the whole process", cpu, "s")
        add("HPO: build, peak resident memory", peak / MB, "MB")
        _measure("HPO", [], env, add)
    write("umls_scale", rows)


def _measure(label: str, arguments: list[str], env: dict[str, str], add: Add) -> None:
    printed, _, _, _ = run(["-c", RESIDENT + PROBE, *arguments], env)
    told = json.loads(printed)
    add(f"{label}: concepts in the base", told["concepts"], "concepts")
    add(f"{label}: names in the base", told["names"], "names")
    add(f"{label}: base on disk", told["bytes"] / GB, "GB")
    add(f"{label}: opening", told["open"] * 1e3, "ms", 100)
    add(f"{label}: share of sampled names that are found", told["found"], "fraction")
    add(f"{label}: lookup, first time, p50", told["first"] * 1e3, "ms", 1)
    add(f"{label}: lookup, first time, p99", told["first99"] * 1e3, "ms")
    add(f"{label}: lookup, again, p50", told["again"] * 1e3, "ms", 1)
    add(f"{label}: lookup, again, p99", told["again99"] * 1e3, "ms")
    add(f"{label}: lookup of an unknown name, p50", told["unknown"] * 1e3, "ms", 1)
    add(f"{label}: linking a sentence of six words and a name, p50", told["link"] * 1e3, "ms", 10)
    add(f"{label}: descendants of a concept, p50", told["walk"] * 1e3, "ms")
    add(f"{label}: resident memory after all of these", told["rss"] / MB, "MB", 300 if label == "HPO" else None)
    add(f"{label}: of it the process's own, the rest being mapped files", told["own"] / MB, "MB")


def _nearest(meta: str, env: dict[str, str], add: Add) -> None:
    told = json.loads(run(["-c", RESIDENT + NEAREST, meta], env)[0])
    add("UMLS scale: opening encoder and index", told["open"], "s")
    add("UMLS scale: a mention that no name equals, p50", told["p50"] * 1e3, "ms", 10)
    add("UMLS scale: a mention that no name equals, p99", told["p99"] * 1e3, "ms")
    add("UMLS scale: such mentions, batched", told["rate"], "mentions/CPU-s")
    add("UMLS scale: of the 10 nearest entries of all, found by the index", told["shared"], "fraction")
    add("UMLS scale: resident memory after these", told["rss"] / MB, "MB")
    add("UMLS scale: of it the process's own, the rest being mapped files", told["own"] / MB, "MB")


if __name__ == "__main__":
    main()
