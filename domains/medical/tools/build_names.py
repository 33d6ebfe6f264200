"""Rebuild `drug_names.txt`: names of other drugs, so that none of them is taken for a drug of the rule files.

Usage: `python tools/build_names.py [FILE]`. Needs, at development time only, what `build_rules.py` needs. One line a
drug: its name and its other single-word names, separated by tabs. Left out are names of fewer than four letters, names
with other characters than letters, and those that are ordinary English words ("hops", "diamonds").
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

from build_rules import FOLDER, HEADER, PACKAGES
from sources import Names

TARGET = FOLDER / "drug_names.txt"


def main(arguments: list[str]) -> None:
    """Write the list, sorted."""
    packed = files("r1core_clinical_rules").joinpath("ordinary_words.txt.gz").read_bytes()
    ordinary = set(gzip.decompress(packed).decode().split())
    names = Names({}, [])
    known: dict[str, set[str]] = defaultdict(set)
    for form, drugs in names.canonical.items():
        if not re.fullmatch(r"[a-z]{4,}", form) or form.startswith("other"):
            continue
        if form in ordinary and not names.flags.get(form, {}).get("is_brand") and form not in drugs:
            continue
        for drug in drugs:
            known[drug].add(form)
    package = "drug-named-entity-recognition"
    header = (
        HEADER.split("\n")[0].replace("build_rules", "build_names").format(packages=f"{package} {PACKAGES[package]}")
    )
    lines = ["\t".join((drug, *sorted(known[drug] - {drug}))) for drug in sorted(known)]
    target = Path(arguments[0]) if arguments else TARGET
    target.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    print(f"{len(lines)} drugs, {sum(map(len, known.values()))} names, {target.stat().st_size} bytes: {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
