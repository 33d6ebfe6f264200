"""Trains encoder and ranker together, so that the ranker learns from names that its encoder has not seen.

For each of the parts of the concepts, an encoder trained on all the others ranks the names of that part; from those the
ranker learns. Then the encoder that is kept is trained on all. Needs torch; the result does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1core_umls.encoder import Encoder
from r1core_umls.evidence import Evidence, Witness
from r1core_umls.features import Bags
from r1core_umls.ranking import Fitted, train_ranker
from r1core_umls.search import Nearest, cells_of, faiss_installed
from r1core_umls.tables import MANY, Tables
from r1core_umls.training import Training, train

PARTS = ((7, 8, 9), (4, 5, 6), (1, 2, 3))  # tenths of the concepts that an encoder of the ranker does not learn from
MOST_TAUGHT, MOST_ASKED = 100_000, 8_000  # names that an encoder and the ranker of a large base learn from
Progress = Callable[[str, int, int], None]


def fit(
    names: Sequence[str],
    owners: Sequence[int],
    definitions: Sequence[str],
    parents: Bags | Sequence[Sequence[int]],
    config: Training | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Fitted:
    """Train on names and the concept of each (a position in `definitions` and `parents`).

    Parameters
    ----------
    progress : told the stage, the steps done and their total.
    folder : where the largest table is written while it is made; by default it is held in memory.

    Raises
    ------
    ValueError : too few synonyms to learn from.
    UserError : the base is large and faiss is not installed.
    """
    base = _Base(names, owners, definitions, parents, config or Training())
    tell = progress or (lambda stage, done, total: None)
    if len(names) > MANY:
        return _fit_many(base, tell, folder)
    told: list[Evidence] = []
    answers: list[int] = []
    for number, part in enumerate(PARTS, 1):
        encoder = base.encoder(part, tell, f"encoder {number} of the ranker")
        asked = base.asked(part)
        told.append(Witness(base.tables(encoder)).weigh([names[at] for at in asked], asked))
        answers += [owners[at] for at in asked]
    evidence = Evidence(np.concatenate([one.concepts for one in told]), np.concatenate([one.columns for one in told]))
    ranker = train_ranker(evidence, answers, base.config.seed)
    encoder = base.encoder((), tell, "encoder")
    return Fitted(encoder, ranker, base.tables(encoder, folder))


def _fit_many(base: _Base, tell: Progress, folder: Path | None) -> Fitted:
    """Of a large base, one encoder and one set of tables serve both: names that it has not seen are plenty."""
    faiss_installed()  # rather than after minutes of training
    encoder = base.encoder(PARTS[0], tell, "encoder", MOST_TAUGHT)
    tell("tables", 0, 2)
    tables = base.tables(encoder, folder)
    tell("tables", 1, 2)
    cells = cells_of(tables)
    tell("tables", 2, 2)
    asked = base.asked(PARTS[0])
    asked = [asked[at] for at in range(0, len(asked), -(-len(asked) // MOST_ASKED))]
    evidence = Witness(tables, Nearest(tables, cells)).weigh([base.names[at] for at in asked], asked)
    ranker = train_ranker(evidence, [base.owners[at] for at in asked], base.config.seed)
    return Fitted(encoder, ranker, tables, cells)


@dataclass(frozen=True)
class _Base:
    """What is trained on."""

    names: Sequence[str]
    owners: Sequence[int]
    definitions: Sequence[str]
    parents: Bags | Sequence[Sequence[int]]
    config: Training

    def encoder(self, unseen: Sequence[int], tell: Progress, stage: str, most: int | None = None) -> Encoder:
        """Train on the names of all concepts but those of some tenths; of more than `most` names, on some concepts'."""
        seen = [at for at, owner in enumerate(self.owners) if _tenth(owner) not in unseen]
        every = -(-len(seen) // (most or len(seen)))
        seen = [at for at in seen if self.owners[at] % every == 0]
        weights = train(
            [self.names[at] for at in seen],
            [self.owners[at] for at in seen],
            self.config,
            lambda done, total: tell(stage, done, total),
        )
        return Encoder(weights)

    def tables(self, encoder: Encoder, folder: Path | None = None) -> Tables:
        """Lay the base out."""
        return Tables.of(encoder, self.names, self.owners, self.definitions, self.parents, folder)

    def asked(self, part: Sequence[int]) -> list[int]:
        """Names of a part's concepts that another name stays for, without each concept's first, the preferred one."""
        firsts: dict[int, int] = {}
        for at, owner in enumerate(self.owners):
            firsts.setdefault(owner, at)
        counts: NDArray[np.int64] = np.bincount(np.asarray(self.owners))
        return [
            at
            for at, owner in enumerate(self.owners)
            if counts[owner] > 1 and firsts[owner] != at and _tenth(owner) in part
        ]


@lru_cache(1 << 16)
def _tenth(owner: int) -> int:
    return int.from_bytes(hashlib.sha256(str(owner).encode()).digest()[:4], "little") % 10
