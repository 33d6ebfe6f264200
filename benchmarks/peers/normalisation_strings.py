"""Names compared as strings: tf-idf of character trigrams (scikit-learn, every name looked at), and rapidfuzz.

Reads `{names, owners, queries, answers}` as JSON from standard input, prints a list of `{figure, value, unit}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz import fuzz, process, utils
from sklearn.feature_extraction.text import TfidfVectorizer

K, BLOCK, FEW = (
    50,
    256,
    400,
)  # names that concepts are taken from; queries at a time; queries that rapidfuzz is timed on
Search = Callable[[Sequence[str]], list[list[int]]]


def main() -> None:
    given = json.load(sys.stdin)
    names, owners = given["names"], given["owners"]
    began = time.process_time()
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32)
    matrix = vectorizer.fit_transform(names).T.tocsr()
    built = time.process_time() - began
    folded = [utils.default_process(name) for name in names]

    def tfidf(queries: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(queries), BLOCK):
            scores = (vectorizer.transform(queries[first : first + BLOCK]) @ matrix).toarray()
            best = np.argpartition(-scores, K, axis=1)[:, :K]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            found += np.take_along_axis(best, order, 1).tolist()
        return found

    def fuzzy(queries: Sequence[str]) -> list[list[int]]:
        return [
            [at for _, _, at in process.extract(utils.default_process(query), folded, scorer=fuzz.ratio, limit=K)]
            for query in queries
        ]

    rows = [{"figure": "tf-idf of trigrams: building", "value": built, "unit": "CPU-s"}]
    rows += measured("tf-idf of trigrams", tfidf, owners, given["queries"], given["answers"])
    rows += measured("rapidfuzz ratio", fuzzy, owners, given["queries"][:FEW], given["answers"][:FEW])
    print(json.dumps(rows))


def measured(
    name: str, search: Search, owners: Sequence[int], queries: Sequence[str], answers: Sequence[int]
) -> list[dict[str, object]]:
    """Recall by the concepts of the names found, each concept once, and mentions per CPU second."""
    began = time.process_time()
    found = search(queries)
    seconds = time.process_time() - began
    ranked = [list(dict.fromkeys(owners[at] for at in row)) for row in found]
    told = f"{name}, {len(queries):,} queries"
    rows: list[dict[str, object]] = [
        {
            "figure": f"{told}: recall@{k}",
            "value": sum(answer in row[:k] for row, answer in zip(ranked, answers, strict=True)) / len(answers),
            "unit": "fraction",
        }
        for k in (1, 5)
    ]
    return [*rows, {"figure": f"{told}: mentions", "value": len(queries) / seconds, "unit": "mentions/CPU-s"}]


if __name__ == "__main__":
    main()
